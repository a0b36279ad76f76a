"""Evaluating grids of levels (images): network inputs, feature networks, augmentation, corruptions, figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.nn import functional as F

from data.files import json_text
from data.image_grid import grid, paired, png, write
from pipelines.evaluation.domain import (
    DIM,
    EvaluationDomain,
    FeatureEncoder,
    FigureWriter,
    LogDensity,
    rows_of_other_classes,
)
from pipelines.serving.interpolation import spherical

if TYPE_CHECKING:
    from data.dataset import Examples
    from pipelines.evaluation.explorer import Exploration

Images = UInt8[Tensor, "n height width channels"]


def corrupted(x: Images, label: Int[Tensor, " n"], levels: int, seed: int) -> dict[str, Images]:
    """Every corruption of every image.

    Arguments:
        x: Test images.
        label: Their classes, -1 where unknown; partners are of another class where there is one.
        levels: Values a pixel takes.
        seed: Seed of partners and places.
    """
    random = np.random.default_rng([seed, len(x)])
    other = x[rows_of_other_classes(label.numpy(), random)]
    return {
        "quadrants": _quadrants(x),
        "cut": torch.cat([x[:, :, : x.shape[2] // 2], other[:, :, x.shape[2] // 2 :]], 2),
        "shuffled": _shuffled(x, 0.25, random),
        "blended": _blended(x, other, 0.6, levels),
    }


def _quadrants(x: Images) -> Images:
    """Opposite quarters exchanged; a middle row or column of odd sizes stays put."""
    h, w = x.shape[1] // 2, x.shape[2] // 2
    out = x.clone()
    out[:, :h, :w], out[:, -h:, -w:] = x[:, -h:, -w:], x[:, :h, :w]
    out[:, :h, -w:], out[:, -h:, :w] = x[:, -h:, :w], x[:, :h, -w:]
    return out


def _shuffled(x: Images, share: float, random: np.random.Generator) -> Images:
    flat = x.flatten(1, 2).numpy().copy()
    size = flat.shape[1]
    moved = max(int(share * size), 2)
    for row in flat:
        places = random.choice(size, moved, replace=False)
        row[places] = row[np.roll(places, 1)]
    return torch.from_numpy(flat).view_as(x)


def _blended(x: Images, other: Images, weight: float, levels: int) -> Images:
    steps = levels - 1
    mixed = (weight * x.float() + (1 - weight) * other.float()) / 255 * steps
    return (mixed.round() * (255 / steps)).round().to(torch.uint8)


class IndependentPixels:
    r"""A density to beat: within a class every value has its own histogram, independent of the others.

    .. math:: p(x) = \sum_c \pi_c \prod_i p_{ci}(x_i)

    Arguments:
        level: Training examples as levels, `[n, flat]`, integers from 0.
        label: Their classes.
        levels: Number of levels.
    """

    def __init__(self, level: Int[np.ndarray, "n flat"], label: Int[np.ndarray, " n"], levels: int) -> None:
        self.log_share, self.log_table = [], []
        for c in np.unique(label):
            rows = level[label == c]
            table = np.stack([(rows == k).sum(0) for k in range(levels)]) + 1 / levels
            self.log_share.append(math.log(len(rows) / len(level)))
            self.log_table.append(np.log(table / table.sum(0)))

    def log_prob(self, level: Int[np.ndarray, "n flat"]) -> Float[np.ndarray, " n"]:
        """Log-probability in nats."""
        column = np.arange(level.shape[1])
        parts = [s + table[level, column].sum(1) for s, table in zip(self.log_share, self.log_table, strict=True)]
        return np.asarray(logsumexp(parts, axis=0))


class GridFeatureEncoder(FeatureEncoder):
    """Images, scaled from 0..255 to [-1, 1], channels first.

    Arguments:
        channels: Channels.
        height: Pixels.
        width: Pixels.
        levels: Number of equally spaced values a pixel takes.
    """

    error_unit = "unit range"
    error_scale = 0.5
    density_per = "dimension"

    def __init__(self, *, channels: int, height: int, width: int, levels: int = 256) -> None:
        self.shape = (channels, height, width)
        self.levels = levels

    def __call__(self, x: UInt8[Tensor, "n height width channels"]) -> Float[Tensor, "n channels height width"]:
        return x.permute(0, 3, 1, 2).to("cpu", torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1

    def inverse(self, y: Float[Tensor, "n flat"]) -> UInt8[Tensor, "n height width channels"]:
        steps = self.levels - 1
        level = ((y.float().unflatten(1, self.shape) + 1) / 2 * steps).round().clamp(0, steps)
        return (level * (255 / steps)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def augment(self, y: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        return jittered(y, generator)


class Residual(nn.Module):
    """Two 3×3 convolutions, the first with a stride, around a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        first = self.first_norm(self.first(x)).relu()
        return (first + self.second_norm(self.second(first))).relu()


class ResidualClassifier(nn.Module):
    """The classifier whose penultimate layer is the feature space "classifier", for images.

    Features are taken before the last non-linearity, where they are closest to Gaussian.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, size = shape[0], min(shape[1:])
        width, stride = 32, 2 if size >= 16 else 1
        blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        height, across = (-(-side // stride) for side in shape[1:])
        while min(height, across) > 4:
            blocks.append(Residual(width, min(2 * width, 128), 2))
            width, height, across = (min(2 * width, 128), -(-height // 2), -(-across // 2))
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d((min(height, 4), min(across, 4))), nn.Flatten())
        self.neck = nn.Linear(width * min(height, 4) * min(across, 4), DIM)
        self.head = nn.Linear(DIM, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n dim"]:
        return self.neck(self.body(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(x).relu())


class PlainClassifier(nn.Module):
    """The judge of conditional samples, for images: other kernels, pooling, widths, no normalization."""

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, size = shape[0], min(shape[1:])
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 5, 2 if size >= 16 else 1, 2),
            nn.GELU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 64, 3, 1, 1),
            nn.GELU(),
            nn.AdaptiveMaxPool2d(4 if size >= 8 else 2),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.neck = nn.Linear(64 * (16 if size >= 8 else 4), 128)
        self.head = nn.Linear(128, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n dim"]:
        return self.neck(self.body(x))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(F.gelu(self.features(x)))


class RandomConvolutions(nn.Module):
    """Two random convolutions, pooled over quarters and projected: features nobody trained.

    Nothing a generator could have learned to please; sees texture and strokes, not classes.
    """

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        stride = 2 if min(shape[1:]) >= 16 else 1
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], 32, 3, stride, 1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, DIM, bias=False),
        )

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n dim"]:
        return self.body(x)


def jittered(x: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Images turned by up to 10°, scaled by up to 10 % and moved by up to 8 % of their size."""
    n = len(x)
    angle, stretch, right, down = (torch.rand(4, n, generator=generator) * 2 - 1).unbind(0)
    scale, angle = 1 + 0.1 * stretch, angle * math.radians(10)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cos, -sin, 0.16 * right], 1), torch.stack([sin, cos, 0.16 * down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


MOST_FRAME = 64
"""Pixels on the longer side of a frame of the explorer."""


class GridFigureWriter(FigureWriter):
    """Example figures of images, as PNG files.

    Arguments:
        class_names: Names of the classes.
        real: Test images, with which samples are shown.
    """

    def __init__(self, class_names: Sequence[str], real: Examples) -> None:
        self.classes, self.test = len(class_names), real
        self.pictures: dict[str, np.ndarray] = {}
        self.explorer: dict[str, Any] = {}

    def samples(self, drawn: Tensor, label: Tensor | None) -> None:
        """A grid of samples, one column per class where labels were asked for; a grid of test images likewise."""
        self.pictures["samples"] = self._by_class(drawn, label)
        self.pictures["real"] = self._by_class(self.test.x, self.test.label if label is not None else None)

    def _by_class(self, x: Tensor, label: Tensor | None, *, rows: int = 8, columns: int = 10) -> np.ndarray:
        """A column for each of the first 10 classes that has enough images, or all as they come."""
        if label is not None:
            by_class = [x[label == c][:rows] for c in range(min(self.classes, columns))]
            full = [images for images in by_class if len(images) == rows]
            if full:
                return grid(torch.stack(full, 1).flatten(0, 1), len(full))
        return grid(x[: rows * columns], columns)

    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each over its nearest training image."""
        self.pictures["nearest"] = paired(drawn[:20], neighbours[:20], 10)

    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each over its reconstruction."""
        self.pictures["reconstructions"] = paired(x[:20], rebuilt[:20], 10)

    def interpolations(
        self, codes: Tensor, decode: Callable[[Tensor], Tensor], *, rows: int = 6, steps: int = 9
    ) -> None:
        """From one example to another through their codes, a row per pair."""
        rows = min(rows, len(codes) // 2)
        path = spherical(codes[:rows], codes[rows : 2 * rows], steps)
        self.pictures["interpolations"] = grid(decode(path.flatten(0, 1)), steps)

    def exploration(self, found: Exploration) -> None:
        """A sprite for each direction, examples one below the other; one for the ways; and what they are of."""
        sprites = [_reduced(frames) for frames in (*found.directions, found.ways)]
        names = [*(f"direction-{i + 1}" for i in range(len(found.directions))), "ways"]
        for name, frames in zip(names, sprites, strict=True):
            if len(frames):
                self.pictures[f"explorer-{name}"] = grid(frames.flatten(0, 1), frames.shape[1], gap=0, smallest=1)
        self.explorer = {
            "examples": found.names,
            "places": found.places,
            "directions": [{"share": round(share, 4)} for share in found.shares],
            "pairs": found.pairs,
        }

    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous examples, in that order."""
        order = np.argsort(-score, kind="stable")[:20]
        self.pictures["anomalies"] = grid(x[torch.from_numpy(order)], 10)

    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor, *, columns: int = 10) -> None:
        """From top to bottom an image, the image with its hidden part in grey, and draws of that part."""
        columns = min(columns, len(x))
        rows = [x[:columns], x[:columns].masked_fill(hidden[:columns], 128), *draws[:3, :columns]]
        self.pictures["imputations"] = grid(torch.cat(rows), columns)

    def write(self, folder: Path) -> None:
        """Write every picture into `folder` as PNG."""
        for name, canvas in self.pictures.items():
            write(folder / f"{name}.png", canvas)
        if self.explorer:
            (folder / "explorer.json").write_text(json_text(self.explorer), encoding="utf-8")


class GridEvaluation(EvaluationDomain):
    """What evaluation asks of images."""

    networks = {"classifier": ResidualClassifier, "judge": PlainClassifier, "random": RandomConvolutions}  # noqa: RUF012
    trained_features = True
    error_unit = "unit range"
    imputation_rows = 100
    imputation_draws = 8

    def _encoder(self, options: dict[str, Any]) -> FeatureEncoder:
        return GridFeatureEncoder(**options)

    def corruptions(self, test: Examples, seed: int) -> dict[str, Images]:
        return corrupted(test.x, test.label, self.spec["levels"], seed)

    def hidden_cells(self, x: Images, seed: int) -> Bool[Tensor, "n height width channels"]:
        """A box of half the height and half the width, somewhere in each image."""
        random = np.random.default_rng([seed, len(x)])
        height, width = x.shape[1:3]
        top, left = (random.integers(0, side - side // 2 + 1, (len(x), 1)) for side in (height, width))
        down, across = np.arange(height), np.arange(width)
        rows, columns = (down >= top) & (down < top + height // 2), (across >= left) & (across < left + width // 2)
        return torch.from_numpy(rows[:, :, None] & columns[:, None, :])[..., None].expand(x.shape).clone()

    def value_scale(self, values: int) -> tuple[Float[Tensor, " values"], Bool[np.ndarray, " values"]]:
        return torch.full((values,), 255.0, dtype=torch.float64), np.zeros(values, bool)

    def categories(self, values: int) -> list[int]:
        return [0] * values

    def baseline_density(self, x: Images, label: Int[Tensor, " n"]) -> tuple[str, LogDensity]:
        levels = self.spec["levels"]
        pixels = IndependentPixels(_level(x, levels), label.numpy(), levels)
        what = "per class, independent pixels with histograms"
        return what, lambda rows: torch.from_numpy(pixels.log_prob(_level(rows, levels)))

    def figures(self, class_names: Sequence[str], test: Examples) -> FigureWriter:
        return GridFigureWriter(class_names, test)

    def preview(self) -> Callable[[Images, int], bytes]:
        return lambda drawn, columns: png(grid(drawn, columns))


def _reduced(frames: UInt8[Tensor, "rows columns height width channels"]) -> UInt8[Tensor, "rows columns h w channels"]:
    """Frames of at most `MOST_FRAME` pixels a side."""
    largest = max(frames.shape[2:4])
    if largest <= MOST_FRAME:
        return frames
    height, width = (max(side * MOST_FRAME // largest, 1) for side in frames.shape[2:4])
    flat = frames.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = F.interpolate(flat, (height, width), mode="area").round().to(torch.uint8)
    return small.permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])


def _level(x: Images, levels: int) -> Int[np.ndarray, "n flat"]:
    return (x.flatten(1).double() * ((levels - 1) / 255)).round().long().numpy()
