"""What a stage asks of a cluster arrives there as it was asked, and what happens there comes back.

Jobs run in this process, in the folder that the server was sent; on real nodes the same is in `test_nodes.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data.dataset import Dataset
from models import build
from pipelines import cluster, config
from pipelines.cluster.jobs import Outcome
from pipelines.execution import local, on_nodes, remote
from pipelines.execution.evaluation import PICTURES, RESULT, YARDSTICK, EvaluationJob, ReferenceJob
from pipelines.execution.events import Shown
from pipelines.execution.measuring import run_evaluation, run_features
from pipelines.execution.search import SearchJob
from pipelines.storage import model_folder
from pipelines.training.errors import Diverged, Interrupted
from pipelines.training.job import FAILURE, TrainingJob

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
SERVER = "http://127.0.0.1:8265"


class Here:
    """A job server that runs a job in this process, and then says how it ended."""

    def __init__(self, address: str) -> None:
        self.address, self.ended = address, {}

    def attempts(self, name: str) -> dict[int, str]:
        return {}

    def submit(self, job: str, command: str, folder: Path) -> None:
        assert command == "python -m pipelines.execution.remote"
        with contextlib.chdir(folder):
            self.ended[job] = remote.main()

    def follow(self, job: str, say: Any, tick: Any) -> Outcome:
        tick()
        status = self.ended[job]
        return Outcome("FAILED" if status else "SUCCEEDED", f"exit status {status}", status)


class Trials(list):
    """What a search tells, in order."""

    def __init__(self, state: Path) -> None:
        self.path = state / "trials.jsonl"

    def finished(self) -> list[dict]:
        return []

    def __getattr__(self, what: str) -> Any:
        if not what.startswith("trial_"):
            raise AttributeError(what)
        return lambda *said: self.append((what, *said))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[config.Params]:
    """Of a user whose cluster keeps its storage in `there`."""
    monkeypatch.setattr(cluster, "JobServer", Here, raising=False)
    monkeypatch.setenv("FIVEFOLD_UMASK", "022")
    loaded = config.load(ROOT / "params.yaml")
    where = dataclasses.replace(loaded.cluster, storage=str(tmp_path / "there"), address=SERVER)
    before = os.umask(0o022)  # a job sets it for its process
    yield dataclasses.replace(loaded, cluster=where, train=dataclasses.replace(loaded.train, max_failures=7))
    os.umask(before)


@pytest.fixture
def job(tmp_path: Path, settings: config.Params) -> TrainingJob:
    """A training of a small VAE whose data, yardstick and state lie here."""
    for name in ("prepared", "yardstick", "state-of-it"):
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "manifest.json").write_text(f'{{"of": "{name}"}}')
    domain = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 16}
    here = tmp_path / "here"
    return TrainingJob(
        spec={"family": "vae", "config": {"latent": 2, "width": 8}, "domain": domain, "classes": 3},
        training=dataclasses.asdict(settings.family["vae"].training),
        seed=11,
        prepared=str(here / "prepared"),
        yardstick=str(here / "yardstick"),
        state=str(here / "state-of-it"),
        checkpoints=str(here / "state-of-it/checkpoints"),
    )


def assert_as_seen_there(got: TrainingJob, sent: TrainingJob, there: Path) -> None:
    """The same job; its folders are the storage's, with the content of those that were sent."""
    folders = {"prepared", "yardstick", "state", "checkpoints"}
    for field in dataclasses.fields(TrainingJob):
        if field.name not in folders:
            assert getattr(got, field.name) == getattr(sent, field.name), field.name
    for name in ("prepared", "yardstick"):
        assert Path(getattr(got, name)).parent == there
        assert (Path(getattr(got, name)) / "manifest.json").read_text() == f'{{"of": "{name}"}}'
    assert got.state == str(there / "state-of-it")
    assert got.checkpoints == str(there / "state-of-it/checkpoints")


def test_a_training_arrives_as_it_was_asked_and_its_model_comes_back(tmp_path, settings, job, monkeypatch):
    asked: list[tuple[TrainingJob, config.Train]] = []

    def trained(there: TrainingJob, how: config.Train, *, state: Path) -> None:
        asked.append((there, how))
        torch.manual_seed(0)
        facts = {**there.spec, "dataset": "d", "class_names": ["a", "b", "c"], "data_digest": "e", "run_id": "r"}
        model_folder.save(build(there.spec), state / "model", facts)

    monkeypatch.setattr(remote, "run_local", trained)
    remote.train(job, settings, SERVER, "digest-of-data")
    ((there, how),) = asked
    assert_as_seen_there(there, job, tmp_path / "there")
    assert how == settings.train
    model, facts = model_folder.load(Path(job.state) / "model", "cpu")
    assert facts["run_id"] == "r"
    torch.manual_seed(0)
    for name, weight in build(job.spec).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("ended", "status"), [(ValueError("no such column"), 1), (OSError("disk"), 1), (Interrupted("stopped"), 75)]
)
def test_what_ends_a_training_there_ends_the_stage_here(settings, job, monkeypatch, ended, status):
    def fails(*_: Any, **__: Any) -> None:
        raise ended

    statuses: list[int] = []
    main = remote.main
    monkeypatch.setattr(remote, "main", lambda: statuses.append(main()) or statuses[-1])
    monkeypatch.setattr(remote, "run_local", fails)
    with pytest.raises((type(ended), ValueError), match=str(ended)):  # what the command line says in a sentence
        remote.train(job, settings, SERVER, "digest-of-data")
    assert statuses == [status]


def test_a_training_that_was_stopped_there_says_so(settings, job, monkeypatch):
    monkeypatch.setattr(Here, "submit", lambda *_: None)
    monkeypatch.setattr(Here, "follow", lambda *_: Outcome("STOPPED", "by somebody", None))
    with pytest.raises(Interrupted, match=r"^job fivefold-state-of-it-1 was stopped on the cluster$"):
        remote.train(job, settings, SERVER, "digest-of-data")


def test_a_job_that_runs_already_is_followed_and_none_is_sent(settings, job, monkeypatch):
    followed: list[str] = []
    monkeypatch.setattr(Here, "attempts", lambda self, name: {1: "FAILED", 2: "RUNNING"})
    monkeypatch.setattr(Here, "submit", None)
    monkeypatch.setattr(Here, "follow", lambda self, name, *_: followed.append(name) or Outcome("STOPPED", "", None))
    with pytest.raises(Interrupted):
        remote.train(job, settings, SERVER, "digest-of-data")
    assert followed == ["fivefold-state-of-it-2"]


def test_workers_are_asked_for_as_the_settings_say_and_what_ended_them_is_raised(settings, job, monkeypatch):
    asked: list[tuple] = []
    state = Path(job.state)

    def ran(work: Any, plain: dict[str, Any], **how: Any) -> None:
        (state / "ray").mkdir()
        record = {"kind": "Diverged", "message": "the loss is not finite", "rank": 0, "expected": True}
        (state / FAILURE).write_text(json.dumps(record))
        asked.append((work, plain, how))

    monkeypatch.setattr(cluster, "connected", lambda *_, **__: contextlib.nullcontext(), raising=False)
    monkeypatch.setattr(cluster, "worker_count", lambda workers, each: (workers, each), raising=False)
    monkeypatch.setattr(cluster, "run_workers", ran, raising=False)
    how = dataclasses.replace(settings.train, workers=3, timeout=9)
    parts = dataclasses.replace(job, training={**job.training, "virtual_ranks": 8, "accumulate": 2})
    with pytest.raises(Diverged, match=r"^the loss is not finite$"):
        local.run_local(parts, how)
    ((work, plain, kept),) = asked
    assert work.__name__ == "run_worker"
    assert TrainingJob(**plain) == parts
    assert (kept["workers"], kept["max_failures"], kept["timeout"]) == ((3, 4), 7, 9)
    assert kept["storage"] == f"{state}/ray"
    assert not (state / "ray").exists()


def test_a_search_arrives_as_it_was_asked_and_its_trials_are_told_once_in_order(tmp_path, settings, job, monkeypatch):
    search = SearchJob(
        job=job,
        family=settings.family["vae"],
        initial=[{"training.lr": 1e-3}],
        completed=[({"training.lr": 2e-3}, 0.25)],
        trials=5,
        concurrent=2,
        examples=96,
    )
    asked: list[SearchJob] = []
    events = [
        ("trial_started", "one", {"training.lr": 1e-3}),
        ("trial_result", "one", 48, {"score": 0.5}),
        ("trial_finished", "one", {"training.lr": 1e-3}, 0.5, None),
        ("trial_started", "two", {"training.lr": 2e-3}),
        ("trial_finished", "two", {"training.lr": 2e-3}, None, "diverged"),
    ]

    def searched(there: SearchJob, recorder: Any) -> None:
        asked.append(there)
        for what, *said in events:
            getattr(recorder, what)(*said)

    monkeypatch.setattr(remote, "search_local", searched)
    trials = Trials(Path(job.state))
    remote.search(lambda: search, settings, SERVER, "digest-of-data", trials)
    (there,) = asked
    assert_as_seen_there(there.job, job, tmp_path / "there")
    assert json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(there, job=job)))) == json.loads(
        json.dumps(dataclasses.asdict(search))
    )
    assert list(trials) == events


def test_what_is_measured_arrives_as_it_was_asked_and_its_result_comes_back(tmp_path, settings, job, monkeypatch):
    asked: list[tuple] = []

    def measured(kind: str, what: dict[str, Any], place: str, state: Path) -> None:
        asked.append((kind, EvaluationJob(**what), place))
        (state / RESULT).write_text('{"figure": 3}')

    monkeypatch.setattr(on_nodes, "run_on_node", measured)
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext, raising=False)
    fields = {field.name: f"of {field.name}" for field in dataclasses.fields(EvaluationJob)}
    wanted = EvaluationJob(**fields)
    on_nodes.run_there(
        "evaluate", wanted, lambda _: wanted, Path(job.state), settings.cluster, Shown("evaluate"), verbose=False
    )
    assert asked == [("evaluate", wanted, str(tmp_path / "there/state-of-it"))]
    assert json.loads((Path(job.state) / RESULT).read_text()) == {"figure": 3}


def test_a_model_is_measured_there_and_its_pictures_come_back(tmp_path, settings, tiles, monkeypatch):
    """What is sent has the bytes of what lies here, and the same folders are not sent twice."""
    asked: list[EvaluationJob] = []

    def measured(kind: str, what: dict[str, Any], place: str, state: Path) -> None:
        asked.append(EvaluationJob(**what))
        (state / PICTURES).mkdir()
        (state / PICTURES / "samples.png").write_bytes(b"a picture")
        (state / RESULT).write_text('{"figure": 3, "pictures": ["samples.png"]}')

    monkeypatch.setattr(on_nodes, "run_on_node", measured)
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext, raising=False)
    monkeypatch.chdir(tiles.root)
    here = {
        "model": "runs/tiles/models/flow",
        "prepared": "data/prepared/tiles",
        "yardstick": "runs/tiles/yardstick",
    }
    numbers = {"samples": 8, "seed": 5, "bootstrap": 3, "bound_samples": 2}
    wanted = EvaluationJob(dataset="tiles", family="flow", **here, **numbers)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert run_evaluation(wanted, pictures, settings.cluster) == {"figure": 3, "pictures": ["samples.png"]}
    assert (pictures / "samples.png").read_bytes() == b"a picture"
    (there,) = asked
    assert {name: getattr(there, name) for name in numbers} == numbers
    for name, folder in here.items():
        copy = Path(getattr(there, name))
        assert copy.parent == tmp_path / "there"
        for path in Path(folder).iterdir():
            assert (copy / path.name).read_bytes() == path.read_bytes(), path
    sent = [path for name in here for path in Path(getattr(there, name)).iterdir()]
    before = {path: path.stat().st_mtime_ns for path in sent}
    state = next(path for path in (tiles.root / "runs/tiles/state").glob("evaluate-flow-*"))
    (state / RESULT).unlink()
    shutil.rmtree(state / PICTURES)
    shutil.rmtree(tmp_path / "there" / state.name)
    run_evaluation(wanted, pictures, settings.cluster)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_yardstick_is_made_there_of_the_data_that_lie_here(tmp_path, settings, tiles, monkeypatch):
    asked: list[ReferenceJob] = []

    def made(kind: str, what: dict[str, Any], place: str, state: Path) -> None:
        asked.append(ReferenceJob(**what))
        shutil.copytree(tiles.root / "runs/tiles/yardstick", state / YARDSTICK)
        (state / on_nodes.MADE).write_text("")

    monkeypatch.setattr(on_nodes, "run_on_node", made)
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext, raising=False)
    monkeypatch.chdir(tiles.root)
    data = Dataset.open(tiles.root / "data/prepared/tiles")
    how = dataclasses.replace(settings.features, bootstrap=17)
    run_features(data, "tiles", tmp_path / "yardstick", seed=5, settings=how, where=settings.cluster)
    ((there),) = asked
    assert (there.name, there.seed, there.settings) == ("tiles", 5, json.loads(json.dumps(dataclasses.asdict(how))))
    assert Dataset.open(Path(there.prepared)).digest == data.digest
    assert Path(there.prepared).parent == tmp_path / "there"
    names = {path.name for path in (tiles.root / "runs/tiles/yardstick").iterdir()}
    assert {path.name for path in (tmp_path / "yardstick").iterdir()} == names


def test_a_bar_goes_when_all_has_been_answered():
    shown = Shown("evaluate flow")
    shown.terminal = True
    shown.progress("samples", 5, 10)
    assert shown.bar is not None
    assert (shown.bar.n, shown.bar.total) == (5, 10)
    shown.progress("samples", 10, 10)
    assert shown.bar is None
