"""What evaluation asks of a kind of data: network inputs and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor


def partners(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A row of another class for each row; any other row where all are alike or unknown."""
    rows = np.arange(len(label))
    chosen = (rows + random.integers(1, max(len(rows), 2), len(rows))) % len(rows)
    for _ in range(50):
        alike = (label[chosen] == label) & (label >= 0)
        if not alike.any():
            break
        chosen[alike] = (rows[alike] + random.integers(1, max(len(rows), 2), alike.sum())) % len(rows)
    return chosen


class FeatureEncoder(ABC):
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


def error_unit(to_inputs: FeatureEncoder) -> str:
    """Unit of reconstruction errors."""
    return "unit range" if len(to_inputs.shape) == 3 else "standard deviations"


DIM = 64
"""Dimension of every feature space."""


class FigureWriter(ABC):
    """Example figures of one model: collected, then written into a folder."""

    @abstractmethod
    def samples(self, drawn: Tensor, label: Tensor | None) -> None:
        """Samples, with the labels that were asked for."""

    @abstractmethod
    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each with its nearest training example."""

    @abstractmethod
    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each with its reconstruction."""

    @abstractmethod
    def interpolations(self, codes: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
        """From one example to another through their codes."""

    @abstractmethod
    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous examples, in that order."""

    @abstractmethod
    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor) -> None:
        """Examples with hidden cells, and what was drawn for these."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write everything collected."""
