r"""Noise levels in order, from which training draws and along which a sampler walks.

Every path :math:`x_t = \alpha_t y + s_t \epsilon` is, scaled by :math:`1/\alpha_t`, the example plus
noise of standard deviation :math:`\sigma = s_t/\alpha_t`. So the whole family works with
:math:`y + \sigma \epsilon`, and a schedule is only a scale on which equal steps of :math:`\sigma` are taken.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..shapes import Float

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The least and the most noise (model space): between them `ddpm` and `flow_matching` train, and examples are made
codes; a density begins at the most."""


class Schedule(ABC):
    """A monotone map between noise levels and positions on a scale."""

    @abstractmethod
    def position(self, sigma: float) -> float:
        """Where a noise level lies on the scale."""

    @abstractmethod
    def sigma(self, position: Tensor) -> Tensor:
        """The noise level at a position: the inverse of `position`."""

    def between(self, start: float, end: float, part: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Noise levels from `start` (part 0) to `end` (part 1), equally spaced on the scale."""
        first, last = self.position(start), self.position(end)
        return self.sigma(first + part * (last - first))


class Power(Schedule):
    r""":math:`\sigma^{1/\rho}`: the levels of EDM (Karras et al., 2022, eq. 5; https://arxiv.org/abs/2206.00364).

    Arguments:
        rho: Larger puts more levels near the small end.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho

    def position(self, sigma: float) -> float:
        return sigma ** (1 / self.rho)

    def sigma(self, position: Tensor) -> Tensor:
        return position**self.rho


class Cosine(Schedule):
    r"""Time of the cosine schedule, :math:`\alpha_t \propto \cos(\tfrac\pi2 \tfrac{t + s}{1 + s})`, s = 0.008.

    References:
        | Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021), eq. 17
        | https://arxiv.org/abs/2102.09672
    """

    offset = 0.008
    first = math.cos(math.pi / 2 * offset / (1 + offset))

    def position(self, sigma: float) -> float:
        alpha = 1 / math.sqrt(1 + sigma**2)
        return math.acos(alpha * self.first) * 2 / math.pi * (1 + self.offset) - self.offset

    def sigma(self, position: Tensor) -> Tensor:
        alpha = (math.pi / 2 * (position + self.offset) / (1 + self.offset)).cos() / self.first
        return (alpha**-2 - 1).sqrt()


class Linear(Schedule):
    r"""Time of the variance that grows linearly, :math:`\sigma^2 = e^{\beta_0 t + (\beta_1 - \beta_0) t^2/2} - 1`.

    With :math:`\beta_0` = 0.1 and :math:`\beta_1` = 20: a thousand steps of 0.0001 to 0.02.

    References:
        | Denoising diffusion probabilistic models (Ho et al., 2020), section 4
        | https://arxiv.org/abs/2006.11239
    """

    least, slope = 0.1, 19.9

    def position(self, sigma: float) -> float:
        return (math.sqrt(self.least**2 + 2 * self.slope * math.log1p(sigma**2)) - self.least) / self.slope

    def sigma(self, position: Tensor) -> Tensor:
        return (self.least * position + self.slope / 2 * position.square()).expm1().sqrt()


class Straight(Schedule):
    r"""Time of the straight path :math:`(1 - t) y + t \epsilon`: :math:`\sigma = t / (1 - t)`.

    References:
        | Flow matching for generative modeling (Lipman et al., 2023), eq. 20-22, with time reversed
        | https://arxiv.org/abs/2210.02747
    """

    def position(self, sigma: float) -> float:
        return sigma / (1 + sigma)

    def sigma(self, position: Tensor) -> Tensor:
        return position / (1 - position)


def levels(schedule: Schedule, sigma_max: float, sigma_min: float, steps: int, device: torch.device) -> Tensor:
    """`steps` noise levels from the largest to the smallest, float64."""
    part = torch.linspace(0, 1, steps, dtype=torch.float64, device=device)
    return schedule.between(sigma_max, sigma_min, part)
