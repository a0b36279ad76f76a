"""Does a sample show the label it was asked for? A classifier that no feature space uses decides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Num
from torch import Tensor, nn

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.inference import predict
from pipelines.evaluation.metrics.base import SAMPLES, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet

ACCURACY = Description(
    name="accuracy",
    title="Label accuracy",
    sentence="Samples in which an independent classifier sees the label that was asked for.",
    group=SAMPLES,
    unit="share",
    better="higher",
)
DESCRIPTIONS = (ACCURACY,)


def measure(samples: SampleSet) -> Findings:
    """How many of the samples with a label show it; nothing of unlabelled data."""
    if samples.label is None or samples.label_classifier is None:
        return Findings(metrics={})
    known = samples.label >= 0
    right = matches_label(samples.label_classifier, samples.drawn[known], samples.label[known], samples.inputs)
    return Findings(metrics={ACCURACY.name: ACCURACY.mean(right, **samples.options)})


def matches_label(
    label_classifier: nn.Module, x: Num[Tensor, "n *data"], label: Int[Tensor, " n"], inputs: FeatureEncoder
) -> Bool[np.ndarray, " n"]:
    """Whether the judge sees the label asked for in each example.

    References:
        | Classification accuracy score (Ravuri and Vinyals, 2019), https://arxiv.org/abs/1905.10887
    """
    return (predict(label_classifier, x, inputs) == label).numpy()
