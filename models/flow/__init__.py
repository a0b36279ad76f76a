"""Normalizing flow: an invertible network, so that the density is exact.

`base.py` holds what flows share, `couplings.py` the elementwise functions and the couplings, `multiscale.py` the image
flows (Glow, RealNVP), `principal.py` those along principal components, `vector.py` couplings of columns,
`autoregressive.py` rows of tables, column after column, `imputation.py` the couplings' conditional draws.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..chunking import chunk_size
from ..contract import Batch, GenerativeModel, Losses, Objective
from ..domains.base import Domain
from ..networks.registry import network, register
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from . import vector  # noqa: F401 - the bijection of vectors registers itself
from .autoregressive import AutoregressiveFlow
from .base import BaseFlow
from .config import Config
from .imputation import gibbs, langevin
from .multiscale import MultiScale
from .principal import PrincipalFlow

__all__ = ["Config", "Flow", "LikelihoodObjective"]


INTERVALS = 32
"""Intervals of equal probability in which a hidden column is drawn."""

MEASURED_VALUES = 1 << 24
"""Values of the examples that principal components are measured on, at most."""

WIDE = 32
"""Columns from which on a table's hidden cells are drawn together, as an image's pixels are, not one by one."""


@register("bijection", "grid")
def grid_bijection(domain: Any, config: Config) -> MultiScale | PrincipalFlow:
    """Multi-scale couplings of an image; along principal components if asked for, and of grids of other ranks."""
    planar = ("glow", "realnvp") if domain.rank == 2 else ()
    config.check_architecture(domain.kind, ("auto", "couplings", *planar, "principal"))
    if config.architecture == "principal" or not planar:
        return PrincipalFlow(domain.flow_shape, config)
    network = MultiScale(domain.flow_shape, config)  # type: ignore[arg-type]
    return network.to(memory_format=torch.channels_last)  # an eighth to a third faster: no group norms here


class LikelihoodObjective(Objective):
    """Negative log-likelihood of the dequantized example, in nats."""

    name = "flow"

    def __init__(self, model: Flow) -> None:
        super().__init__()
        self.network, self.label = model.network, model.label
        self._model = (model,)

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (model,) = self._model
        label = batch.label
        if label is not None:
            label = torch.where(generator.uniform(len(batch)) < model.config.label_dropout, -1, label)
        y, log_det = model.domain.dequantize(batch.visible, generator)
        nll = -(model.continuous_log_prob(y, label)[0] + log_det)
        return Losses(nll, {"bits_per_dim": nll / (model.values * math.log(2))})


class Flow(BaseFlow):
    """Glow or RealNVP on images, spline couplings on tables (the default there is `AutoregressiveFlow`), conditional
    on the label through the couplings.

    References:
        | Glow: generative flow with invertible 1x1 convolutions (Kingma and Dhariwal, 2018)
        | https://arxiv.org/abs/1807.03039
        | Neural spline flows (Durkan et al., 2019)
        | https://arxiv.org/abs/1906.04032
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        bijection = network("bijection", domain.layout)(domain, config)
        super().__init__(config, domain, classes, bijection, 2 if bijection.columnwise else 2 + len(bijection.shapes))
        self.network: Any  # as the registry's `bijection` gives it
        self.edges: Tensor  # of intervals of equal probability, per column of a table
        columns = self.values if bijection.columnwise else 0
        self.register_buffer("edges", torch.linspace(-4, 4, INTERVALS + 1).repeat(columns, 1))

    @classmethod
    def variant(cls, config: Config, domain: Domain) -> type[GenerativeModel]:  # type: ignore[override]
        by_default = config.architecture == "auto" and domain.any_order
        return AutoregressiveFlow if by_default or config.architecture == "autoregressive" else cls

    def objectives(self) -> tuple[Objective, ...]:
        return (LikelihoodObjective(self),)

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        super().initialize(batch, generator)
        few = chunk_size(self.values)
        if isinstance(self.network, PrincipalFlow):  # components need several examples each
            few = max(few, MEASURED_VALUES // self.values)
        y, _ = self.domain.dequantize(batch.visible[:few], generator)
        self.network(y, self.label(None if batch.label is None else batch.label[:few], len(y)), initialize=True)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        super().finalize(batch, generator)
        if len(self.edges):
            y, _ = self.domain.dequantize(batch.x[:8192], generator)
            at = torch.linspace(0, 1, INTERVALS + 1, device=y.device, dtype=y.dtype)
            self.edges.copy_(y.quantile(at, dim=0).T)

    def continuous_log_prob(
        self, y: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> tuple[Float[Tensor, " batch"], list[Tensor]]:
        r"""Log-density in the space of `domain.dequantize`, in nats, and the latents.

        .. math:: \log p(y) = \log \mathcal{N}(f(y)) + \log|\det \partial f/\partial y|
        """
        latents, log_det = self.network(y, self.label(label, len(y)))
        squares = sum(z.square().flatten(1).sum(1) for z in latents)
        return -0.5 * (squares + self.values * math.log(2 * math.pi)) + log_det, latents

    @torch.no_grad()
    def log_prob(
        self, x: Num[Tensor, "batch *event"], generator: Streams, *, label: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        r"""Exact log-density of the dequantized example, given the label where it is known, else marginal over labels.

        .. math:: \log p(y) = \log \sum_c p(c) \, p(y \mid c)

        Of continuous columns this is the density in the data's own units. Of pixels, integers and
        categories, dequantized within their cell, its expectation is a lower bound of the discrete
        log-probability (Theis et al., 2016), the figure every flow's bits/dim states. Missing
        cells are drawn from their marginal, and their marginal density divided out: again a lower
        bound in expectation.
        """
        y, log_det = self.domain.dequantize(x, generator)
        return self._marginal_log_prob(y, label) + log_det

    def _point(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *event"]:
        return self.domain.cell_center(x)

    def _log_prob_given(
        self, point: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        return self.continuous_log_prob(point, label)[0]

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch _"]:
        """Of rows: log-density (negative) and norm of the latents; of images also the norm at each level."""
        repeats = 4 if len(self.edges) else 1
        draws = []
        for _ in range(repeats):
            y, log_det = self.domain.dequantize(x, generator)
            log_p, latents = self.continuous_log_prob(y, None)
            log_p = (log_p + log_det)[:, None]
            norms = torch.stack([z.square().flatten(1).mean(1).clamp(min=1e-8).log() for z in latents], dim=1)
            volume = log_p + 0.5 * sum(z.square().flatten(1).sum(1, keepdim=True) for z in latents)
            draws.append(torch.cat([-log_p, norms] if len(self.edges) else [log_p, volume, norms], dim=1))
        return torch.stack(draws).mean(0)

    def _code(
        self, point: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch latent"]:
        latents, _ = self.network(point, self.label(label, len(point)))
        return torch.cat([z.flatten(1) for z in latents], dim=1)

    def _complete(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Num[Tensor, "batch *data"]:
        return self.domain.quantize(self._from_latent(z, label))

    def _from_latent(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch *event"]:
        parts = z.split([math.prod(shape) for shape in self.network.shapes], dim=1)
        latents = [part.unflatten(1, shape) for part, shape in zip(parts, self.network.shapes, strict=True)]
        return self.network.inverse(latents, self.label(label, len(z)))

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        z = self.sampling.temperature * generator.normal(n, self.values)
        z[:, : self.values - math.prod(self.network.shapes[-1])] *= self.sampling.detail
        return self._complete(z, label)

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        return self._code(self._point(x), None)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self._complete(z, None)

    def fill(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch *event"]:
        """Draws from p(hidden | observed): Gibbs over a table's columns (one chain, `sweeps` sweeps before its
        first draw and one from draw to draw), Langevin chains over an image's pixels or very many columns."""
        if 0 < len(self.edges) < WIDE:
            return self._by_columns(x, observed, generator, draws)
        many, seen = x.repeat(draws, *[1] * (x.ndim - 1)), observed.repeat(draws, *[1] * (x.ndim - 1))
        return self.domain.quantize(self._together(many, seen, generator)).unflatten(0, (draws, len(x)))

    def _by_columns(self, x: Tensor, observed: Tensor, generator: Streams, draws: int) -> Tensor:
        def dequantized() -> Tensor:  # hidden cells are drawn from their marginals
            return self.domain.dequantize(x, generator)[0]

        def log_prob(y: Tensor) -> Tensor:
            return self.continuous_log_prob(y, None)[0]

        y = dequantized()
        states = gibbs(log_prob, y, ~observed, self.edges.to(y.dtype), dequantized, generator)
        for _ in range(self.sampling.sweeps - 1):
            next(states)
        return torch.stack([self.domain.quantize(next(states)) for _ in range(draws)])

    def _together(self, x: Tensor, observed: Tensor, generator: Streams) -> Float[Tensor, "batch *event"]:
        y, _ = self.domain.dequantize(x, generator)
        hidden = ~(observed if len(self.edges) else self.domain.expand(observed))  # flow space: a value per column
        start, least = y, torch.full((len(y),), torch.inf, device=y.device, dtype=y.dtype)
        for _ in range(8):  # start from the draw that comes closest to what is observed
            drawn = self._from_latent(generator.normal(len(y), self.values).to(y.dtype), None)
            distance = ((drawn - y) * ~hidden).square().flatten(1).sum(1)
            closer = (distance < least).reshape(-1, *[1] * (y.ndim - 1))
            start, least = torch.where(closer & hidden, drawn, start), torch.minimum(distance, least)
        return langevin(lambda y: self.continuous_log_prob(y, None)[0], start, hidden, generator, steps=100)
