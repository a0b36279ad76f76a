"""Distributions of table columns as piecewise linear functions between some of their stored quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..shapes import Bool, Float

MARGIN = 5e-4
"""The unit interval of a column's distribution is shrunk by so much at both ends before the probit."""

EDGE = -float(torch.special.ndtri(torch.tensor(MARGIN, dtype=torch.float64)))
"""Where the training data's smallest and largest value come to lie: -3.29 and 3.29."""


class Knots(NamedTuple):
    """The distribution of each column as a piecewise linear function, float64.

    Arguments:
        x: Places, never falling, `[columns, knots]`, infinity beyond a column's last.
        u: Part of the training data below, rising, `[columns, knots]`, 1 beyond the last.
        knots: Knots of each column, `[columns]`.
        half: Half the width of a cell: 0.5 for whole numbers and categories, 0 for continuous values.
        low: Smallest value, `[columns]`.
        high: Largest value, `[columns]`.
        scale: What excess over them is measured in, `[columns]`.
    """

    x: Tensor
    u: Tensor
    knots: Tensor
    half: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor


class Cells(NamedTuple):
    """Where examples lie in their columns' distributions, float64, each `[n, columns]`.

    Arguments:
        lower: Part of the training data below the cell.
        upper: Part of the training data up to the cell's end; equal to `lower` for a continuous value.
        log_slope: Logarithm of the distribution's slope there (of continuous values).
        excess: Distance beyond the training data's range in units of the column's scale, signed; 0 within.
        observed: Whether the cell is known; a missing one spans the whole distribution.
        scale: Units of the excess.
    """

    lower: Tensor
    upper: Tensor
    log_slope: Tensor
    excess: Tensor
    observed: Tensor
    scale: Tensor

    @property
    def wide(self) -> Tensor:
        """Which cells have a probability; the others have a density."""
        return (self.upper > self.lower) & (self.excess == 0)


def knots_of(column: Mapping[str, Any], size: int) -> tuple[Tensor, Tensor, float, float, float, float]:
    """A column's distribution: places, parts of the data below, half a cell's width, smallest, largest, scale."""
    if column["type"] == "categorical":
        counts = torch.tensor(column.get("frequencies") or [0.0] * size, dtype=torch.float64) + 1
        u = torch.cat([torch.zeros(1, dtype=torch.float64), (counts / counts.sum()).cumsum(0)])
        u[-1] = 1.0
        return torch.arange(size + 1, dtype=torch.float64) - 0.5, u, 0.5, 0.0, size - 1.0, 1.0
    grid = torch.tensor(column.get("quantiles") or [column["min"], column["max"]], dtype=torch.float64)
    if not torch.isfinite(grid).all():
        raise ValueError(f"column {column['name']!r}: its quantiles must be finite; prepare the dataset again")
    if len(grid) < 2:
        grid = grid.repeat(2)
    grid = grid.cummax(0).values
    u = torch.linspace(0, 1, len(grid), dtype=torch.float64)
    low, high = float(grid[0]), float(grid[-1])
    spread = float(column.get("std") or 0.0)
    scale = spread if spread > 0 and math.isfinite(spread) else max(high - low, 1.0)
    count = float(column.get("count") or math.inf)
    if column["type"] == "continuous":
        bulk = grid[len(grid) * 9 // 10] - grid[len(grid) // 10]  # a few outliers must not make all else one value
        near = torch.maximum(grid[1:].abs(), grid[:-1].abs())
        step = grid.diff().gt(1e-12 * torch.maximum(near, bulk).clamp(min=1e-300)).cumsum(0)
        group = torch.cat([step.new_zeros(1), step])  # values that differ by rounding only are one
        first = torch.cat([step.new_ones(1, dtype=torch.bool), group.diff() > 0])
        x = grid[first][group]
        keep = kept(x, count)
        return x[keep], u[keep], 0.0, float(grid[0]), float(grid[first][-1]), scale
    keep = kept(grid, count)
    grid, u = grid[keep], u[keep]
    low, high = math.floor(low), math.ceil(high)
    values = torch.cat([grid.floor(), grid.ceil()]).unique()
    x = torch.cat([values - 0.5, values + 0.5]).unique()
    return x, between(x, grid, u), 0.5, float(low), float(high), scale


def kept(x: Float[Tensor, " q"], count: float) -> Bool[Tensor, " q"]:
    """Which quantiles of so many observations are knots of the distribution: about as many as each interval has
    observations.

    Every interval has a slope of its own, and k slopes learned from n observations cost k / 2n nats on others. Values
    that occur in bulk stay, and towards both ends, where the quantiles lie far apart, knots do at every halving.
    """
    last = len(x) - 1
    stride = max(1, round(last / math.sqrt(count)))
    index = torch.arange(last + 1)
    end = torch.minimum(index, last - index)
    halving = (end & (end - 1)) == 0
    bulk = torch.cat([x.diff() == 0, torch.zeros(1, dtype=torch.bool)])
    bulk = bulk | bulk.roll(1)
    return (index % stride == 0) | (end < stride) & halving | bulk


def between(x: Float[Tensor, " k"], grid: Float[Tensor, " q"], u: Float[Tensor, " q"]) -> Float[Tensor, " k"]:
    """Part of the data below each `x`, 0 before the first quantile and 1 after the last, strictly rising."""
    index = torch.searchsorted(grid, x).clamp(1, len(grid) - 1)
    gap = (grid[index] - grid[index - 1]).clamp(min=1e-300)
    part = ((x - grid[index - 1]) / gap).clamp(0, 1)
    below = u[index - 1] + (u[index] - u[index - 1]) * part
    return torch.where(x < grid[0], 0.0, torch.where(x > grid[-1], 1.0, below))


def stacked(columns: Sequence[tuple[Tensor, Tensor, float, float, float, float]]) -> Knots:
    """Distributions of several columns, padded to the same number of knots."""
    most = max(len(x) for x, *_ in columns)
    x = torch.full((len(columns), most), math.inf, dtype=torch.float64)
    u = torch.ones(len(columns), most, dtype=torch.float64)
    for row, (places, below, *_) in enumerate(columns):
        x[row, : len(places)], u[row, : len(places)] = places, below
    counts = torch.tensor([len(places) for places, *_ in columns])
    rest = torch.tensor([[*numbers] for _, _, *numbers in columns], dtype=torch.float64)
    return Knots(x, u, counts, *rest.unbind(1))
