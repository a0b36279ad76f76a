"""Leading principal components of examples: what networks of large grids start from, so that they learn the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..shapes import Float, Int, Num
from .embeddings import full_precision

MEASURED_VALUES = 1 << 24
"""Values of the examples that principal components are measured on, at most."""

FITTED_VALUES = 1 << 26
"""Values of the examples that a density of their coordinates is fitted to, at most."""


def leading_components(
    flat: Float[Tensor, "n dims"], count: int
) -> tuple[Float[Tensor, " dims"], Float[Tensor, "dims count"], Float[Tensor, " count"], float]:
    """Mean, directions of largest variance, variances along them, and the mean variance along all others, in float64.

    The directions are orthonormal. Where there are more of them than examples, the others have no variance.

    Arguments:
        flat: Examples.
        count: Directions wanted.
    """
    flat = flat.double()
    mean, (n, dims) = flat.mean(0), flat.shape
    centred = flat - mean
    if dims <= n:
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        basis = vectors.flip(1)[:, :count]
    else:
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        spanned = centred.T @ vectors.flip(1)[:, :count]
        basis = torch.linalg.qr(nn.functional.pad(spanned, (0, count - spanned.shape[1])))[0]
    variances = (centred @ basis).square().sum(0) / max(n - 1, 1)
    rest = (centred.square().sum() / max(n - 1, 1) - variances.sum()) / max(dims - count, 1)
    return mean, basis, variances, float(rest.clamp(min=0))


class PrincipalComponents(nn.Module):
    """The leading principal components of examples, measured before training.

    Arguments:
        shape: Of an example.
        count: Components.
    """

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        super().__init__()
        self.shape, dims = tuple(shape), math.prod(shape)
        self.count = min(count, dims)
        self.mean: Tensor
        self.basis: Tensor
        self.variances: Tensor
        self.rest: Tensor
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("basis", torch.zeros(dims, self.count))
        self.register_buffer("variances", torch.ones(self.count))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def measure(self, y: Float[Tensor, "n *event"]) -> None:
        """Set the components to those of examples."""
        mean, basis, variances, rest = leading_components(y.flatten(1), self.count)
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.variances.copy_(variances)
        self.rest.fill_(rest)

    @property
    def _scale(self) -> Float[Tensor, " count"]:
        return self.variances.clamp(min=1e-8).sqrt()

    def along(self, y: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch count"]:
        """Coordinates along the components, as long as the examples are."""
        with torch.autocast(y.device.type, enabled=False):
            return (full_precision(y).flatten(1) - self.mean) @ self.basis

    def coordinates(self, y: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch count"]:
        """Coordinates along the components, of unit variance."""
        return self.along(y) / self._scale

    def example(self, coordinates: Float[Tensor, "batch count"]) -> Float[Tensor, "batch *event"]:
        """The example with these coordinates, and none along other directions."""
        with torch.autocast(coordinates.device.type, enabled=False):
            return ((full_precision(coordinates) * self._scale) @ self.basis.T + self.mean).unflatten(1, self.shape)


def measure_components(model: nn.Module, domain: Any, x: Num[Tensor, "n *data"]) -> None:
    """Set the principal components of every network of a model to those of examples of its domain."""
    parts = [part for part in model.modules() if isinstance(part, PrincipalComponents)]
    if parts:
        parts[0].measure(domain.to_model(x[: max(2, MEASURED_VALUES // domain.dimensions)]))
        for part in parts[1:]:
            part.load_state_dict(parts[0].state_dict())


def fitted_examples(domain: Any, batch: Any) -> tuple[Float[Tensor, "n *event"], Int[Tensor, " n"] | None]:
    """The examples of a batch that a density of coordinates is fitted to, in model space, and their labels."""
    few = batch.visible[: max(2, FITTED_VALUES // domain.dimensions)]
    return domain.to_model(few), None if batch.label is None else batch.label[: len(few)]


class EncoderFromComponents(nn.Module):
    """An encoder that starts as the leading principal components: coordinates along them are the code's first numbers,
    to which the network adds.

    Arguments:
        network: Example to vector, its `head` a linear map.
        shape: Of an example.
        count: Components.
        outputs: Length of the vector.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], count: int, outputs: int) -> None:
        super().__init__()
        self.network, self.components = network, PrincipalComponents(shape, count)
        self.linear = nn.Linear(self.components.count, outputs, bias=False)
        nn.init.eye_(self.linear.weight)
        with torch.no_grad():
            for weight in network.head.parameters():  # type: ignore[union-attr, operator]
                weight.zero_()

    def forward(self, y: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch outputs"]:
        return self.network(y) + self.linear(self.components.coordinates(y))


class DecoderFromComponents(nn.Module):
    """A decoder that starts as the leading principal components: a code's first numbers are coordinates along them, and
    the network adds to the example they make.

    Arguments:
        network: Vector to grid of parameters.
        inputs: Length of the vector.
        shape: Of an example.
        count: Components.
        parameters: Of a likelihood, for each value.
        places: Which of the parameters say where a value is likely.
    """

    def __init__(
        self, network: nn.Module, inputs: int, shape: tuple[int, ...], count: int, parameters: int, places: slice
    ) -> None:
        super().__init__()
        self.network, self.components = network, PrincipalComponents(shape, count)
        self.linear = nn.Linear(inputs, self.components.count, bias=False)
        nn.init.eye_(self.linear.weight)
        with torch.no_grad():  # little at the start; parts of a mixture must differ
            for weight in network.head.parameters():  # type: ignore[union-attr, operator]
                weight.mul_(0.0 if parameters == 1 else 0.1)
        moved = torch.zeros(parameters)
        moved[places] = 1
        self.register_buffer("moved", moved.reshape(-1, *[1] * (len(shape) - 1)), persistent=False)
        self.moved: Tensor

    def forward(
        self, z: Float[Tensor, "batch inputs"], c: Float[Tensor, "batch _"] | None = None
    ) -> Float[Tensor, "batch outputs *size"]:
        example = self.components.example(self.linear(z))
        return self.network(z, c) + (example[:, :, None] * self.moved).flatten(1, 2)
