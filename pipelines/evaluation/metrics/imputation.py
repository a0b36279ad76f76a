r"""How well are hidden cells filled in?

Which cells are hidden is the kind of data's own affair: of tables a share of the known cells at random, of
images a box of a quarter of the area.
Draws :math:`x_1 … x_m` of a number (in standard deviations; of a pixel in unit range) are judged
against the truth :math:`y` by the continuous ranked probability score, estimated without bias:

.. math:: \tfrac1m \sum_i |x_i - y| - \tfrac1{2m(m-1)} \sum_{i,j} |x_i - x_j|

and draws of a category by the same with :math:`1[x \ne y]` for the distance, half the Brier score.
One draw scores its distance. The score rewards the right distribution, not the middle of it; the
error of the draws' mean and the accuracy of their mode stand beside it.

References:
    | Strictly proper scoring rules (Gneiting and Raftery, 2007), eq. 21
    | https://doi.org/10.1198/016214506000001437
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from pipelines.evaluation.domain import EvaluationDomain
from pipelines.evaluation.metrics.base import IMPUTATION, Description, Metric, counts, interval

IMPUTATION_CRPS = Description(
    name="imputation_crps",
    title="Ranked probability score",
    sentence="Distance of the draws to the truth, less half the distance among them: rewards the right distribution.",
    group=IMPUTATION,
    unit="",
    better="lower",
)
IMPUTATION_RMSE = Description(
    name="imputation_rmse",
    title="Error of the mean",
    sentence="Root mean squared error of the draws' mean, over hidden numbers.",
    group=IMPUTATION,
    unit="",
    better="lower",
)
IMPUTATION_ACCURACY = Description(
    name="imputation_accuracy",
    title="Accuracy of the mode",
    sentence="Hidden categories that most draws name rightly.",
    group=IMPUTATION,
    unit="share",
    better="higher",
)
DESCRIPTIONS = (IMPUTATION_CRPS, IMPUTATION_RMSE, IMPUTATION_ACCURACY)


def imputation_metrics(
    x: Num[Tensor, "n *data"],
    hidden: Bool[Tensor, "n *data"],
    draws: Num[Tensor, "draws n *data"],
    domain: EvaluationDomain,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Metric]:
    """Errors over the hidden cells, the rows resampled for the intervals.

    Arguments:
        x: The truth, in data space.
        hidden: Which cells are judged.
        draws: Completed examples.
        domain: What evaluation asks of the dataset's kind of data.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    y, given, gap = x.flatten(1).double(), draws.flatten(2).double(), hidden.flatten(1).numpy()
    scale, categories = domain.value_scale(y.shape[1])
    number, category = gap & ~categories, gap & categories
    miss = np.where(number, ((given.mean(0) - y) / scale).nan_to_num().square().numpy(), 0).sum(1)
    right = np.where(category, (torch.mode(given, 0).values == y).numpy(), 0).sum(1)
    score = np.where(number, _ranked(y, given, scale), np.where(category, _brier(y, given, categories), 0)).sum(1)
    wanted = [
        (IMPUTATION_CRPS, score, gap, domain.error_unit),
        (IMPUTATION_RMSE, miss, number, domain.error_unit),
        (IMPUTATION_ACCURACY, right, category, ""),
    ]
    weight = counts(len(x), resamples, seed)
    found = {}
    for description, total, cells, unit in wanted:
        if not cells.any():
            continue
        n = cells.sum(1)
        value, spread = total.sum() / n.sum(), (weight @ total) / np.maximum(weight @ n, 1)
        if description is IMPUTATION_RMSE:
            value, spread = np.sqrt(value), np.sqrt(spread)
        found[description.name] = description.of(value, interval(value, spread), unit=unit)
    return found


def _ranked(y: Tensor, draws: Tensor, scale: Tensor) -> Float[np.ndarray, "n values"]:
    """Continuous ranked probability score of each value."""
    m = len(draws)
    apart = (draws - y).abs().mean(0)
    rank = (2 * torch.arange(m) - m + 1).double().reshape(-1, 1, 1)
    between = (rank * draws.sort(0).values).sum(0) / max(m * (m - 1), 1)
    return ((apart - between) / scale).nan_to_num().numpy()


def _brier(y: Tensor, draws: Tensor, categories: np.ndarray) -> Float[np.ndarray, "n values"]:
    """The same with "is another category" for the distance; 0 for numbers."""
    found, chosen = np.zeros(y.shape), np.flatnonzero(categories)
    m, given = len(draws), draws[:, :, chosen]
    between = sum((given != other).double().sum(0) for other in given) / max(2 * m * (m - 1), 1)
    found[:, chosen] = ((given != y[:, chosen]).double().mean(0) - between).numpy()
    return found
