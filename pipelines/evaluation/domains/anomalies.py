"""Measurements made alike of the classical baseline and of every family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pipelines.evaluation import anomaly, copies
from pipelines.evaluation.codes import probe
from pipelines.evaluation.inputs import Inputs
from pipelines.evaluation.metric import Metric
from pipelines.evaluation.samples import share

if TYPE_CHECKING:
    from data.shards import Dataset, Examples


MOST_ASKED = 1_000
"""Rows of a split that a model is asked about one by one (likelihood, codes, reconstruction, anomaly)."""


def asked(rows: Examples) -> Examples:
    """The first `MOST_ASKED` rows, which stand in random order in a yardstick."""
    return type(rows)(x=rows.x[:MOST_ASKED], label=rows.label[:MOST_ASKED])


def copy_metrics(
    drawn: Tensor, train: Tensor, test: Tensor, to_inputs: Inputs, resamples: int, seed: int
) -> tuple[dict[str, Metric], copies.CopyCheck, copies.Nearest]:
    """The copy check of samples as metrics, the check itself, and each sample's nearest training row."""
    found = copies.nearest(drawn, train, to_inputs)
    check = copies.check(found, copies.nearest(test, train, to_inputs))
    near = share(check.near, resamples, seed, better="lower")
    metrics = {
        "near_copies": near.beside(floor=copies.ORDINARY + check.exact_test),
        "exact_copies": share(found.distance == 0, resamples, seed, better="lower").beside(floor=check.exact_test),
    }
    return metrics, check, found


def probe_metric(
    train: np.ndarray, train_label: Tensor, test: np.ndarray, test_label: Tensor, resamples: int, seed: int
) -> Metric:
    """Accuracy of a linear probe, on rows whose label is known."""
    fitted, judged = (train_label >= 0).numpy(), (test_label >= 0).numpy()
    right = probe(train[fitted], train_label.numpy()[fitted], test[judged], test_label.numpy()[judged])
    return share(right, resamples, seed)


def strange_examples(dataset: Dataset, test: Examples, seed: int) -> dict[str, Tensor]:
    """What detection is measured on, by kind: known anomalies, or test examples made strange; may be empty."""
    if "anomaly" in dataset.splits and len(dataset.split("anomaly")):
        return {"known": dataset.split("anomaly").take(range(min(len(dataset.split("anomaly")), MOST_ASKED))).x}
    if dataset.kind == "image":
        return anomaly.corrupted(test.x, test.label, dataset.domain["levels"], seed)
    return {"mixed": anomaly.mixed(test.x, seed)} if test.x.shape[1] > 1 else {}


def error_unit(to_inputs: Inputs) -> str:
    """Unit of reconstruction errors."""
    return "unit range" if len(to_inputs.shape) == 3 else "standard deviations"
