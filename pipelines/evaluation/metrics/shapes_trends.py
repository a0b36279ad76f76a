r"""The field's own figures of tables, as SDMetrics defines them: column shapes and column pair trends, 1 at best.

| of | score |
| --- | --- |
| a number | one less its Kolmogorov-Smirnov distance, missing cells aside |
| a category | one less the total variation, missing cells aside |
| two numbers | one less half the difference of Pearson's correlations; none where a column is constant |
| others | one less the total variation of pairs of values, gaps being one; numbers by ten bins of their side's range |

References:
    | https://docs.sdv.dev/sdmetrics/data-metrics/quality/quality-report
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.sparse import csr_array

from pipelines.evaluation.metrics.base import SAMPLES, Description, counts, interval
from pipelines.evaluation.metrics.samples import Findings, SampleSet
from pipelines.evaluation.metrics.tabular import column_distances

SHAPES = Description(
    name="shapes",
    title="Column shapes",
    sentence="One less the columns' distances (numbers: Kolmogorov-Smirnov, categories: total variation), averaged.",
    group=SAMPLES,
    unit="score",
    better="higher",
)
TRENDS = Description(
    name="trends",
    title="Column pair trends",
    sentence="Likeness of every two columns' correlation or table of counts, averaged over pairs.",
    group=SAMPLES,
    unit="score",
    better="higher",
)
DESCRIPTIONS = (SHAPES, TRENDS)

MOST_PAIRS = 1_000
"""Pairs of columns compared; of more, so many are chosen at random, always the same ones."""

Columns = Sequence[Mapping[str, Any]]
Weights = tuple[Shaped[np.ndarray, "resamples n"], Shaped[np.ndarray, "resamples m"]]


def measure(samples: SampleSet) -> Findings:
    """Both scores of the rows that are compared; trends of tables with two columns or more."""
    real, drawn = samples.test.x.double().numpy(), samples.drawn[: samples.compared].double().numpy()
    columns, resamples, seed = samples.domain["columns"], samples.resamples, samples.seed
    once = np.ones((1, len(real)), np.int64), np.ones((1, len(drawn)), np.int64)
    resampled = counts(len(real), resamples, seed), counts(len(drawn), resamples, seed + 1)
    found = {}
    for description, score in ((SHAPES, shapes), (TRENDS, trends)):
        if score is trends and len(columns) < 2:
            continue
        value = float(score(real, drawn, columns, once)[0])
        if not np.isnan(value):
            spread = interval(value, score(real, drawn, columns, resampled)) if resamples else None
            spread = spread and (spread[0], min(spread[1], 1.0))
            found[description.name] = description.of(value, spread)
    return Findings(metrics=found)


def shapes(
    real: Float[np.ndarray, "n columns"], drawn: Float[np.ndarray, "m columns"], columns: Columns, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """The mean score of the columns with known values on both sides, by resample.

    Arguments:
        real: Real rows in data space, NaN where missing.
        drawn: Samples.
        columns: The columns of the dataset's domain.
        weights: How often each row counts.
    """
    known = ~(np.isnan(real).all(0) | np.isnan(drawn).all(0))
    if not known.any():
        return np.full(len(weights[0]), np.nan)
    kept = [column for column, there in zip(columns, known, strict=True) if there]
    return 1 - column_distances(real[:, known], drawn[:, known], kept, weights, gaps=False).mean(1)


def trends(
    real: Float[np.ndarray, "n columns"], drawn: Float[np.ndarray, "m columns"], columns: Columns, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """The mean score of the pairs of columns that have one, by resample; arguments as of `shapes`."""
    categorical = [column["type"] == "categorical" for column in columns]
    cells = [[_cells(side[:, i], categorical[i]) for i in range(len(columns))] for side in (real, drawn)]
    pairs = list(itertools.combinations(range(len(columns)), 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [pairs[k] for k in np.sort(np.random.default_rng(0).permutation(len(pairs))[:MOST_PAIRS])]
    scores = []
    for i, j in pairs:
        if categorical[i] or categorical[j]:
            scores.append(_contingency(*((side[i], side[j]) for side in cells), weights))
        else:
            both = [_correlation(side[:, [i, j]], w) for side, w in zip((real, drawn), weights, strict=True)]
            scores.append(1 - np.abs(both[0] - both[1]) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no pair with a score: NaN
        return np.nanmean(scores, 0)


def _cells(values: Float[np.ndarray, " n"], categorical: bool) -> Int[np.ndarray, " n"]:
    """A whole number for each value: the category, or the bin of a number (the largest and the missing share one)."""
    if categorical:
        return np.nan_to_num(values, nan=-1).astype(np.int64)
    known = values[~np.isnan(values)]
    return np.digitize(values, np.histogram_bin_edges(known)) if len(known) else np.zeros(len(values), np.int64)


def _contingency(
    real: tuple[np.ndarray, np.ndarray], drawn: tuple[np.ndarray, np.ndarray], weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """One less the total variation of pairs of cells."""
    pairs = np.concatenate([np.stack(side, 1) for side in (real, drawn)])
    _, code = np.unique(pairs[:, 0] * 1_000_003 + pairs[:, 1], return_inverse=True)
    share = []
    for codes, weight in zip(np.split(code, [len(real[0])]), weights, strict=True):
        rows = np.arange(len(codes))
        table = csr_array((np.ones(len(codes)), (codes, rows)), shape=(int(code.max()) + 1, len(codes)))
        share.append(table @ weight.T / weight.sum(1))
    return 1 - np.abs(share[0] - share[1]).sum(0) / 2


def _correlation(
    x: Float[np.ndarray, "n 2"], weight: Shaped[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    """Pearson's correlation over the rows that know both; NaN where one is constant."""
    known = ~np.isnan(x).any(1)
    if not known.any() or (np.ptp(x[known], axis=0) == 0).any():
        return np.full(len(weight), np.nan)
    a, b = ((x[known] - x[known].mean(0)) / x[known].std(0)).T
    w = weight[:, known] / np.maximum(weight[:, known].sum(1, keepdims=True), 1)
    mean_a, mean_b = w @ a, w @ b
    spread = (w @ a**2 - mean_a**2) * (w @ b**2 - mean_b**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (w @ (a * b) - mean_a * mean_b) / np.sqrt(spread)
