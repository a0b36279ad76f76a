"""The denoiser: one network behind the three ways to say what it predicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract import Batch, Losses, Objective
from ..domains.base import Domain
from ..domains.table_rows import Settler
from ..imputation import reveal_cells
from ..networks.embeddings import FourierEmbedding, LabelEmbedding
from ..rng import Streams
from ..shapes import Float, Int
from .config import Config
from .mixture_denoiser import MixtureDenoiser
from .schedules import SIGMA_MAX, SIGMA_MIN, Cosine, Linear, Power, Schedule, Straight


def schedule_of(config: Config, rho: float = 7.0) -> Schedule:
    """The scale of noise levels that belongs to an objective; of `edm` with this curvature."""
    if config.objective == "edm":
        return Power(rho)
    if config.objective == "flow_matching":
        return Straight()
    return Cosine() if config.schedule == "cosine" else Linear()


def coefficients(objective: str, sigma: Tensor, sigma_data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""What makes a denoiser of a network's output: :math:`c_{skip}, c_{out}, c_{in}`.

    ============== ========================== ============================ ==========================
    objective      c_skip                     c_out                        c_in
    ============== ========================== ============================ ==========================
    edm            σd² / (σ² + σd²)           σ σd / √(σ² + σd²)           1 / √(σ² + σd²)
    ddpm           1                          -σ                           1 / √(1 + σ²)
    flow_matching  1 / (1 + σ)                -σ / (1 + σ)                 1 / (1 + σ)
    ============== ========================== ============================ ==========================

    In the second row the network predicts the noise, in the third noise minus example. In every row
    the objective's own squared error is that of the denoised example divided by c_out².
    """
    if objective == "ddpm":
        return torch.ones_like(sigma), -sigma, 1 / (1 + sigma.square()).sqrt()
    if objective == "flow_matching":
        return 1 / (1 + sigma), -sigma / (1 + sigma), 1 / (1 + sigma)
    total = (sigma.square() + sigma_data.square()).sqrt()
    return (sigma_data / total).square(), sigma * sigma_data / total, 1 / total


class Denoiser(nn.Module):
    r"""The expected clean example given a noisy one.

    .. math:: D(x; \sigma) = c_{skip} \, x + c_{out} \, F(c_{in} \, x; c_{noise})

    If `masked`, it may be given some of the clean values: the network sees them in place of the noisy
    ones, and which they are. Under `edm` it then sees :math:`c_{skip} \, x / \sigma_d` instead of
    :math:`c_{in} \, x`, which fades with what the noise drowns: noise at full scale in the values to be
    drawn would drown the given ones too.

    References:
        | CSDI (Tashiro et al., 2021), section 4.2 (given values)
        | https://arxiv.org/abs/2107.03502
        | Elucidating the design space of diffusion-based generative models (Karras et al., 2022), eq. 7, table 1
        | https://arxiv.org/abs/2206.00364
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        self.objective = config.objective
        self.hide = 0.5 * domain.takes_mask if config.hide == -1 else config.hide
        self.masked = self.hide > 0
        self.mixture = None
        if config.principal and domain.layout == "grid":
            self.mixture = MixtureDenoiser(domain.event_shape, config.principal, classes)
        self.network = domain.denoiser(
            width=config.width,
            embed=config.embed,
            blocks=config.blocks,
            patch=config.patch,
            attention=config.attention,
            heads=config.heads,
            dropout=config.dropout,
            more=self.masked + (self.mixture is not None),
        )
        self.drops = config.dropout > 0 and domain.layout == "grid"
        self.level = FourierEmbedding(config.embed)
        self.label = LabelEmbedding(classes, config.embed)
        self.sigma_data: Tensor
        self.register_buffer("sigma_data", torch.tensor(0.5))
        self.spreads: Tensor | None  # of each value of a row, whose columns differ in that
        self.register_buffer("spreads", torch.ones(domain.event_shape) if domain.scales_per_value else None)

    def levels(self, sigma: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Noise levels and standard deviations of the data, as `coefficients` takes them: of a row, one per value."""
        return (sigma, self.sigma_data) if self.spreads is None else (sigma[:, None], self.spreads)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        sigma: Float[Tensor, " batch"],
        label: Int[Tensor, " batch"] | None,
        given: Float[Tensor, "batch *event"] | None = None,
        detail: float = 1.0,
        generator: Streams | None = None,
    ) -> Float[Tensor, "batch *event"]:
        """The expected clean example; of the values `given` (NaN: not given), which only a masked one takes, these;
        `detail` as `MixtureDenoiser` takes it; `generator`, of a training, for dropout."""
        wide = [len(x), *[1] * (x.ndim - 1)]
        c_skip, c_out, c_in = (
            c if c.ndim > 1 else c.reshape(wide) for c in coefficients(self.objective, *self.levels(sigma))
        )
        c_noise = sigma.log() / 4
        c = F.silu(self.level(c_noise) + self.label(label, len(x)))
        start, also = c_skip * x, []
        if self.mixture is not None:
            start = self.mixture(x, sigma, label, detail).to(x.dtype)
            also = [start / self.sigma_data]
        chance = {"generator": generator} if self.drops else {}
        if not self.masked:
            seen = torch.cat([c_in * x, *also], dim=1) if also else c_in * x
            return start + c_out * self.network(seen, c, **chance).to(x.dtype)
        clean = torch.full_like(x, torch.nan) if given is None else given
        known = ~clean.isnan()
        deviation = self.sigma_data if self.spreads is None else self.spreads
        scaled = (c_skip / deviation if self.objective == "edm" else c_in) * x
        seen = torch.cat([torch.where(known, clean, scaled), known.to(x.dtype), *also], dim=1)
        return torch.where(known, clean, start + c_out * self.network(seen, c, **chance).to(x.dtype))


class DenoisingObjective(Objective):
    r"""Squared error of what the network predicts (no unit), mean over values.

    .. math:: \frac{1}{c_{out}^2} \, \|D(y + \sigma\epsilon; \sigma) - y\|^2

    `edm` draws the noise level log-normally, the others uniformly on the schedule's scale. Missing
    values enter as 0 and count nothing, nor do those that a masked denoiser is given.

    References:
        | Karras et al. (2022), eq. 8; https://arxiv.org/abs/2206.00364
    """

    name = "diffusion"

    def __init__(self, denoiser: Denoiser, domain: Domain, config: Config, settler: Settler | None = None) -> None:
        super().__init__()
        self.denoiser, self.domain, self.config, self.settler = denoiser, domain, config, settler
        self.schedule = None if config.objective == "edm" else schedule_of(config)

    def _noise_levels(self, n: int, generator: Streams) -> Float[Tensor, " n"]:
        c = self.config
        if self.schedule is None:
            return (c.p_mean + c.p_std * generator.normal(n)).exp()
        return self.schedule.between(SIGMA_MIN, SIGMA_MAX, generator.uniform(n))

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        y = self.domain.spread(batch.visible, generator)
        label = batch.label
        if label is not None:
            label = torch.where(generator.uniform(len(y)) < self.config.label_dropout, -1, label)
        sigma = self._noise_levels(len(y), generator)
        noisy = y + sigma.reshape(-1, *[1] * (y.ndim - 1)) * generator.normal(*y.shape)
        observed = self.domain.observed(batch.visible)
        if self.denoiser.masked:
            given = reveal_cells(observed, self.denoiser.hide, generator)
            clean = torch.where(self.domain.expand(given), self.domain.to_model(batch.visible), torch.nan)
            drawn = self.denoiser(noisy, sigma, label, clean, generator=generator)
            difference, counted = drawn - y, observed & ~given
        else:
            difference, counted = self.denoiser(noisy, sigma, label, generator=generator) - y, observed
        if self.denoiser.masked or batch.visible.is_floating_point():
            difference = difference * self.domain.expand(counted)
        error = difference.flatten(1).square()
        _, c_out, _ = coefficients(self.config.objective, *self.denoiser.levels(sigma))
        weighted = self.domain.weigh_values(error / c_out.square().reshape(len(error), -1))
        total, error = weighted.mean(1), error.mean(1)
        if self.settler is None:
            return Losses(total, {"squared_error": error})
        nats = self.settler.nats(batch.visible, y, label, generator, batch.gaps)
        return Losses(total + nats, {"squared_error": error, "settling_nats": nats})
