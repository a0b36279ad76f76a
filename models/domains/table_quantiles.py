"""Distributions of table columns as piecewise linear functions between some of their stored quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..shapes import Bool, Float
from .rounding import Rounding

MARGIN = 5e-4
"""The unit interval of a column's distribution is shrunk at both ends before the probit, at most by so much: by half
an observation's part, so that an extreme is never drawn more often than it occurs, or by what a fitted tail leaves."""

BEYOND = 0.45
"""Part of the data between two quantiles that a frequent number has of it; the rest is of the numbers between."""

NOTHING = 1e-12
"""The same for categories, beyond which nothing lies: it keeps the probit of their ends finite."""


def edge(margin: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """How far out, on the normal scale, an end of the range comes to lie: 3.29 for a margin of 5e-4."""
    return -torch.special.ndtri(margin)


class Knots(NamedTuple):
    """The distribution of each column as a piecewise linear function, float64.

    Arguments:
        x: Places, never falling, `[columns, knots]`, infinity beyond a column's last.
        u: Part of the training data below, rising, `[columns, knots]`, 1 beyond the last.
        knots: Knots of each column, `[columns]`.
        half: Half the width of a cell: 0.5 for whole numbers and categories, 0 for continuous values; above 0, too, for
            rounded ones, whose cells differ in width.
        low: Smallest value, `[columns]`.
        high: Largest value, `[columns]`.
        scale: What excess over them is measured in, `[columns]`.
        below: Part of the distribution kept for values below the smallest, `[columns]`.
        above: The same above the largest.
    """

    x: Tensor
    u: Tensor
    knots: Tensor
    half: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor
    below: Tensor
    above: Tensor

    def of(self, column: int) -> Knots:
        """The distribution of one column."""
        return Knots(*(t[column : column + 1] for t in self))


class Cells(NamedTuple):
    """Where examples lie in their columns' distributions, float64, each `[n, columns]`.

    Arguments:
        lower: Part of the training data below the cell.
        upper: Part of the training data up to the cell's end; equal to `lower` for a continuous value.
        log_slope: Logarithm of the distribution's slope there (of continuous values).
        excess: Distance beyond the training data's range in units of the column's scale, signed; 0 within.
        observed: Whether the cell is known; a missing one spans the whole distribution.
        scale: Units of the excess.
        below: Part of the distribution kept for values below the column's smallest.
        above: The same above its largest.
    """

    lower: Tensor
    upper: Tensor
    log_slope: Tensor
    excess: Tensor
    observed: Tensor
    scale: Tensor
    below: Tensor
    above: Tensor

    def probit(self, u: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Parts of the training data to the standard normal scale."""
        return torch.special.ndtri(self.below + (1 - self.below - self.above) * u)

    @property
    def middle(self) -> Float[Tensor, "batch columns"]:
        """The cells' middles on the normal scale; beyond the range, the place that the excess has there."""
        beyond = torch.where(self.excess > 0, edge(self.above), edge(self.below)) + self.excess.abs().log1p()
        return torch.where(self.excess == 0, self.probit((self.lower + self.upper) / 2), self.excess.sign() * beyond)

    @property
    def wide(self) -> Tensor:
        """Which cells have a probability; the others have a density."""
        return (self.upper > self.lower) & (self.excess == 0)


def knots_of(column: Mapping[str, Any], size: int) -> tuple[Tensor, Tensor, float, float, float, float, float, float]:
    """A column's distribution: places, parts of the data below, half a cell's width, smallest, largest, scale, and what
    is kept for values below and above."""
    if column["type"] == "categorical":
        counts = torch.tensor(column.get("frequencies") or [0.0] * size, dtype=torch.float64) + 1
        u = torch.cat([torch.zeros(1, dtype=torch.float64), (counts / counts.sum()).cumsum(0)])
        u[-1] = 1.0
        return torch.arange(size + 1, dtype=torch.float64) - 0.5, u, 0.5, 0.0, size - 1.0, 1.0, NOTHING, NOTHING
    grid = torch.tensor(column.get("quantiles") or [column["min"], column["max"]], dtype=torch.float64)
    check_finite(column["name"], "quantiles", grid)
    if len(grid) < 2:
        grid = grid.repeat(2)
    grid = grid.cummax(0).values
    u = torch.linspace(0, 1, len(grid), dtype=torch.float64)
    low, high = float(grid[0]), float(grid[-1])
    spread = float(column.get("std") or 0.0)
    scale = spread if spread > 0 and math.isfinite(spread) else max(high - low, 1.0)
    count = float(column.get("count") or math.inf)
    margin = min(MARGIN, 0.5 / count) if math.isfinite(count) else MARGIN
    if column["type"] == "continuous":
        bulk = grid[len(grid) * 9 // 10] - grid[len(grid) // 10]  # a few outliers must not make all else one value
        near = torch.maximum(grid[1:].abs(), grid[:-1].abs())
        step = grid.diff().gt(1e-12 * torch.maximum(near, bulk).clamp(min=1e-300)).cumsum(0)
        group = torch.cat([step.new_zeros(1), step])  # values that differ by rounding only are one
        first = torch.cat([step.new_ones(1, dtype=torch.bool), group.diff() > 0])
        grid = grid[first][group]
    quantiles, keep = grid, kept(grid, count)
    grid, u, below, above = with_tails(grid[keep], u[keep], column.get("tails") or {}, margin)
    check_finite(column["name"], "tails", torch.cat([grid, u]))
    low, high = float(grid[0]), float(grid[-1])
    if column.get("rounding"):
        x, u, ends = rounded(grid, u, Rounding([column["rounding"]]), 1 / (len(quantiles) - 1))
        return x, u, 0.5, min(low, ends[0]), max(high, ends[1]), scale, below, above
    if column["type"] == "continuous":
        return grid, u, 0.0, low, high, scale, below, above
    low, high = math.floor(low), math.ceil(high)
    values = torch.cat([grid.floor(), grid.ceil()]).unique()
    x = torch.cat([values - 0.5, values + 0.5]).unique()
    return x, between(x, grid, u), 0.5, float(low), float(high), scale, below, above


def rounded(
    grid: Float[Tensor, " k"], u: Float[Tensor, " k"], rounding: Rounding, step: float
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """A distribution on the axis on which rounded numbers are spread: a frequent number has a knot at both ends of its
    interval, another at its end; and the smallest and the largest number.

    Arguments:
        grid: Quantiles, never falling.
        u: Part of the data below each.
        rounding: The column's.
        step: Part of the data between two quantiles.
    """
    first, last = (ends[0] for ends in rounding.ends(grid[None]))
    begins = torch.cat([first.new_ones(1, dtype=torch.bool), first.diff() > 0])
    ends = begins.roll(-1)
    single, starts, stops = begins & ends, begins & ~ends, ends & ~begins
    single[0] = single[-1] = False
    more = torch.cat([u.new_zeros(1), BEYOND * u.diff().clamp(max=step), u.new_zeros(1)])
    u_first, u_last = u - more[:-1], u + more[1:]
    x = torch.cat([first[:1], first[starts], last[stops], last[single], last[-1:]])
    parts = torch.cat([u.new_zeros(1), u_first[starts], u_last[stops], u[single], u.new_ones(1)])
    x, group = x.unique(return_inverse=True)
    together = torch.zeros_like(x).scatter_add(0, group, parts) / torch.bincount(group)
    together[0], together[-1] = 0.0, 1.0
    extremes = rounding.value((first + last)[None, [0, -1]] / 2)[0].tolist()
    return x, together.cummax(0).values, (extremes[0], extremes[1])


def check_finite(name: str, what: str, numbers: Float[Tensor, " k"]) -> None:
    """Refuse a column that cannot be scaled, by name."""
    if not torch.isfinite(numbers).all():
        raise ValueError(f"column {name!r}: its {what} must be finite; prepare the dataset again")


def with_tails(
    grid: Float[Tensor, " k"], u: Float[Tensor, " k"], tails: Mapping[str, Mapping[str, list[float]]], margin: float
) -> tuple[Tensor, Tensor, float, float]:
    """A distribution whose ends are replaced by fitted tails where it has any, and what is kept beyond its ends."""
    below = above = margin
    if "lower" in tails:
        x, part = (torch.tensor(tails["lower"][key], dtype=torch.float64) for key in ("x", "u"))
        inside = u > part[-1]
        grid, u, below = torch.cat([x, grid[inside]]), torch.cat([part, u[inside]]), float(part[0])
    if "upper" in tails:
        x, part = (torch.tensor(tails["upper"][key], dtype=torch.float64) for key in ("x", "u"))
        inside = u < part[0]
        grid, u, above = torch.cat([grid[inside], x]), torch.cat([u[inside], part]), 1 - float(part[-1])
    u = (u - u[0]) / (u[-1] - u[0])
    return grid.cummax(0).values, u, below, above


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


def stacked(columns: Sequence[tuple[Tensor, Tensor, float, float, float, float, float, float]]) -> Knots:
    """Distributions of several columns, padded to the same number of knots."""
    most = max(len(x) for x, *_ in columns)
    x = torch.full((len(columns), most), math.inf, dtype=torch.float64)
    u = torch.ones(len(columns), most, dtype=torch.float64)
    for row, (places, below, *_) in enumerate(columns):
        x[row, : len(places)], u[row, : len(places)] = places, below
    counts = torch.tensor([len(places) for places, *_ in columns])
    rest = torch.tensor([[*numbers] for _, _, *numbers in columns], dtype=torch.float64)
    return Knots(x, u, counts, *rest.unbind(1))
