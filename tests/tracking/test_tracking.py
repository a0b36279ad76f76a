"""MLflow: one run per training, no point twice, whatever was killed or away in between."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipelines import tracking
from pipelines.tracking import outbox
from pipelines.tracking.server import flatten, get_client

ROOT = Path(__file__).parents[2]
MANIFEST = {"digest": "d1" * 32, "splits": {"train": {"count": 1257}, "test": {"count": 360}}}
PYTHON = sys.executable

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store whose tables are made."""
    return empty_store(tmp_path_factory.getbasetemp())


@functools.cache
def empty_store(folder: Path) -> Path:
    """Made once, however many files import the fixture: it takes seconds."""
    path = folder / "mlflow.db"
    tracking.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of this test's own in the working directory."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def open_run(key: str = "k1", spool: Path | None = None, **params: object) -> tracking.TrainingRun:
    """A training's run on a small made-up dataset."""
    return tracking.TrainingRun.open(
        dataset="digits", family="vae", run_key=key, params=params, manifest=MANIFEST, spool=spool
    )


def write_points(path: Path, first: int, last: int) -> None:
    """Append points `first` to `last` - 1 to a metrics file, 100 examples apart."""
    with open(path, "a") as file:
        for i in range(first, last):
            point = {"examples": 100 * i, "metrics": {"loss": 1 / (i + 1), "val/elbo": float(i)}, "time": 1.7e9 + i}
            file.write(json.dumps(point) + "\n")


def steps(run_id: str, metric: str = "loss") -> list[int]:
    """Steps of a metric that the server has, sorted."""
    from mlflow import MlflowClient

    return sorted(point.step for point in MlflowClient().get_metric_history(run_id, metric))


def all_runs() -> list:
    """Every run of the dataset."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_a_restarted_training_continues_its_run(store: Path) -> None:
    metrics = store / "metrics.jsonl"
    write_points(metrics, 0, 5)
    first = open_run(lr=1e-3)
    first.follow(metrics)  # killed here: never finished
    write_points(metrics, 3, 9)  # it resumes from a checkpoint before its last point
    with open_run(lr=1e-3) as second:
        second.follow(metrics)
        second.follow(metrics)
        second.sync(metrics)
    assert second.run_id == first.run_id
    assert len(all_runs()) == 1
    for name in ("loss", "val/elbo"):
        assert steps(second.run_id, name) == [100 * i for i in range(9)]


def test_what_a_run_says_about_itself(store: Path) -> None:
    with open_run(model={"width": 64, "blocks": [1, 2]}, note="x" * 9000) as run:
        run.log([{"examples": 100, "metrics": {"loss": float("nan")}}])
    with open_run(model={"width": 65}, workers=2):  # what is not part of the key may change
        pass
    (record,) = all_runs()
    assert record.data.params["model.width"] == "64"
    assert record.data.params["model.blocks"] == "[1, 2]"
    assert record.data.params["workers"] == "2"
    assert record.data.params["note"].endswith("(9000 characters)")
    (entry,) = record.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("digits", MANIFEST["digest"][:36])
    assert json.loads(entry.dataset.profile) == {"train": 1257, "test": 360}
    assert record.data.tags["family"] == "vae"
    assert record.data.tags["data_digest"] == MANIFEST["digest"]
    assert record.info.status == "FINISHED"
    from mlflow import environment_variables as told

    assert told.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get() is True  # MLflow says nothing between our lines
    assert told.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get() is False


def times() -> dict[str, tuple[str, int, int]]:
    """Status, begin and end of every run, in milliseconds."""
    return {r.info.run_name: (r.info.status, r.info.start_time, r.info.end_time) for r in all_runs()}


def test_a_rerun_that_has_nothing_new_to_say_changes_no_times(store: Path) -> None:
    metrics = store / "metrics.jsonl"
    Image.new("L", (8, 8)).save("a.png")

    def everything(status: str) -> None:
        with open_run() as run:
            run.sync(metrics)
            run.log_image("a.png", "samples", 0)
        sweep = tracking.Sweep.open(dataset="digits", family="flow", run_key="s1", params={}, manifest=MANIFEST)
        for trial, ended in (("t1", "FINISHED"), ("t2", status)):
            sweep.trial_started(trial, {"lr": 0.1})
            sweep.trial_result(trial, 100, {"score": 2.0})
            sweep.trial_finished(trial, ended)
        sweep.finish(best={"score": 1.0})

    write_points(metrics, 0, 5)
    everything("KILLED")
    before = times()
    time.sleep(0.01)
    everything("KILLED")
    assert times() == before
    write_points(metrics, 5, 6)  # something new ends later
    everything("FAILED")
    after = times()
    assert {name for name in after if after[name] != before[name]} == {"vae", "flow t2"}
    assert all(after[name][2] > before[name][2] for name in ("vae", "flow t2"))


def test_code_version(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert tracking.code_version(tmp_path) == {}
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "a")
    (tmp_path / "dvc.lock").write_text("dvc writes this while it runs")
    clean = tracking.code_version(tmp_path)
    assert clean["git_dirty"] == "false"
    assert len(clean["git_commit"]) == 40
    (tmp_path / "a.py").write_text("2")
    assert tracking.code_version(tmp_path) == {**clean, "git_dirty": "true"}


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_status(store: Path, error: type[BaseException] | None, status: str) -> None:
    with contextlib.suppress(ValueError, KeyboardInterrupt), open_run():
        assert all_runs()[0].info.status == "RUNNING"
        if error:
            raise error
    assert all_runs()[0].info.status == status
    with open_run():
        assert all_runs()[0].info.status == ("RUNNING" if error else "FINISHED")
    assert [run.info.status for run in all_runs()] == ["FINISHED"]


def test_follow_waits_for_whole_lines_and_passes_over_others(store: Path) -> None:
    metrics = store / "metrics.jsonl"
    with open_run() as run:
        run.follow(metrics)  # not there yet
        metrics.write_text('{"event": "start"}\n{"examples": 100, "metrics": {"loss": 1.0}}\n{"examples": 200, "met')
        run.follow(metrics)
        assert steps(run.run_id) == [100]
        with open(metrics, "a") as file:
            file.write('rics": {"loss": 0.5}}\n')
        run.follow(metrics)
        assert steps(run.run_id) == [100, 200]
        metrics.write_text('{"examples": 100, "metrics": {"loss": 1.0}}\n')  # rolled back
        run.follow(metrics)
        write_points(metrics, 2, 4)
        run.follow(metrics)
    assert steps(run.run_id) == [100, 200, 300]


def test_pictures_are_logged_once(store: Path) -> None:
    from mlflow import MlflowClient

    Image.new("L", (8, 8), 200).save("grid.png")
    for _ in range(2):
        with open_run() as run:
            for examples in (0, 500):
                run.log_image("grid.png", "samples/fixed", examples)
                run.log_image("grid.png", "samples/fixed", examples)
            run.log_artifact("grid.png", "pictures")
    found = [item.path for item in MlflowClient().list_artifacts(run.run_id, "images") if item.path.endswith(".png")]
    assert Counter(path.split("+step+")[1].split("+")[0] for path in found) == {"0": 1, "500": 1}
    assert [item.path for item in MlflowClient().list_artifacts(run.run_id, "pictures")] == ["pictures/grid.png"]


@pytest.mark.parametrize("form", ["http://{}", "postgresql://user:secret@{}/mlflow"])
def test_an_absent_server_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch, free_port: int, form: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", form.format(f"127.0.0.1:{free_port}"))
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{free_port}.*[Cc]onnection refused") as caught:
        open_run()
    assert time.monotonic() - start < 3
    message = str(caught.value)
    assert "MLFLOW_TRACKING_URI" in message
    assert "secret" not in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_silent_server_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="MLFLOW_TRACKING_URI"):
            tracking.connect()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("content", ["not a database", None])
def test_an_unusable_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    uri = f"sqlite:///{tmp_path}/other.db" if content else "nosuch://somewhere"
    if content:
        (tmp_path / "other.db").write_text(content)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConnectionError, match=uri):
        tracking.connect()


def test_training_goes_on_while_the_server_is_away(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, spool = store / "metrics.jsonl", store / "state"
    Path("broken.png").write_text("not a picture")
    write_points(metrics, 0, 3)
    run = open_run(spool=spool)
    run.follow(metrics)
    with monkeypatch.context() as away:
        away.setattr(outbox, "get_client", _unreachable)
        for i in range(3, 6):
            write_points(metrics, i, i + 1)
            run.follow(metrics)
        Image.new("L", (8, 8)).save("grid.png")
        run.log_image("broken.png", "samples", 400)
        run.log_image("grid.png", "samples", 500)
        run.finish()
        assert sum("goes on" in record.message for record in caplog.records) == 1
        assert len(list(spool.glob("mlflow-pending-*.json"))) == 1
        assert tracking.replay(spool) == 0
    assert tracking.replay(spool) == 1
    assert not list(spool.iterdir())
    assert tracking.replay(spool) == 0
    assert steps(run.run_id) == [100 * i for i in range(6)]
    assert [record.info.status for record in all_runs()] == ["FINISHED"]


def test_an_answer_that_was_lost_leaves_no_duplicates(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run()
    send, client = run._send_points, get_client()

    class Lossy:
        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def log_batch(self, *arguments: object, **options: object) -> None:
            client.log_batch(*arguments, **options)  # type: ignore[arg-type]
            raise TimeoutError("the answer was lost")

    with monkeypatch.context() as lossy:
        lossy.setattr(outbox, "get_client", Lossy)
        run.log([{"examples": 100, "metrics": {"loss": 1.0}}])  # no time: the server could not tell a repetition
    assert run._points
    assert run.flush(now=True)
    assert not run._points
    send()
    run.log([{"examples": 200, "metrics": {"loss": 1.0}}])
    run.finish()
    assert steps(run.run_id) == [100, 200]


def test_a_sweep_has_a_nested_run_per_trial(store: Path) -> None:
    for _ in range(2):  # the second time as after a restart
        sweep = tracking.Sweep.open(
            dataset="digits", family="flow", run_key="s1", params={"trials": 2}, manifest=MANIFEST
        )
        for trial, status in (("t1", "FINISHED"), ("t2", "KILLED")):
            sweep.trial_started(trial, {"training": {"lr": 0.1}})
            sweep.trial_result(trial, 100, {"score": 2.0})
            sweep.trial_result(trial, 200, {"score": 1.0})
            sweep.trial_finished(trial, status)
        sweep.finish(best={"score": 1.0})
    records = {record.info.run_name: record for record in all_runs()}
    assert set(records) == {"tune flow", "flow t1", "flow t2"}
    assert records["flow t2"].info.status == "KILLED"
    for name in ("flow t1", "flow t2"):
        assert records[name].data.tags["mlflow.parentRunId"] == sweep.run_id == records["tune flow"].info.run_id
        assert records[name].data.params == {"training.lr": "0.1"}
        assert steps(records[name].info.run_id, "score") == [100, 200]
    assert steps(sweep.run_id, "score") == [0]


def test_an_evaluation_is_on_the_run_once(store: Path) -> None:
    with open_run() as run:
        pass
    frechet = {"value": 3.5, "low": 3.0, "high": 4.0, "floor": 2.0, "baseline": None, "unit": "", "better": "lower"}
    copies = {"value": 0.25, "unit": "share", "better": "lower"}
    results = {"family": "vae", "metrics": {"frechet": frechet, "copies": copies}, "seconds": {"sampling": 1.5}}
    Image.new("L", (8, 8)).save("a.png")
    for _ in range(2):
        tracking.log_evaluation(run.run_id, results, {"samples": "a.png"})
    (record,) = all_runs()
    assert {key for key in record.data.metrics if key.startswith("evaluate.")} == {"evaluate.frechet"}
    assert record.data.metrics["evaluate.frechet"] == 3.5
    table = get_client().load_table(record.info.experiment_id, "evaluation/metrics.json")  # as MLflow reads its own
    assert table[["metric", "value", "low", "high", "floor", "unit"]].to_numpy().tolist()[1:2] == [
        ["frechet", 3.5, 3.0, 4.0, 2.0, ""]
    ]
    assert list(table["metric"]) == ["copies", "frechet", "seconds.sampling"]
    assert table["value"].tolist() == [0.25, 3.5, 1.5]
    assert table["baseline"].isna().all()
    assert steps(run.run_id, "evaluate.frechet") == [0]
    with pytest.raises(ValueError, match="no run 'nosuch'"):
        tracking.log_evaluation("nosuch", results)


def test_flatten() -> None:
    assert flatten({"a": {"b c:d": 1e-4, "e": {}}, "f": None}) == {"a.b c_d": "0.0001", "a.e": "{}", "f": "null"}


def test_importing_does_no_work(tmp_path: Path) -> None:
    code = "import sys, pipelines.tracking, pipelines.stages.register; assert 'mlflow' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([PYTHON, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_tracking import open_run, write_points
run = open_run()
write_points(Path("metrics.jsonl"), 0, 4)
run.follow("metrics.jsonl")
print("ready", flush=True)
time.sleep(60)
"""


def test_sigkill_of_the_driver(store: Path) -> None:
    command = [PYTHON, "-c", KILLED, str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with open_run() as run:
        assert all_runs()[0].info.status == "RUNNING"
        write_points(Path("metrics.jsonl"), 2, 6)
        run.sync("metrics.jsonl")
    assert steps(run.run_id) == [100 * i for i in range(6)]
    assert [record.info.status for record in all_runs()] == ["FINISHED"]


@pytest.mark.slow
def test_a_server_that_dies_during_training(
    store: Path, monkeypatch: pytest.MonkeyPatch, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A real `mlflow server`, killed and started again while a training goes on."""
    metrics = store / "metrics.jsonl"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setattr(outbox, "COOL_DOWN", 0.1)
    with server(store, free_port):
        run = open_run(spool=store)
        write_points(metrics, 0, 5)
        run.follow(metrics)
    for i in range(5, 10):
        write_points(metrics, i, i + 1)
        start = time.monotonic()
        run.follow(metrics)
        assert time.monotonic() - start < 2
    Image.new("L", (8, 8)).save("grid.png")
    run.log_image("grid.png", "samples", 900)
    with server(store, free_port):
        write_points(metrics, 10, 12)
        time.sleep(0.2)
        run.follow(metrics)
        assert steps(run.run_id) == [100 * i for i in range(12)]
        run.finish()
        (record,) = all_runs()
        assert record.info.status == "FINISHED"
    assert sum("goes on" in record.message for record in caplog.records) == 1


# Servers


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server over the SQLite store of a folder; killed, not stopped, at the end."""
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with started([*command, *stores], folder, lambda: _answers(f"http://127.0.0.1:{port}/health")):
        yield


@contextlib.contextmanager
def started(
    command: list[str], folder: Path, ready: Callable[[], bool], *, tracking_uri: str = "", seconds: float = 90
) -> Iterator[None]:
    """A process group that is up when `ready`, and killed at the end."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PATH"] = f"{Path(PYTHON).parent}:{environment['PATH']}"  # `mlflow models serve` looks for uvicorn
    if tracking_uri:
        environment["MLFLOW_TRACKING_URI"] = tracking_uri
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        end = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, f"not up within {seconds} s: {(folder / 'server.log').read_text()}"
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def _unreachable() -> None:
    raise ConnectionRefusedError("away")
