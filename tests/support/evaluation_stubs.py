"""A small world for tests of evaluation in which every right answer is known beforehand.

The splits are unlike each other, so that a number computed from the wrong one is a wrong number; the
reference keeps only some rows of each, in an order of its own; the feature spaces are the pixels
themselves; and the model answers by simple rules and keeps a record of what it was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

from data.dataset import Examples
from models.capabilities import AnomalyScoring, Coding, Density, DensityBound, Imputation, Reconstruction, Sampling
from models.contract import GenerativeModel
from models.domains.grid import Image
from models.domains.table import Table
from models.rng import Streams
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.metrics.base import Better, metric
from pipelines.evaluation.reference.reference import Reference, Space

MEAN, STD = 0.25, 0.5
"""What the spaces subtract from the network's features, and divide them by."""
REFERENCE_SEED = 5


class Split(SimpleNamespace):
    """The rows of a split in memory."""

    def __len__(self) -> int:
        return len(self.rows)

    def all(self) -> Examples:
        return self.rows

    def take(self, index: Any) -> Examples:
        index = torch.as_tensor(np.asarray(index, np.int64))
        return Examples(x=self.rows.x[index], label=self.rows.label[index])


class MemoryDataset:
    """What evaluation reads of a prepared dataset."""

    digest = "da7a" * 16

    def __init__(self, domain: dict[str, Any], class_names: list[str], splits: dict[str, Examples]) -> None:
        self.domain, self.kind, self.class_names = domain, domain["kind"], class_names
        self.rows, self.splits = splits, tuple(splits)

    def split(self, name: str) -> Split:
        return Split(rows=self.rows[name])


def pixel_of(label: Tensor) -> Tensor:
    """What the first pixel of an image of a class is."""
    return 60 + 60 * label.clamp(min=0)


def image_dataset(sizes: dict[str, int], *, classes: int = 3, seed: int = 0) -> MemoryDataset:
    """Grey images of two by three pixels between 60 and 195: the first tells the class, the others the split."""
    random = np.random.default_rng(seed)
    level = {"train": 110, "val": 125, "test": 140, "anomaly": 185}
    splits = {}
    for name, n in sizes.items():
        label = torch.from_numpy(
            random.permutation(np.sort(random.integers(0, 2 * classes, n) % (classes + 1)) % classes)
        )
        x = random.normal(level[name], 15, (n, 6)).clip(60, 195).round()
        x[:, 0] = pixel_of(label).numpy()
        splits[name] = Examples(x=torch.from_numpy(x.astype(np.uint8)).view(n, 2, 3, 1), label=label)
    domain = {"kind": "image", "channels": 1, "height": 2, "width": 3, "levels": 256}
    return MemoryDataset(domain, [str(c) for c in range(classes)], splits)


def table_dataset(sizes: dict[str, int], *, seed: int = 0) -> MemoryDataset:
    """Rows of two numbers and a category; the first number tells the class, the second the split."""
    random = np.random.default_rng(seed)
    level = {"train": 0.0, "val": 0.5, "test": 1.0}
    splits = {}
    for name, n in sizes.items():
        label = random.integers(0, 2, n)
        first = random.normal(0, 1, n) + np.where(label, 4.0, -4.0)
        x = np.column_stack([first, random.normal(level[name], 1, n), random.integers(0, 3, n)])
        x[::9, 1] = np.nan
        splits[name] = Examples(x=torch.from_numpy(x), label=torch.from_numpy(label))
    number = {"type": "continuous", "mean": 0.0, "std": 2.0, "min": -9.0, "max": 9.0}
    columns = [
        {"name": "a", **number, "missing": 0},
        {"name": "b", **number, "missing": 9},
        {"name": "c", "type": "categorical", "categories": ["x", "y", "z"], "frequencies": [1, 1, 1], "missing": 0},
    ]
    return MemoryDataset({"kind": "table", "columns": columns}, ["low", "high"], splits)


class Plain(nn.Module):
    """Features that are the network's inputs, each times `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def features(self, y: Tensor) -> Tensor:
        return self.factor * y.flatten(1)


class FirstPixel(nn.Module):
    """A judge that reads an image's class from its first pixel."""

    def forward(self, y: Tensor) -> Tensor:
        pixel = (y.flatten(1)[:, :1] + 1) * 127.5
        return -(pixel - pixel_of(torch.arange(3))).abs()


def points(x: Tensor) -> np.ndarray:
    """Images as points of the first space."""
    return (x.flatten(1).double().numpy() / 127.5 - 1 - MEAN) / STD


def frechet_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Wasserstein-2 distance of Gaussians with the samples' moments."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real))


def known(value: float, better: Better = "lower", unit: str = "") -> dict[str, Any]:
    """A metric as the reference keeps it."""
    return metric(value=value, unit=unit, better=better).as_dict()


def reference(
    dataset: MemoryDataset, index: dict[str, Tensor], baseline: Examples, samples: int, *, judge: nn.Module | None
) -> Reference:
    """A reference whose spaces are the network inputs, and whose floors and baseline are made up.

    Arguments:
        dataset: The data.
        index: Which rows of each split it keeps, in which order.
        baseline: Samples of the classical baseline.
        samples: Number of rows that its floors are said to be of.
        judge: What recognizes labels.
    """
    to_inputs = evaluation_domain(dataset.domain).encoder
    rows = {split: dataset.split(split).take(chosen) for split, chosen in index.items()}
    train = rows["train"].label
    counts = torch.bincount(train[train >= 0], minlength=len(dataset.class_names)).tolist()
    spaces = {}
    for name, factor in (("classifier", 1.0), ("random", 3.0)):
        kept = {split: (factor * to_inputs.flat(part.x) - MEAN) / STD for split, part in rows.items()}
        kept["baseline"] = (factor * to_inputs.flat(baseline.x) - MEAN) / STD
        size = kept["train"].shape[1]
        place, scale = torch.full((size,), MEAN), torch.full((size,), STD)
        spaces[name] = Space(
            name=name,
            inputs=to_inputs,
            network=Plain(factor),
            mean=place,
            std=scale,
            rows=kept,
            label_counts=counts,
        )
    facts = {
        "digest": "5ca1e" * 12,
        "data_digest": dataset.digest,
        "label_counts": counts,
        "seed": REFERENCE_SEED,
        "reference": {
            "samples": samples,
            "floors": {"frechet": known(0.125), "accuracy": known(0.875, "higher")},
            "baseline": {"frechet": known(0.375), "accuracy": known(0.625, "higher"), "bits_per_dim": known(7.5)},
        },
    }
    labels = {split: part.label for split, part in rows.items()}
    return Reference(
        facts=facts,
        inputs=to_inputs,
        spaces=spaces,
        label_classifier=judge,
        labels=labels,
        index=index,
        baseline=baseline,
    )


Draw = Callable[[int, Tensor | None, Streams], Tensor]


def brightness(x: Tensor) -> Tensor:
    """The mean of an example's values."""
    return x.double().flatten(1).nan_to_num().mean(1)


def raised(x: Tensor, more: int) -> Tensor:
    """Images with `more` on every value below 130; rows with `more` on every number, categories as they are."""
    if x.is_floating_point():
        return x + torch.tensor([more, more, 0])
    return torch.where(x < 130, x + more, x)


def drawn_images(n: int, label: Tensor | None, streams: Streams) -> Tensor:
    """Images of the class asked for, but of the last class (2) as if of class 0."""
    x = 90 + 80 * streams.uniform(n, 6)
    if label is not None:
        x[:, 0] = pixel_of(torch.where(label == 2, 0, label)).to(x)
    return x.round().to(torch.uint8).view(n, 2, 3, 1)


class KnownModel(GenerativeModel, Sampling, Density, DensityBound, Coding, Reconstruction, AnomalyScoring, Imputation):
    """Answers by simple rules, and keeps what it was asked, what it was told, and what it drew.

    | task | answer |
    | --- | --- |
    | `log_prob` | minus the brightness |
    | `elbo` | less 12 over the number of draws |
    | `encode`, `decode` | the values over 255; back, raised by 51 |
    | `reconstruct` | raised by 102 |
    | `anomaly_score` | the brightness |
    | `impute` | every fourth draw for a hidden number is 51 too small, the others 51 too large; no category is right |
    """

    def __init__(self, dataset: MemoryDataset, draw: Draw = drawn_images) -> None:
        spec = {key: value for key, value in dataset.domain.items() if key != "kind"}
        super().__init__(Image(**spec) if dataset.kind == "image" else Table(**spec), len(dataset.class_names))
        self.draw = draw
        self.asked: dict[str, list[Tensor]] = {}
        self.told: dict[str, list[Any]] = {}
        self.noise: dict[str, list[float]] = {}

    def objectives(self) -> tuple:
        return ()

    def _note(self, task: str, rows: Tensor, told: Any = None, streams: Streams | None = None) -> None:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.asked.setdefault(task, []).append(rows.clone())
        self.told.setdefault(task, []).append(told)
        if streams is not None:
            self.noise.setdefault(task, []).append(float(streams.uniform(1)))

    def rows(self, task: str) -> Tensor:
        """All rows it was asked about in a task (of `sample`: drew)."""
        return torch.cat(self.asked[task])

    def sample(self, n, label, generator, *, steps=0):
        x = self.draw(n, label, generator)
        self._note("sample", x, label, generator)
        return x

    def log_prob(self, x, generator):
        self._note("log_prob", x, None, generator)
        return -brightness(x).float()

    def elbo(self, x, generator, *, samples=1):
        self._note("elbo", x, samples, generator)
        return -brightness(x).float() - 12 / samples

    def encode(self, x):
        self._note("encode", x)
        return x.float().nan_to_num() / 255

    def decode(self, z):
        self._note("decode", z)
        x = (255 * z).round().view(len(z), *self.asked["encode"][0].shape[1:])
        return raised(x.to(self.asked["encode"][0].dtype), 51)

    def reconstruct(self, x, generator):
        self._note("reconstruct", x, None, generator)
        return raised(x, 102)

    def anomaly_score(self, x, generator):
        self._note("anomaly_score", x, None, generator)
        return brightness(x).float()

    def impute(self, x, observed, generator, *, draws=1):
        self._note("impute", x, (observed.clone(), draws), generator)
        error = torch.where(torch.arange(draws) % 4 == 0, -51, 51).view(-1, *[1] * x.ndim)
        filled = x + error
        if x.is_floating_point():
            filled[..., 2] = (x[:, 2] + 1) % 3
        return torch.where(observed, x, filled).to(x.dtype)


def measure(model: GenerativeModel, dataset: MemoryDataset, yardstick: Reference, folder: Path, **options) -> dict:
    """What is measured of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"samples": 600, "seed": 0, "bootstrap": 20, "bound_samples": 4} | options
    return Evaluator(model, dataset, yardstick, **options).run(folder)
