"""Embeddings of labels and scalars."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..shapes import Float, Int


def full_precision(x: Tensor) -> Tensor:
    """At least float32: what comes out of a network under autocast, fit for sums and logarithms."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class LabelEmbedding(nn.Module):
    """A learned vector per class and one more for 'unknown' (label -1).

    Arguments:
        classes: Number of classes; 0 gives a constant vector that is still learned.
        dim: Length of the vectors.
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes + 1, dim)
        self.unknown = classes

    def forward(self, label: Int[Tensor, " batch"] | None, batch: int) -> Float[Tensor, "batch dim"]:
        if label is None:
            return self.table.weight[self.unknown].expand(batch, -1)
        return self.table(torch.where(label < 0, self.unknown, label))


class FourierEmbedding(nn.Module):
    """Sines and cosines of a scalar at geometrically spaced frequencies, followed by an MLP."""

    def __init__(self, dim: int, frequencies: int = 16, max_frequency: float = 16.0) -> None:
        super().__init__()
        self.octaves: Tensor
        octaves = torch.linspace(0, math.log(max_frequency), frequencies).exp() * math.pi / 4
        self.register_buffer("octaves", octaves)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        angles = t[:, None] * self.octaves
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))
