r"""Bootstrap intervals: how far a number would move on another draw of the rows.

Rows are drawn with replacement, the statistic is computed on every draw, and the interval is the
percentiles of the draws **shifted so that their mean is the estimate**. For an average the shift is
nothing; for a distance it matters, because a resample of a resample is further away than the sample
itself: the plain percentile interval of a Fréchet distance often excludes the distance.

References:
    | An Introduction to the Bootstrap (Efron and Tibshirani, 1993), chapters 10 and 13
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

LEVEL = 0.95
"""Coverage the intervals aim at."""


def counts(
    n: int, resamples: int, seed: int, strata: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, "resamples n"]:
    """How often each of `n` rows is drawn in each resample; every row of counts sums to `n`.

    Arguments:
        n: Rows.
        resamples: Resamples.
        seed: Seed of the draws.
        strata: Group of each row; rows are drawn within groups, so that every resample keeps their
            shares. For sets whose shares were fixed (a stratified split, samples by label), where
            they would add a spread that is not there.
    """
    random = np.random.default_rng([seed, n, resamples])
    drawn = np.zeros((resamples, n), np.int64)
    for rows in [np.arange(n)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]:
        chosen = rows[random.integers(len(rows), size=(resamples, len(rows)))]
        for row, places in zip(drawn, chosen, strict=True):
            row += np.bincount(places, minlength=n)
    return drawn


def interval(value: float, draws: Float[np.ndarray, " resamples"], level: float = LEVEL) -> tuple[float, float] | None:
    """Centred percentile interval; `None` without resamples.

    Arguments:
        value: The estimate.
        draws: The statistic on each resample.
        level: Coverage aimed at, between 0 and 1.
    """
    if not len(draws):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) + (value - draws.mean())
    return float(low), float(high)


def mean_draws(values: Shaped[np.ndarray, " n"], resamples: int, seed: int) -> Float[np.ndarray, " resamples"]:
    """The mean of the rows on each resample."""
    return counts(len(values), resamples, seed) @ np.asarray(values, np.float64) / len(values)


def mean_interval(values: Shaped[np.ndarray, " n"], resamples: int, seed: int) -> tuple[float, float] | None:
    """Interval of the mean of `values`."""
    return interval(float(np.mean(values)), mean_draws(values, resamples, seed))
