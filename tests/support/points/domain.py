"""Points: the domain, with torch only, for it travels with every registered model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.domains.base import DequantizedPoint, Domain, Likelihood
from models.networks.mlp import Perceptron
from models.rng import Streams


class Points(Domain):
    """Points with coordinates of any scale, float64 `[n, axes]`; model and flow space are standardized.

    Arguments:
        mean: Of each axis.
        std: Standard deviation of each axis.
    """

    kind = "points"
    layout = "vector"

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.event_shape = self.flow_shape = (len(mean),)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "mean": self.mean.tolist(), "std": self.std.tolist()}

    def to_model(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"expected points of shape [n, {len(self.mean)}], got {list(x.shape)}")
        scaled = (x.double() - self.mean.to(x.device)) / self.std.to(x.device)
        return scaled.nan_to_num(nan=0.0).to(torch.get_default_dtype())

    def to_data(self, y: Tensor) -> Tensor:
        return y.double() * self.std.to(y.device) + self.mean.to(y.device)

    def expand(self, observed: Tensor) -> Tensor:
        return observed

    def dequantize(self, x: Tensor, generator: Streams) -> tuple[Tensor, Tensor]:
        y = self.to_model(x)
        return y, torch.full((len(y),), -float(self.std.log().sum()), dtype=y.dtype, device=y.device)

    def cell_center(self, x: Tensor) -> Tensor:
        return self.to_model(x)

    def quantize(self, y: Tensor) -> Tensor:
        return self.to_data(y)

    def dequantized_point(self, x: Tensor, generator: Streams) -> DequantizedPoint:
        return DequantizedPoint(*self.dequantize(x, generator))

    def rounding_nats(self, point: DequantizedPoint, sigma: float, generator: Streams) -> Tensor:
        return torch.zeros_like(point.log_det)

    def likelihood(self, components: int, **_: Any) -> Gaussian:
        return Gaussian(self)

    def reconstruction(self, **_: Any) -> Gaussian:
        return Gaussian(self)

    def generator_output(self, raw: Tensor, noise: Tensor) -> Tensor:
        return raw

    def encoder(self, outputs: int, *, width: int, blocks: int = 1, patch: int = 0) -> nn.Module:
        return Perceptron(self.dimensions, outputs, hidden=4 * width, blocks=blocks)

    def critic(self, outputs: int, *, width: int, blocks: int = 1, spectral: bool = True, **_: Any) -> nn.Module:
        return Perceptron(self.dimensions, outputs, hidden=4 * width, blocks=blocks, norm=False, spectral=spectral)

    def decoder(
        self, inputs: int, *, width: int, parameters: int | None = None, blocks: int = 1, embed: int = 0, **_: Any
    ) -> nn.Module:
        outputs = self.dimensions if parameters is None else parameters
        return Perceptron(inputs, outputs, hidden=4 * width, blocks=blocks, embed=embed)

    def denoiser(self, *, width: int, embed: int, blocks: int = 1, masked: bool = False, **_: Any) -> nn.Module:
        inputs = (1 + masked) * self.dimensions
        return Perceptron(inputs, self.dimensions, hidden=4 * width, blocks=blocks, embed=embed, zero=True)


class Gaussian(Likelihood):
    """A Gaussian per axis, in the data's units."""

    drawn = True
    loss_name = "reconstruction_nats"

    def __init__(self, points: Points) -> None:
        self.points = points
        self.parameters = 2 * points.dimensions

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = raw.chunk(2, dim=1)
        return mean, log_scale.clamp(-4, 2)

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        mean, log_scale = self._split(raw)
        z = (self.points.to_model(x) - mean) * (-log_scale).exp()
        nats = -0.5 * (z.square() + math.log(2 * math.pi)) - log_scale - self.points.std.log().to(z)
        return torch.where(torch.isnan(x), 0.0, nats)

    def mean(self, raw: Tensor) -> Tensor:
        return self._split(raw)[0]

    def sample(self, raw: Tensor, generator: Streams) -> Tensor:
        mean, log_scale = self._split(raw)
        return mean + log_scale.exp() * generator.normal(*mean.shape)
