"""Densities of a diffusion model: by the probability-flow ODE, and by the variational bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..domains.base import DequantizedPoint
from ..rng import Streams
from ..shapes import Float, Int
from .samplers import Denoise, runge_kutta


def gaussian_nats(y: Float[Tensor, "batch *event"], variance: float) -> Float[Tensor, " batch"]:
    """Log-density under independent centred Gaussians."""
    flat = y.flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))


def ode_log_prob(
    denoise: Callable[[Tensor, float], Tensor],
    where: DequantizedPoint,
    generator: Streams,
    *,
    rows: Int[Tensor, " pairs"],
    sigma_min: float,
    sigma_max: float,
    sigma_data: float,
    steps: int,
) -> Float[Tensor, " pairs"]:
    r"""Log-density in nats along the probability-flow ODE from `sigma_min` to `sigma_max`.

    .. math:: \log p(y) = \log p_{\sigma_{max}}(y(\sigma_{max})) + \int \nabla \cdot \frac{dy}{d\sigma} \, d\sigma

    The divergence is estimated with one Rademacher probe per example (Hutchinson), unbiased. Of a
    row, noise of `sigma_min` is added to every value. Its entropy is given back for categories,
    less what it confuses; for numbers it cancels against rounding the noise off again. The result
    is a lower bound in expectation, as dequantization's is.

    `rows` says which example each density is of: the several densities of one share its noise and its probe.
    """
    y, log_det = where.y, where.log_det
    probe = ((generator.uniform(*y.shape) < 0.5).double() * 2 - 1)[rows]
    if where.row:
        y = y + sigma_min * generator.normal(*y.shape)
        entropy = 0.5 * where.corners * math.log(2 * math.pi * math.e * sigma_min**2)
        log_det = log_det + entropy - where.confusion(y, sigma_min)
    y, log_det = y[rows], log_det[rows]

    def log_slope(y: Tensor, log_sigma: float) -> tuple[Tensor, Tensor]:
        """dy/d(log sigma) and its divergence along the probe."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = y - denoise(y, math.exp(log_sigma))
            (product,) = torch.autograd.grad(slope, y, probe)
        return slope.detach(), (product * probe).flatten(1).sum(1)

    y, change = runge_kutta(log_slope, y, math.log(sigma_min), math.log(sigma_max), steps)
    return gaussian_nats(y, sigma_max**2 + sigma_data**2) + change + log_det


def diffusion_nats(
    denoise: Denoise,
    y: Tensor,
    generator: Streams,
    *,
    sigma_min: float,
    sigma_max: float,
    sigma_data: float,
    samples: int,
) -> Float[Tensor, " batch"]:
    r"""The bound's terms above `sigma_min`: divergence at the far end, and what denoising loses.

    .. math:: KL(q(y_{max}|y) \| p)
        + E_{\ln\sigma \sim U} \left[ \ln\tfrac{\sigma_{max}}{\sigma_{min}} \frac{\|y - D\|^2}{\sigma^2} \right]

    `samples` noise levels are drawn per example, stratified.
    """
    wide = [-1, *[1] * (y.ndim - 1)]
    span = math.log(sigma_max / sigma_min)
    loss = torch.zeros(len(y), device=y.device, dtype=y.dtype)
    for stratum in range(samples):
        part = (stratum + generator.uniform(len(y))) / samples
        sigma = (math.log(sigma_min) + span * part).exp()
        noisy = y + sigma.reshape(wide) * generator.normal(*y.shape)
        error = (denoise(noisy, sigma) - y).flatten(1).square().sum(1)
        loss = loss + span * error / sigma.square() / samples
    variance = sigma_max**2 + sigma_data**2  # of the Gaussian at the far end
    spread, values = sigma_max**2 / variance, y[0].numel() if len(y) else 0
    far = 0.5 * (y.flatten(1).square().sum(1) / variance + values * (spread - 1 - math.log(spread)))
    return far + loss
