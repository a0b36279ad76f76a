"""Measurements made alike of the classical baseline and of every family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from . import anomaly, copies
from .codes import probe
from .inputs import Inputs
from .metric import Metric
from .samples import share

if TYPE_CHECKING:
    from data.shards import Dataset, Examples


def copy_metrics(
    drawn: Tensor, train: Tensor, test: Tensor, to_inputs: Inputs, resamples: int, seed: int
) -> tuple[dict[str, Metric], copies.CopyCheck, copies.Nearest]:
    """The copy check of samples as metrics, the check itself, and each sample's nearest training row."""
    found = copies.nearest(drawn, train, to_inputs)
    check = copies.check(found, copies.nearest(test, train, to_inputs))
    near = share(check.near, resamples, seed, better="lower")
    metrics = {
        "near_copies": near.beside(floor=copies.ORDINARY),
        "exact_copies": share(found.distance == 0, resamples, seed, better="lower").beside(floor=check.exact_test),
    }
    return metrics, check, found


def probe_metric(
    train: np.ndarray, train_label: Tensor, test: np.ndarray, test_label: Tensor, resamples: int, seed: int
) -> Metric:
    """Accuracy of a linear probe, on rows whose label is known."""
    known, asked = (train_label >= 0).numpy(), (test_label >= 0).numpy()
    right = probe(train[known], train_label.numpy()[known], test[asked], test_label.numpy()[asked])
    return share(right, resamples, seed)


def strange_examples(dataset: Dataset, test: Examples, seed: int) -> dict[str, Tensor]:
    """What detection is measured on, by kind: known anomalies, or corrupted test images; may be empty."""
    if "anomaly" in dataset.splits and len(dataset.split("anomaly")):
        return {"known": dataset.split("anomaly").all().x}
    if dataset.kind == "image":
        return anomaly.corrupted(test.x, test.label, dataset.domain["levels"], seed)
    return {}


def error_unit(to_inputs: Inputs) -> str:
    """Unit of reconstruction errors."""
    return "unit range" if len(to_inputs.shape) == 3 else "standard deviations"
