"""The stages `features` and `evaluate` on real digits, with small models whose answers are known."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.dataset import Dataset, Examples
from data.files import json_text, whole_folder
from models.capabilities import AnomalyScoring, Coding, Density, DensityBound, Reconstruction, Sampling
from models.contract import GenerativeModel
from models.domains import grid
from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.leaderboard import leaderboard
from pipelines.evaluation.reference.reference import Reference
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
    features("digits", seed=3, settings=QUICK, root=root)
    return root


@pytest.fixture
def yardstick(project: Path) -> Reference:
    return Reference.open(project / "runs/digits/yardstick")


class Memory(GenerativeModel, Sampling):
    """Draws training images with a few pixels one level brighter: as good as real, and a copier."""

    def __init__(self, examples: Examples, brighter: int = 3) -> None:
        super().__init__(grid.Image(channels=1, height=8, width=8, levels=17), 10)
        self.examples, self.brighter = examples, brighter
        self.weight = torch.nn.Parameter(torch.zeros(7))
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

    def load(folder: Path, device: str) -> tuple[Memory, dict]:
        assert (folder, device) == (project / "runs/digits/models" / name, "cpu")
        return model, {}

    monkeypatch.setattr(model_folder, "load", load)
    monkeypatch.setattr(artifact, "read", lambda folder: ({"data_digest": dataset.digest}, {}))
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
    (folder / "judge.safetensors").unlink()
    with pytest.raises(ValueError, match=r"judge\.safetensors is not the file that was made.*got no file"):
        Reference.open(folder)
    for content, said in (
        ("{", "cannot be read"),
        ('{"format": 2, "files": {}}', "format 2, this Fivefold reads up to 1"),
    ):
        (folder / "yardstick.json").write_text(content)
        with pytest.raises(ValueError, match=said):
            Reference.open(folder)


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
    with whole_folder(folder) as new:
        assert folder.exists()
        (new / "b").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(ValueError):
        json_text({"value": math.nan})


def test_settings_out_of_range_are_named():
    bad = [
        (name, value) for name in ("examples", "batch_size", "learning_rate", "rows", "samples") for value in (0, -1)
    ]
    for name, value in [*bad, ("bootstrap", -1), ("clusters", 1), ("components", ()), ("components", (4, 0))]:
        with pytest.raises(ValueError, match=rf"features\.{name} must"):
            ReferenceConfig(**{name: value})
    one = ReferenceConfig(
        examples=1, batch_size=1, learning_rate=1e-9, rows=20, samples=1, bootstrap=0, components=(1,), clusters=2
    )
    assert (one.bootstrap, one.clusters) == (0, 2)


def test_settings_are_known_without_loading_scikit_learn():
    code = "import sys, pipelines.stages.features; sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# evaluate


def test_everything_a_model_can_do_is_measured(project: Path, monkeypatch: pytest.MonkeyPatch):
    found = measured(project, monkeypatch, Everything, "everything")
    folder = project / "runs/digits/results"
    assert json.loads((folder / "everything.json").read_text()) == found
    dataset, yardstick = (
        Dataset.open(project / "data/prepared/digits"),
        Reference.open(project / "runs/digits/yardstick"),
    )
    assert {key: found[key] for key in ("family", "dataset", "data_digest", "yardstick_digest", "model_digest")} == {
        "family": "everything",
        "dataset": "digits",
        "data_digest": dataset.digest,
        "yardstick_digest": yardstick.digest,
        "model_digest": "0" * 64,
    }
    assert found["parameters"] == 7
    assert found["settings"] == {
        "samples": 600,
        "compared": 600,
        "reference_rows": 359,
        "bootstrap": 20,
        "bound_samples": 2,
        "seed": 0,
    }
    assert yardstick.facts["seed"] == 3
    assert yardstick.facts["reference"]["samples"] == 600
    assert yardstick.facts["baseline"]["components"] == 16
    metrics = found["metrics"]
    headline = json.loads((project / "runs/digits/everything.json").read_text())
    assert headline == {
        "generation↓": metrics["frechet"]["value"],
        "density↓": metrics["bits_per_dim"]["value"],
        "anomaly↑": metrics["anomaly_auroc"]["value"],
        "representation↑": metrics["probe_accuracy"]["value"],
    }
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
    shown = ["anomalies", "interpolations", "nearest", "real", "reconstructions", "samples"]
    explorer = [*(f"explorer-direction-{i}" for i in range(1, 5)), "explorer-ways"]
    assert found["pictures"] == sorted(["explorer.json", *(f"{name}.png" for name in shown + explorer)])
    with Image.open(folder / "everything/samples.png") as picture:
        assert picture.size == (10 * 32 + 9 * 2, 8 * 32 + 7 * 2)


def test_only_what_a_model_can_do_is_measured(project: Path, monkeypatch: pytest.MonkeyPatch):
    found = measured(project, monkeypatch, Noise, "noise")
    assert not any(name.startswith(("bits", "recon", "probe", "anomaly")) for name in found["metrics"])
    assert found["pictures"] == ["nearest.png", "real.png", "samples.png"]
    assert found["metrics"]["accuracy"]["value"] < 0.3
    assert found["metrics"]["coverage"]["value"] < 0.2
    assert found["metrics"]["frechet"]["value"] > 20 * found["metrics"]["frechet"]["floor"]
    assert found["metrics"]["c2st"]["value"] > 0.95
    assert found["copies"]["clean"] is True


def test_the_same_seed_measures_the_same(project: Path, monkeypatch: pytest.MonkeyPatch):
    one, two, other = (measured(project, monkeypatch, Memory, "memory", seed=seed) for seed in (0, 0, 1))
    assert one["metrics"] == two["metrics"]
    assert one["metrics"]["frechet"]["value"] != other["metrics"]["frechet"]["value"]


def test_numbers_that_are_not_finite_stop_the_stage(project: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="log_prob of Broken is not finite for 2 of 359 rows"):
        measured(project, monkeypatch, Broken, "broken")
    assert not (project / "runs/digits/results/broken.json").exists()
    assert not (project / "runs/digits/results/broken").exists()


def test_a_yardstick_of_other_data_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch):
    path = project / "runs/digits/yardstick/yardstick.json"
    facts = path.read_text()
    path.write_text(json.dumps(json.loads(facts) | {"data_digest": "f" * 64}))
    try:
        with pytest.raises(ValueError, match=r"The yardstick in .* was made from other data.*f{64}.*dvc repro"):
            measured(project, monkeypatch, Memory, "memory")
    finally:
        path.write_text(facts)


def test_a_model_of_other_data_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifact, "read", lambda folder: ({"data_digest": "f" * 64}, {}))
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
