"""What is lost between an example and its reconstruction?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.base import CODES, Description

RECONSTRUCTION_RMSE = Description(
    name="reconstruction_rmse",
    title="Reconstruction error",
    sentence="Root mean squared error of rebuilt test examples.",
    group=CODES,
    unit="",
    better="lower",
)
DESCRIPTIONS = (RECONSTRUCTION_RMSE,)


def squared_error(
    x: Num[Tensor, "n *data"], reconstructed: Num[Tensor, "n *data"], inputs: FeatureEncoder
) -> Float[np.ndarray, " n"]:
    """Mean squared error of each example, in the squared unit that the encoder names (`error_unit`)."""
    return np.square((inputs.flat(x) - inputs.flat(reconstructed)) * inputs.error_scale).mean(1)
