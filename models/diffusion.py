"""Diffusion model: a preconditioned denoiser at every noise level, and the ODE that samples with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import (
    AnomalyScoring,
    Batch,
    Coding,
    Denoising,
    Density,
    DensityBound,
    GenerativeModel,
    Losses,
    Objective,
    Reconstruction,
    Sampling,
    Streams,
)
from .domains import Domain
from .networks import FourierEmbedding, LabelEmbedding
from .shapes import Float, Int, Num
from .typicality import Typicality


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the diffusion model.

    Arguments:
        width: Channels of the denoiser at the finest level.
        blocks: Residual blocks per level and direction.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        embed: Length of the vector of noise level and label.
        p_mean: Mean of the log noise level in training.
        p_std: Standard deviation of the log noise level in training.
        sigma_min: Smallest noise level of the sampler, in model space.
        sigma_max: Largest noise level.
        rho: Curvature of the sampler's noise levels.
        steps: Heun steps of the sampler.
        label_dropout: Part of the training examples whose label is hidden.
        guidance: Weight of classifier-free guidance; 1 samples the model itself.
    """

    width: int = 32
    blocks: int = 1
    patch: int = 0
    embed: int = 64
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    steps: int = 18
    label_dropout: float = 0.1
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("width", "blocks", "embed"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout must be at least 0 and below 1, got {self.label_dropout}")
        for name in ("p_std", "rho"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.guidance < 0:
            raise ValueError(f"guidance must not be negative, got {self.guidance}")


class Denoiser(nn.Module):
    r"""The expected clean example given a noisy one.

    .. math:: D(x; \sigma) = c_{skip} \, x + c_{out} \, F(c_{in} \, x; c_{noise})

    References:
        | Elucidating the design space of diffusion-based generative models (Karras et al., 2022), eq. 7, table 1
        | https://arxiv.org/abs/2206.00364
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        self.network = domain.denoiser(width=config.width, embed=config.embed, blocks=config.blocks, patch=config.patch)
        self.level = FourierEmbedding(config.embed)
        self.label = LabelEmbedding(classes, config.embed)
        self.sigma_data: Tensor
        self.register_buffer("sigma_data", torch.tensor(0.5))

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        sigma: Float[Tensor, " batch"],
        label: Int[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch *event"]:
        total = (sigma.square() + self.sigma_data.square()).sqrt()
        wide = [-1, *[1] * (x.ndim - 1)]
        c_skip = (self.sigma_data / total).square().reshape(wide)
        c_out = (sigma * self.sigma_data / total).reshape(wide)
        c_in, c_noise = (1 / total).reshape(wide), sigma.log() / 4
        c = F.silu(self.level(c_noise) + self.label(label, len(x)))
        return c_skip * x + c_out * self.network(c_in * x, c).to(x.dtype)


class DenoisingObjective(Objective):
    r"""Weighted squared error of the denoiser (no unit), mean over values.

    .. math:: \lambda(\sigma) \, \|D(y + n; \sigma) - y\|^2,
        \quad \lambda = (\sigma^2 + \sigma_d^2) / (\sigma \sigma_d)^2

    References:
        | Karras et al. (2022), eq. 8; https://arxiv.org/abs/2206.00364
    """

    name = "diffusion"

    def __init__(self, model: Diffusion) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        self.domain, self.config = model.domain, model.config

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        y = self.domain.to_model(batch.x)
        label = batch.label
        if label is not None:
            label = torch.where(generator.uniform(len(y)) < self.config.label_dropout, -1, label)
        sigma = (self.config.p_mean + self.config.p_std * generator.normal(len(y))).exp()
        noisy = y + sigma.reshape(-1, *[1] * (y.ndim - 1)) * generator.normal(*y.shape)
        error = (self.denoiser(noisy, sigma, label) - y).flatten(1).square().mean(1)
        sigma_data = self.denoiser.sigma_data
        weight = (sigma.square() + sigma_data.square()) / (sigma * sigma_data).square()
        return Losses(weight * error, {"squared_error": error})


class Diffusion(GenerativeModel, Sampling, Density, DensityBound, Coding, Reconstruction, AnomalyScoring, Denoising):
    """EDM: preconditioned denoiser, Heun's method on the probability-flow ODE.

    References:
        | Karras et al. (2022), https://arxiv.org/abs/2206.00364
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.denoiser = Denoiser(config, domain, classes)
        self.probes = (0.1, 0.3, 0.6, 1.2)  # noise levels, in units of sigma_data, of the anomaly statistics
        self.typicality = Typicality(len(self.probes))

    def objectives(self) -> tuple[Objective, ...]:
        return (DenoisingObjective(self),)

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Measure sigma_data: the standard deviation of the values around their overall mean."""
        super().initialize(batch, generator)
        self.denoiser.sigma_data.copy_(self.domain.to_model(batch.x).std().clamp(min=1e-3))

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.typicality.fit(self._statistics(batch.x, generator))

    # The probability-flow ODE

    def noise_levels(self, steps: int, *, device: torch.device) -> Float[Tensor, " levels"]:
        """`steps` levels from `sigma_max` to `sigma_min` (Karras et al., 2022, eq. 5), float64."""
        if steps < 2:
            raise ValueError(f"steps must be at least 2 (0 for the model's own), got {steps}")
        rho, c = self.config.rho, self.config
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device=device)
        return (c.sigma_max ** (1 / rho) + ramp * (c.sigma_min ** (1 / rho) - c.sigma_max ** (1 / rho))) ** rho

    def denoised(self, x: Tensor, sigma: Tensor | float, label: Tensor | None) -> Float[Tensor, "batch *event"]:
        """Denoiser output with guidance, in the precision of `x`."""
        level = torch.as_tensor(sigma, device=x.device).to(torch.float32).expand(len(x))
        low = x.float()
        d = self.denoiser(low, level, label)
        if self.config.guidance != 1 and label is not None:
            free = self.denoiser(low, level, None)
            d = free + self.config.guidance * (d - free)
        return d.to(x.dtype)

    def slope(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """dx/dsigma of the probability-flow ODE (Karras et al., 2022, eq. 3)."""
        return (x - self.denoised(x, sigma, label)) / sigma

    def integrate(self, x: Tensor, levels: Tensor, label: Tensor | None) -> Tensor:
        """Heun's method along `levels`; a last level of 0 is reached by one Euler step."""
        for now, then in pairwise(levels):
            slope = self.slope(x, now, label)
            ahead = x + (then - now) * slope
            if then > 0:
                ahead = x + (then - now) * 0.5 * (slope + self.slope(ahead, then, label))
            x = ahead
        return x

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        noise = generator.normal(n, *self.domain.event_shape).double()
        return self._from_noise(noise, label, steps)

    def _from_noise(self, noise: Tensor, label: Tensor | None, steps: int = 0) -> Num[Tensor, "n *event"]:
        levels = self.noise_levels(steps or self.config.steps, device=noise.device)
        down = torch.cat([levels, levels.new_zeros(1)])
        return self.domain.to_data(self.integrate(noise * levels[0], down, label))

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        levels = self.noise_levels(self.config.steps, device=x.device).flip(0)
        y = self.integrate(self.domain.to_model(x).double(), levels, None)
        return (y / levels[-1]).flatten(1).float()

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        noise = z.double().unflatten(1, self.domain.event_shape)
        return self._from_noise(noise, None)

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    # Densities

    @torch.no_grad()
    def log_prob(
        self, x: Num[Tensor, "batch *event"], generator: Streams, *, steps: int = 16
    ) -> Float[Tensor, " batch"]:
        r"""Log-density by the probability-flow ODE, of the dequantized example, in nats.

        .. math:: \log p(y) = \log p_{\sigma_{max}}(y(\sigma_{max})) + \int \nabla \cdot \frac{dy}{d\sigma} \, d\sigma

        The divergence is estimated with one Rademacher probe per example (Hutchinson), unbiased.

        References:
            | Score-based generative modeling through SDEs (Song et al., 2021), eq. 39-40
            | https://arxiv.org/abs/2011.13456
        """
        spread = self.domain.spacing * self.domain.levels / 2  # type: ignore[attr-defined]
        y = (self.domain.dequantize(x, generator) * 2 - 1).double() * spread
        probe = (generator.uniform(*y.shape) < 0.5).double() * 2 - 1
        y, change = self._rise(y, probe, steps)
        dimensions, sigma = self.domain.dimensions, self.config.sigma_max
        variance = sigma**2 + float(self.denoiser.sigma_data) ** 2
        base = -0.5 * (y.flatten(1).square().sum(1) / variance + dimensions * math.log(2 * math.pi * variance))
        cell = dimensions * math.log(self.domain.spacing)  # type: ignore[attr-defined]
        return (base + change + cell).float()

    def _rise(self, y: Tensor, probe: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Integrate the ODE and its divergence up to `sigma_max`: Runge-Kutta of order 4 in log sigma."""
        start, end = math.log(self.config.sigma_min), math.log(self.config.sigma_max)
        h = (end - start) / steps
        change = torch.zeros(len(y), dtype=torch.float64, device=y.device)
        for step in range(steps):
            now = start + step * h
            k1, d1 = self._log_slope(y, now, probe)
            k2, d2 = self._log_slope(y + 0.5 * h * k1, now + 0.5 * h, probe)
            k3, d3 = self._log_slope(y + 0.5 * h * k2, now + 0.5 * h, probe)
            k4, d4 = self._log_slope(y + h * k3, now + h, probe)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            change = change + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        return y, change

    def _log_slope(self, y: Tensor, log_sigma: float, probe: Tensor) -> tuple[Tensor, Tensor]:
        """dy/d(log sigma) and its divergence along the probe."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = y - self.denoised(y, math.exp(log_sigma), None)
            (product,) = torch.autograd.grad(slope, y, probe)
        return slope.detach(), (product * probe).flatten(1).sum(1)

    @torch.no_grad()
    def elbo(self, x: Num[Tensor, "batch *event"], generator: Streams, *, samples: int = 16) -> Float[Tensor, " batch"]:
        r"""Variational bound of the discrete log-probability, continuous in time, in nats.

        .. math:: -\log p(x) \le KL(q(y_{max}|x) \| p) + E[-\log p(x|y_{min})]
            + E_{\ln\sigma \sim U} \left[ \ln\tfrac{\sigma_{max}}{\sigma_{min}} \frac{\|y - D\|^2}{\sigma^2} \right]

        `samples` noise levels are drawn per example, stratified.

        References:
            | Variational diffusion models (Kingma et al., 2021), eq. 15
            | https://arxiv.org/abs/2107.00630
        """
        y, c = self.domain.to_model(x), self.config
        wide = [-1, *[1] * (y.ndim - 1)]
        span = math.log(c.sigma_max / c.sigma_min)
        loss = torch.zeros(len(y), device=y.device)
        for stratum in range(samples):
            position = (stratum + generator.uniform(len(y))) / samples
            sigma = (math.log(c.sigma_min) + span * position).exp()
            noisy = y + sigma.reshape(wide) * generator.normal(*y.shape)
            error = (self.denoiser(noisy, sigma, None) - y).flatten(1).square().sum(1)
            loss = loss + span * error / sigma.square() / samples
        variance = c.sigma_max**2 + float(self.denoiser.sigma_data) ** 2  # of the Gaussian at the far end
        spread = c.sigma_max**2 / variance
        prior = 0.5 * (
            y.flatten(1).square().sum(1) / variance + self.domain.dimensions * (spread - 1 - math.log(spread))
        )
        return -(prior + loss + self._rounding_nats(y, generator))

    def _rounding_nats(self, y: Tensor, generator: Streams) -> Float[Tensor, " batch"]:
        """Expected -log-probability of each value's level given it at `sigma_min`."""
        sigma, image = self.config.sigma_min, self.domain
        noisy = y + sigma * generator.normal(*y.shape)
        near = torch.arange(-2, 3, device=y.device) * image.spacing  # type: ignore[attr-defined]
        candidates = y[..., None] + near
        log_p = -0.5 * ((noisy[..., None] - candidates) / sigma).square()
        log_p = log_p.masked_fill(candidates.abs() > 1 + 1e-6, -math.inf)
        return (log_p.logsumexp(-1) - log_p[..., 2]).flatten(1).sum(1)

    # Other uses of the denoiser

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch _"]:
        y = self.domain.to_model(x)
        columns = []
        for probe in self.probes:
            sigma = probe * self.denoiser.sigma_data.expand(len(y))
            errors = []
            for _ in range(4):
                noisy = y + sigma[0] * generator.normal(*y.shape)
                errors.append((self.denoiser(noisy, sigma, None) - y).flatten(1).square().sum(1))
            columns.append(torch.stack(errors).mean(0).clamp(min=1e-8).log())
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    @torch.no_grad()
    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        if not sigma > 0:
            raise ValueError(f"sigma must be positive (standard deviation of the noise in data units), got {sigma}")
        return self.domain.to_data(self.denoised(self.domain.to_model(x), sigma / 127.5, None))
