"""Does who knows the rest of a row learn the missing cell from the samples?

Of each attacked row the attacker knows every cell but one, finds the sample nearest in these, and takes its value for
the secret. Row after row another column is the secret, the label being one of them, so every attack is on a row of its
own. A guess is right if it is the category (or the gap), or a number within `TOLERANCE` of the training rows in rank:
so units, far ends and many equal values do not matter. The control are attacks on as many test rows.

References:
    | A unified framework for quantifying privacy risk in synthetic data (Giomi et al., 2023), section 4.3
    | https://arxiv.org/abs/2211.10459
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from pipelines.evaluation.metrics.attacks import FEWEST, excess
from pipelines.evaluation.metrics.base import MOST_PAIRWISE, PRIVACY, Description
from pipelines.evaluation.metrics.memorization import nearest_training_rows
from pipelines.evaluation.metrics.samples import SHOWN, Findings, SampleSet, too_few

if TYPE_CHECKING:
    from data.dataset import Examples


ATTRIBUTE_INFERENCE = Description(
    name="attribute_inference",
    title="Attribute inference",
    sentence="Secret cells of training rows guessed from the nearest sample, beyond those of unseen rows.",
    group=PRIVACY,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (ATTRIBUTE_INFERENCE,)

TOLERANCE = 0.025
"""Share of the training rows that may lie between a number and the guess of it."""
LABEL = "label"
"""What the details call the label among the columns."""


def measure(samples: SampleSet) -> Findings:
    """The excess of cells guessed right of training rows, and the columns of which most is told."""
    size = min(len(samples.train), len(samples.test), MOST_PAIRWISE)
    if min(size, len(samples.drawn)) < FEWEST:
        return Findings(metrics={}, left_out={ATTRIBUTE_INFERENCE.name: too_few(FEWEST, samples)})
    if len(samples.domain["columns"]) < 2:
        return Findings(metrics={})
    secret = np.arange(size) % (len(samples.domain["columns"]) + (samples.label is not None))
    right = [guessed(samples, side, secret) for side in (samples.train, samples.test)]
    found, details = excess(ATTRIBUTE_INFERENCE, *right)
    names = [*(str(column["name"]) for column in samples.domain["columns"]), LABEL]
    told: list[dict[str, Any]] = []
    for column in np.unique(secret):
        training, holdout = (side[secret == column] for side in right)
        told.append({"column": names[column]} | excess(ATTRIBUTE_INFERENCE, training, holdout)[1])
    told.sort(key=lambda entry: entry["holdout"][0] - entry["training"][0])
    return Findings(
        metrics={ATTRIBUTE_INFERENCE.name: found},
        details={ATTRIBUTE_INFERENCE.name: details | {"columns": told[:SHOWN]}},
    )


def guessed(samples: SampleSet, rows: Examples, secret: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Whether the secret cell of each row is guessed right.

    Arguments:
        samples: What is attacked.
        rows: Real rows, more than there are secrets or as many.
        secret: By row, the column that is not known; beyond the last column, the label.
    """
    right = np.zeros(len(secret), bool)
    x, label = rows.x[: len(secret)].double(), rows.label[: len(secret)].numpy()
    for column in np.unique(secret):
        here, known, drawn = np.flatnonzero(secret == column), x[secret == column].clone(), samples.drawn.double()
        if column == x.shape[1]:
            nearest = nearest_training_rows(known, drawn, samples.inputs).index
            assert samples.label is not None
            right[here] = label[here] == samples.label.numpy()[nearest]
            continue
        drawn = drawn.clone()
        true, said = known[:, column].numpy().copy(), drawn[:, column].numpy().copy()
        known[:, column] = drawn[:, column] = torch.nan  # the same everywhere: it makes no difference to distances
        guess = said[nearest_training_rows(known, drawn, samples.inputs).index]
        right[here] = _alike(true, guess, samples, int(column))
    return right


def _alike(
    true: Float[np.ndarray, " n"], guess: Float[np.ndarray, " n"], samples: SampleSet, column: int
) -> Bool[np.ndarray, " n"]:
    same = (true == guess) | (np.isnan(true) & np.isnan(guess))
    if samples.domain["columns"][column]["type"] == "categorical":
        return same
    order = np.sort(samples.train.x[:, column].double().numpy())
    order = order[~np.isnan(order)]
    low, high = np.minimum(true, guess), np.maximum(true, guess)
    between = np.searchsorted(order, high, "left") - np.searchsorted(order, low, "right")
    return same | (between <= TOLERANCE * len(order)) & ~np.isnan(true + guess)
