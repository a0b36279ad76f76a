"""Examples as network inputs and back, for every kind of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

FURTHEST = 5.0
"""Standard deviations from the mean beyond which a number in a table looks the same to a network."""


class Inputs(ABC):
    """How examples of one kind of data enter the frozen networks and the classical baseline.

    Attributes:
        shape: Shape of one example as a network sees it.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def __call__(self, x: Num[Tensor, "n *data"]) -> Float[Tensor, "n *shape"]:
        """Examples in data space to float32 network inputs of about unit scale."""

    @abstractmethod
    def inverse(self, y: Float[Tensor, "n flat"]) -> Num[Tensor, "n *data"]:
        """Flattened network inputs to the nearest valid examples in data space."""

    def flat(self, x: Num[Tensor, "n *data"]) -> Float[np.ndarray, "n flat"]:
        """Examples as rows of numbers, for scikit-learn."""
        return self(x).flatten(1).double().numpy()


class ImageInputs(Inputs):
    """Images, scaled from 0..255 to [-1, 1], channels first.

    Arguments:
        channels: Channels.
        height: Pixels.
        width: Pixels.
        levels: Number of equally spaced values a pixel takes.
    """

    def __init__(self, *, channels: int, height: int, width: int, levels: int = 256) -> None:
        self.shape = (channels, height, width)
        self.levels = levels

    def __call__(self, x: UInt8[Tensor, "n height width channels"]) -> Float[Tensor, "n channels height width"]:
        return x.permute(0, 3, 1, 2).to("cpu", torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1

    def inverse(self, y: Float[Tensor, "n flat"]) -> UInt8[Tensor, "n height width channels"]:
        steps = self.levels - 1
        level = ((y.float().unflatten(1, self.shape) + 1) / 2 * steps).round().clamp(0, steps)
        return (level * (255 / steps)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class TableInputs(Inputs):
    r"""Rows of a table: numbers standardized, categories one-hot times :math:`1/\sqrt 2`.

    Two different categories are then one unit apart, as two numbers one standard deviation apart
    are. A missing number becomes the mean, a missing category no category; columns with missing
    cells get a column that says so. Networks see no number further out than `FURTHEST` deviations: a
    single extreme row would otherwise decide every distance.

    Arguments:
        columns: The columns of the dataset's domain.
    """

    def __init__(self, *, columns: list[dict[str, Any]]) -> None:
        self.columns = columns
        self.shape = (sum(self._width(column) for column in columns),)

    @staticmethod
    def _width(column: dict[str, Any]) -> int:
        values = len(column["categories"]) if column["type"] == "categorical" else 1
        return values + bool(column.get("missing"))

    def __call__(self, x: Num[Tensor, "n columns"]) -> Float[Tensor, "n flat"]:
        return self._scaled(x).clamp(-FURTHEST, FURTHEST)

    def flat(self, x: Num[Tensor, "n columns"]) -> Float[np.ndarray, "n flat"]:
        """Rows of numbers, extremes and all."""
        return self._scaled(x).double().numpy()

    def _scaled(self, x: Num[Tensor, "n columns"]) -> Float[Tensor, "n flat"]:
        parts = []
        for column, values in zip(self.columns, x.cpu().double().unbind(1), strict=True):
            missing = values.isnan()
            if column["type"] == "categorical":
                known = torch.nn.functional.one_hot(values.nan_to_num().long(), len(column["categories"]))
                parts.append(known * ~missing[:, None] * 0.5**0.5)
            else:
                scaled = (values - column["mean"]) / (column["std"] or 1.0)
                parts.append(scaled.nan_to_num()[:, None])
            if column.get("missing"):
                parts.append(missing[:, None] * 0.5**0.5)
        return torch.cat([part.float() for part in parts], 1)

    def inverse(self, y: Float[Tensor, "n flat"]) -> Num[Tensor, "n columns"]:
        values, at = [], 0
        for column in self.columns:
            part = y[:, at : at + self._width(column)].double()
            at += self._width(column)
            if column["type"] == "categorical":
                value = part[:, : len(column["categories"])].argmax(1).double()
            else:
                value = (part[:, 0] * (column["std"] or 1.0) + column["mean"]).clamp(column["min"], column["max"])
                value = value.round() if column["type"] == "integer" else value
            if column.get("missing"):
                value = value.masked_fill(part[:, -1] > 0.5**1.5, torch.nan)
            values.append(value)
        return torch.stack(values, 1)


KINDS: dict[str, type[Inputs]] = {"image": ImageInputs, "table": TableInputs}


def inputs(domain: dict[str, Any]) -> Inputs:
    """How examples of a dataset's domain become network inputs.

    Raises:
        ValueError: If the kind of data is unknown.
    """
    options = {key: value for key, value in domain.items() if key != "kind"}
    if domain["kind"] not in KINDS:
        raise ValueError(f"the yardstick knows {', '.join(KINDS)}, not data of kind {domain['kind']!r}")
    return KINDS[domain["kind"]](**options)
