"""Densities and divergences of diagonal Gaussians."""

from __future__ import annotations

import math

from torch import Tensor

from ..shapes import Float


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Float[Tensor, "*batch"]:
    """Log-density of a diagonal Gaussian in nats, summed over the last dimension."""
    return -0.5 * (log_variance + (z - mean).square() * (-log_variance).exp() + math.log(2 * math.pi)).sum(-1)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, mean0: Tensor, log_variance0: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians in nats, per dimension."""
    ratio = (log_variance - log_variance0).exp()
    return 0.5 * (ratio + (mean - mean0).square() * (-log_variance0).exp() - 1 + log_variance0 - log_variance)
