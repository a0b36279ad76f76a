"""Moving house: a store that went from a file to another store, a server say, knows what it knew."""

from __future__ import annotations

import contextlib
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import pytest
from conftest import unused
from postgres import postgres, programs
from test_registry import DIGEST, finish, measure, project, registered
from test_tracking import MANIFEST, free_port, migrated, started, store

from data.s3 import file_system as s3_file_system
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.registry.lineage import verify
from pipelines.tracking.server import get_client

__all__ = ["free_port", "migrated", "project", "store"]

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def known() -> dict[str, Any]:
    """Everything that the store says, but for ids that MLflow chooses."""
    from mlflow.artifacts import list_artifacts, load_text

    client = get_client()
    experiments = {item.experiment_id: item.name for item in client.search_experiments()}
    runs = client.search_runs(list(experiments))
    names = {run.info.run_id: run.info.run_name for run in runs}
    said: dict[str, Any] = {}
    for run in runs:
        files = [item.path for item in list_artifacts(run_id=run.info.run_id, artifact_path="registry")]
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith(("migrated.", "mlflow.parentRunId"))}
        said[run.info.run_name] = {
            "times": (run.info.status, run.info.start_time, run.info.end_time),
            "experiment": experiments[run.info.experiment_id],
            "parent": names.get(run.data.tags.get("mlflow.parentRunId", "")),
            "params": dict(run.data.params),
            "tags": tags,
            "curves": {
                key: sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            "data": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
            "files": {path: load_text(f"runs:/{run.info.run_id}/{path}") for path in files},
            "models": sorted(output.step for output in (run.outputs.model_outputs if run.outputs else ())),
        }
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        said[f"models:/{model.name}"] = {
            "aliases": {alias: int(number) for alias, number in model.aliases.items()},
            "records": tracking.alias_records(model.name),
            "versions": {
                int(item.version): (
                    {key: value for key, value in item.tags.items() if key != "run_id"},
                    item.description,
                    names[item.run_id],
                )
                for item in versions
            },
        }
    return said


def answers(alias: str) -> np.ndarray:
    """What the model of an alias draws."""
    drawn = tracking.load_served(f"models:/{alias}").predict(None, params={"task": "sample", "n": 5, "seed": 3})
    assert isinstance(drawn, np.ndarray)
    return drawn


@pytest.fixture
def lived_in(store: Path) -> Path:
    """A project with a search, a registered model that lost a version, a pin, and a copy of a version."""
    finish(store, "vae")
    measure(store, "vae", frechet=2.0, bits_per_dim_bound=1.0)
    sweep = tracking.Sweep.open(dataset="digits", family="vae", run_key="s", params={"part": 0.1}, manifest=MANIFEST)
    sweep.trial_started("t1", {"lr": 0.1})
    for examples in (100, 200):
        sweep.trial_result("t1", examples, {"score": 1 / examples})
    sweep.trial_finished("t1", "KILLED")
    sweep.finish(best={"score": 0.5})
    registered(store, "vae")
    get_client().delete_model_version("digits", "2")  # numbers are not used twice
    registered(store, "vae")
    copied = get_client().copy_model_version("models:/digits@generation", "prod")
    get_client().set_registered_model_alias("prod", "generation", copied.version)
    assert main(["pin", "digits@density", "3"]) == 0
    return store


def check(before: dict[str, Any], drawn: np.ndarray, root: Path) -> None:
    """The store that is joined now is the one that was left."""
    after = known()
    assert after.keys() == before.keys()
    for name, said in before.items():
        assert after[name] == said, name
    assert after["models:/digits"]["aliases"] == {"generation": 4, "density": 3}
    assert np.array_equal(answers("digits@generation"), drawn)
    assert np.array_equal(answers("prod@generation"), drawn)
    record = registered(root, "vae")  # the project at hand still names the runs of before
    assert not any(job["moved"] for job in record["jobs"].values())
    assert len(tracking.versions("digits")) == 3
    links = verify("digits", "density", root=root)
    assert [link.name for link in links if not link.absent] == ["alias", "files", "model", "run"]
    assert DIGEST[:12] in links[-1].what


def test_a_store_that_moved_knows_what_it_knew(
    lived_in: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice: from a folder that was moved before, and then on, where the first try is killed."""
    from mlflow import MlflowClient

    tracking.connect()
    before, drawn = known(), answers("digits@generation")
    folders = [lived_in / name for name in ("old", "new", "newer")]
    for folder in folders:
        folder.mkdir()
    for name in ("mlflow.db", "mlruns"):
        (lived_in / name).rename(folders[0] / name)
    for folder in folders[1:]:
        shutil.copy(migrated, folder / "mlflow.db")
    old, new, newer = (f"sqlite:///{folder}/mlflow.db" for folder in folders)
    moved = "4 runs, 3 models, 4 versions are in"
    assert main(["migrate", "--from", old, "--to", new]) == 0
    assert moved in capsys.readouterr().out
    shutil.rmtree(folders[0])
    with monkeypatch.context() as patch:
        calls = iter(range(100))
        real = MlflowClient.log_model_artifacts

        def killed(*arguments: Any, **options: Any) -> None:
            if next(calls) == 1:
                raise KeyboardInterrupt
            real(*arguments, **options)

        patch.setattr(MlflowClient, "log_model_artifacts", killed)
        assert main(["migrate", "--from", new, "--to", newer]) == 130
    for _ in range(2):
        assert main(["migrate", "--from", new, "--to", newer]) == 0
        assert moved in capsys.readouterr().out
    shutil.rmtree(folders[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", newer)
    tracking.connect()
    check(before, drawn, lived_in)
    assert main(["migrate", "--from", newer, "--to", newer]) == 1
    assert "name the one to move to" in capsys.readouterr().err


def test_a_project_is_moved_with_its_store(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mv project elsewhere`: MLflow notes whole paths, which follow."""
    registered(project, "vae")
    drawn = answers("digits@density")
    there = tmp_path_factory.mktemp("elsewhere") / "project"
    monkeypatch.chdir(there.parent)
    project.rename(there)
    monkeypatch.chdir(there)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow has put the old one there
    assert np.array_equal(answers("digits@density"), drawn)
    assert not any(job["moved"] for job in registered(there, "vae")["jobs"].values())
    assert not [path for path in there.rglob("*") if path.is_file() and str(project).encode() in path.read_bytes()]


@contextlib.contextmanager
def serving_mlflow(port: str, folder: Path, backend: str, *artifacts: str) -> Iterator[str]:
    """An MLflow server with a backend store and a place for artifacts; its address."""
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        """Whether it has answered what needs its database, however slowly the first time."""
        try:
            with urllib.request.urlopen(f"{address}{SEARCH}", timeout=60) as answer:
                return answer.status == 200
        except OSError:
            return False

    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    with started([*command, "--backend-store-uri", backend, *artifacts], folder, ready, seconds=300):
        yield address


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_from_a_file_to_a_server_on_postgres_and_s3_and_on_to_another(
    lived_in: Path, migrated: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file with folders to PostgreSQL with a bucket behind the server; from there to one whose clients use S3.

    What is left behind is removed each time, so that nothing of it can be read later.
    """
    psycopg = pytest.importorskip("psycopg")
    tracking.connect()
    before, drawn = known(), answers("digits@generation")
    with buckets.serving(lived_in / "s3.log") as s3, postgres(lived_in / "postgres", free_port) as base:
        for name, value in {
            "ACCESS_KEY_ID": "key",
            "SECRET_ACCESS_KEY": "secret",
            "DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        bucket, root = s3_file_system("s3://bucket/")
        with psycopg.connect(base + "postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE mlflow")
        proxied = ("--artifacts-destination", "s3://bucket/first")
        with serving_mlflow(unused(), lived_in, base + "mlflow", *proxied) as first:
            assert main(["migrate", "--to", first]) == 0
            shutil.rmtree(lived_in / "mlruns")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
            tracking.connect()
            check(before, drawn, lived_in)
            before = known()  # with what was looked at and registered here

            shutil.copy(migrated, lived_in / "second.db")
            direct = ("--default-artifact-root", "s3://bucket/second", "--no-serve-artifacts")
            with serving_mlflow(unused(), lived_in, f"sqlite:///{lived_in}/second.db", *direct) as second:
                assert main(["migrate", "--from", first, "--to", second]) == 0
                bucket.delete_dir(f"{root}/first")
                monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
                tracking.connect()
                check(before, drawn, lived_in)
