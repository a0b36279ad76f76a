"""Are synthetic rows as good as real ones to learn from? Train on synthetic, test on real.

A gradient-boosted classifier learns the label from samples and is judged on real test rows; the floor
is the same classifier taught by as many real training rows.

References:
    | Real-valued medical time series generation with recurrent conditional GANs (Esteban et al., 2017), section 4
    | https://arxiv.org/abs/1706.02633
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier

from pipelines.evaluation.anomaly import auroc, auroc_draws
from pipelines.evaluation.bootstrap import interval
from pipelines.evaluation.metric import Metric, metric
from pipelines.evaluation.samples import share

MOST_CATEGORIES = 255
"""Beyond so many categories a column is given to the classifier as a number."""


def utility_metrics(
    taught: tuple[Float[np.ndarray, "n columns"], Int[np.ndarray, " n"]],
    judged: tuple[Float[np.ndarray, "m columns"], Int[np.ndarray, " m"]],
    columns: Sequence[Mapping[str, Any]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Metric]:
    """How well the label of real rows is told by a classifier taught with other rows.

    Arguments:
        taught: Rows in data space and their labels, -1 where unknown.
        judged: Real test rows and theirs.
        columns: The columns of the dataset's domain.
        resamples: Bootstrap resamples.
        seed: Seed of classifier and resamples.
    Returns:
        `utility_auroc` (one class against the rest, averaged) and `utility_accuracy`; nothing where
        either side knows fewer than two classes.
    """
    (x, y), (test, label) = ((rows[named >= 0], named[named >= 0]) for rows, named in (taught, judged))
    classes = np.intersect1d(np.unique(y), np.unique(label))
    if len(classes) < 2:
        return {}
    categorical = [c["type"] == "categorical" and len(c["categories"]) <= MOST_CATEGORIES for c in columns]
    model = HistGradientBoostingClassifier(categorical_features=categorical, early_stopping=False, random_state=seed)
    probability = model.fit(x, y).predict_proba(test)
    known = np.unique(y)
    right = known[probability.argmax(1)] == label
    areas, draws = [], []
    for c in classes if len(classes) > 2 else classes[1:]:
        chance = probability[:, np.searchsorted(known, c)]
        areas.append(auroc(chance[label != c], chance[label == c]))
        draws.append(auroc_draws(chance[label != c], chance[label == c], resamples, seed))
    value = float(np.mean(areas))
    spread = interval(value, np.mean(draws, 0))
    return {
        "utility_auroc": metric(value=value, interval=spread, unit="area", better="higher"),
        "utility_accuracy": share(right, resamples, seed),
    }
