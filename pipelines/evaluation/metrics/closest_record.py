r"""Are samples nearer to training examples than to examples that the model never saw?

Each sample is given to the nearest of all real rows, training and test rows together (where several are equally near,
in equal parts). Samples of a model that learnt the distribution and not the rows go to training rows in the share that
these are of all, for nothing tells the two apart; copies go to training rows alone. With the share :math:`s` of
samples given to the :math:`N` training rows, and :math:`M` test rows, what is told is that share had there been as
many of the one as of the other:

.. math:: \frac{s/N}{s/N + (1 - s)/M}

which is 0.5 for independent draws, whatever the numbers, and 1 for a replay of training rows. So all training rows
take part, and a copy of any is seen. Samples that go to the same rows are no independent evidence: the interval is
Wilson's for the number of independent rows that would vary as much.

References:
    | Holdout-based empirical assessment of mixed-type synthetic data (Platzer and Reutterer, 2021), section 3.2
    | https://arxiv.org/abs/2104.00635
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.attacks import FEWEST, wilson
from pipelines.evaluation.metrics.base import MOST_PAIRWISE, PRIVACY, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

CLOSEST_RECORD = Description(
    name="closest_record",
    title="Closest record is a training row",
    sentence="Samples nearer to a training example than to an unseen one, were there as many; 0.5 is a draw, 1 a copy.",
    group=PRIVACY,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (CLOSEST_RECORD,)

MOST_ROWS = 50_000
"""Real rows of a side, at most, and"""
MOST_VALUES = 1 << 26
"""numbers of them as network inputs; of more, so many are chosen at random, always the same ones."""
SAME = 1e-4
"""Squared distances (in network-input units) that differ by less are equal: such is their rounding."""


def measure(samples: SampleSet) -> Findings:
    """The share of samples whose closest record is a training row, of equal numbers."""
    drawn = samples.drawn[:MOST_PAIRWISE]
    if min(len(samples.test), len(drawn)) < FEWEST:
        return Findings(metrics={}, left_out={CLOSEST_RECORD.name: too_few(FEWEST, samples)})
    most = max(FEWEST, min(MOST_ROWS, MOST_VALUES // int(np.prod(samples.inputs.shape))))
    train, test = some(samples.every, most), some(samples.test.x, most)
    given = owned(drawn, torch.cat([train, test]), samples.inputs)
    share, n, m = float(given[: len(train)].sum() / given.sum()), len(train), len(test)
    independent = given.sum() ** 2 / np.square(given).sum()
    value, low, high = (s / n / (s / n + (1 - s) / m) for s in (share, *wilson(share, independent)))
    return Findings(metrics={CLOSEST_RECORD.name: CLOSEST_RECORD.of(value, (low, high)).beside(floor=0.5)})


def some(x: Num[Tensor, "n *data"], most: int) -> Num[Tensor, "k *data"]:
    """At most so many of the rows, at random."""
    if len(x) <= most:
        return x
    return x[torch.from_numpy(np.random.default_rng([0, len(x)]).permutation(len(x))[:most])]


def owned(
    drawn: Num[Tensor, "n *data"], rows: Num[Tensor, "m *data"], inputs: FeatureEncoder, *, chunk: int = 256
) -> Float[np.ndarray, " m"]:
    """How many samples each row is the nearest of; a sample with several equally near ones is divided among them.

    Arguments:
        drawn: Samples in data space.
        rows: Real rows, likewise.
        inputs: Data space to numbers.
        chunk: Samples looked at in one go.
    """
    known = inputs(rows).flatten(1)
    square, given = known.square().sum(1), torch.zeros(len(known), dtype=torch.float64)
    for part in drawn.split(chunk):
        y = inputs(part).flatten(1)
        distance = torch.addmm(square.expand(len(y), -1), y, known.T, alpha=-2)  # less |y|², which all have alike
        nearest = distance <= distance.min(1, keepdim=True).values + SAME
        given += (nearest / nearest.sum(1, keepdim=True)).sum(0)
    return given.numpy()
