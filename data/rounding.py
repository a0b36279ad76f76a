"""How the numbers of a column are rounded: prices end in .99, incomes in 000, a few measurements have more decimals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_DECIMALS = 8
"""Decimals from which on numbers are measured, not rounded."""
LEAST = 100
"""Numbers of one magnitude from which its rounding is learned, and distinct values that a column has more than."""
TELLING = 0.1
"""Share of numbers that must be rounded further than chance rounds them."""
FREQUENT = 4.0
"""Standard deviations above the others by which the last two digits of numbers are frequent."""
SEVERAL = 5
"""Different numbers that share their last digits, for these to be frequent."""
BULK, BULK_COUNT = 0.002, 8
"""Share of a column, and times, from which on a number is drawn as often as it occurs; how it ends says nothing of the
others."""
UNSEEN = 0.001
"""Share of numbers that may end in any way."""
MOST_UNITS = 1e11
"""Units of the largest number, so that the least interval is seen beside it in double precision."""
EXCEPTIONS = 0.005
"""Share of numbers that may have more decimals than the others."""


def rounding_of(values: NDArray[np.float64], grid: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The rounding of a column's numbers by their magnitude; empty where they are not rounded, or all alike.

    Arguments:
        values: Numbers, none missing.
        grid: What they all lie on (`data.grids`), if anything: empty, too, where this says all of their rounding.
    Returns:
        `unit`: the power of ten that all are multiples of; `ranges` of magnitudes, each with the units it begins at
        (`least`), the units after which its pattern repeats (`period`), the share of numbers that are multiples of 1,
        10, 100, … units (`zeros`) and nothing more, and of those with frequent digits before no zero, one, … (`last`).
    Example:
        >>> prices = np.repeat(np.arange(10, 160) + 0.99, 2)
        >>> [list(digits) for digits in rounding_of(prices)["ranges"][0]["last"]]
        [['99']]
    """
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    others = (counts <= max(BULK * len(values), BULK_COUNT))[place]
    decimals = decimals_of(values)
    if decimals is None or others.sum() < LEAST or len(distinct) <= LEAST:
        return {}
    if grid and not rounding_of(np.rint((values * grid["parts"] - grid["start"]) / grid["step"])):
        return {}
    if float(np.abs(values).max()) * 10**decimals >= MOST_UNITS:
        return {}
    units = np.rint(np.abs(values) * 10**decimals).astype(np.int64)
    common = 0
    while not (units % 10).any():
        units, common = units // 10, common + 1
    units = units[others]
    magnitude = np.maximum(np.char.str_len(units.astype(str)) - 1, 2)
    found, telling = [], False
    for power in np.unique(magnitude).tolist():
        inside = units[magnitude == power]
        if len(inside) < LEAST:
            continue
        period = 10 ** (power - 1) if power > 2 else 100
        zeros, last = _shares(inside, period)
        telling |= 1 - zeros[0] > TELLING
        found.append({"least": 10**power if found else 0, "period": period, "zeros": zeros, "last": last})
    return {"unit": common - decimals, "ranges": found} if telling else {}


def decimals_of(values: NDArray[np.float64]) -> int | None:
    """Decimals that all but a few of the numbers have at most; `None` where they are measured."""
    spacing = 4 * np.spacing(np.abs(values))  # 0.1 + 0.2 has one decimal
    for decimals in range(MOST_DECIMALS + 1):
        if (np.abs(np.round(values, decimals) - values) > spacing).mean() <= EXCEPTIONS:
            return decimals
    return None


def _shares(units: NDArray[np.int64], period: int) -> tuple[list[float], list[dict[str, float]]]:
    """Shares of numbers by the power of ten that they are multiples of, and of frequent digits before their zeros."""
    powers = len(str(period))
    exactly = [float(((units % 10**p == 0) & (units % 10 ** (p + 1) != 0)).sum()) for p in range(powers - 1)]
    exactly.append(float((units % period == 0).sum()))
    last: list[dict[str, float]] = []
    for power in range(powers - 2):
        here = units[units % 10**power == 0] // 10**power
        counts, values = (np.bincount(numbers % 100, minlength=100) for numbers in (here, np.unique(here)))
        last.append({})
        groups = {power: [k for k in range(100) if k % 10]}
        if power == powers - 3:
            groups[power + 1] = list(range(10, 100, 10))
        for zeros, group in groups.items():
            usual = float(np.median(counts[group]))
            for digits in group:
                if counts[digits] > usual + FREQUENT * (usual + 1) ** 0.5 and values[digits] >= SEVERAL:
                    last[power][f"{digits:02}"] = float(counts[digits] - usual)
                    exactly[zeros] -= float(counts[digits] - usual)
    multiples: list[float] = []
    for power, count in enumerate(exactly):  # of the multiples of 10^i one in 10^(k-i) is one of 10^k
        ended = 1.0 if power == powers - 1 else 0.9
        chance = sum(found * ended * 10.0 ** (i - power) for i, found in enumerate(multiples))
        multiples.append(max(0.0, count - chance) / ended)
    multiples[0] += max(1.0, UNSEEN * len(units))
    total = sum(multiples) + sum(sum(level.values()) for level in last)
    levels = [{digits: count / total for digits, count in level.items()} for level in last]
    return [count / total for count in multiples], levels
