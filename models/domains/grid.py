"""Images: 8-bit pixels, channels last, as floats in [-1, 1], channels first."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.convolutional import Decoder, Encoder, UNet, default_patch
from ..networks.embeddings import full_precision
from ..rng import Streams
from ..shapes import Bool, Float, Num, UInt8
from .base import Domain, Likelihood


class Image(Domain):
    """Images of 8-bit pixels, grey or colour, of which `levels` values occur.

    Arguments:
        channels: 1 (grey) or 3 (colour).
        height: Pixels.
        width: Pixels.
        levels: Number of equally spaced grey values from 0 to 255; 256 for ordinary images.
    """

    kind = "image"
    textures = 4
    alpha = 0.05
    """Flow space: the unit interval is shrunk to [alpha/2, 1 - alpha/2] before the logit."""

    def __init__(self, *, channels: int, height: int, width: int, levels: int = 256) -> None:
        if channels not in (1, 3):
            raise ValueError(f"an image has 1 or 3 channels, got {channels}")
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must be between 2 and 256, got {levels}")
        self.channels, self.height, self.width, self.levels = channels, height, width, levels
        self.event_shape = self.flow_shape = (channels, height, width)

    def spec(self) -> dict[str, Any]:
        shape = {"channels": self.channels, "height": self.height, "width": self.width}
        return {"kind": self.kind, **shape, "levels": self.levels}

    @property
    def spacing(self) -> float:
        """Distance of neighbouring levels in model space."""
        return 2 / (self.levels - 1)

    def _channels_first(
        self, x: Num[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        expected = (self.height, self.width, self.channels)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(f"expected images of shape [n, {', '.join(map(str, expected))}], got {list(x.shape)}")
        return x.permute(0, 3, 1, 2).to(torch.get_default_dtype() if not x.is_floating_point() else x.dtype)

    def index(self, x: Num[Tensor, "batch height width channels"]) -> Float[Tensor, "batch channels height width"]:
        """The level of each pixel, 0 to `levels` - 1, as a float."""
        return (torch.nan_to_num(self._channels_first(x)) * ((self.levels - 1) / 255)).round()

    def to_model(self, x: Num[Tensor, "batch height width channels"]) -> Float[Tensor, "batch channels height width"]:
        if x.is_floating_point():  # between levels: a noisy image; or with missing pixels
            return torch.nan_to_num(self._channels_first(x) / 127.5 - 1)
        return self.index(x) * self.spacing - 1

    def to_data(self, y: Float[Tensor, "batch channels height width"]) -> UInt8[Tensor, "batch height width channels"]:
        level = ((full_precision(y) + 1) / self.spacing).round().clamp(0, self.levels - 1)
        return (level * (255 / (self.levels - 1))).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def uniform_dequantize(
        self, x: Num[Tensor, "batch height width channels"], generator: Streams
    ) -> Float[Tensor, "batch channels height width"]:
        r"""Uniform dequantization to the unit interval, :math:`(k + u) / L`.

        References:
            | A note on the evaluation of generative models (Theis et al., 2016), section 3.1
            | https://arxiv.org/abs/1511.01844
        """
        index = self.index(x)
        return (index + generator.uniform(*index.shape).to(index.dtype)) / self.levels

    def uniform_quantize(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch height width channels"]:
        """The inverse of `uniform_dequantize`: unit interval to data space."""
        return self.to_data((u * self.levels).floor().clamp(0, self.levels - 1) * self.spacing - 1)

    def expand(
        self, observed: Bool[Tensor, "batch height width channels"]
    ) -> Bool[Tensor, "batch channels height width"]:
        return observed.permute(0, 3, 1, 2)

    def texture(self, x: Num[Tensor, "batch height width channels"]) -> Float[Tensor, "batch 4"]:
        """Squared steps between neighbouring pixels, in grey levels, at two scales: the logarithm's mean, and the
        mean's logarithm (the two are far apart where all that happens happens in a few places)."""
        y = (self.to_model(x) + 1) * 127.5
        found = []
        for scale in (1, 2):
            y = F.avg_pool2d(y, scale, ceil_mode=True)
            steps = [y.diff(dim=dim).square().mean(1).flatten(1) for dim in (2, 3)]
            squares = torch.cat([*steps, y.new_zeros(len(y), 1)], dim=1)  # a single pixel has no neighbour
            found += [squares.log1p().mean(1), squares.mean(1).log1p()]
        return torch.stack(found, dim=1)

    # Flow space: the real line, by the logit of the unit interval

    def _logit(self, u: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        """Unit interval to the real line, and the log-determinant `[batch]`."""
        squeezed = self.alpha / 2 + (1 - self.alpha) * u
        logit = squeezed.log() - (1 - squeezed).log()
        log_det = math.log(1 - self.alpha) - squeezed.log() - (1 - squeezed).log()
        return logit, log_det.flatten(1).sum(1)

    def dequantize(
        self, x: Num[Tensor, "batch height width channels"], generator: Streams
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        u = self.uniform_dequantize(x, generator)
        if x.is_floating_point():
            u = torch.where(self.expand(self.observed(x)), u, generator.uniform(*u.shape).to(u.dtype))
        logit, log_det = self._logit(u)
        cells = self.expand(self.observed(x)).flatten(1).sum(1).to(log_det.dtype)
        return logit, log_det - cells * math.log(self.levels)

    def cell_center(
        self, x: Num[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self._logit((self.index(x) + 0.5) / self.levels)[0]

    def quantize(self, y: Float[Tensor, "batch channels height width"]) -> UInt8[Tensor, "batch height width channels"]:
        return self.uniform_quantize((y.sigmoid() - self.alpha / 2) / (1 - self.alpha))

    # Default networks

    def _patch(self, patch: int) -> int:
        """The patch asked for, or what of it divides height and width; 0 chooses by size."""
        return math.gcd(patch, self.height, self.width) if patch else default_patch(self.height, self.width)

    def encoder(self, outputs: int, *, width: int, blocks: int = 1, patch: int = 0) -> nn.Module:
        """Example to vector; `patch` 0 chooses by size."""
        return Encoder(self.event_shape, outputs, width=width, blocks=blocks, patch=self._patch(patch))  # type: ignore[arg-type]

    def critic(
        self,
        outputs: int,
        *,
        width: int,
        blocks: int = 1,
        patch: int = 0,
        spectral: bool = True,
        attention: bool = False,
    ) -> nn.Module:
        """Example to features, without normalization over positions, for a GAN's critic."""
        return Encoder(
            self.event_shape,  # type: ignore[arg-type]
            outputs,
            width=width,
            blocks=blocks,
            patch=self._patch(patch),
            norm=False,
            spectral=spectral,
            attention=attention,
        )

    def decoder(
        self,
        inputs: int,
        *,
        width: int,
        parameters: int = 1,
        blocks: int = 1,
        patch: int = 0,
        embed: int = 0,
        attention: bool = False,
    ) -> nn.Module:
        """Vector to `parameters` numbers per value of an example."""
        shape = (self.channels * parameters, self.height, self.width)
        scale = {"width": width, "blocks": blocks, "patch": self._patch(patch), "embed": embed}
        return Decoder(inputs, shape, **scale, attention=attention)

    def denoiser(self, *, width: int, embed: int, blocks: int = 1, patch: int = 0, masked: bool = False) -> nn.Module:
        """Example to example of the same shape, conditional on a vector."""
        scale = {"width": width, "embed": embed, "blocks": blocks, "patch": self._patch(patch)}
        return UNet(self.event_shape, inputs=(1 + masked) * self.channels, **scale)  # type: ignore[arg-type]

    # Likelihood

    def likelihood(self, components: int) -> DiscretizedLogistic:
        """The likelihood of an example given network outputs."""
        return DiscretizedLogistic(self, components)

    def reconstruction(self) -> SquaredError:
        """Minus the squared error."""
        return SquaredError(self)

    def generator_output(
        self, raw: Float[Tensor, "batch channels height width"], noise: Float[Tensor, "batch gumbel"]
    ) -> Float[Tensor, "batch channels height width"]:
        return torch.tanh(raw)


class SquaredError(Likelihood):
    """A Gaussian of variance 1/2 about the network's outputs, its constant left out.

    Arguments:
        image: The domain.
    """

    parameters = 1
    drawn = False
    loss_name = "squared_error"

    def __init__(self, image: Image) -> None:
        self.image = image

    def log_prob(
        self, raw: Float[Tensor, "batch channels height width"], x: Num[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Minus the squared error of each value, 0 where it is missing."""
        error = F.mse_loss(full_precision(raw), self.image.to_model(x), reduction="none")
        return -torch.where(self.image.expand(self.image.observed(x)), error, 0) if x.is_floating_point() else -error

    def mean(self, raw: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """The outputs themselves."""
        return full_precision(raw)

    def sample(
        self, raw: Float[Tensor, "batch channels height width"], generator: Streams
    ) -> Float[Tensor, "batch channels height width"]:
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

    def __init__(self, image: Image, components: int) -> None:
        self.image = image
        self.components = components
        self.parameters = 3 * components
        """Network outputs needed per value."""

    def _split(self, raw: Float[Tensor, "batch _ height width"]) -> tuple[Tensor, Tensor, Tensor]:
        raw = full_precision(raw).unflatten(1, (self.image.channels, 3, self.components))  # [b, c, 3, k, h, w]
        logits, mean, log_scale = raw.unbind(2)
        return logits.log_softmax(2), mean, (log_scale - 2).clamp(min=-7, max=3)

    def log_prob(
        self, raw: Float[Tensor, "batch _ height width"], x: Num[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
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

    def mean(self, raw: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch channels height width"]:
        """Approximate mean in model space: the weighted component means, clamped."""
        log_weight, mean, _ = self._split(raw)
        return (log_weight.exp() * mean.clamp(-1, 1)).sum(2)

    def sample(
        self, raw: Float[Tensor, "batch _ height width"], generator: Streams
    ) -> Float[Tensor, "batch channels height width"]:
        """One draw in model space."""
        log_weight, mean, log_scale = self._split(raw)
        gumbel = -(-generator.uniform(*log_weight.shape).clamp(1e-7, 1 - 1e-7).log()).log()
        choice = (log_weight + gumbel).argmax(2, keepdim=True)
        u = generator.uniform(*mean.shape).gather(2, choice).clamp(1e-5, 1 - 1e-5)
        value = mean.gather(2, choice) + log_scale.gather(2, choice).exp() * (u.log() - (1 - u).log())
        return value.squeeze(2).clamp(-1, 1)
