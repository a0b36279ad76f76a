r"""Are samples copies of training examples?

Two distances say how close a row :math:`x` is to the training set: to its nearest training example,
:math:`d_1`, and on average to the next few, :math:`\bar d`. A blurred or typical sample has a small
:math:`d_1` but a small :math:`\bar d` too; a copy has :math:`d_1 \ll \bar d`. So the **closeness**
:math:`d_1/\bar d` is what is judged, and real examples the model never saw (the test split) say what
closeness is ordinary.

The check is **clean** when no more than `MOST_NEAR` of the samples are closer than all but 1 % of the
test rows are, and exact copies are no commoner than among the test rows (plus `MOST_EXACT`). Where test
rows repeat training rows, as those of tables may, as many near copies are ordinary.

References:
    | A non-parametric test to detect data-copying (Meehan et al., 2020), https://arxiv.org/abs/2004.05675
    | Diffusion art or digital forgery? (Somepalli et al., 2023), https://arxiv.org/abs/2212.03860
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from scipy.stats import rankdata
from torch import Tensor

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.base import SAMPLES, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet

NEAR_COPIES = Description(
    name="near_copies",
    title="Near copies",
    sentence="Samples closer to a training example than 99\u202f% of unseen data are.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
EXACT_COPIES = Description(
    name="exact_copies",
    title="Exact copies",
    sentence="Samples identical to a training example.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (NEAR_COPIES, EXACT_COPIES)

NEAR_COPY_QUANTILE = 0.01
"""A sample is a near copy when it is closer than this share of the test rows."""
MOST_NEAR = 0.05
"""Near copies a clean set of samples may have; unseen real rows have `NEAR_COPY_QUANTILE`."""
MOST_EXACT = 0.002
"""Exact copies a clean set may have beyond the share among the test rows."""
NEIGHBOURS = 5
"""Training examples after the nearest whose mean distance is the yardstick of closeness."""

CRITERION = (
    f"near copies (nearest training distance over the mean of the next {NEIGHBOURS}, "
    f"below the {NEAR_COPY_QUANTILE:.0%} quantile of test rows) at most {MOST_NEAR:.0%} above the test rows' "
    f"exact copies, and exact copies at most {MOST_EXACT:.1%} above the test rows' share"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """Distances of rows to a training set.

    Arguments:
        index: Row of the nearest training example, `[n]`.
        distance: Root-mean-square distance to it, in network-input units, `[n]`.
        closeness: That distance over the mean distance to the next `NEIGHBOURS`, `[n]`, 0 to 1.
    """

    index: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    closeness: Float[np.ndarray, " n"]


def nearest_training_rows(
    rows: Num[Tensor, "n *data"], train: Num[Tensor, "m *data"], inputs: FeatureEncoder, *, chunk: int = 4096
) -> Nearest:
    """The nearest training example of every row, by Euclidean distance between network inputs.

    Arguments:
        rows: Examples in data space.
        train: Training examples in data space, looked at `chunk` at a time.
        inputs: Data space to numbers.
    """
    flat = inputs(rows).flatten(1)
    k = min(NEIGHBOURS + 1, len(train))
    best, index = (torch.full((len(flat), k), torch.inf), torch.zeros(len(flat), k, dtype=torch.int64))
    for start in range(0, len(train), chunk):
        part = inputs(train[start : start + chunk]).flatten(1)
        square = flat.square().sum(1)[:, None] - 2 * flat @ part.T + part.square().sum(1)
        both = torch.cat([best, square], 1)
        best, chosen = both.topk(k, largest=False)
        here = torch.arange(start, start + len(part)).expand(len(flat), -1)
        index = torch.cat([index, here], 1).gather(1, chosen)
    return _nearest(flat, train, index, inputs)


def _nearest(flat: Tensor, train: Tensor, index: Tensor, inputs: FeatureEncoder) -> Nearest:
    """Distances to the training examples found, without the cancellation of expanded squares."""
    found = torch.stack([inputs(train[column]).flatten(1) for column in index.unbind(1)], 1)
    distance, order = (flat[:, None] - found).square().mean(2).double().sqrt().sort(dim=1, stable=True)
    first, following = distance[:, 0].numpy(), distance[:, 1:].mean(1).numpy()
    closeness = np.divide(first, following, out=np.ones_like(first), where=following > 0)
    return Nearest(index=index.gather(1, order)[:, 0].numpy(), distance=first, closeness=closeness)


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyCheck:
    """What the copy check found.

    Arguments:
        exact: Share of samples identical to a training example.
        exact_test: The same share among the test rows.
        near: Whether each sample is a near copy, `[n]`.
        nearer: Probability that a sample is nearer to the training set than a test row (0.5: alike).
        clean: The verdict.
    """

    exact: float
    exact_test: float
    near: Bool[np.ndarray, " n"]
    nearer: float
    clean: bool


def check_copies(generated: Nearest, test: Nearest) -> CopyCheck:
    """Compare the samples' distances to the training set with those of the test rows."""
    same = (generated.distance == 0, test.distance == 0)
    exact, exact_test = float(same[0].mean()), float(same[1].mean())
    near = (generated.closeness < np.quantile(test.closeness, NEAR_COPY_QUANTILE)) | same[0]
    ranks = rankdata(np.concatenate([generated.distance, test.distance]))
    n, m = len(generated.distance), len(test.distance)
    above = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)  # Mann-Whitney: P(sample further than test row)
    clean = bool(near.mean() <= MOST_NEAR + exact_test and exact <= exact_test + MOST_EXACT)
    return CopyCheck(exact=exact, exact_test=exact_test, near=near, nearer=float(1 - above), clean=clean)


def measure(samples: SampleSet) -> Findings:
    """The copy check of samples against all training rows, as metrics and as a verdict."""
    drawn = nearest_training_rows(samples.drawn, samples.every, samples.inputs)
    copies = check_copies(drawn, nearest_training_rows(samples.test.x, samples.every, samples.inputs))
    near = NEAR_COPIES.mean(copies.near, **samples.options)
    exact = EXACT_COPIES.mean(drawn.distance == 0, **samples.options)
    metrics = {
        NEAR_COPIES.name: near.beside(floor=NEAR_COPY_QUANTILE + copies.exact_test),
        EXACT_COPIES.name: exact.beside(floor=copies.exact_test),
    }
    verdict = {"clean": copies.clean, "nearer_than_test": copies.nearer, "criterion": CRITERION}
    return Findings(metrics=metrics, details={"copies": verdict}, nearest=drawn.index)
