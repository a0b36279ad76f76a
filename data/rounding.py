"""How the numbers of a column are rounded: prices end in .99, incomes in 000, a few measurements have more decimals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_DECIMALS = 8
"""Decimals from which on numbers are measured, not rounded."""
LEAST, FEWEST = 100, 20
"""Numbers of one magnitude from which they show that a column is rounded, and different ones that it has more than;
and numbers from which a magnitude of such a column has a pattern of its own."""
TELLING = 0.1
"""Share of numbers that must be rounded further than chance rounds them."""
FREQUENT = 4.0
"""Standard deviations above the others by which the last two digits of numbers are frequent."""
SEVERAL = 5
"""Different numbers that share their last digits, for these to be frequent."""
ALONE = 10
"""Times the median of the numbers with its ending that one of them counts at most; where these are not `SEVERAL`, it
counts at most as the median of all."""
UNSEEN = 0.001
"""Share of numbers that may end in any way."""
MOST_UNITS = 1e11
"""Units of the largest number, so that the least interval is seen beside it in double precision."""
EXCEPTIONS, DIFFERENT = 0.005, 0.05
"""Share of numbers that may have more decimals than the others, and share of the different ones that these may be."""


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
    decimals = decimals_of(values)
    if decimals is None or len(np.unique(values)) <= LEAST:
        return {}
    if grid and not rounding_of(np.rint((values * grid["parts"] - grid["start"]) / grid["step"])):
        return {}
    if float(np.abs(values).max()) * 10**decimals >= MOST_UNITS:
        return {}
    units = np.rint(np.abs(values) * 10**decimals).astype(np.int64)
    common = 0
    while units.any() and not (units % 10).any():
        units, common = units // 10, common + 1
    units, counts = np.unique(units, return_counts=True)
    magnitude = np.maximum(np.char.str_len(units.astype(str)) - 1, 2)
    found, telling = [], False
    for power in np.unique(magnitude).tolist():
        here = magnitude == power
        if counts[here].sum() < FEWEST:
            continue
        period = 10 ** (power - 1) if power > 2 else 100
        zeros, last, weight = _shares(units[here], counts[here], period)
        telling |= weight >= LEAST and 1 - zeros[0] > TELLING
        found.append({"least": 10**power if found else 0, "period": period, "zeros": zeros, "last": last})
    return {"unit": common - decimals, "ranges": found} if telling else {}


def decimals_of(values: NDArray[np.float64]) -> int | None:
    """Decimals that all but a few of the numbers have at most, and of the different ones; `None` if measured."""
    values, counts = np.unique(values, return_counts=True)
    spacing = 4 * np.spacing(np.abs(values))  # 0.1 + 0.2 has one decimal
    for decimals in range(MOST_DECIMALS + 1):
        finer = np.abs(np.round(values, decimals) - values) > spacing
        if finer.mean() <= DIFFERENT and counts[finer].sum() <= EXCEPTIONS * counts.sum():
            return decimals
    return None


def _shares(
    units: NDArray[np.int64], counts: NDArray[np.int64], period: int
) -> tuple[list[float], list[dict[str, float]], float]:
    """Shares of numbers by the power of ten that they are multiples of, and of frequent digits before their zeros; and
    of how many numbers they are.

    Arguments:
        units: Different numbers.
        counts: How often each occurs.
        period: After which the pattern repeats.
    """
    powers = len(str(period))
    zeros = sum((units % 10**power == 0).astype(int) for power in range(1, powers))
    ending = 100 * zeros + np.where(zeros < powers - 2, units // 10**zeros % 100, 0)
    weights = np.zeros(len(units))
    for group in np.unique(ending):  # a number that is frequent by itself says little of how others end
        same = ending == group
        usual = ALONE * np.median(counts[same]) if same.sum() >= SEVERAL else np.median(counts)
        weights[same] = np.minimum(counts[same], usual)
    exactly = np.bincount(zeros, weights, powers)
    last: list[dict[str, float]] = []
    for power in range(powers - 2):
        multiple = zeros >= power
        digits_of = units[multiple] // 10**power % 100
        seen, values = np.bincount(digits_of, weights[multiple], 100), np.bincount(digits_of, minlength=100)
        last.append({})
        groups = {power: [k for k in range(100) if k % 10]}
        if power == powers - 3:
            groups[power + 1] = list(range(10, 100, 10))
        for place, group in groups.items():
            usual = float(np.median(seen[group]))
            for digits in group:
                if seen[digits] > usual + FREQUENT * (usual + 1) ** 0.5 and values[digits] >= SEVERAL:
                    last[power][f"{digits:02}"] = float(seen[digits] - usual)
                    exactly[place] -= float(seen[digits] - usual)
    multiples: list[float] = []
    for power, count in enumerate(exactly.tolist()):  # of the multiples of 10^i one in 10^(k-i) is one of 10^k
        ended = 1.0 if power == powers - 1 else 0.9
        chance = sum(found * ended * 10.0 ** (i - power) for i, found in enumerate(multiples))
        multiples.append(max(0.0, count - chance) / ended)
    multiples[0] += max(1.0, UNSEEN * counts.sum())
    total = sum(multiples) + sum(sum(level.values()) for level in last)
    levels = [{digits: count / total for digits, count in level.items()} for level in last]
    return [count / total for count in multiples], levels, total
