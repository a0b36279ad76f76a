r"""How many bits does the model need for an unseen example?

.. math:: \text{bits/dim} = -\frac{\log p(x)}{D \ln 2}

with the log-probability of the discrete data in nats and `D` values per example. An exact density
(`log_prob`) and a bound (`elbo`) are different metrics and never share a name: a bound in bits is an
upper limit of the bits the model needs.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Num


def bits_per_dim(nats: Num[np.ndarray, " n"], dimensions: int) -> Float[np.ndarray, " n"]:
    """Bits per dimension of each row.

    Arguments:
        nats: Log-probabilities of whole examples.
        dimensions: Values in one example.
    """
    return -np.asarray(nats, np.float64) / (dimensions * math.log(2))
