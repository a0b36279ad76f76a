r"""How many bits does the model need for an unseen example?

.. math:: \text{bits/dim} = -\frac{\log p(x)}{D \ln 2}

with the log-probability of the discrete data in nats and `D` values per example. Rows of tables, whose
columns are of all kinds and units, are told in nats per row, :math:`-\log p(x)`: the probability of
whole numbers and categories, the density of continuous values in the data's own units. An exact density
(`log_prob`) and a bound (`elbo`) are different metrics and never share a name: a bound in bits is an
upper limit of the bits the model needs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from models.domains.table import Table
from models.rng import Streams
from pipelines.evaluation.domain import FeatureEncoder
from pipelines.evaluation.metrics.base import DENSITY, Description, Metric

BITS_PER_DIM = Description(
    name="bits_per_dim",
    title="Bits per dimension, exact",
    sentence="Bits per value to code a test example, by exact log-likelihood.",
    group=DENSITY,
    unit="bits/dim",
    better="lower",
)
NATS_PER_ROW = Description(
    name="nats_per_row",
    title="Nats per row",
    sentence="Negative log-likelihood of a test row; where whole numbers or categories are filled with noise, a bound.",
    group=DENSITY,
    unit="nats",
    better="lower",
)
UPPER = "An upper bound of the same: the true number is lower."
BITS_PER_DIM_BOUND, NATS_PER_ROW_BOUND = (
    replace(exact, name=f"{exact.name}_bound", title=f"{exact.title.split(',')[0]}, bound", sentence=UPPER)
    for exact in (BITS_PER_DIM, NATS_PER_ROW)
)
DESCRIPTIONS = (BITS_PER_DIM, BITS_PER_DIM_BOUND, NATS_PER_ROW, NATS_PER_ROW_BOUND)


def bits_per_dim(nats: Num[np.ndarray, " n"], dimensions: int) -> Float[np.ndarray, " n"]:
    """Bits per dimension of each row.

    Arguments:
        nats: Log-probabilities of whole examples.
        dimensions: Values in one example.
    """
    return -np.asarray(nats, np.float64) / (dimensions * math.log(2))


def density_metric(
    nats: Num[np.ndarray, " n"], inputs: FeatureEncoder, resamples: int, seed: int, *, bound: bool = False
) -> dict[str, Metric]:
    """How well unseen examples are predicted, by the name it has for this kind of data.

    Arguments:
        nats: Log-probabilities of examples, exact or bounds.
        inputs: Of the dataset, which says what a density is counted per.
        resamples: Bootstrap resamples.
        seed: Their seed.
        bound: Whether the log-probabilities are lower bounds.
    """
    if inputs.density_per == "dimension":
        description = BITS_PER_DIM_BOUND if bound else BITS_PER_DIM
        rows = bits_per_dim(nats, int(np.prod(inputs.shape)))
    else:
        description, rows = NATS_PER_ROW_BOUND if bound else NATS_PER_ROW, -np.asarray(nats, np.float64)
    return {description.name: description.mean(rows, resamples, seed)}


def independent_columns(x: Float[Tensor, "n columns"], table: Table) -> Float[np.ndarray, " n"]:
    """Log-probability of rows in nats if every column had its training distribution, independent of the others.

    The columns' distributions are the domain's own, on whose normal scale independence is a standard
    normal density; missing cells count nothing.
    """
    y, log_det = table.dequantize(x, Streams.seeded(0, "independent columns"))
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(y).sum(1)
    return (normal + log_det).double().numpy()
