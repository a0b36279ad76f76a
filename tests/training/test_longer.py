"""What is trained again when only the length of a training changed, or how it is watched: as little as can be."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_projects import SmallProject
from torch import Tensor

from pipelines.__main__ import main
from pipelines.execution.earlier import earlier, finished_before
from pipelines.serving import artifact
from pipelines.stages import train as train_stage
from pipelines.storage.stores import open_store
from pipelines.training import checkpoint
from pipelines.training.context import WorkerContext
from pipelines.training.job import TrainingJob
from pipelines.training.worker import run_worker

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
Train = Callable[..., list[int]]


@pytest.fixture
def train(
    shop: SmallProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Train]:
    """Train the shop's flow with some settings; of each training that ran, the examples seen when it began."""
    root = tmp_path / "project"
    shutil.copytree(shop.root, root)
    (root / "runs/shop/tune").mkdir(exist_ok=True)
    (root / "runs/shop/tune/flow.json").write_text('{"settings": {}}')
    text = (root / "params.yaml").read_text()
    began: list[int] = []

    def train_here(job: TrainingJob, *_: object, **__: object) -> None:
        newest = checkpoint.load_newest(open_store(job.checkpoints))
        began.append(0 if newest is None else newest.facts["examples"])
        run_worker(dataclasses.asdict(job), WorkerContext())  # without Ray

    def run(**settings: object) -> list[int]:
        written = {"batch_size": 128, "warmup_examples": 256, "evaluations": 1, "reports": 2, "checkpoints": 2}
        section = json.dumps({"model": {"width": 16}, "training": written | settings})
        (root / "params.yaml").write_text(text.replace("flow: {}", f"flow: {section}"))
        began.clear()
        caplog.clear()
        assert main(["train", "--family", "flow"]) == 0
        return list(began)

    monkeypatch.setattr(train_stage, "run_local", train_here)
    caplog.set_level("INFO")
    with SmallProject(root, "shop").entered():
        yield run


def newest_state() -> dict[str, Tensor]:
    """The tensors of the newest checkpoint of the newest training: weights, averages, moments."""
    folders = sorted(Path("runs/shop/state").glob("flow-*/job.json"), key=lambda path: path.stat().st_mtime)
    found = checkpoint.load_newest(open_store(folders[-1].parent / "checkpoints"))
    assert found is not None
    return dict(found.tensors)


def test_a_longer_training_at_a_constant_rate_goes_on_and_ends_where_it_would_have(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """Bit for bit; its curves begin where the shorter one's began. Shorter, it is another training."""
    assert train(schedule="constant", total_examples=512) == [0]
    assert train(schedule="constant", total_examples=1024) == [512]
    assert "flow: going on from the training of 512 examples in runs/shop/state/flow-" in caplog.text
    curves = Path("runs/shop/curves/flow.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in curves] == [256, 512, 1024]
    assert json.loads(Path("runs/shop/models/flow/model.json").read_text())["total_examples"] == 1024
    extended = newest_state()
    assert train(schedule="constant", total_examples=256) == [0]
    shutil.rmtree("runs/shop/state")
    assert train(schedule="constant", total_examples=1024) == [0]
    assert extended.keys() == (straight := newest_state()).keys()
    assert [name for name, tensor in straight.items() if not torch.equal(tensor, extended[name])] == []


def test_where_the_rate_has_fallen_a_longer_training_begins_anew_and_says_why(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(total_examples=512) == [0]
    assert train(total_examples=1024) == [0]
    assert "starting afresh, for since the last training training.total_examples changed" in caplog.text
    assert "cannot go on from a shorter one with schedule: cosine" in caplog.text
    assert train(schedule="constant", total_examples=2048) == [0]  # the cosine's weights are not its beginning
    assert "going on" not in caplog.text


def test_a_finished_training_is_not_made_again_to_be_watched_more_closely(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the model say what it was not trained with: it stays byte for byte, so nothing measures it again."""
    assert train(total_examples=512) == [0]
    folder = Path("runs/shop/models/flow")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for settings in ({"reports": 4, "checkpoints": 4, "accumulate": 2}, {"evaluations": 2}):
        assert train(total_examples=512, **settings) == []
        assert "flow: trained already" in caplog.text
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert train(total_examples=512, evaluations=2, lr=3e-3) == [0]


def test_a_training_in_a_folder_that_was_moved_is_found_where_it_lies(tmp_path):
    """Its record still names where it was."""
    spec = {"family": "vae", "config": {}, "domain": {"kind": "image"}, "classes": 0}
    job = TrainingJob(
        spec=spec, training={"lr": 1e-3}, seed=1, prepared="p", yardstick="y", state="/before/vae-1", checkpoints="c"
    )
    state = tmp_path / "vae-1"
    (state / "model").mkdir(parents=True)
    (state / "model" / artifact.MANIFEST).write_text("{}")
    (state / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
    again = dataclasses.replace(job, state=str(tmp_path / "vae-2"))
    (found,) = earlier(tmp_path, again)
    assert (found.finished, found.job.state) == (True, str(state))
    assert finished_before(tmp_path, again).state == str(state)
