"""Networks for tables: residual perceptrons, modulated by a vector, that may see which cells are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..shapes import Float
from .registry import register


def linear(inputs: int, outputs: int, *, spectral: bool = False, zero: bool = False) -> nn.Module:
    """A linear map, optionally spectrally normalized or initialized to zero."""
    layer = nn.Linear(inputs, outputs)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer) if spectral else layer


class ResidualUnits(nn.Module):
    """Pre-activation residual block of two layers.

    Arguments:
        hidden: Units.
        embed: Length of the conditioning vector; 0 for none.
        norm: Layer normalization (a critic under a gradient penalty does without).
        spectral: Spectral normalization of both layers.
    """

    def __init__(self, hidden: int, *, embed: int = 0, norm: bool = True, spectral: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.first = linear(hidden, hidden, spectral=spectral)
        self.second = linear(hidden, hidden, spectral=spectral, zero=not spectral)
        self.modulation = nn.Linear(embed, 2 * hidden) if embed else None

    def forward(self, x: Float[Tensor, "batch hidden"], c: Float[Tensor, "batch _"] | None = None) -> Tensor:
        h = self.first(F.silu(self.norm(x)))
        if self.modulation is not None:
            scale, shift = self.modulation(c).chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.second(F.silu(h))


class Perceptron(nn.Module):
    """Vector to vector: a linear map, residual blocks, a linear map.

    Arguments:
        inputs: Length of the vector in.
        outputs: Length of the vector out.
        hidden: Units.
        blocks: Residual blocks.
        embed: Length of a conditioning vector; 0 for none.
        norm: Layer normalization.
        spectral: Spectral normalization of every layer.
        zero: Whether the last layer is initialized to zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int,
        blocks: int,
        embed: int = 0,
        norm: bool = True,
        spectral: bool = False,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.stem = linear(inputs, hidden, spectral=spectral)
        self.blocks = nn.ModuleList(
            ResidualUnits(hidden, embed=embed, norm=norm, spectral=spectral) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.head = linear(hidden, outputs, spectral=spectral, zero=zero)

    def forward(
        self, x: Float[Tensor, "batch inputs"], c: Float[Tensor, "batch _"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, c)
        return self.head(F.silu(self.norm(h)))


class MaskedPerceptron(Perceptron):
    """A perceptron that also sees which cells of its input are known.

    Arguments:
        inputs: Length of the vector in.
        outputs: Length of the vector out.
        columns: Cells per example, whose mask is appended to the input.
        options: As a `Perceptron` takes them.
    """

    def __init__(self, inputs: int, outputs: int, *, columns: int, **options: Any) -> None:
        super().__init__(inputs + columns, outputs, **options)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch inputs"], state: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch outputs"]:
        return super().forward(torch.cat([x, state], dim=1))


def hidden_units(facts: int, width: int) -> int:
    """Units of the networks of a vector: two for each of its `facts`, within four and eight times the width."""
    return max(4 * width, min(2 * facts, 8 * width))


@register("encoder", "vector")
def vector_encoder(
    domain: Any, outputs: int, *, width: int, blocks: int = 1, patch: int = 0, principal: int = 0
) -> MaskedPerceptron:
    """Example to vector, told which cells are known."""
    hidden = hidden_units(domain.facts, width)
    return MaskedPerceptron(domain.dimensions, outputs, hidden=hidden, blocks=blocks + 1, columns=domain.cells_seen)


@register("critic", "vector")
def vector_critic(
    domain: Any, outputs: int, *, width: int, blocks: int, patch: int, spectral: bool, attention: bool
) -> MaskedPerceptron:
    """Example to features, told which cells are known, without normalization."""
    return MaskedPerceptron(
        domain.dimensions,
        outputs,
        hidden=hidden_units(domain.facts, width),
        blocks=blocks + 1,
        columns=domain.cells_seen,
        norm=False,
        spectral=spectral,
    )


@register("decoder", "vector")
def vector_decoder(
    domain: Any,
    inputs: int,
    *,
    parameters: int | None,
    width: int,
    blocks: int,
    patch: int,
    embed: int,
    attention: bool,
    principal: int,
    places: slice,
) -> Perceptron:
    """Vector to an example, or to `parameters` numbers in all."""
    outputs = domain.dimensions if parameters is None else parameters
    return Perceptron(inputs, outputs, hidden=hidden_units(domain.facts, width), blocks=blocks + 1, embed=embed)


@register("denoiser", "vector")
def vector_denoiser(domain: Any, *, width: int, embed: int, blocks: int, more: int, **of_grids: Any) -> Perceptron:
    """Example to example, conditional on a vector."""
    inputs, hidden = (1 + more) * domain.dimensions, hidden_units(domain.facts, width)
    return Perceptron(inputs, domain.dimensions, hidden=hidden, blocks=blocks + 2, embed=embed, zero=True)
