"""The stages `features` and `evaluate` on real digits, with small models whose answers are known."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.dataset import Dataset, Examples
from models.capabilities import AnomalyScoring, Coding, Density, DensityBound, Reconstruction, Sampling
from models.contract import GenerativeModel
from models.domains import grid
from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.leaderboard import leaderboard
from pipelines.evaluation.reference.build import make
from pipelines.evaluation.reference.reference import Reference
from pipelines.evaluation.storage import whole_folder
from pipelines.evaluation.validation import validation_score
from pipelines.serving import artifact
from pipelines.stages.evaluate import evaluate
from pipelines.stages.features import features
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder

ROOT = Path(__file__).parents[2]
QUICK = ReferenceConfig(examples=8_000, bootstrap=20, samples=600, components=(16,))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prepared digits and their yardstick."""
    root = tmp_path_factory.mktemp("project")
    (root / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", root / "data/catalog/digits.yaml")
    prepare("digits", root=root)
    features("digits", seed=0, settings=QUICK, root=root)
    return root


@pytest.fixture
def yardstick(project: Path) -> Reference:
    return Reference.open(project / "runs/digits/yardstick")


class Memory(GenerativeModel, Sampling):
    """Draws training images with a few pixels one level brighter: as good as real, and a copier."""

    def __init__(self, examples: Examples, brighter: int = 3) -> None:
        super().__init__(grid.Image(channels=1, height=8, width=8, levels=17), 10)
        self.examples, self.brighter = examples, brighter
        self.label_frequencies.copy_(torch.bincount(examples.label, minlength=10) / len(examples))

    def objectives(self):
        return ()

    def sample(self, n, label, generator, *, steps=0):
        label = self.draw_labels(n, label, generator)
        order = generator.uniform(len(self.examples)).argsort()
        picks = [order[self.examples.label[order] == c] for c in range(10)]
        taken = generator.integers(10_000, n)
        x = torch.stack([self.examples.x[picks[c][i % len(picks[c])]] for c, i in zip(label, taken, strict=True)])
        touched = generator.uniform(*x.flatten(1).shape).argsort(1).argsort(1).view(x.shape) < self.brighter
        return (x.int() + 16 * touched).clamp(max=255).to(torch.uint8)


class Everything(Memory, Density, DensityBound, Coding, Reconstruction, AnomalyScoring):
    """Can do all there is, with answers that are easily checked."""

    def log_prob(self, x, generator):
        return torch.full((len(x),), -64 * math.log(17))

    def elbo(self, x, generator, *, samples=1):
        return self.log_prob(x, generator) - 64 / samples

    def encode(self, x):
        return x.flatten(1) / 255

    def decode(self, z):
        return (z * 255).round().clamp(0, 255).to(torch.uint8).view(-1, 8, 8, 1)

    def reconstruct(self, x, generator):
        return torch.where(x == 0, 51, x.int()).clamp(max=255).to(torch.uint8)

    def anomaly_score(self, x, generator):
        known = self.examples.x.flatten(1).float()
        return torch.cdist(x.flatten(1).float(), known).min(1).values


class Broken(Everything):
    def log_prob(self, x, generator):
        return super().log_prob(x, generator).index_fill(0, torch.tensor([3, 5]), torch.nan)


class Noise(Memory):
    def sample(self, n, label, generator, *, steps=0):
        return generator.integers(256, n, 8, 8, 1).to(torch.uint8)


def measured(project: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Memory], name: str, **options) -> dict:
    dataset = Dataset.open(project / "data/prepared/digits")
    model = kind(dataset.split("train").all())
    monkeypatch.setattr(model_folder, "load", lambda folder, device: (model, {"data_digest": dataset.digest}))
    monkeypatch.setattr(artifact, "model_digest", lambda folder: "0" * 64)
    return evaluate("digits", name, root=project, **({"samples": 600, "bootstrap": 20, "bound_samples": 2} | options))


# features


def test_the_yardstick_is_good_and_says_what_it_is(yardstick: Reference, project: Path):
    facts = yardstick.facts
    assert facts["networks"]["classifier"]["accuracy"]["test"] >= 0.97
    assert facts["networks"]["judge"]["accuracy"]["test"] >= 0.96
    assert facts["data_digest"] == Dataset.open(project / "data/prepared/digits").digest
    floors, baseline = facts["reference"]["floors"], facts["reference"]["baseline"]
    assert 0 < floors["frechet"]["value"] < baseline["frechet"]["value"] < 5
    assert floors["coverage"]["value"] == pytest.approx(1 - 2**-5, abs=0.04)
    assert baseline["accuracy"]["value"] > 0.95
    assert set(baseline) >= {"near_copies", "probe_accuracy", "anomaly_auroc", "reconstruction_rmse", "bits_per_dim"}
    train = yardstick.spaces["random"].rows["train"]
    assert train.mean(0) == pytest.approx(np.zeros(64), abs=1e-4)
    assert not list(project.rglob("*.pt")) + list(project.rglob("*.pkl"))


def test_the_same_seed_gives_the_same_bytes(project: Path, tmp_path: Path):
    dataset = Dataset.open(project / "data/prepared/digits")
    settings = dataclasses.replace(QUICK, examples=640, bootstrap=3, samples=100)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        make(dataset, "digits", tmp_path / name, seed=seed, settings=settings)
    contents = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two", "other")}
    assert contents["one"] == contents["two"]
    assert contents["one"]["classifier.safetensors"] != contents["other"]["classifier.safetensors"]


def test_an_altered_yardstick_is_refused(project: Path, tmp_path: Path):
    folder = tmp_path / "yardstick"
    shutil.copytree(project / "runs/digits/yardstick", folder)
    with (folder / "judge.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x7f")
    with pytest.raises(ValueError, match=r"judge\.safetensors is not the file that was made.*fivefold features"):
        Reference.open(folder)
    with pytest.raises(FileNotFoundError, match="no yardstick"):
        Reference.open(tmp_path / "nowhere")


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path):
    folder = tmp_path / "yardstick"
    with whole_folder(folder) as new:
        (new / "a").write_text("old")

    def fail() -> None:
        with whole_folder(folder) as new:
            (new / "a").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (folder / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


class Rows:
    """A dataset in memory: random rows of two lumps, one table or images without labels."""

    digest, splits = "0" * 64, ("train", "val", "test")

    def __init__(self, kind: str, class_names: list[str]) -> None:
        random = np.random.default_rng(0)
        self.kind, self.class_names, self.examples = kind, class_names, {}
        for split, n in (("train", 200), ("val", 30), ("test", 60)):
            label = torch.arange(n) % 2
            if kind == "table":
                column = random.standard_normal((n, 2)) + 4 * label[:, None].numpy()
                x = torch.from_numpy(np.column_stack([column, label.numpy()])).double()
                x[::7, 1] = torch.nan
            else:
                bright = (random.random((n, 8, 8, 1)) < 0.2 + 0.6 * label.view(-1, 1, 1, 1).numpy()) * 255
                x = torch.from_numpy(bright.astype(np.uint8))
            self.examples[split] = Examples(x=x, label=label if class_names else torch.full((n,), -1))
        number = {"type": "continuous", "mean": 2.0, "std": 2.2, "min": -4.0, "max": 9.0}
        columns = [
            {"name": "a", **number, "missing": 0},
            {"name": "b", **number, "missing": 29},
            {"name": "c", "type": "categorical", "categories": ["x", "y"], "missing": 0},
        ]
        image = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 2}
        self.domain = image if kind == "image" else {"kind": "table", "columns": columns}

    def split(self, name: str) -> SimpleNamespace:
        rows = self.examples[name]

        class Split(SimpleNamespace):
            def __len__(self) -> int:
                return len(rows)

        return Split(all=lambda: rows, take=lambda i: Examples(x=rows.x[i], label=rows.label[i]))


@pytest.mark.parametrize(("kind", "names"), [("image", []), ("table", []), ("table", ["low", "high"])])
def test_unlabelled_images_and_tables_have_a_yardstick_too(kind: str, names: list[str], tmp_path: Path):
    settings = ReferenceConfig(examples=1_000, samples=150, bootstrap=3, components=(2,), clusters=2)
    make(Rows(kind, names), "rows", tmp_path / "yardstick", seed=0, settings=settings)
    made = Reference.open(tmp_path / "yardstick")
    assert (made.label_classifier is not None) is bool(names)
    assert ("accuracy" in made.facts["reference"]["baseline"]) is bool(names)
    assert made.facts["labels"].startswith("given" if names else "none given: 2 k-means clusters")
    role = "classifier" if kind == "image" else "judge"
    assert (kind == "table" and not names) or made.facts["networks"][role]["accuracy"]["test"] > 0.9
    assert math.isfinite(made.facts["reference"]["floors"]["frechet"]["value"])


def test_settings_out_of_range_are_named():
    for name, value in {"examples": 0, "learning_rate": -1.0, "bootstrap": -1, "clusters": 1, "components": ()}.items():
        with pytest.raises(ValueError, match=rf"features\.{name} must"):
            ReferenceConfig(**{name: value})


def test_settings_are_known_without_loading_scikit_learn():
    code = "import sys, pipelines.stages.features; sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# evaluate


def test_everything_a_model_can_do_is_measured(project: Path, monkeypatch: pytest.MonkeyPatch):
    found = measured(project, monkeypatch, Everything, "everything")
    folder = project / "runs/digits/results"
    assert json.loads((folder / "everything.json").read_text()) == found
    flat = json.loads((folder / "everything.metrics.json").read_text())
    assert flat == {name: value["value"] for name, value in found["metrics"].items()}
    metrics = found["metrics"]
    assert metrics["bits_per_dim"]["value"] == pytest.approx(math.log2(17), 1e-5)
    assert metrics["bits_per_dim_bound"]["value"] == pytest.approx(math.log2(17) + 0.5 / math.log(2), 1e-5)
    assert metrics["bits_per_dim_bound"]["baseline"] == metrics["bits_per_dim"]["baseline"]
    test = Dataset.open(project / "data/prepared/digits").split("test").all().x
    assert metrics["reconstruction_rmse"]["value"] == pytest.approx(0.2 * math.sqrt((test == 0).double().mean()), 1e-6)
    assert metrics["probe_accuracy"]["value"] > 0.92
    assert metrics["anomaly_auroc"]["value"] > 0.9
    assert metrics["frechet"]["value"] < 3 * metrics["frechet"]["floor"]
    assert metrics["accuracy"]["value"] > 0.95
    assert metrics["coverage"]["value"] > 0.9
    for name, value in metrics.items():
        assert set(value) == {"value", "low", "high", "unit", "better", "floor", "baseline"}, name
        assert value["low"] is None or value["low"] - 1e-9 <= value["value"] <= value["high"] + 1e-9, name
    assert found["copies"]["clean"] is False  # three pixels one level brighter is still a copy
    pictures = ["anomalies.png", "interpolations.png", "nearest.png", "reconstructions.png", "samples.png"]
    assert found["pictures"] == pictures
    with Image.open(folder / "everything/samples.png") as picture:
        assert picture.size == (10 * 32 + 9 * 2, 8 * 32 + 7 * 2)


def test_only_what_a_model_can_do_is_measured(project: Path, monkeypatch: pytest.MonkeyPatch):
    found = measured(project, monkeypatch, Noise, "noise")
    assert not any(name.startswith(("bits", "recon", "probe", "anomaly")) for name in found["metrics"])
    assert found["pictures"] == ["nearest.png", "samples.png"]
    assert found["metrics"]["accuracy"]["value"] < 0.3
    assert found["metrics"]["coverage"]["value"] < 0.2
    assert found["metrics"]["frechet"]["value"] > 20 * found["metrics"]["frechet"]["floor"]
    assert found["metrics"]["c2st"]["value"] > 0.95
    assert found["copies"]["clean"] is True


def test_the_same_seed_measures_the_same(project: Path, monkeypatch: pytest.MonkeyPatch):
    one, two, other = (measured(project, monkeypatch, Memory, "memory", seed=seed) for seed in (0, 0, 1))
    assert one["metrics"] == two["metrics"]
    assert one["metrics"]["frechet"]["value"] != other["metrics"]["frechet"]["value"]


def test_floors_are_of_as_many_rows_as_the_samples(project: Path, monkeypatch: pytest.MonkeyPatch):
    few = measured(project, monkeypatch, Memory, "memory", samples=150)
    many = measured(project, monkeypatch, Memory, "memory", samples=600)
    assert few["settings"]["compared"] == 150
    assert few["metrics"]["frechet"]["floor"] > many["metrics"]["frechet"]["floor"]  # the bias of fewer rows
    assert few["metrics"]["frechet"]["baseline"] > many["metrics"]["frechet"]["baseline"]


def test_numbers_that_are_not_finite_stop_the_stage(project: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="log_prob of Broken is not finite for 2 of 359 rows"):
        measured(project, monkeypatch, Broken, "broken")
    assert not (project / "runs/digits/results/broken.json").exists()
    assert not (project / "runs/digits/results/broken").exists()


def test_a_model_of_other_data_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_folder, "load", lambda folder, device: (None, {"data_digest": "f" * 64}))
    with pytest.raises(ValueError, match=r"model vae in .* was made from other data.*dvc repro"):
        evaluate("digits", "vae", root=project)


def test_the_leaderboard_has_floor_baseline_and_families(project: Path, monkeypatch: pytest.MonkeyPatch):
    for kind, name in ((Everything, "everything"), (Noise, "noise")):
        measured(project, monkeypatch, kind, name)
    table = leaderboard("digits", ["everything", "noise"], root=project)
    assert [row["family"] for row in table] == ["real data", "classical baseline", "everything", "noise"]
    assert table[2]["jobs"] == ["generation", "density", "anomaly", "representation"]
    with pytest.raises(FileNotFoundError, match="fivefold evaluate --family gan"):
        leaderboard("digits", ["gan"], root=project)


def test_the_validation_score_is_quick_steady_and_right(project: Path, yardstick: Reference):
    train = Dataset.open(project / "data/prepared/digits").split("train").all()
    space = yardstick.spaces["classifier"]
    good, noise = (validation_score(kind(train), space) for kind in (Memory, Noise))
    assert good == validation_score(Memory(train), space)
    assert good < 2 < noise
    assert validation_score(Memory(train), space, "test") != good
    with pytest.raises(ValueError, match="no rows of 'holdout'"):
        validation_score(Memory(train), space, "holdout")
