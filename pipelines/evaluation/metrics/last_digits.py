r"""Do numbers end as those of the training rows do? Prices end in .99, incomes in 000, few readings in a third decimal.

.. math:: \frac{1}{C} \sum_c \frac{1}{2} \sum_e \left| p_c^\text{samples}(e) - p_c^\text{training}(e) \right|

with :math:`p_c(e)` the share of known numbers of column :math:`c` with the ending :math:`e`: the last digit that is not
zero, and the place where it stands. Distances of distributions do not see it: 19.99 and 19.87 are close.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from data.rounding import decimals_of
from pipelines.evaluation.metrics.base import SAMPLES, Description, counts, interval
from pipelines.evaluation.metrics.samples import SHOWN, Findings, SampleSet

LAST_DIGITS = Description(
    name="last_digits",
    title="Last digits",
    sentence="Total variation of how numbers end (last digit, decimals or zeros after it), averaged over columns.",
    group=SAMPLES,
    unit="distance",
    better="lower",
)
DESCRIPTIONS = (LAST_DIGITS,)

LEAST = 20
"""Distinct values that a column of numbers has at least; of fewer, its distance sees each."""
MOST_ZEROS = 9
"""Zeros at the end of a number that are told apart."""
ENDINGS = 10 * (MOST_ZEROS + 1)


def measure(samples: SampleSet) -> Findings:
    """The mean distance of the columns, and the farthest; nothing where no column's numbers are rounded."""
    train, drawn = (x.double().numpy() for x in (samples.every, samples.drawn[: samples.compared]))
    weights = counts(len(drawn), samples.resamples, samples.seed)
    found, spread = {}, []
    for i, column in enumerate(samples.domain["columns"]):
        if column["type"] == "categorical" or "source" in column:
            continue
        known, ours = train[~np.isnan(train[:, i]), i], drawn[:, i]
        decimals = decimals_of(known) if len(np.unique(known)) >= LEAST else None
        if decimals is None or np.isnan(ours).all():
            continue
        there = ~np.isnan(ours)
        real = np.bincount(endings(known, decimals), minlength=ENDINGS) / len(known)
        each = np.eye(ENDINGS)[endings(ours[there], decimals)]
        found[str(column["name"])] = float(np.abs(each.mean(0) - real).sum() / 2)
        drawn_again = weights[:, there] @ each / np.maximum(weights[:, there].sum(1, keepdims=True), 1)
        spread.append(np.abs(drawn_again - real).sum(1) / 2)
    if not found:
        return Findings(metrics={})
    value = float(np.mean(list(found.values())))
    farthest = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN]
    return Findings(
        metrics={LAST_DIGITS.name: LAST_DIGITS.of(value, interval(value, np.mean(spread, 0), least=0.0))},
        details={LAST_DIGITS.name: [{"columns": [name], "distance": round(far, 6)} for name, far in farthest]},
    )


def endings(values: Float[np.ndarray, " n"], decimals: int) -> Int[np.ndarray, " n"]:
    """Ten times the zeros at the end of each number, plus the digit before them; 0 for zero itself.

    Arguments:
        values: Numbers, none missing.
        decimals: Decimals that they are written with.
    """
    units = np.rint(np.minimum(np.abs(values) * 10.0**decimals, 2**62)).astype(np.int64)
    zeros = np.zeros(len(units), np.int64)
    for _ in range(MOST_ZEROS):
        ended = (units > 0) & (units % 10 == 0)
        zeros, units = zeros + ended, np.where(ended, units // 10, units)
    return np.where(units > 0, 10 * zeros + units % 10, 0)
