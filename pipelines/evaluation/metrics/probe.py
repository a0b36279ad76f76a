"""Do codes carry the label? A linear probe: logistic regression on standardized codes."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pipelines.evaluation.metrics.base import CODES, Description, Metric

PROBE_ACCURACY = Description(
    name="probe_accuracy",
    title="Linear probe",
    sentence="Accuracy of a linear classifier that sees nothing but the codes.",
    group=CODES,
    unit="share",
    better="higher",
)
DESCRIPTIONS = (PROBE_ACCURACY,)


def probe(
    train: Float[np.ndarray, "n code"],
    train_label: Int[np.ndarray, " n"],
    test: Float[np.ndarray, "m code"],
    test_label: Int[np.ndarray, " m"],
) -> Bool[np.ndarray, " m"]:
    """Whether the probe, fitted on training codes, gives each test code its label.

    References:
        | Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2016)
        | https://arxiv.org/abs/1610.01644
    """
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-8 * scale.max(initial=0), scale, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = LogisticRegression(C=1.0, max_iter=300).fit((train - mean) / scale, train_label)
    return classifier.predict((test - mean) / scale) == test_label


def probe_metric(
    train: np.ndarray, train_label: Tensor, test: np.ndarray, test_label: Tensor, resamples: int, seed: int
) -> Metric:
    """Accuracy of a linear probe, on rows whose label is known."""
    train_rows, test_rows = (train_label >= 0).numpy(), (test_label >= 0).numpy()
    right = probe(train[train_rows], train_label.numpy()[train_rows], test[test_rows], test_label.numpy()[test_rows])
    return PROBE_ACCURACY.mean(right, resamples, seed)
