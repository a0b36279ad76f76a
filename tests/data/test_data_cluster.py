"""`fivefold prepare` on a Ray cluster: the decoding is done there, and the data is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.cli.data import add
from pipelines.stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_prepare_decodes_on_the_cluster_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(1200):
        path = tmp_path / "images" / str(i % 3) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4)).astype(np.uint8)).save(path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    add("images", "d", root=tmp_path, quiet=True)
    here = prepare("d", tmp_path / "here", root=tmp_path)

    import ray
    from ray.util.state import list_tasks

    from pipelines import cluster

    start = ray.init
    monkeypatch.setattr(ray, "init", lambda **how: start(**how | {"include_dashboard": True}))  # which is asked below
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers
    with cluster.connected():
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "pipelines", "prepare", "--dataset", "d"]
        environment = {**os.environ, "RAY_ADDRESS": address}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        decoded = [
            task for task in list_tasks(address, limit=1000) if task.name == "decode_batch" and task.state == "FINISHED"
        ]
    assert len(decoded) == 3  # batches of 512
    assert json.loads((tmp_path / "data/prepared/d/manifest.json").read_text())["digest"] == here["digest"]
