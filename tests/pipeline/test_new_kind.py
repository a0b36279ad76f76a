"""A fourth kind of data, registered by objects from a folder of the tests, goes through the whole pipeline."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_tracking import empty_store

from data.dataset import Dataset
from models import FAMILIES
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.stages.report import report
from pipelines.storage import model_folder
from pipelines.training.config import TrainingConfig
from pipelines.training.context import WorkerContext
from pipelines.training.job import TrainingJob, failure
from pipelines.training.worker import run_worker

pytest.importorskip("pipelines.report.domains.base", reason="evaluation and report have no tables of kinds of data yet")
import points

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
RADIUS, WIDTH = 2.0, 0.1
FAMILY = "flow"
CARD = """\
name: ring
kind: points
source: {{path: ring.txt, sha256: {}, format: coordinates}}
"""


@pytest.fixture
def project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A project with points on a ring, the class `north` where the second coordinate is positive."""
    for table, key, found in points.REGISTRATIONS:
        monkeypatch.setitem(table, key, found)
    shutil.copy(empty_store(tmp_path_factory.getbasetemp()), tmp_path / "mlflow.db")
    random = np.random.default_rng(0)
    angle, radius = random.uniform(0, 2 * np.pi, 900), random.normal(RADIUS, WIDTH, 900)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    lines = [f"{a} {b} {'north' if b > 0 else 'south'}" for a, b in zip(x, y, strict=True)]
    (tmp_path / "ring.txt").write_text("\n".join(lines))
    (tmp_path / "data/catalog").mkdir(parents=True)
    digest = hashlib.sha256((tmp_path / "ring.txt").read_bytes()).hexdigest()
    (tmp_path / "data/catalog/ring.yaml").write_text(CARD.format(digest))
    (tmp_path / "params.yaml").write_text(
        f"dataset: ring\nseed: 0\nfamilies: [{FAMILY}]\n{FAMILY}: {{}}\n"
        "features: {examples: 2000, samples: 200, bootstrap: 20, components: [2]}\n"
        "evaluate: {samples: 200, bootstrap: 20}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracking.connect()
    return tmp_path


def test_a_kind_of_data_is_added_by_at_most_eight_registrations(project: Path, capsys) -> None:
    """From its file to a served prediction and the page; the ring's radius and classes are the right values."""
    assert len(points.REGISTRATIONS) <= 8
    assert all(
        found.__module__.startswith("points") for _, _, found in points.REGISTRATIONS if hasattr(found, "__name__")
    )
    assert main(["prepare"]) == 0
    assert main(["data", "show", "ring"]) == 0
    assert main(["data", "export", "ring", "--to", "out"]) == 0
    exported = pq.read_table(project / "out/train.parquet").to_pydict()
    source = [line.split() for line in (project / "ring.txt").read_text().splitlines()]
    rows = set(zip(exported["axis 0"], exported["axis 1"], exported["label"], strict=True))
    assert rows < {(float(a), float(b), name) for a, b, name in source}
    assert main(["data", "export", "ring", "--to", "text", "--format", "csv"]) == 1
    assert "ring holds data of kind points: they are exported as Parquet only" in capsys.readouterr().err
    assert main(["features"]) == 0
    train(project)
    assert main(["evaluate", "--family", FAMILY]) == 0
    assert main(["register"]) == 0
    report("ring", [FAMILY], root=project)

    results = json.loads((project / f"runs/ring/results/{FAMILY}.json").read_text())["metrics"]
    entropy = 0.5 * math.log(2 * math.pi * math.e * WIDTH**2) + math.log(2 * math.pi * RADIUS)
    assert entropy - 0.2 < results["nats_per_row"]["value"] < entropy + 0.7  # none is below it, but by chance
    assert json.loads(next((project / "runs/ring").rglob("points.json")).read_text())
    assert "np.zeros((0, 2))" in (project / "runs/ring/report.html").read_text()
    model = tracking.load_served("models:/ring@generation")
    for label, sign in ((0, 1), (1, -1)):  # north, south
        drawn = model.predict(np.zeros((0, 2)), params={"task": "sample", "n": 200, "label": label, "seed": 0})
        assert np.median(np.hypot(*drawn.T)) == pytest.approx(RADIUS, abs=0.15)
        assert (np.sign(drawn[:, 1]) == sign).mean() > 0.9
    ring, centre = model.predict(np.array([[0.0, RADIUS], [0.0, 0.2]]), params={"task": "log_prob", "seed": 0})
    assert ring > centre + 3


def train(root: Path) -> None:
    """What the stage `train` does, without Ray, which takes twenty seconds to start."""
    data = Dataset.open(root / "data/prepared/ring")
    config = dataclasses.asdict(FAMILIES[FAMILY].Config(steps=4, width=32))
    settings = TrainingConfig(total_examples=30_000, batch_size=128, lr=4e-3, evaluations=1, reports=2)
    state = root / "runs/ring/state/one"
    state.mkdir(parents=True)
    job = TrainingJob(
        spec={"family": FAMILY, "config": config, "domain": data.domain, "classes": len(data.class_names)},
        training=dataclasses.asdict(settings),
        seed=0,
        prepared=str(data.folder),
        yardstick=str(root / "runs/ring/yardstick"),
        state=str(state),
        checkpoints=str(state / "checkpoints"),
    )
    run_worker(dataclasses.asdict(job), WorkerContext())
    assert failure(state) is None
    with tracking.TrainingRun.open(
        dataset="ring", family=FAMILY, run_key=FAMILY, params={}, manifest=data.manifest
    ) as run:
        run.log([{"examples": settings.total_examples, "metrics": {"loss": 1.0}}])
    model, spec = model_folder.load(state / "model")
    facts = {**spec, "dataset": "ring", "class_names": data.class_names, "data_digest": data.digest}
    model_folder.save(model, root / "runs/ring/models" / FAMILY, facts | {"run_id": run.run_id})
