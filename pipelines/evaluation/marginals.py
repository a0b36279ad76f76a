r"""Is each column of a table distributed as in the data?

Numbers: the Kolmogorov-Smirnov distance :math:`\max_t |F(t) - G(t)|`; categories: the total variation
:math:`\tfrac12 \sum_c |p_c - q_c|`. Both go from 0 to 1. Missing cells are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from pipelines.evaluation.bootstrap import counts

Columns = Sequence[Mapping[str, Any]]


def column_distances(
    real: Float[np.ndarray, "n columns"],
    generated: Float[np.ndarray, "m columns"],
    columns: Columns,
    weights: tuple[Shaped[np.ndarray, "resamples n"], Shaped[np.ndarray, "resamples m"]] | None = None,
) -> Float[np.ndarray, "resamples columns"]:
    """The distance of every column.

    Arguments:
        real: Rows in data space, NaN where missing.
        generated: The same of samples.
        columns: The columns of the dataset's domain.
        weights: How often each row counts, by resample; `None` for once each, in one resample.
    """
    w, v = weights or (np.ones((1, len(real)), np.int64), np.ones((1, len(generated)), np.int64))
    found = np.zeros((len(w), len(columns)))
    for index, column in enumerate(columns):
        a, b = real[:, index], generated[:, index]
        points = np.union1d(a[~np.isnan(a)], b[~np.isnan(b)])
        difference = _cumulative(a, w, points) - _cumulative(b, v, points)
        if column["type"] == "categorical":
            found[:, index] = np.abs(np.diff(difference, axis=1, prepend=0)).sum(1) / 2
        else:
            found[:, index] = np.abs(difference).max(1, initial=0)
    return found


def _cumulative(values: np.ndarray, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Share of the known values up to each point, by resample, `[resamples, points]`."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    mass = np.concatenate([np.zeros((len(weight), 1)), weight[:, order].cumsum(1)], 1)
    return mass[:, np.searchsorted(values[order], points, "right")] / np.maximum(mass[:, -1:], 1)


def distance_draws(
    real: Float[np.ndarray, "n columns"],
    generated: Float[np.ndarray, "m columns"],
    columns: Columns,
    *,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, " resamples"]:
    """The mean distance of the columns with the rows of both sides resampled."""
    weights = counts(len(real), resamples, seed), counts(len(generated), resamples, seed + 1)
    return column_distances(real, generated, columns, weights).mean(1)
