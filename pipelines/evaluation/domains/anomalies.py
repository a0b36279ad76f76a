"""The anomalous examples that detection is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.inference import SUBSET_ROWS

if TYPE_CHECKING:
    from data.dataset import Dataset, Examples


def anomalous_examples(dataset: Dataset, test: Examples, seed: int) -> dict[str, Tensor]:
    """What detection is measured on, by kind: known anomalies, or test examples made anomalous; may be empty."""
    if "anomaly" in dataset.splits and len(dataset.split("anomaly")):
        return {"known": dataset.split("anomaly").take(range(min(len(dataset.split("anomaly")), SUBSET_ROWS))).x}
    return evaluation_domain(dataset.domain).corruptions(test, seed)
