r"""Classifier two-sample test: can a linear classifier tell samples from real examples?

References:
    | Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017)
    | https://arxiv.org/abs/1610.06545
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from pipelines.evaluation.metrics.base import SAMPLES, Description

C2ST = Description(
    name="c2st",
    title="Two-sample test",
    sentence="Accuracy of a classifier telling samples from test data; 0.5 is a guess.",
    group=SAMPLES,
    unit="share",
    better="lower",
)

FOLDS = 5
"""Folds of the cross-validation."""


def c2st_predictions(
    real: Float[np.ndarray, "n dim"], generated: Float[np.ndarray, "n dim"], *, folds: int = FOLDS, seed: int = 0
) -> Bool[np.ndarray, " both"]:
    """Whether each point, real ones first, is recognized by a logistic regression that did not see it.

    The mean is 0.5 where the two cannot be told apart, 1 where they always can.

    Arguments:
        real: Features of real examples.
        generated: Features of as many samples.
        folds: Folds of the cross-validation.
        seed: Seed of the folds.
    """
    x = np.concatenate([real, generated])
    y = np.repeat([0, 1], [len(real), len(generated)])
    scale = x.std(0) + 1e-12
    x = (x - x.mean(0)) / scale
    right = np.zeros(len(y), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
            classifier = LogisticRegression(C=0.1, max_iter=200).fit(x[train], y[train])
            right[test] = classifier.predict(x[test]) == y[test]
    return right
