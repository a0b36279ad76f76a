r"""Are the far ends of numbers as they are? What distances between distributions cannot see: a thousandth of the mass.

Of a column, :math:`q` is its quantile at :math:`1-\alpha` (and, for the lower end, of the negated column),
:math:`m` its median and :math:`e = \mathrm E[(x - u)_+]` the excess over :math:`u`, the test rows' 99 % quantile:

.. math:: \frac{|q_\text{samples} - q_\text{test}|}{q_\text{test} - m_\text{test}} \qquad
    \frac{|e_\text{samples} - e_\text{test}|}{e_\text{test}}

:math:`\alpha` is `ALPHA`, or one test row where there are fewer than a thousand. Which ends count is up to the test
rows alone: one at which they do not spread (most values are the extreme) is left out. An end of which samples have
too few known values has both errors at 1, as if nothing were drawn beyond the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from pipelines.evaluation.metrics.base import SAMPLES, Description, counts, interval
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

TAIL_QUANTILE = Description(
    name="tail_quantile",
    title="Tails, furthest thousandth",
    sentence="Relative error of the numbers' outermost thousandths (quantiles, from the median), averaged.",
    group=SAMPLES,
    unit="relative error",
    better="lower",
)
TAIL_EXCESS = Description(
    name="tail_excess",
    title="Tails, excess",
    sentence="Relative error of the mean excess beyond the 1\u202f% and 99\u202f% quantiles, averaged over numbers.",
    group=SAMPLES,
    unit="relative error",
    better="lower",
)
DESCRIPTIONS = (TAIL_QUANTILE, TAIL_EXCESS)

ALPHA = 0.001
"""Mass beyond the quantiles compared."""
BEYOND = 0.01
"""Mass whose excess is compared."""
FEWEST = 50
"""Known values of a column below which it has no tails: of test rows it is left out, of samples it is wrong."""


def measure(samples: SampleSet) -> Findings:
    """Errors of both ends of every number of at least `FEWEST` known test values; nothing where there are none."""
    real, drawn = samples.test.x.double().numpy(), samples.drawn[: samples.compared].double().numpy()
    if min(len(real), len(drawn)) < FEWEST:
        numbers = any(column["type"] != "categorical" for column in samples.domain["columns"])
        names = [description.name for description in DESCRIPTIONS if numbers]
        return Findings(metrics={}, left_out=dict.fromkeys(names, too_few(FEWEST, samples)))
    one = np.ones((1, len(real)), np.int64), np.ones((1, len(drawn)), np.int64)
    values = tail_errors(real, drawn, samples.domain["columns"], one)[:, :, 0]
    if not len(values):
        return Findings(metrics={})
    resamples, seed = samples.resamples, samples.seed
    weights = counts(len(real), resamples, seed), counts(len(drawn), resamples, seed + 1)
    draws = tail_errors(real, drawn, samples.domain["columns"], weights)
    found = {}
    for place, description in enumerate(DESCRIPTIONS):
        value = float(values[:, place].mean())
        found[description.name] = description.of(value, interval(value, draws[:, place].mean(0), least=0.0))
    return Findings(metrics=found)


def tail_errors(
    real: Float[np.ndarray, "n columns"],
    drawn: Float[np.ndarray, "m columns"],
    columns: Sequence[Mapping[str, Any]],
    weights: tuple[Shaped[np.ndarray, "resamples n"], Shaped[np.ndarray, "resamples m"]],
) -> Float[np.ndarray, "ends 2 resamples"]:
    """Both errors at each end of each number, by resample.

    Arguments:
        real: Test rows in data space, NaN where missing.
        drawn: Samples.
        columns: The columns of the dataset's domain.
        weights: How often each row counts.
    """
    found = []
    for i, column in enumerate(columns):
        known = [~np.isnan(side[:, i]) for side in (real, drawn)]
        rows, drawn_rows = (int(side.sum()) for side in known)
        if column["type"] == "categorical" or rows < FEWEST:
            continue
        alpha = max(ALPHA, 1 / rows)
        for sign in (1, -1):
            sides = [(sign * x[keep, i], w[:, keep]) for x, keep, w in zip((real, drawn), known, weights, strict=True)]
            x = sides[0][0]
            once = np.ones((1, len(x)))
            threshold = quantiles(x, once, 1 - BEYOND)[0]
            scale = quantiles(x, once, 1 - alpha)[0] - quantiles(x, once, 0.5)[0]
            beyond = np.maximum(x - threshold, 0).mean()
            if scale <= 0 or beyond <= 0:
                continue
            if drawn_rows < FEWEST:
                found.append(np.ones((2, len(weights[0]))))
                continue
            q, excess = (
                [quantiles(values, weight, 1 - alpha) for values, weight in sides],
                [weight @ np.maximum(v - threshold, 0) / np.maximum(weight.sum(1), 1) for v, weight in sides],
            )
            found.append([np.abs(q[1] - q[0]) / scale, np.abs(excess[1] - excess[0]) / beyond])
    return np.array(found).reshape(len(found), 2, len(weights[0]))


def quantiles(
    values: Float[np.ndarray, " n"], weight: Shaped[np.ndarray, "resamples n"], level: float
) -> Float[np.ndarray, " resamples"]:
    """The smallest value that at least the share `level` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    mass = weight[:, order].cumsum(1)
    place = (mass < level * mass[:, -1:] - 1e-9).sum(1)
    return values[order][place.clip(max=len(values) - 1)]
