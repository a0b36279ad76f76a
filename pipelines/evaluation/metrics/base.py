"""A number, what it is measured in, and what stands beside it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One measured number.

    Arguments:
        value: The estimate.
        low: Lower end of its 95 % bootstrap interval; `None` when it has none.
        high: Upper end.
        unit: What it is measured in.
        better: Which direction is better.
        floor: The same number for real training examples in place of samples; `None` when meaningless.
        baseline: The same number for the classical baseline; `None` when it has none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str
    better: Better
    floor: float | None = None
    baseline: float | None = None

    def beside(self, *, floor: float | None = None, baseline: float | None = None) -> Metric:
        """The same number with its floor and its baseline."""
        return replace(self, floor=floor, baseline=baseline)

    def beats(self, other: Metric) -> bool:
        """Whether this number is better than the other's whole interval (its value if it has none)."""
        if self.better == "lower":
            return self.value < (other.value if other.low is None else other.low)
        return self.value > (other.value if other.high is None else other.high)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def metric(*, value: float, interval: tuple[float, float] | None = None, unit: str, better: Better) -> Metric:
    """A metric of plain Python floats, from an estimate and its interval."""
    low, high = (None, None) if interval is None else (float(interval[0]), float(interval[1]))
    return Metric(value=float(value), low=low, high=high, unit=unit, better=better)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A metric's name and what the report says of it; makes its numbers.

    Arguments:
        name: Key in the results.
        title: What people call it.
        sentence: What it says, in one line.
        group: Heading it stands under, one of `GROUPS`.
        unit: What it is measured in; empty where the data decide.
        better: Which direction is better.
        by_kind: Whether `name` is the beginning of many names, of which `title` shows the rest at `{}`.
    """

    name: str
    title: str
    sentence: str
    group: str
    unit: str
    better: Better
    by_kind: bool = False

    def of(self, value: float, interval: tuple[float, float] | None = None, *, unit: str = "") -> Metric:
        """The metric of an estimate and its interval."""
        return metric(value=value, interval=interval, unit=unit or self.unit, better=self.better)

    def mean(self, rows: Shaped[np.ndarray, " n"], resamples: int, seed: int) -> Metric:
        """The mean of the rows, with its interval."""
        return self.of(float(np.mean(rows)), mean_interval(rows, resamples, seed))

    def root_mean(self, rows: Shaped[np.ndarray, " n"], resamples: int, seed: int, *, unit: str = "") -> Metric:
        """The root of the mean of the rows (of squared errors), with its interval."""
        value = float(np.sqrt(np.mean(rows)))
        return self.of(value, interval(value, np.sqrt(mean_draws(rows, resamples, seed))), unit=unit)


SAMPLES = "Samples: are they like the data?"
DENSITY = "Density: how well is unseen data predicted?"
CODES = "Codes and reconstructions"
IMPUTATION = "Imputation: how well are hidden values filled in?"
ANOMALIES = "Anomalies: is the strange told from the ordinary?"
PRIVACY = "Privacy: what do samples tell of the training examples?"
GROUPS = (SAMPLES, PRIVACY, DENSITY, CODES, IMPUTATION, ANOMALIES)
"""Headings of the leaderboard, in this order."""


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


def interval(
    value: float, draws: Float[np.ndarray, " resamples"], level: float = LEVEL, *, least: float = -math.inf
) -> tuple[float, float] | None:
    """Centred percentile interval; `None` without resamples.

    Of very few rows some resamples say nothing (all copies of one row): those that are not finite are left aside.

    Arguments:
        value: The estimate.
        draws: The statistic on each resample.
        level: Coverage aimed at, between 0 and 1.
        least: What the statistic cannot be below.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) + (value - draws.mean())
    return max(float(low), least), float(high)


def mean_draws(values: Shaped[np.ndarray, " n"], resamples: int, seed: int) -> Float[np.ndarray, " resamples"]:
    """The mean of the rows on each resample."""
    return counts(len(values), resamples, seed) @ np.asarray(values, np.float64) / len(values)


def mean_interval(values: Shaped[np.ndarray, " n"], resamples: int, seed: int) -> tuple[float, float] | None:
    """Interval of the mean of `values`."""
    return interval(float(np.mean(values)), mean_draws(values, resamples, seed))


MOST_PAIRWISE = 2_000
"""Rows of a side that pairwise metrics look at."""
