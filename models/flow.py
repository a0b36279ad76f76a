"""Normalizing flow: an invertible multi-scale network, so that the density is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import (
    AnomalyScoring,
    Batch,
    Coding,
    Density,
    GenerativeModel,
    Losses,
    Objective,
    Reconstruction,
    Sampling,
    Streams,
)
from .domains import Domain
from .networks import LabelEmbedding, convolution
from .shapes import Float, Int, Num
from .typicality import Typicality


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the normalizing flow.

    Arguments:
        steps: Steps (actnorm, invertible 1x1, coupling) per level.
        levels: Levels of the multi-scale architecture; 0 for as many as the size allows, up to 3.
        width: Channels of the couplings' networks.
        embed: Length of the label's vector.
        alpha: The unit interval is shrunk to [alpha/2, 1 - alpha/2] before the logit.
        scale_bound: Largest log-scale of one coupling.
        label_dropout: Part of the training examples whose label is hidden, so that the flow also
            knows the density without one.
        temperature: Standard deviation of the latent draws when sampling; 1 samples the model.
    """

    steps: int = 8
    levels: int = 0
    width: int = 64
    embed: int = 32
    alpha: float = 0.05
    scale_bound: float = 2.0
    label_dropout: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "width", "embed"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.levels < 0:
            raise ValueError(f"levels must not be negative, got {self.levels}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout must be at least 0 and below 1, got {self.label_dropout}")
        for name in ("scale_bound", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


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

    def __init__(self, inputs: int, outputs: int, width: int, embed: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width)
        self.modulation = nn.Linear(embed, 2 * width)
        self.conv2 = convolution(width, width, kernel=1)
        self.conv3 = convolution(width, outputs, zero=True)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.modulation(c)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.conv1(x) * (1 + scale) + shift)
        return self.conv3(F.silu(self.conv2(h)))


class AffineCoupling(nn.Module):
    """Scales and shifts the second part of the channels by functions of the first and the label.

    References:
        | Density estimation using Real NVP (Dinh et al., 2017), eq. 7-8
        | https://arxiv.org/abs/1605.08803
    """

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.kept = channels - channels // 2
        self.bound = config.scale_bound
        self.network = CouplingNetwork(self.kept, 2 * (channels // 2), config.width, config.embed)

    def _scale_and_shift(self, kept: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept, c).to(kept.dtype).chunk(2, dim=1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        log_scale, shift = self._scale_and_shift(kept, c)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        log_scale, shift = self._scale_and_shift(kept, c)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], dim=1)


def squeezed(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Blocks of pixels folded into channels."""
    batch, channels, height, width = x.shape
    rows, columns = block
    x = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return x.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * rows * columns, height // rows, width // columns)


def unsqueezed(x: Tensor, block: tuple[int, int]) -> Tensor:
    """The inverse of `squeezed`."""
    batch, channels, height, width = x.shape
    rows, columns = block
    channels //= rows * columns
    x = x.reshape(batch, channels, rows, columns, height, width)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels, height * rows, width * columns)


class Level(nn.Module):
    """Squeeze, several steps, and a last coupling whose moved half leaves as latent."""

    def __init__(self, channels: int, config: Config, *, block: tuple[int, int], last: bool) -> None:
        super().__init__()
        self.block = block
        channels *= block[0] * block[1]
        self.steps = nn.ModuleList()
        for _ in range(config.steps):
            self.steps += [ActNorm(channels), InvertibleConvolution(channels), AffineCoupling(channels, config)]
        self.leaving = 0 if last else channels // 2
        if not last:
            self.steps.append(AffineCoupling(channels, config))
        self.channels = channels

    def forward(self, x: Tensor, c: Tensor, *, initialize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on, what leaves (nothing at the last level), and the log-determinant, `[batch]`."""
        h = squeezed(x, self.block)
        total = torch.zeros(len(x), device=x.device, dtype=x.dtype)
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
        return unsqueezed(h, self.block)


class MultiScale(nn.Module):
    """The whole invertible map between logits of an image and standard normal latents."""

    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        channels, height, width = shape
        halvings = 0
        while (
            height % 2 ** (halvings + 1) == 0
            and width % 2 ** (halvings + 1) == 0
            and min(height, width) >> halvings > 2
        ):
            halvings += 1
        most = max(halvings, 1)
        if config.levels > most:
            raise ValueError(f"levels: an image of {height}x{width} pixels allows at most {most}, got {config.levels}")
        # one channel of an odd size cannot be split: all its pixels become channels
        block = (2, 2) if halvings else (height, width) if channels == 1 else (1, 1)
        count = config.levels or min(most, 3)
        self.levels = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []  # of what leaves at each level
        for number in range(count):
            last = number == count - 1
            level = Level(channels, config, block=block, last=last)
            height, width = height // block[0], width // block[1]
            channels = level.channels - level.leaving
            self.levels.append(level)
            self.shapes.append((channels if last else level.leaving, height, width))

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


class LikelihoodObjective(Objective):
    """Negative log-likelihood of the dequantized example, in nats."""

    name = "flow"

    def __init__(self, model: Flow) -> None:
        super().__init__()
        self.network, self.label = model.network, model.label
        self._reads = (model,)

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (model,) = self._reads
        label = batch.label
        if label is not None:
            label = torch.where(generator.uniform(len(batch)) < model.config.label_dropout, -1, label)
        nll = -model.continuous_log_prob(model.domain.dequantize(batch.x, generator), label)[0]
        bits = nll / (model.domain.dimensions * math.log(2))
        return Losses(nll, {"bits_per_dim": bits})


class Flow(GenerativeModel, Sampling, Density, Coding, Reconstruction, AnomalyScoring):
    """Glow, conditional on the label through its couplings.

    References:
        | Glow: generative flow with invertible 1x1 convolutions (Kingma and Dhariwal, 2018)
        | https://arxiv.org/abs/1807.03039
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.network = MultiScale(domain.event_shape, config)  # type: ignore[arg-type]
        self.label = LabelEmbedding(classes, config.embed)
        self.typicality = Typicality(2 + len(self.network.shapes))

    def objectives(self) -> tuple[Objective, ...]:
        return (LikelihoodObjective(self),)

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        super().initialize(batch, generator)
        logits, _ = self._logit(self.domain.dequantize(batch.x, generator))
        self.network(logits, self.label(batch.label, len(batch)), initialize=True)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.typicality.fit(self._statistics(batch.x, generator))

    def _logit(self, u: Float[Tensor, "batch *event"]) -> tuple[Tensor, Tensor]:
        """Unit interval to the real line, and the log-determinant `[batch]`."""
        squeezed = self.config.alpha / 2 + (1 - self.config.alpha) * u
        logit = squeezed.log() - (1 - squeezed).log()
        log_det = math.log(1 - self.config.alpha) - squeezed.log() - (1 - squeezed).log()
        return logit, log_det.flatten(1).sum(1)

    def _unit(self, logit: Tensor) -> Float[Tensor, "batch *event"]:
        return (logit.sigmoid() - self.config.alpha / 2) / (1 - self.config.alpha)

    def continuous_log_prob(
        self, u: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> tuple[Float[Tensor, " batch"], list[Tensor]]:
        r"""Log-probability of the cell that `u` lies in, and the latents.

        .. math:: \log p(u) - D \log L, \quad \log p(u) = \log \mathcal{N}(f(u)) + \log|\det \partial f/\partial u|
        """
        logits, log_det = self._logit(u)
        latents, more = self.network(logits, self.label(label, len(u)))
        squares = sum(z.square().flatten(1).sum(1) for z in latents)
        base = -0.5 * (squares + self.domain.dimensions * math.log(2 * math.pi))
        cell = self.domain.dimensions * math.log(self.domain.levels)  # type: ignore[attr-defined]
        return base + log_det + more - cell, latents

    @torch.no_grad()
    def log_prob(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        r"""Exact log-density of the dequantized example, marginal over labels.

        .. math:: \log p(u) = \log \sum_y p(y) \, p(u \mid y)

        With `u` drawn uniformly within the example's cell its expectation is a lower bound of the
        discrete log-probability (Theis et al., 2016), the figure every flow's bits/dim states.
        """
        u = self.domain.dequantize(x, generator)
        if not self.classes:
            return self.continuous_log_prob(u, None)[0]
        of_class = [
            self.continuous_log_prob(u, torch.full((len(x),), y, device=u.device))[0] + frequency.log()
            for y, frequency in enumerate(self.label_frequencies)
        ]
        return torch.stack(of_class).logsumexp(0)

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch _"]:
        log_p, latents = self.continuous_log_prob(self.domain.dequantize(x, generator), None)
        norms = torch.stack([z.square().flatten(1).mean(1).clamp(min=1e-8).log() for z in latents], dim=1)
        volume = log_p + 0.5 * sum(z.square().flatten(1).sum(1) for z in latents)
        return torch.cat([log_p[:, None], volume[:, None], norms], dim=1)

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    def _generate(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Num[Tensor, "batch *event"]:
        parts = z.split([math.prod(shape) for shape in self.network.shapes], dim=1)
        latents = [part.unflatten(1, shape) for part, shape in zip(parts, self.network.shapes, strict=True)]
        return self.domain.quantize(self._unit(self.network.inverse(latents, self.label(label, len(z)))))  # type: ignore[attr-defined]

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        return self._generate(self.config.temperature * generator.normal(n, self.domain.dimensions), label)

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        middle = (self.domain.index(x) + 0.5) / self.domain.levels  # type: ignore[attr-defined]
        latents, _ = self.network(self._logit(middle)[0], self.label(None, len(x)))
        return torch.cat([z.flatten(1) for z in latents], dim=1)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self._generate(z, None)

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))
