r"""Are cells missing as often as in the test rows? Distances of numbers look at known cells alone.

.. math:: \frac{1}{C} \sum_c \left| p_c^\text{samples} - p_c^\text{test} \right|

with :math:`p_c` the share of rows in which column :math:`c` is missing.
"""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.base import SAMPLES, Description, counts, interval
from pipelines.evaluation.metrics.samples import Findings, SampleSet

GAP_SHARE = Description(
    name="gap_share",
    title="Gaps",
    sentence="Difference of the shares of missing cells, averaged over columns.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (GAP_SHARE,)


def measure(samples: SampleSet) -> Findings:
    """The mean difference of the columns' shares of missing cells; nothing where no cell is missing anywhere."""
    sides = [np.isnan(x.double().numpy()) for x in (samples.test.x, samples.drawn[: samples.compared])]
    if not any(side.any() for side in sides) and not samples.every.isnan().any():
        return Findings(metrics={})
    value = float(np.abs(sides[0].mean(0) - sides[1].mean(0)).mean())
    shares = [
        counts(len(side), samples.resamples, samples.seed + place) @ side / len(side)
        for place, side in enumerate(sides)
    ]
    spread = interval(value, np.abs(shares[0] - shares[1]).mean(1), least=0.0)
    return Findings(metrics={GAP_SHARE.name: GAP_SHARE.of(value, spread)})
