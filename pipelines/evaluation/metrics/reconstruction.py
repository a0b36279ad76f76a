"""What is lost between an example and its reconstruction?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor

from pipelines.evaluation.domain import FeatureEncoder


def squared_error(
    x: Num[Tensor, "n *data"], reconstructed: Num[Tensor, "n *data"], inputs: FeatureEncoder
) -> Float[np.ndarray, " n"]:
    """Mean squared error of each example, values scaled to unit range for images (standardized in tables)."""
    scale = 0.5 if len(inputs.shape) == 3 else 1.0
    return np.square((inputs.flat(x) - inputs.flat(reconstructed)) * scale).mean(1)
