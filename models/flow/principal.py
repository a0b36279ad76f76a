"""Flows of images along their principal components: splines on the leading ones, a conditional Gaussian on the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..networks.principal import leading_components
from ..shapes import Float
from .config import Config
from .couplings import Affine, Coupling
from .vector import ResidualNetwork, VectorFlow

MOST_COMPONENTS = 1024
"""Values of an example up to which all its principal components are measured, not the leading ones alone."""


class AllComponents(nn.Module):
    """The rotation to all principal components, the one of largest variance first.

    Arguments:
        dims: Values of an example.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.basis: Tensor  # a column per component
        self.register_buffer("basis", torch.eye(dims))

    def measure(self, flat: Float[Tensor, "batch dims"]) -> Float[Tensor, " dims"]:
        """Set the rotation to that of these examples; returns their variance along each axis after it."""
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
        self.basis.copy_(vectors.flip(1))
        return values.flip(0)

    def forward(self, away: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        return away @ self.basis

    def inverse(self, rotated: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        """The inverse of the rotation."""
        return rotated @ self.basis.T


class LeadingComponents(nn.Module):
    r"""An orthogonal map that takes the leading principal components to the first axes and moves the others little.

    .. math:: x \mapsto x - V (I + H)^{-1} V^\top x, \quad V = \binom{U_1 + P}{U_2}, \quad U_1 = P H

    a reflection: the :math:`k` components are the columns of :math:`U`, of which :math:`U_1` is the first :math:`k`
    rows with the polar decomposition :math:`P H`. It takes :math:`U` to :math:`-P` on the first axes, whence
    :math:`-P^\top` makes coordinates along the components.

    Arguments:
        dims: Values of an example.
        count: Components.

    References:
        | A block reflector (Schreiber and Parlett, 1988), section 2
        | https://doi.org/10.1137/0725014
    """

    def __init__(self, dims: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.across: Tensor
        self.within: Tensor
        self.turn: Tensor
        self.register_buffer("across", torch.zeros(dims, count))
        self.register_buffer("within", torch.eye(count))
        self.register_buffer("turn", torch.eye(count))

    def measure(self, flat: Float[Tensor, "batch dims"]) -> Float[Tensor, " dims"]:
        """Set the map to that of these examples; returns their variance along each axis after it."""
        mean, basis, _, _ = leading_components(flat, self.count)
        left, values, right = torch.linalg.svd(basis[: self.count])
        polar, stretch = left @ right, right.T @ (values[:, None] * right)
        across = basis.clone()
        across[: self.count] += polar
        self.across.copy_(across)
        self.within.copy_(torch.linalg.inv(torch.eye(self.count, dtype=flat.dtype, device=flat.device) + stretch))
        self.turn.copy_(-polar)
        return self(flat.to(self.turn.dtype) - mean.to(self.turn.dtype)).double().var(0)

    def _reflected(self, away: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        return away - (away @ self.across) @ self.within @ self.across.T

    def forward(self, away: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        first, rest = self._reflected(away).split([self.count, away.shape[1] - self.count], dim=1)
        return torch.cat([first @ self.turn, rest], dim=1)

    def inverse(self, rotated: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        """The inverse of the map."""
        first, rest = rotated.split([self.count, rotated.shape[1] - self.count], dim=1)
        return self._reflected(torch.cat([first @ self.turn.T, rest], dim=1))


class PrincipalFlow(nn.Module):
    r"""The invertible map :math:`x \mapsto (f(h), g(t; h))` of the whitened components :math:`(h, t)` of an image.

    The rotation to principal components (of large images to the leading ones) and their scales are measured on the
    first batch and stay; `f` is the flow of a vector, `g` one affine coupling. What all pixels have in common is then
    near the start of the network, where couplings between neighbouring pixels need many steps to carry it.

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
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(dims))
        self.rotation = AllComponents(dims) if dims <= MOST_COMPONENTS else LeadingComponents(dims, self.leading)
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
        self.mean.copy_(flat.mean(0))
        variances = self.rotation.measure(flat)
        self.scale.copy_(variances.clamp(min=1e-6 * variances.max().clamp(min=1e-6)).sqrt())

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
            z = self.rotation(flat - self.mean) / self.scale
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
        return (self.rotation.inverse(z * self.scale) + self.mean).unflatten(1, self.shape)
