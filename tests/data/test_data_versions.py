"""Datasets under DVC: versions kept, pushed, pulled and brought back, each known by its digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from data.dataset import Dataset
from pipelines.cli.data import add

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *command: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    if command[0] == "dvc":
        command = (sys.executable, "-m", *command)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert not done.returncode, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def digest(project: Path) -> str:
    data = Dataset.open(project / "data/prepared/t")
    data.verify()
    return data.digest


def new_version(project: Path, rows: range) -> str:
    """Change the source and its card, run the stage, commit."""
    (project / "t.csv").write_text("a,b\n" + "".join(f"{i},{i / 7:.3f}\n" for i in rows))
    (project / "data/catalog/t.yaml").unlink(missing_ok=True)
    add("t.csv", "t", root=project, quiet=True)
    run(project, "dvc", "repro", "prepare")
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", f"{len(rows)} rows")
    return digest(project)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_versions_pushed_pulled_and_checked_out(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project = tmp_path / "project"
    (project / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", project)
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("dataset: digits", "dataset: t"))
    run(project, "git", "init", "-q")
    run(project, "dvc", "init", "-q")
    if kind == "folder":
        run(project, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    else:
        store: fs.S3FileSystem = request.getfixturevalue("s3")
        store.create_dir("versions")
        run(project, "dvc", "remote", "add", "-d", "store", "s3://versions/dvc")
        run(project, "dvc", "remote", "modify", "store", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    first = new_version(project, range(100))
    second = new_version(project, range(120))
    assert first != second

    run(project, "git", "checkout", "-q", "HEAD~1")
    run(project, "dvc", "checkout", "prepare")
    assert digest(project) == first  # from the cache, nothing is computed again
    run(project, "git", "checkout", "-q", "-")
    run(project, "dvc", "push", "--all-commits", "prepare")

    run(tmp_path, "git", "clone", "-q", str(project), "colleague")
    colleague = tmp_path / "colleague"
    run(colleague, "dvc", "pull", "prepare")
    assert digest(colleague) == second
    run(colleague, "git", "checkout", "-q", "HEAD~1")
    run(colleague, "dvc", "pull", "prepare")
    assert digest(colleague) == first
    assert json.loads((colleague / "data/prepared/t/manifest.json").read_text())["splits"]["train"]["count"] == 80
