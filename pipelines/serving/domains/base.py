"""What conversions of callers' inputs share."""

from __future__ import annotations

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
