"""The columns of a table in parts: categories, frequent numbers and ranges of others; and where cells lie in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .base import Domain


class Intervals(NamedTuple):
    """The unit interval of each column's distribution in parts: a category, a frequent value or a range of values each.

    Arguments:
        edges: Ends of the parts, rising from 0 to 1, `[columns, most + 1]`, 1 beyond a column's last; float64.
        counts: Parts of each column.
    """

    edges: Tensor
    counts: list[int]

    def to(self, device: torch.device) -> Intervals:
        """The same on another device."""
        return Intervals(self.edges.to(device), self.counts)


def intervals_of(table: Domain, most: int) -> Intervals:
    """Every category, and every number that is frequent or one of few, a part of its own; the rest in at most about
    `most` parts of equal probability. No cell lies in two of them."""
    knots = table.knots(torch.device("cpu"))
    every = []
    for column, number in enumerate(knots.knots.tolist()):
        x, below, above = knots.x[column, :number], knots.below[column], knots.above[column]
        u = below + (1 - below - above) * knots.u[column, :number]
        ends = torch.ones(number, dtype=torch.bool)
        ends[1:-1] = (x[1:-1] != x[:-2]) | (x[1:-1] != x[2:])  # a jump has two ends, and nothing between them
        inner = u[ends][1:-1].tolist()
        least = 0.0 if column in table.categorical or len(inner) < most else 1 / most
        edges = [0.0]
        for now, then in zip(inner, [*inner, 1.0][1:], strict=True):
            if now - edges[-1] >= least or (then - now >= least > 0 and now - edges[-1] > 0):
                edges.append(now)
        every.append(torch.tensor([*edges, 1.0], dtype=torch.float64))
    longest = max(map(len, every))
    padded = torch.ones(len(every), longest, dtype=torch.float64)
    for column, edges in enumerate(every):
        padded[column, : len(edges)] = edges
    return Intervals(padded, [len(edges) - 1 for edges in every])


class Places(NamedTuple):
    """Where a row's cells lie, each `[batch, columns]`.

    Arguments:
        part: Which of its column's intervals, int64.
        y: The place on the normal scale, float64.
        rest: What makes of the interval's log-probability the cell's (a density in data units if continuous), float64.
        observed: Whether the cell has a value, and it is known.
        gap: Whether the cell is known to have none.
    """

    part: Tensor
    y: Tensor
    rest: Tensor
    observed: Tensor
    gap: Tensor
