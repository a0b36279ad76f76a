"""Regular grids of integer levels, channels last, as floats in [-1, 1], channels first: sound, images, volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.convolutional import AVERAGES
from ..networks.embeddings import full_precision
from ..rng import Streams
from ..shapes import Bool, Float, Num, UInt8
from .base import DequantizedPoint, Domain, Likelihood


class Grid(Domain):
    """Values of equally spaced integer levels on a regular grid of one, two or three axes, with channels.

    Data space is uint8, channels last; model space is [-1, 1], channels first. A subclass names its axes.

    Arguments:
        channels: Values at each place.
        size: Places along each axis.
        levels: Number of equally spaced values from 0 to 255 that occur; 256 for all of them.
    """

    axes: ClassVar[tuple[str, ...]]
    layout = "grid"
    textures = 4
    noise_unit = 127.5
    alpha = 0.05
    """Flow space: the unit interval is shrunk to [alpha/2, 1 - alpha/2] before the logit."""

    def __init__(self, *, channels: int, size: Sequence[int], levels: int = 256) -> None:
        if channels < 1 or min(size) < 1:
            raise ValueError(f"{self._an} has at least one channel and place, got {channels} and {list(size)}")
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must be between 2 and 256, got {levels}")
        self.channels, self.size, self.levels = channels, tuple(size), levels
        self.event_shape = self.flow_shape = (channels, *self.size)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def _an(self) -> str:
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    def spec(self) -> dict[str, Any]:
        size = dict(zip(self.axes, self.size, strict=True))
        return {"kind": self.kind, "channels": self.channels, **size, "levels": self.levels}

    @property
    def spacing(self) -> float:
        """Distance of neighbouring levels in model space."""
        return 2 / (self.levels - 1)

    def _channels_first(self, x: Num[Tensor, "batch *size channels"]) -> Float[Tensor, "batch channels *size"]:
        expected = (*self.size, self.channels)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"expected {self.kind}s of shape [n, {', '.join(map(str, expected))}], got {list(x.shape)}"
            )
        return x.movedim(-1, 1).to(torch.get_default_dtype() if not x.is_floating_point() else x.dtype)

    def index(self, x: Num[Tensor, "batch *size channels"]) -> Float[Tensor, "batch channels *size"]:
        """The level of each pixel, 0 to `levels` - 1, as a float."""
        return (torch.nan_to_num(self._channels_first(x)) * ((self.levels - 1) / 255)).round()

    def to_model(self, x: Num[Tensor, "batch *size channels"]) -> Float[Tensor, "batch channels *size"]:
        if x.is_floating_point():  # between levels: a noisy image; or with missing pixels
            return torch.nan_to_num(self._channels_first(x) / 127.5 - 1)
        return self.index(x) * self.spacing - 1

    def to_data(self, y: Float[Tensor, "batch channels *size"]) -> UInt8[Tensor, "batch *size channels"]:
        level = ((full_precision(y) + 1) / self.spacing).round().clamp(0, self.levels - 1)
        return (level * (255 / (self.levels - 1))).round().to(torch.uint8).movedim(1, -1).contiguous()

    def uniform_dequantize(
        self, x: Num[Tensor, "batch *size channels"], generator: Streams
    ) -> Float[Tensor, "batch channels *size"]:
        r"""Uniform dequantization to the unit interval, :math:`(k + u) / L`.

        References:
            | A note on the evaluation of generative models (Theis et al., 2016), section 3.1
            | https://arxiv.org/abs/1511.01844
        """
        index = self.index(x)
        return (index + generator.uniform(*index.shape).to(index.dtype)) / self.levels

    def uniform_quantize(self, u: Float[Tensor, "batch channels *size"]) -> UInt8[Tensor, "batch *size channels"]:
        """The inverse of `uniform_dequantize`: unit interval to data space."""
        return self.to_data((u * self.levels).floor().clamp(0, self.levels - 1) * self.spacing - 1)

    def expand(self, observed: Bool[Tensor, "batch *size channels"]) -> Bool[Tensor, "batch channels *size"]:
        return observed.movedim(-1, 1)

    def texture(self, x: Num[Tensor, "batch *size channels"]) -> Float[Tensor, "batch 4"]:
        """Squared steps between neighbouring pixels, in grey levels, at two scales: the logarithm's mean, and the
        mean's logarithm (the two are far apart where all that happens happens in a few places)."""
        y = (self.to_model(x) + 1) * 127.5
        found = []
        for scale in (1, 2):
            y = AVERAGES[len(self.size)](y, scale, ceil_mode=True)
            steps = [y.diff(dim=2 + axis).square().mean(1).flatten(1) for axis in range(len(self.size))]
            squares = torch.cat([*steps, y.new_zeros(len(y), 1)], dim=1)  # a single pixel has no neighbour
            found += [squares.log1p().mean(1), squares.mean(1).log1p()]
        return torch.stack(found, dim=1)

    # What a noise process runs over

    @property
    def resolution(self) -> float:
        """A quarter of the spacing of levels: a denoiser need not know what rounding to the levels says below."""
        return self.spacing / 4

    def dequantized_point(self, x: Num[Tensor, "batch *size channels"], generator: Streams) -> DequantizedPoint:
        y = (self.uniform_dequantize(x, generator) * 2 - 1).double() * (self.spacing * self.levels / 2)
        cell = torch.full((len(x),), self.dimensions * math.log(self.spacing), dtype=torch.float64, device=x.device)
        return DequantizedPoint(y, cell)

    def bound_point(self, x: Num[Tensor, "batch *size channels"], generator: Streams) -> DequantizedPoint:
        """The levels themselves."""
        y = self.to_model(x)
        return DequantizedPoint(y, torch.zeros(len(x), dtype=torch.float64, device=x.device))

    def rounding_nats(self, point: DequantizedPoint, sigma: float, generator: Streams) -> Float[Tensor, " batch"]:
        r"""Of each place's level, every level that the noise does not rule out taken into account.

        .. math:: -\log p(k \mid v_k + \sigma \epsilon)
            = \log \sum_j e^{-(\epsilon - (v_j - v_k) / \sigma)^2 / 2} + \epsilon^2 / 2
        """
        y = point.y
        noise = generator.normal(*y.shape)
        own = -0.5 * noise.square()
        total = own
        reach = min(self.levels - 1, math.ceil(16 * sigma / self.spacing) + 1)  # 16 deviations: 10 beyond the noise's 6
        for step in (sign * distance for distance in range(1, reach + 1) for sign in (-1, 1)):
            other = -0.5 * (noise - step * self.spacing / sigma).square()
            exists = (y + step * self.spacing).abs() <= 1 + 1e-6
            total = torch.logaddexp(total, torch.where(exists, other, -math.inf))
        return (total - own).flatten(1).sum(1)

    # Flow space: the real line, by the logit of the unit interval

    def _logit(self, u: Float[Tensor, "batch channels *size"]) -> tuple[Tensor, Tensor]:
        """Unit interval to the real line, and the log-determinant `[batch]`."""
        squeezed = self.alpha / 2 + (1 - self.alpha) * u
        logit = squeezed.log() - (1 - squeezed).log()
        log_det = math.log(1 - self.alpha) - squeezed.log() - (1 - squeezed).log()
        return logit, log_det.flatten(1).sum(1)

    def dequantize(
        self, x: Num[Tensor, "batch *size channels"], generator: Streams
    ) -> tuple[Float[Tensor, "batch channels *size"], Float[Tensor, " batch"]]:
        u = self.uniform_dequantize(x, generator)
        if x.is_floating_point():
            u = torch.where(self.expand(self.observed(x)), u, generator.uniform(*u.shape).to(u.dtype))
        logit, log_det = self._logit(u)
        cells = self.expand(self.observed(x)).flatten(1).sum(1).to(log_det.dtype)
        return logit, log_det - cells * math.log(self.levels)

    def cell_center(self, x: Num[Tensor, "batch *size channels"]) -> Float[Tensor, "batch channels *size"]:
        return self._logit((self.index(x) + 0.5) / self.levels)[0]

    def quantize(self, y: Float[Tensor, "batch channels *size"]) -> UInt8[Tensor, "batch *size channels"]:
        return self.uniform_quantize((y.sigmoid() - self.alpha / 2) / (1 - self.alpha))

    def random_shift(
        self, y: Float[Tensor, "batch channels *size"], part: float, generator: Streams
    ) -> Float[Tensor, "batch channels *size"]:
        """The rest is filled with the lowest value.

        References:
            | Differentiable augmentation for data-efficient GAN training (Zhao et al., 2020)
            | https://arxiv.org/abs/2006.10738
        """
        return random_shift(y, part, generator)

    # Likelihood

    def likelihood(
        self, components: int, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> DiscretizedLogistic:
        """The likelihood of an example given network outputs; its values are independent given these."""
        return DiscretizedLogistic(self, components)

    def reconstruction(
        self, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> SquaredError:
        """Minus the squared error."""
        return SquaredError(self)

    def generator_output(
        self, raw: Float[Tensor, "batch channels *size"], noise: Float[Tensor, "batch gumbel"]
    ) -> Float[Tensor, "batch channels *size"]:
        return torch.tanh(raw)


class Image(Grid):
    """Images of 8-bit pixels, grey or colour, of which `levels` values occur.

    Arguments:
        channels: 1 (grey) or 3 (colour).
        height: Pixels.
        width: Pixels.
        levels: Number of equally spaced grey values from 0 to 255; 256 for ordinary images.
    """

    kind = "image"
    axes = ("height", "width")
    augmentable = True

    def __init__(self, *, channels: int, height: int, width: int, levels: int = 256) -> None:
        if channels not in (1, 3):
            raise ValueError(f"an image has 1 or 3 channels, got {channels}")
        super().__init__(channels=channels, size=(height, width), levels=levels)

    def augmented(
        self, x: Num[Tensor, "batch height width channels"], generator: Streams, *, flip: bool = False, shift: float = 0
    ) -> Num[Tensor, "batch height width channels"]:
        """Images mirrored and moved by whole pixels; edges are repeated."""
        n, (height, width) = len(x), self.size
        reach = round(shift * min(self.size))
        if not flip and not reach:
            return x
        rows = torch.arange(height, device=x.device).expand(n, height)
        columns = torch.arange(width, device=x.device).expand(n, width)
        if flip:
            columns = torch.where(generator.uniform(n, 1) < 0.5, width - 1 - columns, columns)
        if reach:
            down, across = (generator.integers(2 * reach + 1, n, 1) - reach for _ in range(2))
            rows = (rows + down).clamp(0, height - 1)
            columns = columns.gather(1, (torch.arange(width, device=x.device) + across).clamp(0, width - 1))
        batch = torch.arange(n, device=x.device)[:, None, None]
        return x[batch, rows[:, :, None], columns[:, None, :]]


class Sound(Grid):
    """Sound of 8-bit samples.

    Arguments:
        channels: 1 (mono) or more.
        length: Samples.
        levels: Number of equally spaced values from 0 to 255.
    """

    kind = "sound"
    axes = ("length",)

    def __init__(self, *, channels: int, length: int, levels: int = 256) -> None:
        super().__init__(channels=channels, size=(length,), levels=levels)


class Volume(Grid):
    """Volumes of 8-bit voxels, or video of which the first axis is time.

    Arguments:
        channels: Values of each voxel.
        depth: Voxels, or frames.
        height: Voxels.
        width: Voxels.
        levels: Number of equally spaced values from 0 to 255; 2 for full or empty.
    """

    kind = "volume"
    axes = ("depth", "height", "width")

    def __init__(self, *, channels: int, depth: int, height: int, width: int, levels: int = 256) -> None:
        super().__init__(channels=channels, size=(depth, height, width), levels=levels)


def random_shift(
    y: Float[Tensor, "batch channels *size"], part: float, generator: Streams
) -> Float[Tensor, "batch channels *size"]:
    """Each example moved by its own random whole number of places along every axis, at most `part` of the shortest,
    the rest filled with the lowest value."""
    if part == 0:
        return y
    size = y.shape[2:]
    reach = max(1, round(part * min(size)))
    padded = F.pad(y, (reach,) * (2 * len(size)), value=-1.0).movedim(1, -1)
    offset = generator.integers(2 * reach + 1, len(y), len(size))
    index = [torch.arange(len(y), device=y.device).reshape(-1, *[1] * len(size))]
    for axis, side in enumerate(size):
        places = offset[:, axis : axis + 1] + torch.arange(side, device=y.device)
        index.append(places.reshape(-1, *[side if other == axis else 1 for other in range(len(size))]))
    return padded[tuple(index)].movedim(-1, 1)


class SquaredError(Likelihood):
    """A Gaussian of variance 1/2 about the network's outputs, its constant left out.

    Arguments:
        image: The domain.
    """

    outputs = 1
    drawn = False
    loss_name = "squared_error"

    def __init__(self, image: Grid) -> None:
        self.image = image

    def log_prob(
        self, raw: Float[Tensor, "batch channels *size"], x: Num[Tensor, "batch *size channels"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Minus the squared error of each value, 0 where it is missing."""
        error = F.mse_loss(full_precision(raw), self.image.to_model(x), reduction="none")
        return -torch.where(self.image.expand(self.image.observed(x)), error, 0) if x.is_floating_point() else -error

    def mean(self, raw: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch channels *size"]:
        """The outputs themselves."""
        return full_precision(raw)

    def sample(
        self, raw: Float[Tensor, "batch channels *size"], generator: Streams
    ) -> Float[Tensor, "batch channels *size"]:
        """The outputs themselves: the assumed variance is no estimate of the noise."""
        return full_precision(raw)


class DiscretizedLogistic(Likelihood):
    r"""A mixture of logistics, integrated over each level's interval.

    .. math:: p(k) = \sum_i \pi_i \left[ F_i(v_k + \delta/2) - F_i(v_k - \delta/2) \right]

    The two outer levels take the tails. Each channel is independent given the network's outputs.

    Arguments:
        image: The domain: its levels.
        components: Logistics in the mixture.

    References:
        | PixelCNN++ (Salimans et al., 2017), eq. 2
        | https://arxiv.org/abs/1701.05517
    """

    drawn = False
    loss_name = "reconstruction_nats"

    def __init__(self, image: Grid, components: int) -> None:
        self.image = image
        self.components = components
        self.outputs = 3 * components
        """Network outputs needed per value."""
        self.places = slice(components, 2 * components)

    def _split(self, raw: Float[Tensor, "batch _ *size"]) -> tuple[Tensor, Tensor, Tensor]:
        raw = full_precision(raw).unflatten(1, (self.image.channels, 3, self.components))  # [b, c, 3, k, *size]
        logits, mean, log_scale = raw.unbind(2)
        return logits.log_softmax(2), mean, (log_scale - 2).clamp(min=-7, max=3)

    def log_prob(
        self, raw: Float[Tensor, "batch _ *size"], x: Num[Tensor, "batch *size channels"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Log-probability of each value in nats."""
        log_weight, mean, log_scale = self._split(raw)
        level = self.image.to_model(x)[:, :, None]
        half = self.image.spacing / 2
        upper = (level + half - mean) * (-log_scale).exp()
        lower = (level - half - mean) * (-log_scale).exp()
        # log(F(upper) - F(lower)) without cancellation: F(u) - F(l) = F(u) (1 - F(-u)... ) in logs
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-(upper - lower)))
        log_p = torch.where(level < -1 + half, F.logsigmoid(upper), inside)
        log_p = torch.where(level > 1 - half, F.logsigmoid(-lower), log_p)
        value = (log_weight + log_p).logsumexp(2)
        return torch.where(self.image.expand(self.image.observed(x)), value, 0) if x.is_floating_point() else value

    def mean(self, raw: Float[Tensor, "batch _ *size"]) -> Float[Tensor, "batch channels *size"]:
        """Approximate mean in model space: the weighted component means, clamped."""
        log_weight, mean, _ = self._split(raw)
        return (log_weight.exp() * mean.clamp(-1, 1)).sum(2)

    def sample(self, raw: Float[Tensor, "batch _ *size"], generator: Streams) -> Float[Tensor, "batch channels *size"]:
        """One draw in model space."""
        log_weight, mean, log_scale = self._split(raw)
        gumbel = -(-generator.uniform(*log_weight.shape).clamp(1e-7, 1 - 1e-7).log()).log()
        choice = (log_weight + gumbel).argmax(2, keepdim=True)
        u = generator.uniform(*mean.shape).gather(2, choice).clamp(1e-5, 1 - 1e-5)
        value = mean.gather(2, choice) + log_scale.gather(2, choice).exp() * (u.log() - (1 - u).log())
        return value.squeeze(2).clamp(-1, 1)
