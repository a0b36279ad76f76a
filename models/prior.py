"""A model of the codes of another model: what autoencoder and VAE draw codes from, trained beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from .contract import Batch, Losses, Objective
from .diffusion import Diffusion
from .domains.base import DequantizedPoint, Domain, Likelihood
from .flow import Flow, LikelihoodObjective
from .networks.embeddings import full_precision
from .rng import Streams
from .shapes import Bool, Float, Int, Num

Prior = Literal["mixture", "flow", "diffusion"]


class CodeSpace(Domain):
    """Vectors of continuous numbers of about unit size: data, model and flow space are the same.

    Arguments:
        dim: Length of a vector.
    """

    kind = "codes"
    layout = "vector"

    def __init__(self, dim: int) -> None:
        self.event_shape = self.flow_shape = (dim,)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "dim": self.event_shape[0]}

    def to_model(self, x: Num[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        return x

    def to_data(self, y: Float[Tensor, "batch dim"]) -> Num[Tensor, "batch dim"]:
        return y

    def expand(self, observed: Bool[Tensor, "batch dim"]) -> Bool[Tensor, "batch dim"]:
        return observed

    def dequantize(
        self, x: Num[Tensor, "batch dim"], generator: Streams
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        return x, x.new_zeros(len(x))

    def cell_center(self, x: Num[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        return x

    def quantize(self, y: Float[Tensor, "batch dim"]) -> Num[Tensor, "batch dim"]:
        return y

    def dequantized_point(self, x: Num[Tensor, "batch dim"], generator: Streams) -> DequantizedPoint:
        return DequantizedPoint(x.double(), x.new_zeros(len(x), dtype=torch.float64))

    def rounding_nats(self, point: DequantizedPoint, sigma: float, generator: Streams) -> Float[Tensor, " batch"]:
        """Of numbers that are not rounded: the entropy of the noise, in which they are drawn."""
        nats = 0.5 * self.dimensions * math.log(2 * math.pi * math.e * sigma**2)
        return torch.full_like(point.log_det, nats)

    def likelihood(
        self, components: int, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        _refuse("a likelihood")

    def reconstruction(
        self, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        _refuse("a reconstruction")

    def generator_output(
        self, raw: Float[Tensor, "batch dim"], noise: Float[Tensor, "batch gumbel"]
    ) -> Float[Tensor, "batch dim"]:
        return raw


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"codes have no {what[2:]} of their own; only flow and diffusion model them")


class Standardization(nn.Module):
    r"""Codes to zero mean and unit variance: a shift and a scale, trained as the maximum-likelihood Gaussian.

    .. math:: y = z / s - m, \quad \text{by minimizing } \tfrac12 y^2 + \ln s

    So they follow the encoder, and are averaged, resumed and shared by workers as weights are.

    Arguments:
        dim: Length of a code.
    """

    SPEED = 10.0
    """Units of shift and log-scale per unit of their parameters: they learn so many times as fast as weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "n dim"]) -> None:
        """Take both from codes."""
        scale = z.std(0).clamp(min=1e-3) if len(z) > 1 else torch.ones_like(z[0])
        self.log_scale.copy_(scale.log() / self.SPEED)
        self.shift.copy_(z.mean(0) / scale / self.SPEED)

    def forward(self, z: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, ""]]:
        """Standardized codes, and the logarithm of the volume's change."""
        log_scale = self.SPEED * self.log_scale
        return z * (-log_scale).exp() - self.SPEED * self.shift, -log_scale.sum()

    def inverse(self, y: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return (y.to(self.shift.dtype) + self.SPEED * self.shift) * (self.SPEED * self.log_scale).exp()


class LatentPrior(nn.Module):
    """A flow or a diffusion model of codes, conditional on the label.

    Arguments:
        kind: `flow` or `diffusion`.
        dim: Length of a code.
        classes: Number of labels; 0 for none.
        width: Size of its networks, as of a table's.

    References:
        | High-resolution image synthesis with latent diffusion models (Rombach et al., 2022)
        | https://arxiv.org/abs/2112.10752
        | Mixed-type tabular data synthesis with score-based diffusion in latent space (Zhang et al., 2024)
        | https://arxiv.org/abs/2310.09656
    """

    def __init__(self, kind: Prior, dim: int, classes: int, width: int) -> None:
        super().__init__()
        self.standard = Standardization(dim)
        self.model: Flow | Diffusion
        if kind == "flow":
            self.model = Flow(Flow.Config(architecture="couplings", steps=6, width=width), CodeSpace(dim), classes)
        else:
            model = Diffusion(Diffusion.Config(width=width, p_mean=-0.5), CodeSpace(dim), classes)
            self.model = model.with_sampling(
                sampler="heun", steps=18, sigma_min=0.002
            )  # codes are short: steps are cheap
            self.model.denoiser.sigma_data.fill_(1.0)

    @property
    def has_density(self) -> bool:
        """Whether the density of codes is known exactly."""
        return isinstance(self.model, Flow)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "n dim"], frequencies: Float[Tensor, " classes"]) -> None:
        """Start from the codes of an encoder that has learned nothing yet."""
        self.standard.initialize(z)
        self.model.label_frequencies.copy_(frequencies)

    def joint_log_prob(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n groups"]:
        """Exact log-density of codes together with each class, in nats; a flow's only. Without labels there is one
        group."""
        assert isinstance(self.model, Flow)
        y, log_det = self.standard(z)
        joint = self.model._joint_log_prob(y) if self.model.classes else self.model._log_prob_given(y, None)[:, None]
        return joint + log_det

    def sample(self, n: int, label: Int[Tensor, " n"] | None, generator: Streams) -> Float[Tensor, "n dim"]:
        """A code per label."""
        return self.standard.inverse(self.model.sample(n, label, generator))


class PriorObjective(Objective):
    """What the model of codes minimizes, on the codes of an encoder that it only reads: of a flow their negative
    log-likelihood in nats, of a diffusion model its squared error (no unit), plus a little of the standardization's.

    Arguments:
        prior: The model of codes.
        codes: Codes of the batch as the prior shall model them; it holds the encoder.
    """

    name = "prior"

    def __init__(self, prior: LatentPrior, codes: Callable[[Batch, Streams], Tensor]) -> None:
        super().__init__()
        self.standard, self._codes = prior.standard, codes
        model = prior.model
        self.objective = LikelihoodObjective(model) if isinstance(model, Flow) else model.objectives()[0]

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        with torch.no_grad():
            z = full_precision(self._codes(batch, generator))
        y, log_det = self.standard(z)
        gaussian = 0.5 * y.square().mean(1) - log_det / y.shape[1]
        losses = self.objective(Batch(y.detach(), batch.label, seen=batch.seen), generator)
        return Losses(losses.total + 0.01 * gaussian, losses.terms)
