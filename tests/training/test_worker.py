"""What lies between the settings and the loop: which rows a worker trains on, what it records, what a trial is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

import models
from data.dataset import Dataset
from models import Batch, GenerativeModel, Losses, Objective, Streams
from pipelines import config as params
from pipelines.defaults.layers import merged
from pipelines.execution.jobs import checkpoints_at, family_settings, fitting_batch, make_job
from pipelines.execution.search import TrialLog, run_trial, trial_job
from pipelines.paths import prepared_folder, runs_folder
from pipelines.stages import train, tune
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder
from pipelines.training import job as training_job
from pipelines.training import worker
from pipelines.training.config import DivergencePolicy, TrainingConfig
from pipelines.training.context import WorkerContext
from pipelines.training.job import TrainingJob, clear_signals, failure
from pipelines.training.worker import Recorder

ROOT = Path(__file__).parents[2]
ROWS = 1258
"""Of the training split of the digits: two epochs of 34 × 37."""


class Probe(GenerativeModel):
    """A family that notes what it is given."""

    @dataclass(frozen=True)
    class Config:
        size: int = 3
        tilt: float = 0.5

        def __post_init__(self) -> None:
            assert isinstance(self.size, int)

    given: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self, config: Config, domain: Any, classes: int) -> None:
        super().__init__(domain, classes)
        self.weight = torch.nn.Parameter(torch.randn(config.size))

    def objectives(self) -> tuple[Objective, ...]:
        return (Noting(self),)

    def initialize(self, batch: Batch, generator: Streams) -> None:
        self.given["initialize"].append(batch)
        self.given["weight"].append(self.weight.detach().clone())
        super().initialize(batch, generator)


class Noting(Objective):
    def __init__(self, model: Probe) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        self.model.given["batch"].append(batch)
        self.model.given["noise"].append(generator.uniform(len(batch))[0].item())
        return Losses(self.model.weight.sum() * torch.ones(len(batch)))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the probe was given."""
    found: dict[str, list[Any]] = {name: [] for name in ("initialize", "weight", "batch", "noise")}
    monkeypatch.setattr(Probe, "given", found)
    monkeypatch.setitem(models.FAMILIES, "probe", Probe)
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The digits, prepared, in the working directory."""
    root = tmp_path_factory.mktemp("project")
    (root / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", root / "data/catalog")
    prepare("digits", root=root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


@pytest.mark.parametrize(
    ("examples", "evaluations", "fitted"),
    [(1_000, 2, 4_096), (100_000, 2, 15_000), (100_000, 4, 7_500), (10**7, 2, 65_536)],
)
def test_fitting_at_all_evaluations_sees_three_tenths_of_the_examples_within_bounds(
    project: Path, examples: int, evaluations: int, fitted: int
) -> None:
    settings = TrainingConfig(total_examples=examples, evaluations=evaluations)
    assert worker.TrainingData(Dataset.open(prepared_folder("digits")), settings, 0, "cpu").fitted == fitted


def job(project: Path, state: Path, seed: int = 0, **training: Any) -> TrainingJob:
    plain = {"total_examples": 2 * ROWS, "batch_size": 34, "virtual_ranks": 2, "reports": 4, "evaluations": 2}
    domain = Dataset.open(project / "data/prepared/digits").domain
    return TrainingJob(
        spec={"family": "probe", "config": {}, "domain": domain, "classes": 10},
        training=plain | training,
        seed=seed,
        prepared=str(project / "data/prepared/digits"),
        yardstick="none",
        state=str(state),
        checkpoints=str(state / "checkpoints"),
        run_id="r7",
    )


def run(job: TrainingJob, monkeypatch: pytest.MonkeyPatch, scores: Any = None) -> None:
    """A worker from beginning to end, its models scored by a list."""
    Path(job.state).mkdir(exist_ok=True)
    values = iter(scores or [2.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(Recorder, "score", lambda self, model: next(values))
    monkeypatch.setattr(Recorder, "picture", lambda self, model, examples: None)
    worker.run_worker(dataclasses.asdict(job), WorkerContext())
    error = failure(Path(job.state))
    if error:
        raise error


def rows_of(batches: list[Batch]) -> list[tuple[bytes, int]]:
    return [(x.numpy().tobytes(), int(y)) for batch in batches for x, y in zip(batch.x, batch.label, strict=True)]


def test_an_epoch_is_every_training_row_once_with_its_label(
    project: Path, given: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job(project, tmp_path / "a"), monkeypatch)
    split = Dataset.open(project / "data/prepared/digits").split("train").all()
    expected = sorted((x.numpy().tobytes(), int(y)) for x, y in zip(split.x, split.label, strict=True))
    assert len(given["batch"]) == 2 * 37
    first, second = rows_of(given["batch"][:37]), rows_of(given["batch"][37:])
    assert sorted(first) == sorted(second) == expected
    assert first != second
    (reference,) = given["initialize"]
    assert sorted(rows_of([reference])) == expected
    assert [batch.seen for batch in given["batch"]] == [34 * n for n in range(74)]
    assert len(set(given["noise"])) == 74
    noise, weight = list(given["noise"]), given["weight"][0]
    for values in given.values():
        values.clear()
    run(job(project, tmp_path / "b", seed=1, total_examples=ROWS), monkeypatch)
    assert sorted(rows_of(given["batch"])) == expected  # one seed is behind order, noise and weights
    assert rows_of(given["batch"]) != first
    assert given["noise"] != noise[:37]
    assert not torch.equal(given["weight"][0], weight)


def test_what_a_worker_records_and_leaves(
    project: Path, given: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its third report, it goes on from its second: points beyond are dropped and come again."""
    chosen = job(project, tmp_path / "a", total_examples=68 * 8, reports=4, checkpoints=2, evaluations=4)
    with pytest.raises(ValueError, match="a kill"):
        run(chosen, monkeypatch, scores=(value if value else _raise() for value in (5.0, 1.0, 3.0, 0)))
    assert [point["examples"] for point in training_job.read_metrics(tmp_path / "a")] == [136, 272, 408]
    clear_signals(tmp_path / "a")
    run(chosen, monkeypatch, scores=[2.0, 4.0])
    points = training_job.read_metrics(tmp_path / "a")
    assert [point["examples"] for point in points] == [136, 272, 408, 544]
    assert [point["metrics"]["validation_frechet"] for point in points] == [5.0, 1.0, 2.0, 4.0]
    seconds = [point["seconds"] for point in points]
    assert seconds == sorted(seconds)
    assert {point["workers"] for point in points} == {1}
    assert train.curves(points).splitlines()[3].split(",")[0] == "408"
    model, facts = model_folder.load(tmp_path / "a/model")
    assert facts == chosen.spec
    from pipelines.storage import stores
    from pipelines.training import checkpoint

    found = stores.open_store(tmp_path / "a/checkpoints")
    best = checkpoint.load_best(found, 8)  # after 272 of 544 examples
    torch.testing.assert_close(model.weight, best.tensors["weight"])
    assert checkpoint.load_newest(found).facts["run_id"] == "r7"


def _raise() -> float:
    raise ValueError("a kill")


# Tune


FAMILY = params.Family(model=Probe.Config(), training=TrainingConfig(total_examples=5000, warmup_examples=2000))


def test_a_trial_is_the_training_cut_short_with_its_settings(
    project: Path, given: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = job(project, tmp_path)
    cut = trial_job(base, FAMILY, {"training.lr": 0.25, "model.size": 4.6, "training.batch_size": 104.0}, 936)
    assert cut.spec == base.spec | {"config": {"size": 5, "tilt": 0.5}}
    changed = {"lr": 0.25, "batch_size": 104, "total_examples": 936, "warmup_examples": 187, "evaluations": 3}
    assert cut.training == dataclasses.asdict(FAMILY.training) | changed
    assert trial_job(base, FAMILY, {"training.warmup_examples": 50}, 1000).training["warmup_examples"] == 50
    values = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(Recorder, "score", lambda self, model: next(values))
    told: list[tuple[int, float]] = []
    run_trial(cut, lambda examples, score: told.append((examples, score)))
    assert told == [(312, 3.0), (624, 2.0), (936, 1.0)]
    assert {len(batch) for batch in given["batch"]} == {104}


def test_of_the_trials_that_beat_what_is_written_the_best_is_chosen() -> None:
    def trial(score: float, *, examples: int = 100, written: bool = False) -> dict[str, Any]:
        return {"settings": {"a": score}, "score": score, "examples": examples, "error": None, "as_written": written}

    trials = [trial(1.0, written=True), trial(0.7), trial(0.5), trial(0.6), trial(0.1, examples=99)]
    assert tune.select_best(trials, 100, 0.1)[0] == {"a": 0.5}
    assert tune.select_best(trials[1:], 100, 0.1)[0] == {"a": 0.5}
    assert tune.select_best(trials, 100, 0.5)[0] == {}  # not better by half
    assert tune.select_best(trials, 100, 0.49)[0] == {"a": 0.5}


class Deaf:
    """Hears everything and does nothing."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **_: self.said.append((name, *arguments))


def test_finished_trials_are_kept_once_with_how_far_they_came(tmp_path: Path) -> None:
    sweep = Deaf()
    ledger = TrialLog(tmp_path, sweep, Deaf(), 100)
    for name, examples, score, error in (("a", 100, 2.0, None), ("b", 50, 1.0, None), ("c", 0, None, "boom")):
        ledger.trial_started(name, {"lr": examples})
        if examples:
            ledger.trial_result(name, examples, {"score": score})
        ledger.trial_finished(name, {"lr": examples}, score, error)
    ledger.trial_finished("a", {"lr": 100}, 2.0, None)  # told again
    with ledger.path.open("a") as file:
        file.write('{"trial": "d"')  # a kill
    kept = [[t[key] for key in ("trial", "score", "examples", "error")] for t in ledger.finished()]
    assert kept == [["a", 2.0, 100, None], ["b", 1.0, 50, None], ["c", None, 0, "boom"]]
    ended = [said[1:] for said in sweep.said if said[0] == "trial_finished"]
    assert ended == [("a", "FINISHED"), ("b", "KILLED"), ("c", "FAILED")]


def test_trials_side_by_side_are_kept_apart(tmp_path: Path) -> None:
    """One is stopped at a third right after the other has reported its whole; none has the other's examples."""
    sweep, bar = Deaf(), Deaf()
    ledger = TrialLog(tmp_path, sweep, bar, 90)
    for name in ("whole", "stopped"):
        ledger.trial_started(name, {})
    for name, examples in (("stopped", 30), ("whole", 60), ("whole", 90)):
        ledger.trial_result(name, examples, {"score": 1.0})
    ledger.trial_finished("stopped", {}, 1.0, None)
    ledger.trial_started("late", {})
    ledger.trial_finished("whole", {}, 1.0, None)
    assert [(t["trial"], t["examples"]) for t in ledger.finished()] == [("stopped", 30), ("whole", 90)]
    ended = [said[1:] for said in sweep.said if said[0] == "trial_finished"]
    assert ended == [("stopped", "KILLED"), ("whole", "FINISHED")]
    assert [said[1] for said in bar.said] == [30, 90, 120, 90, 180]


# Train


def test_the_batch_fits_the_split(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = Dataset.open(project / "data/prepared/digits")

    def fitted(batch_size: int, ranks: int) -> int:
        training = TrainingConfig(batch_size=batch_size, virtual_ranks=ranks)
        chosen = fitting_batch(dataclasses.replace(FAMILY, training=training), data, "probe")
        return chosen.training.batch_size

    assert (fitted(1258, 2), fitted(2000, 8), fitted(1260, 3)) == (1258, 1256, 1257)
    assert caplog.text.count("exceeds the 1258 training examples") == 2
    assert fitted(2600, 1300) == 1300  # one example for each rank, some of them twice


def test_what_makes_a_sweep_another_one(project: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(params.load(ROOT / "params.yaml"), seed=0)
    base = dataclasses.replace(job(project, tmp_path), spec={"family": "vae", "config": {}})
    family = settings.family["vae"]

    def key(
        chosen: params.Family = family, data: str = "d", reference: str = "r", seed: int = 0, **changes: Any
    ) -> str:
        altered = dataclasses.replace(settings, tune=dataclasses.replace(settings.tune, **changes))
        return tune.sweep_key(dataclasses.replace(base, seed=seed), altered, chosen, data, reference)

    wider = dataclasses.replace(family, search={**family.search, "training.lr": params.Range(low=1e-6, high=1.0)})
    keys = [key(), key(wider), key(data="e"), key(reference="e"), key(seed=1), key(part=0.77), key(trials=99)]
    assert len(set(keys)) == len(keys)
    assert key() == key(margin=0.5) == key(enabled=False) == keys[0]


def test_a_job_is_what_the_settings_say(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", project)
    settings = dataclasses.replace(params.load(), seed=7)
    data = Dataset.open(prepared_folder("digits"))
    made = make_job(settings, "vae", settings.family["vae"], data, tmp_path)
    config = dataclasses.asdict(settings.family["vae"].model)
    assert made.spec == {"family": "vae", "config": config, "domain": data.domain, "classes": 10}
    assert made.training == dataclasses.asdict(settings.family["vae"].training)
    assert (made.seed, made.prepared, made.state) == (7, str(data.folder.resolve()), str(tmp_path))
    assert checkpoints_at(settings, tmp_path / "s") == str(tmp_path / "s/checkpoints")
    for place, expected in (("s3://b/p/", "s3://b/p/digits/s"), ("kept", f"{project}/kept/digits/s")):
        away = dataclasses.replace(settings, train=params.Train(storage=place))
        assert checkpoints_at(away, tmp_path / "s") == expected
    (project / "runs/digits/tune").mkdir(parents=True, exist_ok=True)
    (project / "runs/digits/tune/vae.json").write_text(json.dumps({"settings": {"training.lr": 0.5}}))
    assert train.tuned(runs_folder("digits"), "vae") == {"settings": {"training.lr": 0.5}}
    with pytest.raises(FileNotFoundError, match="run `fivefold tune --family gan` first"):
        train.tuned(runs_folder("digits"), "gan")
    with pytest.raises(ValueError, match="tan is not in families"):
        family_settings(settings, "tan")


# Params


def test_settings_are_handed_on_as_written(tmp_path: Path) -> None:
    policy = params.Train(on_divergence="rollback", rollbacks=5, spike=8.0).policy
    assert DivergencePolicy(**policy) == DivergencePolicy(rollback=True, most=5, spike=8.0)
    assert DivergencePolicy(**params.Train().policy) == DivergencePolicy(rollback=False, most=3, spike=0.0)
    assert (params.Train(workers=3).bounds, params.Train(workers=[2, 4]).bounds) == ((3, 3), (2, 4))
    assert params.Train(workers=(1, 2)).misfit(8) is None
    assert "3 workers cannot share 8" in params.Train(workers=(1, 3)).misfit(8)
    base = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": 4}
    over = {"a": {"c": {"d": 5}, "g": 6}, "f": {"h": 7}}
    assert merged(base, over) == {"a": {"b": 1, "c": {"d": 5, "e": 3}, "g": 6}, "f": {"h": 7}}
    assert base == {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": 4}
    changed = params.with_settings(FAMILY, {"model.size": 2.6, "model.tilt": 1, "training.lr": 1})
    assert changed.model == Probe.Config(size=3, tilt=1.0)
    assert (changed.training.lr, changed.training.total_examples) == (1.0, 5000)


def test_samples_are_pictured_from_the_same_noise_at_every_evaluation(tmp_path):
    """A file for each number of examples: a column per class, four rows, alike as long as the model is."""
    spec = {
        "family": "vae",
        "config": {"latent": 2, "width": 8},
        "domain": {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 256},
        "classes": 3,
    }
    training = dataclasses.asdict(TrainingConfig(total_examples=1000))
    job = TrainingJob(spec=spec, training=training, seed=2, prepared="", yardstick="", state=str(tmp_path))
    recorder, model = Recorder(job), worker.build_model(job).eval()
    for examples in (500, 1000):
        recorder.picture(model, examples)
    torch.nn.init.normal_(next(model.decoder.parameters()), std=5.0)
    recorder.picture(model, 1500)
    files = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in files] == ["000000000500.png", "000000001000.png", "000000001500.png"]
    first, second, changed = (path.read_bytes() for path in files)
    assert first == second != changed
    with Image.open(files[0]) as picture:
        width, height = picture.size
    assert 3 * 8 <= width < height
    assert height >= 4 * 8
