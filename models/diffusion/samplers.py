r"""Samplers: ways along the noise levels from noise to an example.

The deterministic ones solve the probability-flow ODE (Karras et al., 2022, eq. 3)

.. math:: \frac{dx}{d\sigma} = \frac{x - D(x; \sigma)}{\sigma}

Euler's method on it is DDIM (Song et al., 2021, eq. 14), and Euler's method on the straight path of
flow matching, too: they differ only in where the levels lie.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..rng import Streams
from ..shapes import Float

Denoise = Callable[[Tensor, Tensor], Tensor]
"""The expected clean example given a noisy one and its noise level."""


class Sampler(ABC):
    """A way along the noise levels.

    Attributes:
        order: Of the global error in the largest step; 0 for a stochastic sampler.
    """

    order: ClassVar[int]

    @abstractmethod
    def __call__(
        self, denoise: Denoise, x: Float[Tensor, "batch *event"], levels: Float[Tensor, " levels"], generator: Streams
    ) -> Float[Tensor, "batch *event"]:
        """From noise level `levels[0]` to `levels[-1]`, which may be 0.

        Arguments:
            denoise: The denoiser.
            x: Examples with noise of standard deviation `levels[0]`.
            levels: Noise levels; the deterministic samplers also walk upwards.
            generator: Source of noise of a stochastic sampler.
        """


class Euler(Sampler):
    """Euler's method, which is DDIM.

    References:
        | Denoising diffusion implicit models (Song et al., 2021), eq. 13-14
        | https://arxiv.org/abs/2010.02502
    """

    order = 1

    def __call__(self, denoise: Denoise, x: Tensor, levels: Tensor, generator: Streams) -> Tensor:
        for now, then in pairwise(levels):
            x = x + (then - now) * (x - denoise(x, now)) / now
        return x


class Heun(Sampler):
    """Heun's method; a last level of 0 is reached by one Euler step.

    References:
        | Karras et al. (2022), algorithm 1; https://arxiv.org/abs/2206.00364
    """

    order = 2

    def __call__(self, denoise: Denoise, x: Tensor, levels: Tensor, generator: Streams) -> Tensor:
        for now, then in pairwise(levels):
            slope = (x - denoise(x, now)) / now
            ahead = x + (then - now) * slope
            if then > 0:
                ahead = x + (then - now) * 0.5 * (slope + (ahead - denoise(ahead, then)) / then)
            x = ahead
        return x


class Multistep(Sampler):
    r"""DPM-Solver++(2M): exponential integrator in :math:`\lambda = -\ln\sigma`, one evaluation per step.

    References:
        | DPM-Solver++ (Lu et al., 2022), algorithm 2
        | https://arxiv.org/abs/2211.01095
    """

    order = 2

    def __call__(self, denoise: Denoise, x: Tensor, levels: Tensor, generator: Streams) -> Tensor:
        before, h_before = None, None
        for now, then in pairwise(levels):
            d = denoise(x, now)
            if not then.any():
                return d
            h = (now / then).log()
            ahead = d
            if before is not None and h_before is not None:
                ahead = d + 0.5 * h / h_before * (d - before)
            x = then / now * x - (-h).expm1() * ahead
            before, h_before = d, h
        return x


class Ancestral(Sampler):
    r"""DDPM: each step draws from :math:`q(x_{then} \mid x_{now}, y)` at the denoised example.

    References:
        | Denoising diffusion probabilistic models (Ho et al., 2020), eq. 6-7, algorithm 2
        | https://arxiv.org/abs/2006.11239
    """

    order = 0

    def __call__(self, denoise: Denoise, x: Tensor, levels: Tensor, generator: Streams) -> Tensor:
        for now, then in pairwise(levels):
            x = ancestral_step(x, denoise(x, now), now, then, generator)
        return x


def ancestral_step(x: Tensor, denoised: Tensor, now: Tensor, then: Tensor, generator: Streams) -> Tensor:
    """One draw of the example at the lower noise level `then`, given it at `now` and denoised."""
    ratio = (then / now).square()
    spread = then * (1 - ratio).clamp(min=0).sqrt()
    return denoised + ratio * (x - denoised) + spread * generator.normal(*x.shape).to(x.dtype)


SAMPLERS: dict[str, Sampler] = {
    "heun": Heun(),
    "euler": Euler(),
    "ddim": Euler(),
    "dpmpp_2m": Multistep(),
    "ddpm": Ancestral(),
}


def runge_kutta(
    slope: Callable[[Tensor, float], tuple[Tensor, Tensor]], y: Tensor, start: float, end: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Integrate dy/dt, and a second quantity that depends on y and t only, by the method of order 4."""
    h = (end - start) / steps
    total = torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for step in range(steps):
        now = start + step * h
        k1, d1 = slope(y, now)
        k2, d2 = slope(y + 0.5 * h * k1, now + 0.5 * h)
        k3, d3 = slope(y + 0.5 * h * k2, now + 0.5 * h)
        k4, d4 = slope(y + h * k3, now + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return y, total
