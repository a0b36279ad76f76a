r"""How well are hidden cells filled in?

Of tables `SHARE` of the known cells are hidden at random, of images a box of a quarter of the area.
Draws :math:`x_1 … x_m` of a number (in standard deviations; of a pixel in unit range) are judged
against the truth :math:`y` by the continuous ranked probability score, estimated without bias:

.. math:: \tfrac1m \sum_i |x_i - y| - \tfrac1{2m(m-1)} \sum_{i,j} |x_i - x_j|

and draws of a category by the same with :math:`1[x \ne y]` for the distance, half the Brier score.
One draw scores its distance. The score rewards the right distribution, not the middle of it; the
error of the draws' mean and the accuracy of their mode stand beside it.

References:
    | Strictly proper scoring rules (Gneiting and Raftery, 2007), eq. 21
    | https://doi.org/10.1198/016214506000001437
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from pipelines.evaluation.metrics.base import Better, Metric, counts, interval, metric

SHARE = 0.3
"""Share of a table's known cells that is hidden."""
ROWS = {"table": 300, "image": 100}
"""Test examples that cells are hidden of, by kind of data."""
DRAWS = {"table": 50, "image": 8}
"""Draws asked for, by kind of data."""


def hidden_cells(x: Num[Tensor, "n *data"], kind: str, seed: int) -> Bool[Tensor, "n *data"]:
    """Which known cells are hidden: a function of shape, gaps and seed alone."""
    random = np.random.default_rng([seed, len(x)])
    if kind == "table":
        return torch.from_numpy(random.random(x.shape) < SHARE) & ~x.isnan()
    height, width = x.shape[1:3]
    top, left = (random.integers(0, side - side // 2 + 1, (len(x), 1)) for side in (height, width))
    down, across = np.arange(height), np.arange(width)
    rows, columns = (down >= top) & (down < top + height // 2), (across >= left) & (across < left + width // 2)
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])[..., None].expand(x.shape).clone()


def imputation_metrics(
    x: Num[Tensor, "n *data"],
    hidden: Bool[Tensor, "n *data"],
    draws: Num[Tensor, "draws n *data"],
    domain: dict[str, Any],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Metric]:
    """Errors over the hidden cells, the rows resampled for the intervals.

    Arguments:
        x: The truth, in data space.
        hidden: Which cells are judged.
        draws: Completed examples.
        domain: The dataset's domain.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    y, given, gap = x.flatten(1).double(), draws.flatten(2).double(), hidden.flatten(1).numpy()
    scale, categories = value_scale(domain, y.shape[1])
    number, category = gap & ~categories, gap & categories
    miss = np.where(number, ((given.mean(0) - y) / scale).nan_to_num().square().numpy(), 0).sum(1)
    right = np.where(category, (torch.mode(given, 0).values == y).numpy(), 0).sum(1)
    score = np.where(number, _ranked(y, given, scale), np.where(category, _brier(y, given, categories), 0)).sum(1)
    unit = "unit range" if domain["kind"] == "image" else "standard deviations"
    wanted: list[tuple[str, np.ndarray, np.ndarray, str, Better]] = [
        ("imputation_crps", score, gap, unit, "lower"),
        ("imputation_rmse", miss, number, unit, "lower"),
        ("imputation_accuracy", right, category, "share", "higher"),
    ]
    weight = counts(len(x), resamples, seed)
    found = {}
    for name, total, cells, measured_in, better in wanted:
        if not cells.any():
            continue
        n = cells.sum(1)
        value, spread = total.sum() / n.sum(), (weight @ total) / np.maximum(weight @ n, 1)
        if name == "imputation_rmse":
            value, spread = np.sqrt(value), np.sqrt(spread)
        found[name] = metric(value=value, interval=interval(value, spread), unit=measured_in, better=better)
    return found


def value_scale(domain: dict[str, Any], values: int) -> tuple[Tensor, Bool[np.ndarray, " values"]]:
    """What each value's error is measured in, and which values are categories."""
    if domain["kind"] == "image":
        return torch.full((values,), 255.0, dtype=torch.float64), np.zeros(values, bool)
    columns = domain["columns"]
    categories = np.array([column["type"] == "categorical" for column in columns])
    scale = [1.0 if c["type"] == "categorical" else c["std"] or 1.0 for c in columns]
    return torch.tensor(scale, dtype=torch.float64), categories


def _ranked(y: Tensor, draws: Tensor, scale: Tensor) -> Float[np.ndarray, "n values"]:
    """Continuous ranked probability score of each value."""
    m = len(draws)
    apart = (draws - y).abs().mean(0)
    rank = (2 * torch.arange(m) - m + 1).double().reshape(-1, 1, 1)
    between = (rank * draws.sort(0).values).sum(0) / max(m * (m - 1), 1)
    return ((apart - between) / scale).nan_to_num().numpy()


def _brier(y: Tensor, draws: Tensor, categories: np.ndarray) -> Float[np.ndarray, "n values"]:
    """The same with "is another category" for the distance; 0 for numbers."""
    found, chosen = np.zeros(y.shape), np.flatnonzero(categories)
    m, given = len(draws), draws[:, :, chosen]
    between = sum((given != other).double().sum(0) for other in given) / max(2 * m * (m - 1), 1)
    found[:, chosen] = ((given != y[:, chosen]).double().mean(0) - between).numpy()
    return found
