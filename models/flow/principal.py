"""Flows of images along their principal components: splines on the leading ones, a conditional Gaussian on the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..shapes import Float
from .config import Config
from .couplings import Affine, Coupling
from .vector import ResidualNetwork, VectorFlow


class PrincipalFlow(torch.nn.Module):
    r"""The invertible map :math:`x \mapsto (f(h), g(t; h))` of the whitened components :math:`(h, t)` of an image.

    The rotation to principal components and their scales are measured on the first batch and stay; `f` is the
    flow of a vector, `g` one affine coupling. What all pixels have in common is then near the start of the
    network, where couplings between neighbouring pixels need many steps to carry it.

    Arguments:
        shape: Of an example.
        config: Settings.

    References:
        | Mixtures of probabilistic principal component analysers (Tipping and Bishop, 1999), section 3
        | Neural spline flows (Durkan et al., 2019)
        | https://arxiv.org/abs/1906.04032
    """

    columnwise = False

    def __init__(self, shape: tuple[int, ...], config: Config) -> None:
        super().__init__()
        self.shape, dims = shape, math.prod(shape)
        self.leading = min(config.components, dims)
        self.mean: Tensor
        self.basis: Tensor  # a column per component, the one of largest variance first
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("basis", torch.eye(dims))
        self.register_buffer("scale", torch.ones(dims))
        self.head = VectorFlow(self.leading, config)
        self.shapes: list[tuple[int, ...]] = [(self.leading,)]
        self.tail = None
        if rest := dims - self.leading:
            self.shapes.insert(0, (rest,))
            parts = {"width": config.width, "blocks": config.blocks, "embed": config.embed}
            network = ResidualNetwork(self.leading, 2 * rest, **parts)
            self.tail = Coupling(network, self.leading, Affine(config.scale_bound))

    @torch.no_grad()
    def measure(self, flat: Float[Tensor, "batch dims"]) -> None:
        """Set mean, components and scales from a batch."""
        flat = flat.double()
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
        self.mean.copy_(flat.mean(0))
        self.basis.copy_(vectors.flip(1))
        self.scale.copy_(values.flip(0).clamp(min=1e-6 * values[-1].clamp(min=1e-6)).sqrt())

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        c: Float[Tensor, "batch embed"],
        *,
        initialize: bool = False,
    ) -> tuple[list[Tensor], Float[Tensor, " batch"]]:
        """Latents of the rest and of the leading components, and the log-determinant."""
        flat = x.flatten(1)
        if initialize:
            self.measure(flat)
        with torch.autocast(x.device.type, enabled=False):  # low precision would not be invertible
            z = (flat - self.mean) @ self.basis / self.scale
        latents, total = self.head(z[:, : self.leading], c)
        total = total - self.scale.log().sum()
        if self.tail is not None:
            moved, log_det = self.tail(z, c)
            latents, total = [moved[:, self.leading :], *latents], total + log_det
        return latents, total

    def inverse(self, latents: list[Tensor], c: Tensor) -> Tensor:
        """The image that `forward` maps to `latents`."""
        z = self.head.inverse(latents[-1:], c)
        if self.tail is not None:
            z = self.tail.inverse(torch.cat([z, latents[0]], dim=1), c)
        return ((z * self.scale) @ self.basis.T + self.mean).unflatten(1, self.shape)
