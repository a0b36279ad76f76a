"""Grids of columns: numbers that are all multiples of a step coarser than their last decimal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DECIMALS = 6
"""Decimals that a column on a grid has at most."""

DISTINCT = 16
"""Distinct values from which on a common step is no accident: of random ones so many are all even or all odd in one
case of 30,000."""

REPEATED = 20
"""Times that each of fewer values occurs on average, from which on others are not to be expected."""


class GridSearch:
    """The coarsest grid that all values of a column lie on, found batch by batch.

    Example:
        >>> search = GridSearch()
        >>> search.add(np.arange(30) * 0.5 + 0.25)
        >>> search.found()
        {'start': 25, 'step': 50, 'parts': 100}
    """

    def __init__(self) -> None:
        self.decimals, self.step, self.start, self.count = 0, 0, 0, 0
        self.regular = True
        self.distinct: NDArray[np.float64] = np.empty(0)

    def add(self, values: NDArray[np.float64]) -> None:
        """Take more values, none missing, into account."""
        if not self.regular or not len(values):
            return
        before = self.decimals
        while self.decimals <= DECIMALS and not (np.round(values, self.decimals) == values).all():
            self.decimals += 1
        if self.decimals > DECIMALS or np.abs(values).max() * 10**self.decimals > 2**53:
            self.regular = False
            return
        finer = 10 ** (self.decimals - before)
        units = np.rint(values * 10**self.decimals).astype(np.int64)
        self.start = self.start * finer if self.count else int(units[0])
        self.step = math.gcd(self.step * finer, int(np.gcd.reduce(np.abs(units - self.start))))
        self.regular = self.step != 1 or self.decimals < DECIMALS
        self.count += len(values)
        if len(self.distinct) < DISTINCT:
            self.distinct = np.unique(np.concatenate([self.distinct, values]))

    def found(self) -> dict[str, int]:
        """The grid's values are `(start + k * step) / parts`; empty where there is none that is coarser than the last
        decimal, or it may be an accident of few values."""
        few = len(self.distinct) < DISTINCT
        if not self.regular or self.step <= 1 or (few and self.count < REPEATED * len(self.distinct)):
            return {}
        return {"start": self.start % self.step, "step": self.step, "parts": 10**self.decimals}
