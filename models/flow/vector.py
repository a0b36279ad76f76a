"""Flows of vectors: couplings between learned linear maps, for the columns of a table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.registry import register
from ..shapes import Float
from .config import Config
from .couplings import Coupling, elementwise


class Permutation(nn.Module):
    """The columns in another order, drawn once."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.order: Tensor
        self.register_buffer("order", torch.randperm(dims))

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        return z[:, self.order.argsort()]


class LULinear(Permutation):
    """A permutation, then a linear map in LU form and a shift, the identity at the start.

    References:
        | Neural spline flows (Durkan et al., 2019), section 3.2 (linear transforms)
        | https://arxiv.org/abs/1906.04032
    """

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.factors = nn.Parameter(torch.zeros(dims, dims))  # L below, U above the diagonal
        self.log_diagonal = nn.Parameter(torch.zeros(dims))
        self.shift = nn.Parameter(torch.zeros(dims))

    def _lower_and_upper(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(len(self.order), device=self.factors.device, dtype=self.factors.dtype)
        return self.factors.tril(-1) + eye, self.factors.triu(1) + torch.diag(self.log_diagonal.exp())

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._lower_and_upper()
        with torch.autocast(x.device.type, enabled=False):  # low precision would not be invertible
            z = x[:, self.order] @ (lower @ upper).T + self.shift
        return z, self.log_diagonal.sum().expand(len(x))

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        lower, upper = self._lower_and_upper()
        h = torch.linalg.solve_triangular(lower, (z - self.shift).T, upper=False, unitriangular=True)
        return super().inverse(torch.linalg.solve_triangular(upper, h, upper=True).T, c)


class ResidualNetwork(nn.Module):
    """Vector and label to the parameters of a coupling; zero at the start."""

    def __init__(self, inputs: int, outputs: int, *, width: int, blocks: int, embed: int) -> None:
        super().__init__()
        self.stem = nn.Linear(max(inputs, 1), width)  # of a single column nothing is kept: a constant stands for it
        self.label = nn.Linear(embed, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.stem(x if x.shape[1] else x.new_ones(len(x), 1)) + self.label(c)
        for block in self.blocks:
            h = h + block(h)
        return self.head(F.silu(h))


class VectorFlow(nn.Module):
    """The whole invertible map between a vector and standard normal latents.

    Arguments:
        dims: Length of the vector.
        config: Settings.

    Attributes:
        columnwise: Whether values are columns, a hidden one to be drawn given the others.
    """

    columnwise = True

    def __init__(self, dims: int, config: Config) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = [(dims,)]
        function = elementwise(config, "spline")
        linear = LULinear if config.linear == "lu" else Permutation
        kept = dims // 2
        self.steps = nn.ModuleList()
        for _ in range(config.steps):
            network = ResidualNetwork(
                kept,
                function.parameters * (dims - kept),
                width=config.width,
                blocks=config.blocks,
                embed=config.embed,
            )
            self.steps += [linear(dims), Coupling(network, kept, function)]
        self.steps.append(linear(dims))

    def forward(
        self, x: Float[Tensor, "batch dims"], c: Float[Tensor, "batch embed"], *, initialize: bool = False
    ) -> tuple[list[Tensor], Float[Tensor, " batch"]]:
        """Latents (in a list, for the shape of the multi-scale flow's) and the log-determinant."""
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, log_det = step(x, c)
            total = total + log_det
        return [x], total

    def inverse(self, latents: list[Tensor], c: Tensor) -> Tensor:
        """The vector that `forward` maps to `latents`."""
        (x,) = latents
        for step in reversed(self.steps):
            x = step.inverse(x, c)  # type: ignore[operator]
        return x


@register("bijection", "vector")
def vector_bijection(domain: Any, config: Config) -> VectorFlow:
    """Couplings between learned linear maps."""
    config.check_architecture(domain.kind, ("auto", "autoregressive", "couplings"))
    return VectorFlow(domain.flow_shape[0], config)
