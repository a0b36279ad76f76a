"""Elementwise invertible functions, and the couplings that set their parameters from other values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import Float
from .config import Config


class Affine:
    """Scale and shift of each value, the log-scale bounded.

    Arguments:
        bound: Largest log-scale.

    References:
        | Density estimation using Real NVP (Dinh et al., 2017), eq. 7-8
        | https://arxiv.org/abs/1605.08803
    """

    parameters = 2

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def __call__(self, x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """What becomes of `x` under the parameters `raw` `[batch, 2, *x]`, and its log-derivative, shaped like `x`."""
        log_scale, shift = self.bound * torch.tanh(raw[:, 0] / self.bound), raw[:, 1]
        if inverse:
            return (x - shift) * (-log_scale).exp(), -log_scale
        return x * log_scale.exp() + shift, log_scale


class Spline:
    r"""Monotone rational-quadratic spline on [-tail, tail], the identity outside and at zero parameters.

    Arguments:
        bins: Number of bins.
        tail: Half the length of the interval that is bent.

    References:
        | Neural spline flows (Durkan et al., 2019), eq. 4-8 and appendix A.1-A.3
        | https://arxiv.org/abs/1906.04032
    """

    smallest = 1e-3
    """Smallest bin (part of the interval) and derivative."""

    def __init__(self, bins: int, tail: float) -> None:
        self.bins, self.tail = bins, tail
        self.parameters = 3 * bins - 1

    def _knots(self, raw: Tensor) -> Tensor:
        """Positions of the knots from logits of bin sizes, `[..., bins + 1]`."""
        part = self.smallest + (1 - self.smallest * self.bins) * raw.softmax(-1)
        inner = part[..., :-1].cumsum(-1)
        return self.tail * (2 * F.pad(F.pad(inner, (1, 0)), (0, 1), value=1.0) - 1)

    def _bin(self, x: Tensor, raw: Tensor, *, inverse: bool) -> list[Tensor]:
        """Left edge, width, bottom, height and the derivatives at both ends of the bin of each value."""
        raw = raw.movedim(1, -1)  # [batch, *x, parameters]
        across, up = self._knots(raw[..., : self.bins]), self._knots(raw[..., self.bins : 2 * self.bins])
        slope = self.smallest + F.softplus(raw[..., 2 * self.bins :] + math.log(math.expm1(1 - self.smallest)))
        slope = F.pad(slope, (1, 1), value=1.0)
        inner = (up if inverse else across)[..., 1:-1]
        at = (x[..., None] >= inner).sum(-1, keepdim=True)

        def take(values: Tensor, offset: int) -> Tensor:
            return values.gather(-1, at + offset).squeeze(-1)

        left, bottom = take(across, 0), take(up, 0)
        return [left, take(across, 1) - left, bottom, take(up, 1) - bottom, take(slope, 0), take(slope, 1)]

    def __call__(self, x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """What becomes of `x` under `raw` `[batch, parameters, *x]`, and its log-derivative, shaped like `x`."""
        inside = x.abs() < self.tail
        value = torch.where(inside, x, 0.0)
        left, width, bottom, height, d0, d1 = self._bin(value, raw, inverse=inverse)
        s = height / width
        curve = d0 + d1 - 2 * s
        if inverse:
            rise = value - bottom
            a, b, c = height * (s - d0) + rise * curve, height * d0 - rise * curve, -s * rise
            root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
            xi = (2 * c / (-b - root)).clamp(0, 1)
            moved = left + xi * width
        else:
            xi = (value - left) / width
            moved = bottom + height * (s * xi.square() + d0 * xi * (1 - xi)) / (s + curve * xi * (1 - xi))
        between = xi * (1 - xi)
        slope = d1 * xi.square() + 2 * s * between + d0 * (1 - xi).square()
        log_slope = 2 * s.log() + slope.log() - 2 * (s + curve * between).log()
        log_slope = torch.where(inside, -log_slope if inverse else log_slope, 0.0)
        return torch.where(inside, moved, x), log_slope


Elementwise = Affine | Spline


def elementwise(config: Config, default: str) -> Elementwise:
    """The function of the couplings that the settings ask for."""
    kind = default if config.coupling == "auto" else config.coupling
    return Affine(config.scale_bound) if kind == "affine" else Spline(config.bins, config.tail)


class Coupling(nn.Module):
    """Moves the second part of the channels by functions of the first and of the label.

    Arguments:
        network: From the kept channels and the label's vector to `function.parameters` numbers per moved value.
        kept: Channels that stay as they are.
        function: What is done to each moved value.
    """

    def __init__(self, network: nn.Module, kept: int, function: Elementwise) -> None:
        super().__init__()
        self.network, self.kept, self.function = network, kept, function

    def _moved(self, x: Tensor, c: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        raw = self.network(kept, c).to(x.dtype).unflatten(1, (self.function.parameters, -1))
        moved, log_slope = self.function(moved, raw, inverse=inverse)
        return torch.cat([kept, moved], dim=1), log_slope.flatten(1).sum(1)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Float[Tensor, " batch"]]:
        """The moved example and the log-determinant."""
        return self._moved(x, c, inverse=False)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        """The example that `forward` maps to `z`."""
        return self._moved(z, c, inverse=True)[0]


class CheckerboardCoupling(nn.Module):
    """Moves the places of one colour of the chessboard, or every other one of a line, by functions of the others, of
    the label, and of what may stand beside them.

    Arguments:
        network: From a grid with zeros where it is moved, behind its channels those of what stands beside it, and the
            label's vector, to `function.parameters` numbers per value.
        parity: 0 moves the places whose coordinates have an even sum, 1 the others.
        function: What is done to each moved value.

    References:
        | Density estimation using Real NVP (Dinh et al., 2017), section 3.4
        | https://arxiv.org/abs/1605.08803
    """

    def __init__(self, network: nn.Module, parity: int, function: Elementwise) -> None:
        super().__init__()
        self.network, self.parity, self.function = network, parity, function

    def _moved(self, x: Tensor, c: Tensor, beside: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        place = torch.meshgrid(*(torch.arange(size, device=x.device) for size in x.shape[2:]), indexing="ij")
        moves = torch.stack(place).sum(0) % 2 == self.parity
        seen = x.masked_fill(moves, 0.0)
        raw = self.network(seen if beside is None else torch.cat([seen, beside], dim=1), c)
        raw = raw.to(x.dtype).unflatten(1, (self.function.parameters, -1))
        moved, log_slope = self.function(x, raw, inverse=inverse)
        return torch.where(moves, moved, x), (log_slope * moves).flatten(1).sum(1)

    def forward(self, x: Tensor, c: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Float[Tensor, " batch"]]:
        """The moved example and the log-determinant."""
        return self._moved(x, c, beside, inverse=False)

    def inverse(self, z: Tensor, c: Tensor, beside: Tensor | None = None) -> Tensor:
        """The example that `forward` maps to `z`."""
        return self._moved(z, c, beside, inverse=True)[0]
