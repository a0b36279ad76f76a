"""Tails of a column's distribution: the largest values as they are spaced, and beyond them a fitted law.

Quantiles at equal steps cannot say what lies between the last two, and the largest value seen is no bound: a straight
line up to it gives a heavy tail several times its mass.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOST = 4096
"""Values at each end that a tail is fitted to, at most."""

FEWEST = 200
"""Observations from which on tails are fitted."""

PLAIN = 16
"""Rank of the outermost value that is taken as it is; beyond it the law goes on."""

SMALLEST = 1e-9
"""Part of the distribution beyond the outermost knot."""

OCTAVE = 4
"""Knots for each halving of what lies beyond."""

LIGHT = -0.25
"""Shape below which a distribution ends where its data end."""

HEAVY = 0.25
"""Shape from which on the logarithm may follow a simpler law than the value."""

LARGEST = 0.5 * math.log(np.finfo(np.float64).max)
"""Logarithm below which values have squares, so that draws have a deviation; a law of logarithms may go beyond."""


def fitted_pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    r"""Shape :math:`\xi` and scale :math:`\sigma` of a generalized Pareto distribution.

    .. math:: P(X > x) = (1 + \xi x / \sigma)^{-1/\xi}

    References:
        | A new and efficient estimation method for the generalized Pareto distribution (Zhang and Stephens, 2009)
        | https://doi.org/10.1198/tech.2009.08017
    """
    x = np.sort(excess)
    n, m = len(x), 20 + int(math.sqrt(len(x)))
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    shape = np.log1p(-theta[:, None] * x).mean(1)
    profile = n * (np.log(-theta / shape) - shape - 1)
    weight = 1 / np.exp(np.minimum(profile - profile[:, None], 700)).sum(1)
    best = float((theta * weight).sum() / weight.sum())
    xi = float(np.log1p(-best * x).mean())
    return xi, -xi / best


def log_likelihood(excess: NDArray[np.float64], xi: float, sigma: float) -> float:
    """Mean log-density of a generalized Pareto distribution."""
    scaled = excess / sigma
    if abs(xi) < 1e-9:
        return float(-math.log(sigma) - scaled.mean())
    return float(-math.log(sigma) - (1 + 1 / xi) * np.log1p(xi * scaled).mean())


def upper_tail(values: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Knots of a distribution's upper tail: places, rising, and the part of the distribution beyond each.

    Nothing for data that end where they end: a light tail, one value again and again, a bound at zero.

    Arguments:
        values: The largest values seen.
        count: How many were seen in all.
    """
    size = int(min(len(values) - 1, MOST, max(40, 2.5 * math.sqrt(count))))
    if count < FEWEST or size < 40:
        return None
    top = np.sort(values)[::-1][: size + 1]
    first, threshold = top[:size], float(top[size])
    if top[0] <= 0 or len(np.unique(first)) < size / 2 or top[0] == top[1] or not top[PLAIN] > threshold:
        return None
    excess = first[first > threshold] - threshold
    xi, sigma = fitted_pareto(excess)
    if not (math.isfinite(xi) and math.isfinite(sigma) and sigma > 0) or xi < LIGHT:
        return None
    if xi > HEAVY and threshold > 0:
        logs = np.log(first[first > threshold] / threshold)
        of_log = fitted_pareto(logs)
        if log_likelihood(logs, *of_log) - float(logs.mean()) - math.log(threshold) > log_likelihood(excess, xi, sigma):
            x, beyond = _knots(np.log(top), *of_log, count)
            if x[-1] < LARGEST:
                return np.exp(x), beyond
    if xi < 1 / math.sqrt(size):  # not told apart from an exponential tail
        xi, sigma = 0.0, float(excess.mean())
    return _knots(top, min(xi, 0.95), sigma, count)


def _knots(
    top: NDArray[np.float64], xi: float, sigma: float, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest values by rank, falling, out to rank `PLAIN`, and from there on the law."""
    steps = np.arange(0, math.log2((len(top) - 1) / PLAIN) + 1e-9, 1 / OCTAVE)
    ranks = np.unique(np.round(PLAIN * 2**steps).astype(int))[::-1]
    x, beyond = top[ranks - 1], (ranks - 0.5) / count
    sigma = sigma + xi * float(x[-1] - top[-1])
    part = 2.0 ** -np.arange(1 / OCTAVE, math.log2(beyond[-1] / SMALLEST) + 1 / OCTAVE, 1 / OCTAVE)
    further = -np.log(part) * sigma if abs(xi) < 1e-9 else sigma * np.expm1(-xi * np.log(part)) / xi
    return np.concatenate([x, x[-1] + further]), np.concatenate([beyond, beyond[-1] * part])


def tails_of(
    smallest: NDArray[np.float64], largest: NDArray[np.float64], count: int
) -> dict[str, dict[str, list[float]]]:
    """Fitted tails as a manifest holds them: `lower` and `upper`, each with places `x` and the parts of the data below
    them `u`, both rising. A side without an entry ends at the data's own extreme."""
    found: dict[str, dict[str, list[float]]] = {}
    if (lower := upper_tail(-smallest, count)) is not None:
        found["lower"] = {"x": (-lower[0][::-1]).tolist(), "u": lower[1][::-1].tolist()}
    if (upper := upper_tail(largest, count)) is not None:
        found["upper"] = {"x": upper[0].tolist(), "u": (1 - upper[1]).tolist()}
    return found
