r"""How much privacy a training spends: Rényi differential privacy of gradients with noise, of batches drawn at random.

A step takes each example with probability :math:`q`, and adds Gaussian noise of :math:`\sigma` times the most that one
example can add to the sum of gradients. Between data sets that differ in one example its Rényi divergence is

.. math:: R_\alpha = \frac{1}{\alpha - 1} \log E_{x \sim N(0, \sigma^2)}
    \left[ \left( 1 - q + q \, e^{(2x - 1)/2\sigma^2} \right)^\alpha \right]

which adds up over the steps, and is turned into :math:`(\epsilon, \delta)` by the order that says least:

.. math:: \epsilon = \min_\alpha T R_\alpha + \log(1 - 1/\alpha) - \frac{\log \delta + \log \alpha}{\alpha - 1}

References:
    | Rényi differential privacy of the sampled Gaussian mechanism (Mironov et al., 2019), theorems 4 and 5
    | https://arxiv.org/abs/1908.10530
    | Hypothesis testing interpretations and Rényi differential privacy (Balle et al., 2020), theorem 21
    | https://arxiv.org/abs/1905.09982
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

ORDERS = (*(1 + k / 10 for k in range(1, 100)), *range(11, 64), 128, 256, 512)
"""Rényi orders tried."""
SPREAD, PARTS = 12.0, 32
"""The integral goes so many standard deviations beyond where its mass is, in steps of such a part of one."""
CLOSE = 1e-4
"""Relative error of the noise that is found."""


def renyi(order: float, rate: float, noise: float) -> float:
    """Rényi divergence of one step.

    Arguments:
        order: Above 1.
        rate: Probability that an example is in a batch.
        noise: Standard deviation of the noise, in units of the most that one example adds.
    """
    x = np.arange(-SPREAD * noise, order + SPREAD * noise, noise / PARTS)
    shift = (2 * x - 1) / (2 * noise**2) + math.log(rate)
    ratio = np.logaddexp(math.log1p(-rate), shift) if rate < 1 else shift
    log_density = -0.5 * np.square(x / noise) - math.log(PARTS * math.sqrt(2 * math.pi))
    each = order * ratio + log_density
    most = each.max()
    return max(0.0, float(most + np.log(np.exp(each - most).sum())) / (order - 1))


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon that so many steps spend at a delta; arguments as in `renyi`."""
    return min(
        steps * renyi(order, rate, noise) + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order in ORDERS
    )


@lru_cache
def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The least noise with which so many steps spend no more than an epsilon of `target` at a delta."""
    low, high = 0.0, 1.0
    while epsilon(rate, high, steps, delta) > target:
        low, high = high, 2 * high
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if middle > 0.1 and epsilon(rate, middle, steps, delta) <= target else (middle, high)
    return high
