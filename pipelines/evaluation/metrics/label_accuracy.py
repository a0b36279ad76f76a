"""Does a sample show the label it was asked for? A classifier that no feature space uses decides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Num
from torch import Tensor, nn

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.inference import predict


def matches_label(
    label_classifier: nn.Module, x: Num[Tensor, "n *data"], label: Int[Tensor, " n"], inputs: FeatureEncoder
) -> Bool[np.ndarray, " n"]:
    """Whether the judge sees the label asked for in each example.

    References:
        | Classification accuracy score (Ravuri and Vinyals, 2019), https://arxiv.org/abs/1905.10887
    """
    return (predict(label_classifier, x, inputs) == label).numpy()
