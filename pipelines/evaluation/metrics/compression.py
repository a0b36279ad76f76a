"""How small are codes, and what do they keep? Codes are rounded to 16-bit floats, two bytes a number."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.base import CODES, Description, Metric
from pipelines.evaluation.metrics.reconstruction import squared_error

CODE_BYTES = Description(
    name="code_bytes",
    title="Bytes per code",
    sentence="Size of a code of 16-bit floats.",
    group=CODES,
    unit="bytes",
    better="lower",
)
CODE_RMSE = Description(
    name="code_rmse",
    title="Error from such codes",
    sentence="Root mean squared error of examples decoded from them.",
    group=CODES,
    unit="",
    better="lower",
)
DESCRIPTIONS = (CODE_BYTES, CODE_RMSE)

ROWS = 200
"""Test examples that are compressed."""


def rounded(codes: Float[Tensor, "n code"]) -> Float[Tensor, "n code"]:
    """Codes after a journey as 16-bit floats."""
    most = torch.finfo(torch.float16).max
    return codes.clamp(-most, most).half().to(codes.dtype)


def compression_metrics(
    x: Num[Tensor, "n *data"],
    codes: Float[Tensor, "n code"],
    decoded: Num[Tensor, "n *data"],
    inputs: FeatureEncoder,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Metric]:
    """Bytes per example, and the error at which they buy it.

    Arguments:
        x: Examples in data space.
        codes: Their codes.
        decoded: What the rounded codes decode to.
        inputs: Data space to numbers.
        resamples: Bootstrap resamples.
        seed: Their seed.
    """
    size = 2.0 * int(np.prod(codes.shape[1:]))
    error = CODE_RMSE.root_mean(squared_error(x, decoded, inputs), resamples, seed, unit=inputs.error_unit)
    return {CODE_BYTES.name: CODE_BYTES.of(size), CODE_RMSE.name: error}
