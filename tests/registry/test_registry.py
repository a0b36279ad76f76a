"""Finished models as downstream teams get them: by job, without this repository, checked by hash."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hands import stand_in
from PIL import Image
from specs import spec_of
from test_tracking import free_port, migrated, server, store

from data.files import write_atomically
from models import FAMILIES, Batch, Streams, build
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.cli import sample
from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.registry.aliases import pin
from pipelines.registry.lineage import verify
from pipelines.registry.package import vendored_code
from pipelines.registry.promotion import Candidate, Decision, candidate_of, decide
from pipelines.serving import artifact
from pipelines.serving.params import checked
from pipelines.stages import register
from pipelines.storage import model_folder
from pipelines.tracking import served_files, vouching
from pipelines.tracking.server import get_client
from pipelines.training import identity
from pipelines.training.identity import code_digest

__all__ = ["free_port", "migrated", "store"]

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable
DIGEST = "da7a" * 16
NO_ROWS = np.zeros((0, 8, 8, 1), np.uint8)
JOBS = {"generation": ("frechet",), "density": ("bits_per_dim", "bits_per_dim_bound")}
SMALL = {
    "autoencoder": {"width": 8, "latent": 4},
    "vae": {"width": 8, "latent": 4},
    "gan": {"width": 8, "critic_width": 8, "latent": 4},
    "flow": {"width": 8, "steps": 1},
    "diffusion": {"width": 8, "embed": 8, "steps": 6},
}

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small models on busy cores: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# A project with finished models, trained for no time at all


def finish(root: Path, family: str, *, seed: int = 0, run: bool = True, data: str = DIGEST) -> Path:
    """A finished model's folder, with an MLflow run that claims to have trained it."""
    torch.manual_seed(seed)
    domain = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17}
    spec = spec_of(family, SMALL[family], domain=domain, classes=10)
    model = build(spec)
    spec["sampling"] = dataclasses.asdict(model.sampling)
    x = torch.randint(0, 256, (64, 8, 8, 1), dtype=torch.uint8)
    batch = Batch(x, torch.arange(64) % 10)
    model.initialize(batch, Streams.seeded(seed))
    model.eval()
    model.finalize(batch, Streams.seeded(seed))
    facts = {**spec, "dataset": "digits", "class_names": list("0123456789"), "data_digest": data, "parameters": 7}
    facts["run_id"] = train(family, seed, data) if run else "none"
    folder = root / "runs" / "digits" / "models" / family
    model_folder.save(model, folder, facts)
    return folder


def train(family: str, seed: int, data: str = DIGEST, again: str = "") -> str:
    """A finished run."""
    with tracking.TrainingRun.open(
        dataset="digits", family=family, run_key=f"{family}{seed}{data}{again}", params={}, manifest={"digest": data}
    ) as run:
        run.log([{"examples": 100, "metrics": {"loss": 1.0}}])
    return run.run_id


def measure(
    root: Path,
    family: str,
    *,
    data: str = DIGEST,
    yardstick: str = "y1",
    held_out: Sequence[float] = (),
    **values: float,
) -> None:
    """A results file with intervals of ±0.1."""
    metrics = {
        name: Metric(value=value, low=value - 0.1, high=value + 0.1, unit="", better="lower").as_dict()
        for name, value in values.items()
    }
    results = {"family": family, "data_digest": data, "yardstick_digest": yardstick, "metrics": metrics, "seconds": {}}
    results["held_out_scores"] = list(held_out)
    path = root / "runs" / "digits" / "results" / f"{family}.json"
    write_atomically(path, json.dumps(results))


def registered(root: Path, *families: str) -> dict[str, Any]:
    """Run the stage."""
    return register.register("digits", families, root=root, jobs=JOBS)


@pytest.fixture
def project(store: Path) -> Path:
    """A project whose VAE is finished and measured."""
    finish(store, "vae")
    measure(store, "vae", frechet=2.0, bits_per_dim_bound=1.0)
    return store


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version's files are stand-ins: packing them takes seconds, and makes nobody hold an alias or lose it."""
    stand_in(monkeypatch)


# The folder of a finished model


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = finish(tmp_path, "flow", run=False)
    model, facts = model_folder.load(folder)
    again, _ = model_folder.load(folder)
    draw = model.sample(3, None, Streams.seeded(1))
    assert torch.equal(draw, again.sample(3, None, Streams.seeded(1)))
    assert not model.training
    assert facts["data_digest"] == DIGEST
    assert {path.name for path in folder.iterdir()} == {"model.json", "model.safetensors", "manifest.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["flow"]


def test_the_digest_is_of_weights_spec_and_data(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        folder = finish(tmp_path, "gan", run=False, seed=changes.pop("seed", 0))
        model, facts = model_folder.load(folder)
        return model_folder.save(model, folder, facts | changes)

    plain = digest()
    assert digest() == digest(train_seconds=3, run_id="other") == plain
    others = [digest(seed=1), digest(data_digest="other"), digest(sampling={"inversion_steps": 3})]
    assert len({plain, *others}) == 4


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_model_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    folder = finish(tmp_path, "gan", run=False)
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": content, "truncate": content[:-9], "empty": b""}[damage])
    with pytest.raises(ValueError, match=str(folder)) as caught:
        model_folder.load(folder)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_older_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finish(tmp_path, "gan", run=False)
    before = artifact.model_digest(folder)
    model, facts = model_folder.load(folder)
    with pytest.raises(ValueError, match="facts"):
        model_folder.save(model, folder, facts | {"x": float("nan")})
    with pytest.raises(ValueError, match="family"):
        model_folder.save(model, folder, {"config": {}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        model_folder.save(model, folder, facts)
    assert artifact.model_digest(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["gan"]


def test_a_newer_format_and_other_weights_are_refused(tmp_path: Path) -> None:
    folder = finish(tmp_path, "gan", run=False)
    other, _ = model_folder.load(finish(tmp_path, "flow", run=False))
    _, facts = model_folder.load(folder)
    model_folder.save(other, folder, facts)
    with pytest.raises(ValueError, match="do not fit"):
        model_folder.load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="newer"):
        model_folder.load(folder)
    with pytest.raises(FileNotFoundError, match="nosuch"):
        model_folder.load(tmp_path / "nosuch")


# Who gets a job


def standing(family: str, number: int, value: float, half: float = 0.1, **changes: Any) -> Candidate:
    """A version with a lower-is-better value."""
    score = Metric(value=value, low=value - half, high=value + half, unit="", better=changes.pop("better", "lower"))
    return Candidate(
        family=family, number=number, metric="frechet", score=score, data_digest="d", yardstick_digest="y", **changes
    )


def test_the_first_holder_is_the_best() -> None:
    decision = decide([standing("vae", 1, 2.0), standing("gan", 2, 1.95)], None)
    assert decision.holder is not None
    assert (decision.holder.family, decision.moved) == ("gan", True)
    higher = decide([standing("vae", 1, 2.0, better="higher"), standing("gan", 2, 1.95, better="higher")], None)
    assert higher.holder is not None
    assert higher.holder.family == "vae"


@pytest.mark.parametrize(
    ("value", "half", "moves"), [(1.5, 0.1, True), (1.95, 0.1, False), (1.8, 0.3, False), (2.5, 0.1, False)]
)
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_challenger_must_win_beyond_the_intervals(value: float, half: float, moves: bool, better: str) -> None:
    sign = 1 if better == "lower" else -1
    holder = standing("vae", 1, sign * 2.0, better=better)
    challenger = standing("gan", 2, sign * value, half, better=better)
    decision = decide([holder, challenger], holder)
    assert decision.moved == moves
    assert decision.holder == (challenger if moves else holder)
    assert "vae" in decision.why


@pytest.mark.parametrize(
    ("held", "new", "moves"),
    [(0.01, 0.3, False), (0.3, 0.01, True), (0.01, 0.02, True), (0.01, None, True), (None, 0.3, True)],
)
def test_no_better_score_makes_up_for_rows_that_are_less_possible(
    held: float | None, new: float | None, moves: bool
) -> None:
    """A guard is judged beyond both intervals, here of 0.015 to each side, where both were measured."""

    def guards(value: float | None) -> dict[str, Metric]:
        if value is None:
            return {}
        return {"impossible_pairs": Metric(value=value, low=value - 0.015, high=value + 0.015, unit="", better="lower")}

    holder = standing("vae", 1, 2.0, guards=guards(held))
    best, second = (standing(name, n, v, guards=guards(new)) for name, n, v in (("gan", 2, 1.0), ("flow", 3, 1.2)))
    decision = decide([holder, best, second], holder)
    assert (decision.holder, decision.moved) == ((best, True) if moves else (holder, False))
    assert ("worse in impossible_pairs" in decision.why) == (not moves)
    possible = standing("flow", 3, 1.2, guards=guards(held))
    assert decide([holder, best, possible], holder).holder == (best if moves else possible)


def test_generation_is_guarded_by_impossible_rows() -> None:
    assert USE_CASES["generation"].guards == ("impossible_pairs", "broken_rules")
    entry = {"value": 0.2, "low": 0.1, "high": 0.3, "unit": "share", "better": "lower"}
    tags = {f"metric.{name}": json.dumps(entry) for name in ("frechet", "impossible_pairs")}
    version = tracking.Version(name="rows", number=3, run_id="", tags=tags)
    read = candidate_of(version, ("frechet",), "generation")
    assert read is not None
    assert read.guards["impossible_pairs"].value == 0.2


def test_a_holder_that_is_gone_is_replaced_even_by_worse() -> None:
    holder, worse = standing("vae", 1, 2.0), standing("gan", 2, 9.0)
    decision = decide([worse], holder, "vae is no longer among the families")
    assert (decision.holder, decision.moved) == (worse, True)
    assert decision.why.startswith("vae is no longer among the families: gan")
    assert decide([], holder, "gone").holder is None
    assert decide([], None) == Decision(holder=None, moved=False, why="no family can do it.")


def against(value: float, half: float, baseline: float, **floors: tuple[float, float, float]) -> Candidate:
    """A family's AUROC beside the classical baseline's, and metrics as (value, floor, baseline) ± 0.01."""
    score = Metric(
        value=value, low=value - half, high=value + half, unit="", better="higher", floor=None, baseline=baseline
    )
    bounded = {
        name: Metric(
            value=entry, low=entry - 0.01, high=entry + 0.01, unit="", better="lower", floor=floor, baseline=other
        )
        for name, (entry, floor, other) in floors.items()
    }
    return dataclasses.replace(standing("flow", 7, value), score=score, floors=bounded)


@pytest.mark.parametrize(
    ("candidate", "takes", "said"),
    [
        (against(0.64, 0.03, 0.77), False, "worse than the classical baseline (0.77)"),
        (against(0.75, 0.03, 0.77), True, ""),  # within its interval
        (against(0.90, 0.03, 0.77), True, ""),
        (against(0.90, 0.03, 0.77, exact_copies=(0.2, 0.0, 0.1)), False, "worse in exact_copies"),
        (against(0.90, 0.03, 0.77, exact_copies=(0.2, 0.3, 0.1)), True, ""),  # real rows repeat themselves more
        (dataclasses.replace(against(0.90, 0.03, 0.77), withdrawn=True), False, "was rolled back from"),
    ],
)
def test_nobody_takes_an_alias_who_is_worse_than_the_classical_baseline(
    candidate: Candidate, takes: bool, said: str
) -> None:
    holder = against(0.50, 0.03, 0.77)
    other = dataclasses.replace(holder, family="vae", number=1)
    for held, gone in ((None, ""), (other, "other data"), (other, "")):
        decision = decide([candidate], held, gone)
        assert (decision.holder, decision.moved) == ((candidate, True) if takes else (held, False))
        assert said in decision.why


def test_who_may_have_an_alias_comes_before_who_is_best() -> None:
    best, second = against(0.95, 0.01, 0.97), against(0.90, 0.03, 0.80)
    decision = decide([best, second], None)
    assert decision.holder == second
    assert "worse than the classical baseline (0.97)" in decision.why


# The stage


@pytest.mark.usefixtures("stand_ins")
def test_pins_hold_and_rollbacks_last(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line, from the registry alone: pins need no finished model at hand."""

    def command(*words: str) -> str:
        status = main(list(words))
        captured = capsys.readouterr()
        assert (status == 0) == (not captured.err), captured.err
        return captured.out + captured.err

    def holder(job: str = "generation") -> str:
        number = tracking.aliases("digits").get(job)
        return next((v.tags["family"] for v in tracking.versions("digits") if v.number == number), "nobody")

    registered(project, "vae")
    assert "no version held it before version 2" in command("rollback", "digits@generation")
    finish(project, "gan")
    measure(project, "gan", frechet=1.0)
    registered(project, "vae", "gan")
    assert holder() == "gan"
    assert "back at version 2 (vae)" in command("rollback", "digits@generation")
    kept = registered(project, "vae", "gan")["jobs"]["generation"]
    assert (kept["family"], kept["moved"]) == ("vae", False)
    assert "gan (version 4) with frechet 1 [0.9, 1.1] beats vae" in kept["why"]
    assert "was rolled back from" in kept["why"]
    shutil.rmtree(project / "runs/digits/models/gan")  # who pins need not have trained
    assert "pinned to version 5 (gan), which does this job and is the model of version 4" in command(
        "pin", "digits@generation", "4"
    )
    assert "is pinned to version 5" in command("rollback", "digits@generation")
    finish(project, "flow")
    measure(project, "flow", frechet=0.1)
    pinned = registered(project, "vae", "flow")["jobs"]["generation"]
    assert (pinned["family"], pinned["moved"]) == ("gan", False)
    assert "pinned by" in pinned["why"]
    command("unpin", "digits@generation")
    assert "is not pinned" in command("unpin", "digits@generation")
    assert registered(project, "vae", "flow")["jobs"]["generation"]["family"] == "flow"
    assert "back at version 5 (gan)" in command("rollback", "digits@generation")  # its pin ended that it was withdrawn
    assert "back at version 2 (vae)" in command("rollback", "digits@generation")
    kept = registered(project, "vae", "flow")["jobs"]["generation"]  # the first rollback is not forgotten
    assert (kept["family"], kept["moved"]) == ("vae", False)
    assert "was rolled back from" in kept["why"]
    gan = len(tracking.versions("digits"))
    assert "gan) was not measured for density" in command("pin", "digits@density", "4")
    assert "has no version 99" in command("pin", "digits@density", "99")
    assert "there is no job 'nosuch'" in command("pin", "digits@nosuch", "1")
    assert "models:/digits@anomaly does not exist; aliases of digits: density, generation" in command(
        "rollback", "digits@anomaly"
    )
    assert len(tracking.versions("digits")) == gan
    command("pin", "digits@density", "1")  # the version without a job: its sibling that has it
    assert (holder("density"), tracking.aliases("digits")["density"]) == ("vae", 3)
    record = tracking.alias_records("digits")["density"]
    long = dataclasses.replace(record, before=tuple(range(10, 1010)), withdrawn=tuple(map(str, range(1000))))
    tracking.write_aliases("digits", {"density": long})
    shortened = tracking.alias_records("digits")["density"]  # to the last, for a tag has a bound
    assert shortened == dataclasses.replace(long, before=long.before[-40:], withdrawn=long.withdrawn[-40:])
    named = [get_client().get_registered_model("digits").tags["turns"]]
    for _ in range(2):  # a registry of before there were turns: whoever comes first, all wait at the same run
        get_client().delete_registered_model_tag("digits", "turns")
        with tracking.changing("digits", "look"):
            named.append(get_client().get_registered_model("digits").tags["turns"])
    assert named[0] != named[1] == named[2]


def test_a_pin_makes_the_version_that_does_the_job(project: Path) -> None:
    """Of a model that no alias ever pointed at, from its registered files."""
    measure(project, "vae", frechet=2.0, imputation_crps=0.5)
    registered(project, "vae")
    made = pin("digits", "imputation", 1, root=project / "elsewhere", say=lambda _: None)
    assert (made.number, tracking.aliases("digits")["imputation"]) == (3, 3)
    assert made.tags["job"] == "imputation"
    model = tracking.load_served("models:/digits@imputation")
    gaps = rows(2).astype(np.float32)
    gaps[:, 0] = np.nan
    filled = model.predict(gaps)
    assert np.array_equal(filled[:, 1:], gaps[:, 1:])
    assert "for imputation" in get_client().get_model_version("digits", "3").description
    for each in tracking.versions("digits"):  # each with what vouches for its own files
        tracking.checked_download(each, project / f"files{each.number}")


@pytest.mark.usefixtures("stand_ins")
def test_an_alias_that_nobody_may_have_says_why(project: Path) -> None:
    path = project / "runs/digits/results/vae.json"
    results = json.loads(path.read_text())
    results["metrics"]["frechet"]["baseline"] = 1.2
    path.write_text(json.dumps(results))
    said = registered(project, "vae")["jobs"]["generation"]
    assert "version" not in said
    assert "generation" not in tracking.aliases("digits")
    with pytest.raises(ValueError, match=r"nobody may have it: vae .* worse than the classical baseline \(1\.2\)"):
        sample.sample("digits", project / "a.png")


def test_registering_twice_makes_one_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = registered(project, "vae")
    assert record["jobs"]["generation"] | {"why": ""} == {
        "alias": "models:/digits@generation",
        "moved": True,
        "why": "",
        "family": "vae",
        "version": 2,
        "metric": "frechet",
        "value": 2.0,
        "interval": [1.9, 2.1],
        "unit": "",
        "model_digest": record["versions"]["vae"]["model_digest"],
    }
    assert record["jobs"]["density"]["metric"] == "bits_per_dim_bound"
    again = registered(project, "vae")
    assert json.loads((project / "runs/digits/registry.json").read_text()) == again
    assert not again["jobs"]["generation"]["moved"]
    found, *others = tracking.versions("digits")
    assert [version.tags.get("job", "") for version in (found, *others)] == ["", "generation", "density"]
    assert len({version.tags["model_digest"] for version in (found, *others)}) == 1
    assert tracking.aliases("digits") == {"generation": 2, "density": 3}
    experiment = get_client().get_experiment_by_name("digits")
    assert experiment is not None
    runs = get_client().search_runs([experiment.experiment_id])
    (changes,) = (run.data for run in runs if run.info.run_name == "changes of digits")  # one run, whoever changes it
    assert changes.tags["mlflow.source.name"] == "fivefold"
    turns = [changes.params[f"turn.{number:05d}"] for number in (1, 2)]
    assert all(who.startswith(f"register by {tracking.user()} on {socket.gethostname()} | ") for who in turns)
    page = get_client().get_model_version("digits", "2").description
    for said in (
        "for generation",
        "Licence: not stated",
        "| generation | frechet | 2 | 1.9 … 2.1 |",
        "digits@generation",
    ):
        assert said in page
    assert found.tags["family"] == "vae"
    assert found.tags["data_digest"] == DIGEST
    assert found.tags["run_id"] == found.run_id == record["versions"]["vae"]["run_id"]
    outputs = get_client().get_run(found.run_id).outputs.model_outputs
    assert len(outputs) == 3
    for output in outputs:
        model = get_client().get_logged_model(output.model_id)
        measured = {metric.key: (metric.value, metric.dataset_digest) for metric in model.metrics}
        assert measured == {
            "evaluate.frechet": (2.0, DIGEST[:36]),
            "evaluate.bits_per_dim_bound": (1.0, DIGEST[:36]),
        }
    get_client().create_registered_model("other")
    for search in ("search_registered_models", "search_model_versions"):  # MLflow answers page by page
        whole = getattr(type(get_client()), search)
        monkeypatch.setattr(type(get_client()), search, functools.partialmethod(whole, max_results=1))
    assert tracking.model_names() == ["digits", "other"]
    assert [version.number for version in tracking.versions("digits")] == [1, 2, 3]


@pytest.mark.usefixtures("stand_ins")
def test_other_code_makes_another_version_of_the_same_weights(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = registered(project, "vae")["versions"]["vae"]
    with monkeypatch.context() as patch:
        patch.setattr(identity, "code_digest", lambda family, package: "beef" * 16)
        second = registered(project, "vae")["versions"]["vae"]
    assert (first["version"], second["version"]) == (1, 4)  # 2 and 3 have the jobs
    assert first["model_digest"] == second["model_digest"]
    code = [version.tags["code_digest"] for version in tracking.versions("digits")]
    assert code == [first["code_digest"]] * 3 + ["beef" * 16]
    assert registered(project, "vae")["versions"]["vae"] == first  # the code of before is the version of before


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("last_act", ["create_model_version", "finalize_logged_model", "log_model_artifacts"])
def test_a_kill_while_registering_leaves_one_version(
    project: Path, monkeypatch: pytest.MonkeyPatch, last_act: str
) -> None:
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, last_act, killed)
        with pytest.raises(KeyboardInterrupt):
            registered(project, "vae")
    assert not (project / "runs/digits/registry.json").exists()
    registered(project, "vae")
    assert [version.tags.get("job", "") for version in tracking.versions("digits")] == ["", "generation", "density"]
    experiment = MlflowClient().get_experiment_by_name("digits")
    assert experiment is not None
    logged = MlflowClient().search_logged_models([experiment.experiment_id])
    assert [model.status for model in logged].count("READY") == 3


@pytest.mark.usefixtures("stand_ins")
def test_aliases_move_for_a_reason(project: Path) -> None:
    registered(project, "vae")
    finish(project, "gan")
    measure(project, "gan", frechet=1.95)
    stays = registered(project, "vae", "gan")["jobs"]["generation"]
    assert (stays["family"], stays["moved"]) == ("vae", False)
    assert "does not beat" in stays["why"]
    measure(project, "gan", frechet=1.0)  # evaluated again
    (project / "params.yaml").write_text("seed: 1")
    moves = registered(project, "vae", "gan")["jobs"]
    assert (moves["generation"]["family"], moves["generation"]["moved"]) == ("gan", True)
    for found in tracking.versions("digits"):
        if found.tags["family"] == "gan":
            known = tracking.with_record(found).record  # as the registry has it, not as it was just told
            assert [known["metrics"]["frechet"][key] for key in ("value", "low", "high")] == [1.0, 0.9, 1.1]
            assert "params_sha256" not in known  # how a version came to be is not rewritten
            assert len(found.tags) <= 12
    assert moves["density"]["family"] == "vae"
    assert len(tracking.versions("digits")) == 5  # a family each, and one for each time an alias moved
    gone = registered(project, "vae")["jobs"]["generation"]
    assert (gone["family"], gone["moved"]) == ("vae", True)
    assert "no longer among the families" in gone["why"]


@pytest.mark.usefixtures("stand_ins")
def test_the_same_weights_of_two_runs_are_measured_alike(project: Path) -> None:
    """What a version of either run says of its measurement is that of the last, what it says of its origin is not."""
    (project / "params.yaml").write_text("seed: 0")
    folder = project / "runs/digits/models/vae"
    model, facts = model_folder.load(folder)
    get_client().set_tag(facts["run_id"], "git_commit", "1" * 40)
    first = registered(project, "vae")["versions"]["vae"]
    again = train("vae", 0, again="again")
    get_client().set_tag(again, "git_commit", "2" * 40)
    model_folder.save(model, folder, facts | {"run_id": again})
    (project / "params.yaml").write_text("seed: 1")
    measure(project, "vae", yardstick="y2", frechet=5.0, bits_per_dim_bound=1.0, elsewhere=1.0)
    register.register("digits", ["vae"], root=project, jobs={**JOBS, "anomaly": ("elsewhere",)})
    found = tracking.versions("digits")
    assert [version.run_id == first["run_id"] for version in found] == [True, True, True, False]
    assert [version.tags["git_commit"][0] for version in found] == list("1112")
    told = [(version.tags["yardstick_digest"], tracking.with_record(version).record) for version in found]
    assert [(digest, record["metrics"]["frechet"]["value"]) for digest, record in told] == [("y2", 5.0)] * 4
    assert [record["params_sha256"] == told[0][1]["params_sha256"] for _, record in told] == [True, True, True, False]


@pytest.mark.usefixtures("stand_ins")
def test_a_record_that_cannot_be_read_moves_no_alias(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of artifacts that is away is not a version without a record."""
    import requests

    registered(project, "vae")
    finish(project, "gan")
    measure(project, "gan", frechet=99.0)
    before = tracking.aliases("digits")
    (holder,) = [version for version in tracking.versions("digits") if version.number == before["generation"]]

    def unavailable(*_: object, **__: object) -> None:
        raise requests.HTTPError("503 Server Error: Service Unavailable")

    for call in ("mlflow.MlflowClient.list_artifacts", "mlflow.artifacts.load_dict"):
        with monkeypatch.context() as patch:
            patch.setattr(call, unavailable)
            with pytest.raises(ConnectionError, match=r"of the run .*, cannot be read .*503.*again"):
                registered(project, "gan")
        assert tracking.aliases("digits") == before
    with_no_record = dataclasses.replace(holder, run_id="0" * 32)  # of a run that was deleted
    assert tracking.with_record(with_no_record).record == {}


def test_held_out_scores_come_by_evaluating_again(project: Path) -> None:
    """A version's files never change: other scores make other versions of the model, to which its aliases go."""
    jobs = {"anomaly": ("auroc",), **JOBS}
    measured = {"frechet": 2.0, "auroc": -0.9, "probe_accuracy": 0.75}
    held_out: list[list[float]] = []
    for scores in ([], [2.0, 1.0], [2.0, 1.0], [3.0]):
        measure(project, "vae", held_out=scores, **measured)
        register.register("digits", ["vae"], root=project, jobs=jobs)
        model = tracking.load_served("models:/digits@anomaly")
        held_out.append(model.unwrap_python_model().version["held_out_scores"])
        if not scores:
            with pytest.raises(ValueError, match="evaluate and register the model again"):
                model.predict(rows(1))
    assert held_out == [[], [1.0, 2.0], [1.0, 2.0], [3.0]]
    found = tracking.versions("digits")
    assert len(found) == 3 * 3
    assert len({version.tags["model_digest"] for version in found}) == 1
    assert set(tracking.aliases("digits").values()) == {8, 9}
    pages = [get_client().get_model_version("digits", str(version.number)).description for version in found]
    assert all("| representation | probe_accuracy | 0.75 |" in page for page in pages)  # after jobs it cannot do
    assert ["it has no held-out scores" in page for page in pages] == [True] * 3 + [False] * 6
    assert ["from 2 held-out rows" in page for page in pages] == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.usefixtures("stand_ins")
def test_a_holder_of_other_data_or_another_yardstick_is_replaced(project: Path) -> None:
    registered(project, "vae")
    finish(project, "gan")
    for family in ("vae", "gan"):
        measure(project, family, yardstick="y2", frechet=5.0 if family == "vae" else 4.0)
    assert registered(project, "gan", "vae")["jobs"]["generation"]["family"] == "gan"
    other = "beef" * 16
    finish(project, "vae", seed=1, data=other)
    measure(project, "vae", data=other, frechet=9.0)
    moved = registered(project, "vae")["jobs"]["generation"]
    assert (moved["family"], moved["moved"], moved["value"]) == ("vae", True, 9.0)
    finish(project, "vae", seed=2, data=DIGEST)
    measure(project, "vae", frechet=99.0)
    back = registered(project, "vae")["jobs"]["generation"]
    assert (back["value"], back["moved"]) == (99.0, True)
    assert "for other data" in back["why"]


@pytest.mark.usefixtures("stand_ins")
def test_a_holder_by_another_yardstick_cannot_be_compared(project: Path) -> None:
    registered(project, "vae")
    finish(project, "vae", seed=1)
    measure(project, "vae", yardstick="y2", frechet=9.0)  # worse, by other means
    moved = registered(project, "vae")["jobs"]["generation"]
    assert (moved["value"], moved["moved"]) == (9.0, True)
    assert "by another yardstick (y1)" in moved["why"]


def test_what_is_missing_is_named(project: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"models/gan.*fivefold train"):
        registered(project, "vae", "gan")
    assert not tracking.versions("digits")  # all is checked before anything is registered
    measure(project, "vae", data="other", frechet=1.0)
    with pytest.raises(ValueError, match=r"results/vae.json was measured on data other"):
        registered(project, "vae")
    (project / "runs/digits/results/vae.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"results/vae.json.*fivefold evaluate --family vae"):
        registered(project, "vae")


def test_results_that_cannot_be_compared_are_refused(project: Path) -> None:
    finish(project, "gan")
    measure(project, "gan", yardstick="y2", frechet=1.0)
    with pytest.raises(ValueError, match=r"differ in yardstick_digest \(vae y1, gan y2\)"):
        registered(project, "vae", "gan")


def test_the_code_of_another_family_makes_no_new_version(tmp_path: Path) -> None:
    package = tmp_path / "fivefold_models"
    shutil.copytree(ROOT / "models", package)
    shutil.copytree(ROOT / "pipelines/serving", package / "serving")
    shutil.copytree(ROOT / "data/formats", package / "serving/formats")
    before = {family: code_digest(family, package) for family in FAMILIES}
    assert len(set(before.values())) == len(before)
    players = package / "gan/players.py"
    players.write_text(players.read_text() + "\n# a comment\n")
    assert before == {family: code_digest(family, package) for family in FAMILIES}
    players.write_text(players.read_text() + "\nx = 1\n")
    after = {family: code_digest(family, package) for family in FAMILIES}
    assert {family for family in FAMILIES if before[family] != after[family]} == {"gan"}
    for path in ("networks/embeddings.py", "serving/formats/instants.py", "serving/calibration.py"):  # used by all
        (package / path).write_text((package / path).read_text() + "\nx = 1\n")
        assert all(code_digest(family, package) != after[family] for family in FAMILIES), path
        after = {family: code_digest(family, package) for family in FAMILIES}


def test_code_that_lies_elsewhere_is_other_code(tmp_path: Path) -> None:
    """Two versions in one process: the same files in other folders are not the same package."""
    from pipelines.serving.entry import vendored
    from pipelines.tracking.vouching import staged

    names = []
    for folder in ("zone_one", "zone_two"):  # last of all either way
        with vendored_code() as package:
            (package / folder).mkdir()
            (package / folder / "part.py").write_text("x = 1")
            root = staged(package, tmp_path / folder)
            names.append(vendored(root).__name__)
            assert vendored(root) is sys.modules[names[-1]]
    assert len(set(names)) == 2


# What is served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Callable[[str], Any]:
    """Every family's model as MLflow loads it, from a folder."""
    loaded: dict[str, Any] = {}

    def load(family: str) -> Any:
        if family not in loaded:
            import mlflow

            root = tmp_path_factory.mktemp(family)
            save_served(finish(root, family, run=False), root / "served")
            loaded[family] = mlflow.pyfunc.load_model(str(root / "served"))
        return loaded[family]

    tracking.connect(f"sqlite:///{migrated}")
    return load


def save_served(model: Path, folder: Path) -> None:
    """An MLflow model folder."""
    with vendored_code() as package:
        served_files.save_served(folder, model=model, package=package, run_id="r", model_id="m")


def rows(n: int) -> np.ndarray:
    """Random images."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_of_every_family(served: Callable[[str], Any], family: str) -> None:
    model, x = served(family), rows(4)
    inner = model.unwrap_python_model()
    images = {"sample": 16, "reconstruct": 4, "interpolate": 2 * 16, "denoise": 4, "translate": 4}
    codes = model.predict(x, params={"task": "encode"}) if "encode" in inner.tasks else np.zeros((0, 0))
    for task in inner.tasks:
        given = codes if task == "decode" else x
        result = model.predict(given, params={"task": task})
        again = model.predict(given, params={"task": task})
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, again)
        if task in images or task in ("decode", "impute"):
            assert (result.dtype, result.shape) == (np.uint8, (images.get(task, 4), 8, 8, 1)), task
        elif task == "encode":
            assert (result.dtype, result.shape[0], result.ndim) == (np.float32, 4, 2)
        else:
            assert (result.dtype.kind, result.shape) == ("f", (4,)), task
            assert np.isfinite(result).all()
    for task in inner.tasks:
        empty = model.predict(NO_ROWS, params={"task": task})
        assert empty.shape[0] == (16 if task == "sample" else 0), task


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling(served: Callable[[str], Any], family: str) -> None:
    model = served(family)

    def draw(**params: int) -> np.ndarray:
        return model.predict(NO_ROWS, params={"task": "sample", **params})

    assert draw(n=0).shape == (0, 8, 8, 1)
    assert draw(n=300, label=9).shape == (300, 8, 8, 1)
    assert np.array_equal(draw(seed=5), draw(seed=5))
    assert not np.array_equal(draw(seed=5), draw(seed=6))
    assert set(np.unique(draw())) <= set(np.round(np.arange(17) * 255 / 16))


def test_how_a_version_draws_is_asked_for_at_use(served: Callable[[str], Any]) -> None:
    """A flow at almost no temperature draws one image per class, and the next call is the version's own again."""
    flow, own = served("flow"), {"task": "sample", "n": 6, "label": 3}
    before = flow.predict(NO_ROWS, params=own)
    cold = flow.predict(NO_ROWS, params=own | {"temperature": 1e-6})
    assert (cold == cold[0]).all()
    assert not (before == before[0]).all()
    assert np.array_equal(before, flow.predict(NO_ROWS, params=own))
    described = flow.predict(NO_ROWS, params={"task": "describe"})
    assert described["sampling"] == {"temperature": 1.0, "detail": 1.0, "sweeps": 6}
    assert described["params"]["temperature"] == 1.0
    listed = {param.name: (param.dtype.name, param.default) for param in flow.metadata.signature.params}
    assert listed["temperature"] == ("double", 1.0)
    for wrong, told in (
        ({"guidance": 2.0}, r"unknown params guidance; known: task, .*temperature, detail, sweeps"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": "warm"}, "temperature must be a number, got 'warm'"),
    ):
        with pytest.raises(ValueError, match=told):
            flow.predict(NO_ROWS, params=own | wrong)
    few, many = (served("diffusion").predict(NO_ROWS, params=own | steps) for steps in ({"steps": 3}, {"steps": 30}))
    assert not np.array_equal(few, many)
    own = {"sampler": "heun", "steps": 18}  # the model's steps are those of all it draws, as where it fills in rows
    for asked, changed in ({"steps": 3}, {"steps": 3}), ({"steps": 0}, {}), ({"sampler": "ddim"}, {"sampler": "ddim"}):
        assert checked(asked, (), 0, own)["sampling"] == changed
    assert checked({"steps": 3}, (), 0)["sampling"] == {}


def test_unlisted_tasks_are_refused_with_those_it_can(served: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"autoencoder\) cannot do task 'log_prob'; it can do: sample, encode"):
        served("autoencoder").predict(rows(1), params={"task": "log_prob"})


MISSING = np.full((1, 8, 8, 1), np.nan)


@pytest.mark.parametrize(
    ("given", "params", "message"),
    [
        (rows(2)[:, :7], {"task": "reconstruct"}, r"\[rows, 8, 8, 1\], got shape \[2, 7, 8, 1\]"),
        (rows(2)[..., 0], {"task": "reconstruct"}, r"got shape \[2, 8, 8\]"),
        (rows(2) / 255, {"task": "encode"}, r"uint8 images .*, got float64.*0 to 255"),
        (rows(2) > 9, {"task": "encode"}, "got bool"),
        (rows(2).astype(int) + 200, {"task": "encode"}, r"row 0 has \d+ at \[\d, \d, 0\]: .*0 to 255"),
        (MISSING, {"task": "reconstruct"}, r"row 0 has nan at \[0, 0, 0\]: .*no missing cells"),
        (MISSING, {"task": "denoise"}, "no missing cells"),
        (np.full((1, 8, 8, 1), np.inf), {"task": "denoise"}, "finite"),
        ({"a": rows(1)}, {"task": "encode"}, "got dict"),
        ([[1], [2, 3]], {"task": "encode"}, "unequal"),
        (np.zeros((1, 99)), {"task": "decode"}, r"float codes \[rows, 4\], got float64 \[1, 99\]"),
        (np.full((1, 4), np.nan), {"task": "decode"}, "finite"),
        (rows(3), {"task": "interpolate"}, "pairs.*got 3"),
        (NO_ROWS, {"label": 10}, r"label must be -1 \(any\) or 0 to 9 \(0, 1, .*9\), got 10"),
        (NO_ROWS, {"label": -2}, "label must be .* at least -1, got -2"),
        (NO_ROWS, {"n": -1}, "n must be .* at least 0, got -1"),
        (NO_ROWS, {"n": 10**12}, "too many"),
        (NO_ROWS, {"steps": -1}, "steps must be"),
        (rows(1), {"task": "elbo", "draws": 0}, "draws must be .* at least 1"),
        (rows(1), {"task": "denoise", "sigma": 0.0}, "sigma must be a positive number"),
        (rows(1), {"task": "denoise", "sigma": float("nan")}, "sigma must be a positive number"),
        (rows(1), {"task": "denoise", "strength": 1.5}, "strength must lie between 0 and 1"),
    ],
)
def test_wrong_inputs_are_named(served: Callable[[str], Any], given: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        served("vae").predict(given, params=params)
    assert "\n" not in str(caught.value)


def test_whole_numbers_and_noisy_floats_are_taken(served: Callable[[str], Any]) -> None:
    model, x = served("vae"), rows(2)
    codes = model.predict(x, params={"task": "encode"})
    np.testing.assert_array_equal(model.predict(x.tolist(), params={"task": "encode"}), codes)
    noisy = x + np.random.default_rng(1).normal(0, 30, x.shape)
    assert model.predict(noisy, params={"task": "denoise", "sigma": 30.0}).shape == x.shape


def test_imputation_reads_missing_cells() -> None:
    from pipelines.serving.domains.image import Images

    images = Images({"kind": "image", "channels": 1, "height": 8, "width": 8})
    x = rows(2).astype(np.float32)
    x[1, 2, 3, 0] = np.nan
    read = images.read(x, "impute")
    assert read.x.dtype == torch.uint8
    assert int((~read.observed).sum()) == 1
    assert not read.observed[1, 2, 3, 0]
    with pytest.raises(ValueError, match="missing ones NaN"):
        images.read(x + 0.5, "impute")
    as_json = x.astype(object)
    as_json[1, 2, 3, 0] = None
    assert torch.equal(images.read(as_json, "impute").observed, read.observed)


def test_interpolation_ends_at_its_ends(served: Callable[[str], Any]) -> None:
    model, x = served("flow"), rows(4)
    path = model.predict(x, params={"task": "interpolate", "n": 5}).reshape(2, 5, 8, 8, 1)
    ends = model.predict(model.predict(x, params={"task": "encode"}), params={"task": "decode"})
    np.testing.assert_array_equal(path[:, 0], ends[0::2])
    np.testing.assert_array_equal(path[:, -1], ends[1::2])


def test_nothing_is_pickled_and_tampering_is_refused(tmp_path: Path) -> None:
    import mlflow

    save_served(finish(tmp_path, "vae", run=False), tmp_path / "served")
    described = (tmp_path / "served" / "MLmodel").read_text()
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in described
    assert "python_model:" not in described  # where a pickle would be named
    names = {path.suffix for path in (tmp_path / "served").rglob("*") if path.is_file()}
    assert names == {".py", ".json", ".safetensors", ".yaml", ".txt", ""}
    needs = (tmp_path / "served" / "requirements.txt").read_text().split()
    assert sorted(line.split("==")[0] for line in needs) == ["mlflow", "numpy", "safetensors", "torch"]
    (weights,) = (tmp_path / "served").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(mlflow.MlflowException, match=r"model.safetensors in .* is not the file that was saved"):
        mlflow.pyfunc.load_model(str(tmp_path / "served"))


def test_two_versions_with_other_code_live_together(tmp_path: Path) -> None:
    import mlflow

    folder = finish(tmp_path, "vae", run=False)
    save_served(folder, tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    code = tmp_path / "old/code/fivefold_models/vae/__init__.py"
    code.write_text(code.read_text().replace("class VAE(", "OLD = True\n\n\nclass VAE("))
    vouching.seal(tmp_path / "old")
    old, new = (mlflow.pyfunc.load_model(str(tmp_path / name)).unwrap_python_model() for name in ("old", "new"))
    modules = [sys.modules[type(model.model).__module__] for model in (old, new)]
    assert [hasattr(module, "OLD") for module in modules] == [True, False]


ALONE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "dvc", "jaxtyping", "beartype", "pipelines", "data", "optuna", "PIL"}:
            raise ImportError(f"{name} is not installed here")
if len(sys.argv) > 2:
    sys.meta_path.insert(0, Absent())
sys.path.insert(0, "")
"""
"""Nothing of this repository can be imported if a second argument says so."""

DOWNSTREAM = """
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
images = model.predict(np.zeros((0, 8, 8, 1), np.uint8), params={"n": 5, "label": 3, "seed": 1})
assert (images.dtype, images.shape) == (np.uint8, (5, 8, 8, 1)), (images.dtype, images.shape)
assert model.predict(images, params={"task": "reconstruct"}).shape == (5, 8, 8, 1)
assert "models" not in sys.modules and "ray" not in sys.modules
try:
    import models
except RuntimeError:
    print("served", images.sum())
"""


def downstream(folder: Path, python: str | Path, *arguments: str, store: Path, code: str = DOWNSTREAM) -> str:
    """What a team prints that loads the model in a folder with a broken package called `models`."""
    (folder / "models").mkdir(parents=True)
    (folder / "models/__init__.py").write_text("raise RuntimeError('ours, and broken')")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
    }
    command = [str(python), "-I", "-c", ALONE + code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_downstream_team_needs_neither_this_repository_nor_ray(project: Path) -> None:
    registered(project, "vae")
    printed = downstream(project / "team", PYTHON, "models:/digits@generation", "absent", store=project)
    expected = tracking.load_served("models:/digits@generation").predict(
        NO_ROWS, params={"n": 5, "label": 3, "seed": 1}
    )
    assert printed == f"served {expected.sum()}\n"


@pytest.mark.slow
def test_a_bare_environment(project: Path) -> None:
    """A venv with mlflow, torch, safetensors and numpy from the package index, and nothing else."""
    registered(project, "vae")
    python = project / "venv/bin/python"
    subprocess.run([PYTHON, "-m", "venv", str(project / "venv")], check=True)
    needs = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch", "safetensors", "numpy")]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needs], check=True)
    assert "served" in downstream(project / "team", python, "models:/digits@generation", store=project)


@pytest.mark.slow
def test_the_registry_of_a_real_server(store: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    with server(store, free_port):
        for family in ("vae", "gan"):
            run_id = model_folder.load(finish(store, family))[1]["run_id"]
            measure(store, family, frechet=2.0)
            results = json.loads((store / f"runs/digits/results/{family}.json").read_text())
            tracking.log_evaluation(run_id, results)
        for _ in range(2):
            record = registered(store, "vae", "gan")
        assert record["jobs"]["generation"]["family"] == "vae"
        assert len(tracking.versions("digits")) == 3
        drawn = np.load(sample.sample("digits", store / "a.npy", n=3))
        assert drawn.shape == (3, 8, 8, 1)
        (frechet,) = get_client().get_metric_history(run_id, "evaluate.frechet")
        assert (frechet.step, frechet.value) == (0, 2.0)


# The verb `sample`


def test_sampling_into_files(project: Path) -> None:
    registered(project, "vae")
    options = {"n": 5, "label": 3, "seed": 1}
    array = np.load(sample.sample("digits", project / "out/a.npy", **options))
    assert (array.dtype, array.shape) == (np.uint8, (5, 8, 8, 1))
    sheet = Image.open(sample.sample("digits@density", project / "out/a.png", **options))
    assert sheet.size == (3 * 32 + 2 * 2, 2 * 32 + 2)
    np.testing.assert_array_equal(np.asarray(sheet)[:32:4, :32:4], array[0, ..., 0])
    folder = sample.sample("models:/digits/1", project / "out/pictures", **options)
    assert [path.name for path in sorted(folder.iterdir())] == [f"{i}.png" for i in range(5)]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "4.png")), array[4, ..., 0])
    assert sorted(path.name for path in (project / "out").iterdir()) == ["a.npy", "a.png", "pictures"]
    drawn = np.load(sample.sample("digits", project / "out/b.npy", setting=["draw_pixels=true"], **options))
    assert drawn.shape == array.shape
    assert not np.array_equal(drawn, array)  # of the likelihood, not its mean
    for wrong, told in (
        ({"guidance": 2.0}, r"this model \(vae\) has no setting guidance; it has draw_pixels"),
        ({"setting": ["draw_pixels=2"]}, "draw_pixels must be true or false, got 2"),
        ({"setting": ["draw_pixels"]}, "--set takes NAME=X"),
        ({"setting": ["detail=0.5", "detail = 1"]}, "detail is set twice"),
        ({"temperature": 0.5, "setting": ["temperature=1"]}, "temperature is set twice"),
    ):
        with pytest.raises(ValueError, match=told):
            sample.sample("digits", project / "b.npy", **wrong)
    with pytest.raises(ValueError, match="nosuch@generation cannot be loaded"):
        sample.sample("nosuch", project / "b.png")
    with pytest.raises(ValueError, match="label must be"):
        sample.sample("digits", project / "b.png", label=11)
    with pytest.raises(ValueError, match="n must be"):
        sample.sample("digits", project / "b.png", n=0)
    assert not (project / "b.png").exists()


# Lineage


@pytest.fixture
def traced(store: Path) -> Path:
    """A project whose model was trained on truly prepared digits."""
    from pipelines.stages.prepare import prepare

    (store / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", store / "data/catalog")
    digest = prepare("digits", root=store)["digest"]
    finish(store, "vae", data=digest)
    measure(store, "vae", data=digest, frechet=2.0)
    registered(store, "vae")
    return store


def test_lineage_from_alias_to_source(traced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    links = verify("digits", "generation", root=traced)
    assert [link.name for link in links] == ["alias", "files", "model", "run", "data", "source"]
    assert capsys.readouterr().out.count("ok ") == 6
    with pytest.raises(ValueError, match=r"@nosuch does not exist; aliases of digits: generation"):
        verify("digits", "nosuch", root=traced)


def test_a_copy_has_the_same_lineage_also_without_the_trainers_disk(
    traced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    get_client().copy_model_version("models:/digits@generation", "digits-prod")
    get_client().set_registered_model_alias("digits-prod", "generation", "1")
    assert [link.fault or link.absent for link in verify("digits-prod", "generation", root=traced)] == [""] * 6
    shutil.rmtree(traced / "data")
    shutil.rmtree(traced / "runs")
    capsys.readouterr()
    assert main(["lineage", "digits-prod@generation"]) == 0
    said = capsys.readouterr().out
    assert [line[:9] for line in said.splitlines()] == ["ok  alias", "ok  files", "ok  model", "ok  run  ", "not data "]
    assert "where the model was trained the rest of the chain can be checked" in said
    for weights in (traced / "mlruns").rglob("model.safetensors"):
        weights.write_bytes(b"others")
    assert main(["lineage", "digits-prod@generation"]) == 1
    assert "is broken. files: every file of the version" in capsys.readouterr().err


def test_broken_lineage_is_named(traced: Path) -> None:
    said: list[str] = []
    copies = list((traced / "mlruns").rglob("model.safetensors"))  # of the version without a job, and of the alias'
    (content,) = {weights.read_bytes() for weights in copies}
    for weights in copies:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"files: .*model.safetensors in .* is not the file that was saved"):
        verify("digits", "generation", root=traced, say=said.append)
    assert [line[:3] for line in said] == ["ok ", "BAD", "ok ", "ok ", "ok "]
    for weights in copies:
        weights.write_bytes(content)
    (traced / "digits.npz").write_bytes(b"edited")
    card = traced / "data/catalog/digits.yaml"
    stated = card.read_text()
    card.write_text(stated.replace("  builtin: digits\n", "  path: digits.npz\n  format: npz\n"))
    with pytest.raises(ValueError, match=r"source: .*, SHA-256 87ff.*digits.npz has changed since"):
        verify("digits", "generation", root=traced, say=said.append)
    card.write_text(stated)
    number = str(tracking.aliases("digits")["generation"])
    digest = json.loads((traced / "data/prepared/digits/manifest.json").read_text())["digest"]
    get_client().set_model_version_tag("digits", number, "data_digest", DIGEST)
    told = rf"run: .*was not given data {DIGEST[:12]}.* data: .*now holds data {digest[:12]}"
    with pytest.raises(ValueError, match=told):
        verify("digits", "generation", root=traced, say=said.append)
    get_client().set_model_version_tag("digits", number, "data_digest", digest)
    card.write_text(card.read_text().replace("sha256: 87", "sha256: 99"))
    with pytest.raises(ValueError, match=r"source: digits, SHA-256 87ff.*: the card of digits says SHA-256 99ff"):
        verify("digits", "generation", root=traced, say=said.append)
    shard = next((traced / "data/prepared/digits").glob("train-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"data: .*is damaged"):
        verify("digits", "generation", root=traced, say=said.append)


def test_standing_reads_what_publishing_wrote() -> None:
    score = Metric(value=1.0, low=0.5, high=2.0, unit="nats", better="higher", floor=0.1)
    tags = {"family": "vae", "metric.b": json.dumps(dataclasses.asdict(score)), "data_digest": "d"}
    read = candidate_of(tracking.Version(name="digits", number=3, run_id="", tags=tags), ("a", "b"))
    assert read is not None
    assert (read.metric, read.score, read.data_digest) == ("b", score, "d")
