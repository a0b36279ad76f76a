"""What conversions of callers' inputs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch


class Rows(NamedTuple):
    """Examples as the model is given them.

    Arguments:
        x: Data-space tensor `[rows, *event]`; missing cells hold 0.
        observed: Which cells are known, `[rows, *event]`.
    """

    x: torch.Tensor
    observed: torch.Tensor


class Conversion(ABC):
    """Between what callers hold and what the model is given, for one kind of data."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """How rows must look, for messages."""

    @abstractmethod
    def read(self, model_input: Any, task: str) -> Rows:
        """The caller's rows as tensors.

        Raises:
            ValueError: If they are not what the task takes.
        """

    @abstractmethod
    def write(self, x: torch.Tensor, label: torch.Tensor | None = None, seed: int = 0) -> Any:
        """Data-space examples as callers get them.

        Arguments:
            x: `[rows, *event]`, or `[draws, rows, *event]`.
            label: Classes of the rows, where they are known; only what has a place for them gives them back.
            seed: Selects what is made up for them without being learned.
        """

    @abstractmethod
    def empty(self, rows: int = 0) -> torch.Tensor:
        """Examples of which nothing is known, `[rows, *event]`."""

    def column_types(self) -> list[tuple[str, str]] | None:
        """Name and MLflow's type of each column that comes back; `None` if no columns do."""
        return None


def as_array(model_input: Any, expected: str) -> np.ndarray:
    """The input as an array; `None` (JSON's null) reads as NaN."""
    if model_input is None or hasattr(model_input, "columns") or isinstance(model_input, Mapping):
        raise ValueError(f"expected a numpy array of {expected}, got {type(model_input).__name__}.")
    try:
        array = np.asarray(model_input)
        return array.astype(np.float64) if array.dtype == object else array
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected a numpy array of {expected}, got rows of unequal or unknown form.") from error


def refuse(array: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    """Raise a `ValueError` naming the first row where `wrong` holds."""
    if wrong.any():
        row = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"row {row[0]} has {array[row]!s} at {list(row[1:])}: {rule}.")
