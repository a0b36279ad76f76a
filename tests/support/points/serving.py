"""Points as callers hold them: it travels with every registered model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pipelines.serving.domains import base


class PointRows(base.Conversion):
    """Conversion between what callers hold and what the model is given, for points.

    Arguments:
        domain: The model's domain.
    """

    def __init__(self, domain: Mapping[str, Any]) -> None:
        self.axes = len(domain["mean"])

    @property
    def expected(self) -> str:
        return f"points [rows, {self.axes}]"

    def read(self, model_input: Any, task: str, **_: Any) -> base.Rows:
        array = base.as_array(model_input, self.expected)
        if array.ndim != 2 or array.shape[1] != self.axes or array.dtype.kind not in "iuf":
            raise ValueError(f"task {task!r} takes {self.expected}, got {array.dtype} {list(array.shape)}.")
        x = torch.from_numpy(array.astype(np.float64))
        return base.Rows(x, ~x.isnan())

    def write(self, x: torch.Tensor, *, seed: int = 0) -> np.ndarray:
        return x.cpu().numpy()

    def empty(self, rows: int = 0) -> torch.Tensor:
        return torch.full((rows, self.axes), torch.nan, dtype=torch.float64)
