"""Which class an example is of, by how well each class's denoiser does on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..rng import Streams
from ..shapes import Float

FEW = 16
"""Classes that are all compared at every noise level."""

KEPT = 8
"""Of more classes, those that are: the likeliest after a first level."""

MANY = 128
"""Classes from which on even one level of each costs too much."""

SUMMED = 3
"""Classes, the likeliest, that a density by the ODE is summed over."""

CLASS_SIGMAS = (0.2, 5.0)
"""Noise levels between which classes are told apart, in units of the data's standard deviation."""


def label_log_posterior(
    error: Callable[[Tensor, Tensor, Tensor], Tensor],
    y: Float[Tensor, "batch *event"],
    log_share: Float[Tensor, " classes"],
    sigma_data: float,
    generator: Streams,
    *,
    levels: int = 5,
) -> Float[Tensor, "batch classes"]:
    r"""Approximate log-probability of each class given the example, normalized.

    .. math:: q(c \mid y) \propto p(c) \exp \left( -E_{\ln\sigma \sim U}
        \left[ \ln\tfrac{\sigma_1}{\sigma_0} \frac{\|y - D(y + \sigma\epsilon; \sigma, c)\|^2}{\sigma^2} \right] \right)

    the variational bounds' difference between classes, at a few levels evenly spaced, with the same noise for all of
    them, added and taken away: between Gaussian classes of one covariance all of its own error cancels. Of more than
    `FEW` classes one level leaves the `KEPT` likeliest, the others have a probability of 0.

    Arguments:
        error: Noisy example, its noise level and labels to the squared error of each example, `[batch]`.
        y: Examples in model space.
        log_share: Logarithm of the classes' shares in the data.
        sigma_data: Standard deviation of the data.
        generator: Source of randomness.
        levels: How many noise levels.

    References:
        | Your diffusion model is secretly a zero-shot classifier (Li et al., 2023), eq. 5
        | https://arxiv.org/abs/2303.16203
    """
    low, high = (math.log(sigma_data * edge) for edge in CLASS_SIGMAS)
    n, classes = len(y), len(log_share)
    candidates = torch.arange(classes, device=y.device).expand(n, classes)

    def nats(part: float) -> Float[Tensor, "batch candidates"]:
        sigma = torch.full((n,), math.exp(low + (high - low) * part), device=y.device, dtype=y.dtype)
        noise = sigma.reshape(-1, *[1] * (y.ndim - 1)) * generator.normal(*y.shape)
        each = [
            error(y + noise, sigma, candidates[:, k]) + error(y - noise, sigma, candidates[:, k])
            for k in range(candidates.shape[1])
        ]
        return 0.5 * (high - low) * torch.stack(each, dim=1) / sigma.square()[:, None]

    log_weight = log_share.to(y.dtype).expand(n, classes)
    if classes > FEW:
        candidates = (log_weight - nats(0.5)).topk(KEPT, dim=1).indices
        log_weight = log_weight.gather(1, candidates)
    for level in range(levels):
        log_weight = log_weight - nats((level + 0.5) / levels) / levels
    whole = torch.full((n, classes), -torch.inf, device=y.device, dtype=y.dtype)
    return whole.scatter(1, candidates, log_weight.log_softmax(1))
