"""Every metric that needs nothing but samples; floors, baselines and families all go through here."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pipelines.evaluation.bootstrap import interval, mean_draws, mean_interval
from pipelines.evaluation.distribution import Kernels, Strata, frechet, frechet_draws, neighbourhoods
from pipelines.evaluation.metric import Better, Metric, metric
from pipelines.evaluation.two_sample import told_apart

MOST_PAIRWISE = 2_000
"""Rows of a side that pairwise metrics look at."""
MOST_CHUNKS = 5
"""Chunks of samples, each as large as the reference, that neighbourhood metrics are averaged over."""


def distribution_metrics(
    reference: dict[str, Float[np.ndarray, "real dim"]],
    generated: dict[str, Float[np.ndarray, "n dim"]],
    *,
    resamples: int,
    seed: int,
    strata: Strata = (None, None),
) -> dict[str, Metric]:
    """How far generated points are from reference points, in every space.

    The Fréchet and kernel distances use all rows given (the kernel at most `MOST_PAIRWISE` a side);
    the other metrics compare sets of equal size, averaged over chunks of the generated rows.

    Arguments:
        reference: Features of real test examples, by space.
        generated: Features of samples (or of real training examples, for the floor), by space.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of resamples and folds.
        strata: Labels of the generated and of the reference rows, where their shares were fixed.
    """
    found: dict[str, Metric] = {}
    for space, real in reference.items():
        suffix = "" if space == "classifier" else f"_{space}"
        both = _distances(real, generated[space], resamples, seed, strata)
        if space == "classifier":
            both |= _neighbours(real, generated[space], resamples, seed) | _c2st(
                real, generated[space], resamples, seed
            )
        found |= {name + suffix: value for name, value in both.items()}
    return found


def _distances(real: np.ndarray, points: np.ndarray, resamples: int, seed: int, strata: Strata) -> dict[str, Metric]:
    distance = frechet(points, real)
    between = interval(distance, frechet_draws(points, real, resamples, seed, strata))
    if between is not None:
        between = (max(between[0], 0.0), between[1])
    kernels = Kernels.cubic(points[:MOST_PAIRWISE], real[:MOST_PAIRWISE])
    kernel = kernels.distance()
    few = (strata[0] if strata[0] is None else strata[0][:MOST_PAIRWISE],)
    few += (strata[1] if strata[1] is None else strata[1][:MOST_PAIRWISE],)
    spread = interval(kernel, kernels.draws(resamples, seed, few))
    return {
        "frechet": metric(value=distance, interval=between, unit="squared feature deviations", better="lower"),
        "kernel": metric(value=kernel, interval=spread, unit="kernel", better="lower"),
    }


def _neighbours(real: np.ndarray, points: np.ndarray, resamples: int, seed: int) -> dict[str, Metric]:
    real = real[:MOST_PAIRWISE]
    size = min(len(real), len(points))
    parts = [points[i * size : (i + 1) * size] for i in range(min(len(points) // size, MOST_CHUNKS))]
    found = [neighbourhoods(real[:size], part) for part in parts]
    rows = {
        "precision": np.concatenate([part.precision for part in found]),
        "recall": np.mean([part.recall for part in found], 0),
        "density": np.concatenate([part.density for part in found]),
        "coverage": np.mean([part.coverage for part in found], 0),
    }
    units = {"density": "real neighbourhoods around a sample"}
    return {name: share(values, resamples, seed, unit=units.get(name, "share")) for name, values in rows.items()}


def _c2st(real: np.ndarray, points: np.ndarray, resamples: int, seed: int) -> dict[str, Metric]:
    size = min(len(real), len(points), MOST_PAIRWISE)
    right = told_apart(real[:size], points[:size], seed=seed)
    return {"c2st": share(right, resamples, seed, better="lower")}


def share(rows: np.ndarray, resamples: int, seed: int, *, unit: str = "share", better: Better = "higher") -> Metric:
    """The mean of the rows, with its interval."""
    return metric(value=float(np.mean(rows)), interval=mean_interval(rows, resamples, seed), unit=unit, better=better)


def root_mean(rows: np.ndarray, resamples: int, seed: int, *, unit: str) -> Metric:
    """The root of the mean of the rows (of squared errors), with its interval; lower is better."""
    value = float(np.sqrt(np.mean(rows)))
    draws = np.sqrt(mean_draws(rows, resamples, seed))
    return metric(value=value, interval=interval(value, draws), unit=unit, better="lower")
