"""Image flows: Glow and RealNVP, multi-scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.convolutional import convolution, fold, unfold
from ..shapes import Float
from .config import Config
from .couplings import CheckerboardCoupling, Coupling, elementwise


class ActNorm(nn.Module):
    """A scale and a shift per channel, set so that the first batch comes out standardized.

    References:
        | Glow (Kingma and Dhariwal, 2018), section 3.1
        | https://arxiv.org/abs/1807.03039
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def initialize(self, x: Tensor) -> None:
        """Set shift and scale from a batch."""
        self.shift.copy_(-x.mean((0, 2, 3), keepdim=True)[0])
        self.log_scale.copy_(-(x.std((0, 2, 3), keepdim=True)[0] + 1e-3).log())

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        log_det = self.log_scale.sum() * x.shape[2] * x.shape[3]
        return (x + self.shift) * self.log_scale.exp(), log_det.expand(len(x))

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        return z * (-self.log_scale).exp() - self.shift


class InvertibleConvolution(nn.Module):
    """A 1x1 convolution in LU form: rotation of the channels with a log-determinant for free.

    References:
        | Glow (Kingma and Dhariwal, 2018), section 3.2, eq. 10-11
        | https://arxiv.org/abs/1807.03039
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.permutation: Tensor
        self.sign: Tensor
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower)
        self.upper = nn.Parameter(upper)
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def weight(self) -> Float[Tensor, "channels channels"]:
        """The matrix P L U."""
        eye = torch.eye(len(self.sign), device=self.sign.device, dtype=self.lower.dtype)
        lower = self.lower.tril(-1) + eye
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return self.permutation @ lower @ upper

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # low precision would not be invertible
            z = F.conv2d(x, self.weight()[:, :, None, None])
        return z, (self.log_diagonal.sum() * x.shape[2] * x.shape[3]).expand(len(x))

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.conv2d(z, torch.linalg.inv(self.weight())[:, :, None, None])


class CouplingNetwork(nn.Module):
    """Half of the channels and the label to the parameters of the other half; zero at the start."""

    def __init__(self, inputs: int, outputs: int, width: int, embed: int, rank: int = 2) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, rank=rank)
        self.modulation = nn.Linear(embed, 2 * width)
        self.conv2 = convolution(width, width, rank=rank, kernel=1)
        self.conv3 = convolution(width, outputs, rank=rank, zero=True)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.modulation(c).reshape(len(c), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = F.silu(self.conv1(x) * (1 + scale) + shift)
        return self.conv3(F.silu(self.conv2(h)))


def channel_coupling(channels: int, config: Config) -> Coupling:
    """The second half of the channels moved by the first."""
    function, moved = elementwise(config, "affine"), channels // 2
    network = CouplingNetwork(channels - moved, function.parameters * moved, config.width, config.embed)
    return Coupling(network, channels - moved, function)


class Flip(nn.Module):
    """The channels in reverse order, so that the next coupling moves those that the last one kept."""

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), torch.zeros(len(x), device=x.device, dtype=x.dtype)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        return z.flip(1)


def checkerboard_steps(channels: int, config: Config, couplings: int) -> list[nn.Module]:
    """So many couplings that move the two colours of the chessboard in turn."""
    function = elementwise(config, "affine")
    return [
        CheckerboardCoupling(
            CouplingNetwork(channels, function.parameters * channels, config.width, config.embed), number % 2, function
        )
        for number in range(max(couplings, 2))
    ]


def channel_steps(channels: int, config: Config) -> list[nn.Module]:
    """The steps after the squeeze: Glow's whole ones, or RealNVP's bare couplings."""
    if config.architecture == "realnvp":
        pairs = [[channel_coupling(channels, config), Flip()] for _ in range(max(config.steps // 2, 2))]
        return [step for pair in pairs for step in pair]
    steps: list[nn.Module] = []
    for _ in range(config.steps):
        steps += [ActNorm(channels), InvertibleConvolution(channels), channel_coupling(channels, config)]
    return steps


class Squeeze(nn.Module):
    """Blocks of pixels folded into channels."""

    def __init__(self, block: tuple[int, int]) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return fold(x, self.block), torch.zeros(len(x), device=x.device, dtype=x.dtype)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        return unfold(z, self.block)


def steps_of(channels: int, config: Config, block: tuple[int, int]) -> list[nn.Module]:
    """A level's steps; of one channel that is not squeezed only the chessboard's colours can move each other."""
    folded = channels * block[0] * block[1]
    if folded == 1:
        return [ActNorm(channels), *checkerboard_steps(channels, config, config.steps)]
    half = config.steps - config.steps // 2
    before = checkerboard_steps(channels, config, half) if config.architecture == "realnvp" else []
    return [*before, Squeeze(block), *channel_steps(folded, config)]


class Level(nn.Module):
    """Squeeze, several steps, and a last coupling whose moved half leaves as latent."""

    def __init__(self, channels: int, config: Config, *, block: tuple[int, int], last: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps_of(channels, config, block))
        channels *= block[0] * block[1]
        self.leaving = 0 if last else channels // 2
        if not last:
            self.steps.append(channel_coupling(channels, config))
        self.channels = channels

    def forward(self, x: Tensor, c: Tensor, *, initialize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on, what leaves (nothing at the last level), and the log-determinant, `[batch]`."""
        h, total = x, torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for step in self.steps:
            if initialize and isinstance(step, ActNorm):
                step.initialize(h)
            h, log_det = step(h, c)
            total = total + log_det
        kept = self.channels - self.leaving
        return h[:, :kept], h[:, kept:], total

    def inverse(self, kept: Tensor, left: Tensor, c: Tensor) -> Tensor:
        h = torch.cat([kept, left], dim=1)
        for step in reversed(self.steps):
            h = step.inverse(h, c)  # type: ignore[operator]
        return h


def halvings(size: Sequence[int]) -> int:
    """How often an image of this size is halved: once, then while even or above 8 places, if above 2 on both sides."""
    times, sides = 0, list(size)
    while min(sides) > 2 and (not times or max(sides) > 8 or not any(side % 2 for side in sides)):
        times, sides = times + 1, [side // 2 for side in sides]
    return times


class Edge(nn.Module):
    """The last line along an axis of odd length leaves as latent, moved given the few lines before it.

    What is left has an even side and can be squeezed, and the density stays exact.

    Arguments:
        channels: Of the image.
        axis: 2 (the last row) or 3 (the last column).
        before: Lines before it that it is given.
        config: Settings.
    """

    def __init__(self, channels: int, axis: int, before: int, config: Config) -> None:
        super().__init__()
        self.axis, self.before = axis, before
        self.norm = ActNorm(channels)
        function = elementwise(config, "affine")
        outputs = function.parameters * channels
        self.couplings = nn.ModuleList(
            CheckerboardCoupling(
                CouplingNetwork(channels * (1 + before), outputs, config.width, config.embed, rank=1), parity, function
            )
            for parity in (0, 1)
        )

    def _beside(self, rest: Tensor) -> Float[Tensor, "batch _ length"]:
        near = rest.narrow(self.axis, rest.shape[self.axis] - self.before, self.before)
        return near.movedim(self.axis, 2).flatten(1, 2)

    def forward(self, x: Tensor, c: Tensor, *, initialize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on, the line that leaves, `[batch, channels, length]`, and the log-determinant, `[batch]`."""
        side = x.shape[self.axis]
        rest, line = x.narrow(self.axis, 0, side - 1), x.select(self.axis, side - 1)
        if initialize:
            self.norm.initialize(line[..., None])
        line, total = self.norm(line[..., None], c)
        line, beside = line[..., 0], self._beside(rest)
        for coupling in self.couplings:
            line, log_det = coupling(line, c, beside)
            total = total + log_det
        return rest, line, total

    def inverse(self, kept: Tensor, left: Tensor, c: Tensor) -> Tensor:
        line, beside = left, self._beside(kept)
        for coupling in reversed(self.couplings):
            line = coupling.inverse(line, c, beside)  # type: ignore[operator]
        line = self.norm.inverse(line[..., None], c)[..., 0]
        return torch.cat([kept, line.unsqueeze(self.axis)], dim=self.axis)


class MultiScale(nn.Module):
    """The whole invertible map between logits of an image and standard normal latents.

    Of a side that is odd where it is to be halved, the last line leaves first.
    """

    columnwise = False

    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        channels, *size = shape
        most = max(halvings(size), 1)
        if config.levels > most:
            asked = f"{size[0]}x{size[1]}"
            raise ValueError(f"levels: an image of {asked} pixels allows at most {most}, got {config.levels}")
        block = (2, 2) if halvings(size) else (2 - size[0] % 2, 2 - size[1] % 2)
        count = config.levels or min(most, 3)
        self.levels = nn.ModuleList()
        self.shapes: list[tuple[int, ...]] = []  # of what leaves at each level
        for number in range(count):
            for axis in (0, 1):
                if size[axis] % block[axis]:
                    size[axis] -= 1
                    self.levels.append(Edge(channels, 2 + axis, min(4, size[axis]), config))
                    self.shapes.append((channels, size[1 - axis]))
            last = number == count - 1
            level = Level(channels, config, block=block, last=last)
            size = [side // folded for side, folded in zip(size, block, strict=True)]
            channels = level.channels - level.leaving
            self.levels.append(level)
            self.shapes.append((channels if last else level.leaving, *size))

    def forward(self, x: Tensor, c: Tensor, *, initialize: bool = False) -> tuple[list[Tensor], Tensor]:
        """Latents of each level and the log-determinant, `[batch]`."""
        latents, total = [], torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for level in self.levels:
            x, left, log_det = level(x, c, initialize=initialize)
            latents.append(left if level is not self.levels[-1] else x)
            total = total + log_det
        return latents, total

    def inverse(self, latents: list[Tensor], c: Tensor) -> Tensor:
        x = latents[-1]
        for level, left in zip(reversed(self.levels), [x[:, :0], *reversed(latents[:-1])], strict=True):
            x = level.inverse(x, left, c)  # type: ignore[operator]
        return x
