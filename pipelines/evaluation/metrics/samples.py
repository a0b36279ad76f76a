"""What metrics of samples are given, and what they give back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int, Num
from torch import Tensor, nn

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.base import Description, Metric

if TYPE_CHECKING:
    from data.dataset import Examples
    from pipelines.evaluation.domain import FeatureSpace


@dataclass(kw_only=True)
class SampleSet:
    """Samples of one model (or real rows in their place), and everything they may be compared with.

    Arguments:
        drawn: The samples in data space.
        label: Labels asked for, -1 where unknown; `None` if none were.
        compared: How many of them enter distances, which depend on the number of rows.
        train: The training rows that the reference keeps.
        every: All training rows.
        test: The test rows that the reference keeps.
        domain: The dataset's domain.
        inputs: Data space to numbers.
        spaces: Feature spaces by name.
        label_classifier: Classifier of labels; `None` for unlabelled data.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of resamples, folds and classifiers.
    """

    drawn: Num[Tensor, "n *data"]
    label: Int[Tensor, " n"] | None
    compared: int
    train: Examples
    every: Num[Tensor, "m *data"]
    test: Examples
    domain: dict[str, Any]
    inputs: FeatureEncoder
    spaces: Mapping[str, FeatureSpace]
    label_classifier: nn.Module | None
    resamples: int
    seed: int

    @property
    def options(self) -> dict[str, int]:
        """Resamples and seed, as metrics take them."""
        return {"resamples": self.resamples, "seed": self.seed}


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What one file of metrics found.

    Arguments:
        metrics: By name.
        details: What else the results keep, by name.
        nearest: Row of the training example nearest to each sample; `None` if the file does not look for it.
        left_out: Metrics that were not measured, each with the reason.
    """

    metrics: dict[str, Metric]
    details: dict[str, Any] = field(default_factory=dict)
    nearest: Int[np.ndarray, " n"] | None = None
    left_out: dict[str, str] = field(default_factory=dict)


SHOWN = 5
"""Faults that the details name."""


def faulty(
    description: Description, samples: SampleSet, faults: Iterable[tuple[dict[str, Any], Bool[np.ndarray, " n"]]]
) -> Findings:
    """The share of samples with any fault, and in the details the most frequent ones; nothing where there is no fault
    to look for.

    Arguments:
        description: Of the share; its name is that of the details, too.
        samples: What is judged.
        faults: What the details call each, and which samples have it.
    """
    wrong, shares = np.zeros(len(samples.drawn), bool), []
    for called, rows in faults:
        wrong |= rows
        shares.append((float(rows.mean()), called))
    if not shares:
        return Findings(metrics={})
    worst = sorted((pair for pair in shares if pair[0] > 0), key=lambda pair: (-pair[0], *pair[1].values()))[:SHOWN]
    details = [called | {"share": round(share, 6)} for share, called in worst]
    metrics = {description.name: description.mean(wrong, **samples.options)}
    return Findings(metrics=metrics, details={description.name: details})


def too_few(needed: int, samples: SampleSet) -> str:
    """Why a metric that needs so many rows on each side is left out."""
    return f"needs {needed} rows a side, there are {len(samples.test)} test rows and {samples.compared} samples"
