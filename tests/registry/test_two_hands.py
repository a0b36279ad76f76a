"""The registry under two hands: whatever two people do to it at once, one after the other could have done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hands import Stage, scenes
from postgres import postgres, programs
from test_registry import finish, measure
from test_tracking import free_port, migrated

from pipelines import tracking
from pipelines.storage import model_folder

__all__ = ["free_port", "migrated"]

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

TIMES = int(os.environ.get("FIVEFOLD_TWO_HANDS", "200"))
"""How often the slow tests let two people act at once."""

FIGURES = {
    "ann": {"vae": (2.0, 1.0), "gan": (1.5, 0.9)},
    "bob": {"vae": (2.0, 1.0), "flow": (1.45, 0.6)},
    "eve": {"vae": (2.0, 1.0), "gan": (1.5, 0.9), "flow": (1.0, 0.6)},
}
"""By person and family: Fréchet distance and bits, each ± 0.1. Who comes first decides who draws: 1.5 and 1.45 do not
beat each other, both beat 2.0."""


def project(folder: Path) -> tuple[Path, str]:
    """Three people's results of the same three models; the folder, and the VAE's run."""
    folder.mkdir(exist_ok=True)
    for seed, family in enumerate(("vae", "gan", "flow")):
        finish(folder, family, seed=seed)
    run_id = model_folder.load(folder / "runs/digits/models/vae")[1]["run_id"]
    for person, families in FIGURES.items():
        shutil.copytree(folder / "runs", folder / person / "runs")
        for family, (frechet, bits) in families.items():
            measure(folder / person, family, frechet=frechet, bits_per_dim=bits)
    shutil.rmtree(folder / "runs")
    return folder, run_id


def played(stage: Stage, run_id: str, times: int, seed: int) -> dict[str, int]:
    """Play all scenes in turn; how often each ended how."""
    results = json.loads((stage.project / "ann/runs/digits/results/vae.json").read_text())
    others = json.loads(json.dumps(results).replace("2.0", "3.0").replace("1.0", "4.0"))
    found: dict[str, int] = {}
    every = [(scene, killed) for scene in scenes(run_id, results, others) for killed in (False, True)]
    for index in range(times):
        scene, killed = every[index % len(every)]
        outcome = f"{scene.name}: {stage.play(scene, seed + index, killed=killed)}"
        found[outcome] = found.get(outcome, 0) + 1
        print(index, outcome, flush=True)
    return found


@pytest.fixture
def sqlite_stage(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, str]:
    """A project whose store is a file."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/first.db")
    monkeypatch.chdir(tmp_path)
    shutil.copy(migrated, tmp_path / "first.db")
    tracking.connect()
    made, run_id = project(tmp_path / "project")

    def copy(earlier: str, name: str) -> str:
        shutil.copy(tmp_path / f"{earlier}.db", tmp_path / f"{name}.db")
        return f"sqlite:///{tmp_path}/{name}.db"

    return Stage(made, copy, tmp_path / "plays", monkeypatch), run_id


def test_two_at_once_end_as_one_after_the_other(sqlite_stage: tuple[Stage, str]) -> None:
    stage, run_id = sqlite_stage
    found = played(stage, run_id, 2, seed=1)  # of the first scene both live, and one dies; the slow tests play all
    assert sum(found.values()) == 2


@pytest.mark.slow
def test_200_times_on_sqlite(sqlite_stage: tuple[Stage, str]) -> None:
    stage, run_id = sqlite_stage
    report(played(stage, run_id, TIMES, seed=1000))


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_200_times_on_postgres(tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    psycopg = pytest.importorskip("psycopg")
    with (
        postgres(tmp_path / "postgres", free_port) as base,
        psycopg.connect(base + "postgres", autocommit=True) as admin,
    ):
        admin.execute("CREATE DATABASE first")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base + "first")
        monkeypatch.chdir(tmp_path)
        tracking.connect()
        made, run_id = project(tmp_path / "project")

        def copy(earlier: str, name: str) -> str:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL "
                "AND pid <> pg_backend_pid()"
            )
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{earlier}"')
            return base + name

        report(played(Stage(made, copy, tmp_path / "plays", monkeypatch), run_id, TIMES, seed=2000))


def report(found: dict[str, int]) -> None:
    """Print how often what happened."""
    print()
    for outcome, count in sorted(found.items()):
        print(f"{count:4} {outcome}")
