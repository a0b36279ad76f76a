"""What evaluation asks of a kind of data: network inputs, anomalies, hidden cells, a density to beat, figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

if TYPE_CHECKING:
    import torch

    from data.dataset import Examples
    from pipelines.evaluation.explorer import Exploration


def rows_of_other_classes(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
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
        error_unit: Unit of reconstruction errors.
        error_scale: What a difference of network inputs is multiplied by to be in that unit.
        density_per: Whether densities are counted per value of an example or per example.
    """

    shape: tuple[int, ...]
    error_unit: ClassVar[str]
    error_scale: ClassVar[float] = 1.0
    density_per: ClassVar[Literal["dimension", "example"]] = "example"

    @abstractmethod
    def __call__(self, x: Num[Tensor, "n *data"]) -> Float[Tensor, "n *shape"]:
        """Examples in data space to float32 network inputs of about unit scale."""

    @abstractmethod
    def inverse(self, y: Float[Tensor, "n flat"]) -> Num[Tensor, "n *data"]:
        """Flattened network inputs to the nearest valid examples in data space."""

    @abstractmethod
    def augment(self, y: Float[Tensor, "n *shape"], generator: torch.Generator) -> Float[Tensor, "n *shape"]:
        """Network inputs, slightly changed at random, that still show the same class."""

    def flat(self, x: Num[Tensor, "n *data"]) -> Float[np.ndarray, "n flat"]:
        """Examples as rows of numbers, for scikit-learn."""
        return self(x).flatten(1).double().numpy()


DIM = 64
"""Dimension of every feature space."""


class FigureWriter:
    """Example figures of one model: collected, then written into a folder. This one draws nothing."""

    def samples(self, drawn: Tensor, label: Tensor | None) -> None:
        """Samples, with the labels that were asked for."""

    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each with its nearest training example."""

    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each with its reconstruction."""

    def interpolations(self, codes: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
        """From one example to another through their codes."""

    def exploration(self, found: Exploration) -> None:
        """Decoded codes: along directions from examples, and between two of them."""

    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous examples, in that order."""

    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor) -> None:
        """Examples with hidden cells, and what was drawn for these."""

    def write(self, folder: Path) -> None:
        """Write everything collected."""


class FeatureSpace(Protocol):
    """A frozen map from examples to points, and the points of known rows."""

    @property
    def rows(self) -> dict[str, Float[np.ndarray, "n dim"]]:
        """Points of known rows, by split."""
        ...

    def features(self, x: Num[Tensor, "n *data"]) -> Float[np.ndarray, "n dim"]:
        """Points of examples."""
        ...


LogDensity = Callable[[Num[Tensor, "n *data"]], Float[Tensor, " n"]]
"""Log-probability of each example in nats, float64."""


class EvaluationDomain(ABC):
    """What evaluation asks of one kind of data.

    Arguments:
        spec: The dataset's domain.
    Attributes:
        networks: The frozen networks of the reference: `classifier`, `judge` and `random`.
        trained_features: Whether the space `classifier` is trained on labels or clusters.
        error_unit: Unit of errors of values.
        imputation_rows: Test examples that cells are hidden of.
        imputation_draws: Completions asked for.
    """

    networks: ClassVar[Mapping[str, type[nn.Module]]]
    trained_features: ClassVar[bool]
    error_unit: ClassVar[str]
    imputation_rows: ClassVar[int]
    imputation_draws: ClassVar[int]

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = dict(spec)

    @cached_property
    def encoder(self) -> FeatureEncoder:
        """How examples become network inputs."""
        return self._encoder({key: value for key, value in self.spec.items() if key != "kind"})

    @abstractmethod
    def _encoder(self, options: dict[str, Any]) -> FeatureEncoder: ...

    @abstractmethod
    def corruptions(self, test: Examples, seed: int) -> dict[str, Num[Tensor, "n *data"]]:
        """Test examples made anomalous, by what was done; empty where nothing can be."""

    @abstractmethod
    def hidden_cells(self, x: Num[Tensor, "n *data"], seed: int) -> Bool[Tensor, "n *data"]:
        """Which known cells are hidden for imputation: a function of shape, gaps and seed alone."""

    @abstractmethod
    def value_scale(self, values: int) -> tuple[Float[Tensor, " values"], Bool[np.ndarray, " values"]]:
        """What the error of each of an example's values is measured in, and which of them are categories."""

    @abstractmethod
    def categories(self, values: int) -> list[int]:
        """Categories of each of an example's values; 0 for a number."""

    @abstractmethod
    def baseline_density(self, x: Num[Tensor, "n *data"], label: Int[Tensor, " n"]) -> tuple[str, LogDensity]:
        """A density to beat, learned from training examples: what it is, and the log-density of examples."""

    @abstractmethod
    def figures(self, class_names: Sequence[str], test: Examples) -> FigureWriter:
        """What draws the example figures of a model."""

    def preview(self) -> Callable[[Num[Tensor, "n *data"], int], bytes] | None:
        """What draws samples, so many a row, as a PNG file's bytes during training; `None` if they are no pictures."""
        return None
