"""Callers' images: checked on the way in, uint8 on the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .base import Conversion, Rows, Shape, as_array, refuse


class Images(Conversion):
    """Conversion between what callers hold and what the model is given, for images.

    Arguments:
        domain: The model's domain: `height`, `width`, `channels`.
    """

    def __init__(self, domain: Mapping[str, Any]) -> None:
        self.event = (int(domain["height"]), int(domain["width"]), int(domain["channels"]))

    @property
    def expected(self) -> str:
        """How rows must look, for messages."""
        return f"uint8 images [rows, {', '.join(map(str, self.event))}]"

    @property
    def schema(self) -> Shape:
        """Bytes, channels last."""
        return "uint8", (-1, *self.event)

    def read(self, model_input: Any, task: str, *, on_unknown: str = "fail") -> Rows:
        """The caller's rows as tensors.

        Raises:
            ValueError: If shape, dtype or a value is not what the task takes.
        """
        array = as_array(model_input, self.expected)
        if array.ndim >= 1 and not len(array):
            array = np.zeros((0, *self.event), np.uint8)
        if array.ndim != 4 or array.shape[1:] != self.event:
            raise ValueError(f"task {task!r} takes {self.expected}, got shape {list(array.shape)}.")
        if array.dtype.kind in "iu":
            refuse(array, (array < 0) | (array > 255), "pixels are whole numbers from 0 to 255")
            return Rows(torch.from_numpy(array.astype(np.uint8)), torch.ones(array.shape, dtype=torch.bool))
        if array.dtype.kind != "f":
            raise ValueError(f"task {task!r} takes {self.expected}, got {array.dtype}.")
        return self._read_floats(array, task)

    def _read_floats(self, array: np.ndarray, task: str) -> Rows:
        missing = np.isnan(array)
        if task != "impute":
            refuse(array, missing, f"task {task!r} takes no missing cells (only 'impute' does)")
        refuse(array, np.isinf(array), "pixels are finite")
        observed = torch.from_numpy(~missing)
        if task == "denoise":
            return Rows(torch.from_numpy(array.astype(np.float32)), observed)
        if task != "impute":
            raise ValueError(
                f"task {task!r} takes {self.expected}, got {array.dtype}. "
                "Pixels are whole numbers from 0 to 255: scale them back and use .astype(np.uint8)."
            )
        filled = np.where(missing, 0, array)
        wrong = (filled < 0) | (filled > 255) | (filled != np.round(filled))
        refuse(array, wrong, "known pixels are whole numbers from 0 to 255, missing ones NaN")
        return Rows(torch.from_numpy(filled.astype(np.uint8)), observed)

    def write(self, x: torch.Tensor, *, seed: int = 0, given: Any = None) -> np.ndarray:
        """Data-space examples as callers get them."""
        return x.cpu().numpy()

    def empty(self, rows: int = 0) -> torch.Tensor:
        """Blank examples, `[rows, *event]`."""
        return torch.zeros((rows, *self.event), dtype=torch.uint8)
