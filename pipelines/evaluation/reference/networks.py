"""The small networks of the yardstick: feature spaces and the judge of conditional samples.

Of images two unlike classifiers and a network with random weights; of tables the encoded rows
themselves, a classifier as judge, and random weights. Those of spaces have
`features(inputs) -> [n, dim]`; classifiers are called for logits.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

DIM = 64
"""Dimension of every feature space."""


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


class RowClassifier(nn.Module):
    """The judge of conditional samples, for rows of tables, `layers` deep."""

    def __init__(self, *, shape: tuple[int, ...], classes: int, width: int = 96, layers: int = 3) -> None:
        super().__init__()
        sizes = [shape[0]] + [width] * layers
        body: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            body += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.body = nn.Sequential(*body)
        self.neck = nn.Linear(width, DIM)
        self.head = nn.Linear(DIM, classes)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.neck(self.body(x))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        return self.head(F.silu(self.features(x)))


class EncodedRows(nn.Module):
    """The feature space "classifier" of tables: the encoded rows themselves, at most `DIM` random directions of them.

    A classifier of a few classes keeps of a row what tells these apart and forgets the rest. Here a
    feature is a sum of numbers in standard deviations and of categories, all directions alike, so it is
    not standardized again: that would give the rarest category the loudest voice.
    """

    standardized = False

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.directions = nn.Linear(shape[0], min(shape[0], DIM), bias=False)
        nn.init.orthogonal_(self.directions.weight)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.directions(x)


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


class RandomRows(nn.Module):
    """One random hidden layer, projected, for rows of tables."""

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 256), nn.ReLU(), nn.Linear(256, DIM, bias=False))

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.body(x)


ARCHITECTURES: dict[str, dict[int, type[nn.Module]]] = {
    "classifier": {3: ResidualClassifier, 1: EncodedRows},
    "judge": {3: PlainClassifier, 1: RowClassifier},
    "random": {3: RandomConvolutions, 1: RandomRows},
}
"""By role, and by the number of dimensions of an example."""


def network(role: str, *, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A network of the yardstick, its weights a function of `seed` alone.

    Arguments:
        role: `classifier`, `judge` or `random`.
        shape: Shape of one input, `(channels, height, width)` or `(columns,)`.
        classes: Classes to tell apart; 0 for a network that is no classifier.
        seed: Seed of the initial weights.
    """
    options: dict[str, Any] = {"classes": classes} if classes else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = ARCHITECTURES[role][len(shape)](shape=shape, **options)
        if role == "random":
            for parameter in built.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return built
