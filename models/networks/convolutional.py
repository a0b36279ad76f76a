"""Networks that several families share: residual image encoders, decoders and U-Nets, embeddings.

All of them take and return model-space tensors, channels first, and an optional conditioning vector
that modulates every block by a scale and a shift.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..shapes import Float


def convolution(inputs: int, outputs: int, *, kernel: int = 3, spectral: bool = False, zero: bool = False) -> nn.Module:
    """A same-size convolution, optionally spectrally normalized or initialized to zero."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    if zero:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return spectral_norm(conv) if spectral else conv


class Residual(nn.Module):
    """Pre-activation residual block, modulated by a conditioning vector.

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        embed: Length of the conditioning vector; 0 for none.
        norm: Whether to apply group normalization (a critic under a gradient penalty must not).
        spectral: Whether every convolution is spectrally normalized.
    """

    def __init__(self, inputs: int, outputs: int, *, embed: int = 0, norm: bool = True, spectral: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(8, inputs), inputs) if norm else nn.Identity()
        self.conv1 = convolution(inputs, outputs, spectral=spectral)
        self.norm2 = nn.GroupNorm(math.gcd(8, outputs), outputs) if norm else nn.Identity()
        self.conv2 = convolution(outputs, outputs, spectral=spectral, zero=not spectral)
        self.skip = convolution(inputs, outputs, kernel=1, spectral=spectral) if inputs != outputs else nn.Identity()
        self.modulation = nn.Linear(embed, 2 * outputs) if embed else None

    def forward(self, x: Float[Tensor, "batch _ height width"], c: Float[Tensor, "batch _"] | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h)
        if self.modulation is not None:
            scale, shift = self.modulation(c)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))


def pyramid(height: int, width: int, patch: int) -> list[tuple[int, int]]:
    """Sizes from the finest level down: halved while even and above 4 pixels."""
    if height % patch or width % patch:
        raise ValueError(f"an image of {height}x{width} pixels cannot be cut into patches of {patch}; set patch: 1")
    sizes = [(height // patch, width // patch)]
    while min(sizes[-1]) > 4 and sizes[-1][0] % 2 == 0 and sizes[-1][1] % 2 == 0:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def default_patch(height: int, width: int) -> int:
    """Pixels folded into channels before the first convolution: 2 from 16 pixels on, else 1."""
    return 2 if min(height, width) >= 16 and height % 2 == 0 and width % 2 == 0 else 1


def channels_at(width: int, level: int) -> int:
    """Channels of a pyramid's level: doubled once per level, at most fourfold."""
    return width * min(2**level, 4)


class Encoder(nn.Module):
    """Image to vector: residual blocks and average pooling down to about 4x4, then a linear map.

    Arguments:
        shape: Channels, height, width.
        outputs: Length of the vector.
        width: Channels at the finest level.
        blocks: Residual blocks per level.
        patch: Pixels folded into channels first.
        norm: Group normalization in the blocks.
        spectral: Spectral normalization of every layer (for critics).
        attention: Whether the coarsest level attends over all its positions.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        width: int,
        blocks: int = 1,
        patch: int = 1,
        norm: bool = True,
        spectral: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        channels, height, image_width = shape
        self.patch = patch
        sizes = pyramid(height, image_width, patch)
        self.stem = convolution(channels * patch**2, width, spectral=spectral)
        self.levels = nn.ModuleList()
        inputs = width
        for level in range(len(sizes)):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs, channels_at(width, level), norm=norm, spectral=spectral))
                inputs = channels_at(width, level)
            self.levels.append(stack)
        self.attention = Attention(inputs, norm=norm, spectral=spectral) if attention else nn.Identity()
        self.norm = nn.GroupNorm(math.gcd(8, inputs), inputs) if norm else nn.Identity()
        head = nn.Linear(inputs * sizes[-1][0] * sizes[-1][1], outputs)
        self.head = spectral_norm(head) if spectral else head

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch outputs"]:
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        for level, stack in enumerate(self.levels):
            h = F.avg_pool2d(h, 2) if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(h)
        return self.head(F.silu(self.norm(self.attention(h))).flatten(1))


class Decoder(nn.Module):
    """Vector to image: a linear map to about 4x4, then residual blocks and nearest upsampling.

    Arguments:
        inputs: Length of the vector.
        shape: Channels (of parameters per pixel), height, width.
        width: Channels at the finest level.
        blocks: Residual blocks per level.
        patch: Pixels folded into channels at the end.
        embed: Length of a conditioning vector; 0 for none.
        norm: Group normalization in the blocks.
        attention: Whether the coarsest level attends over all its positions.
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, int, int],
        *,
        width: int,
        blocks: int = 1,
        patch: int = 1,
        embed: int = 0,
        norm: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        outputs, height, image_width = shape
        self.patch = patch
        sizes = pyramid(height, image_width, patch)
        channels = channels_at(width, len(sizes) - 1)
        self.coarsest = (channels, *sizes[-1])
        self.stem = nn.Linear(inputs, math.prod(self.coarsest))
        self.attention = Attention(channels, norm=norm) if attention else nn.Identity()
        self.levels = nn.ModuleList()
        for level in reversed(range(len(sizes))):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(channels, channels_at(width, level), embed=embed, norm=norm))
                channels = channels_at(width, level)
            self.levels.append(stack)
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels) if norm else nn.Identity()
        self.head = convolution(channels, outputs * patch**2)

    def forward(
        self, z: Float[Tensor, "batch inputs"], c: Float[Tensor, "batch _"] | None = None
    ) -> Float[Tensor, "batch outputs height width"]:
        h = self.attention(self.stem(z).unflatten(1, self.coarsest))
        for level, stack in enumerate(self.levels):
            h = F.interpolate(h, scale_factor=2, mode="nearest") if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(h, c)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


class UNet(nn.Module):
    """Image to image of the same size, with skip connections and a conditioning vector.

    Arguments:
        shape: Channels, height, width.
        width: Channels at the finest level.
        blocks: Residual blocks per level and direction.
        embed: Length of the conditioning vector.
        patch: Pixels folded into channels first and unfolded at the end.
        attention: Whether the coarsest level attends over all its positions.
        inputs: Channels in, if other than `shape` says.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        width: int,
        embed: int,
        blocks: int = 1,
        patch: int = 1,
        attention: bool = True,
        inputs: int = 0,
    ) -> None:
        super().__init__()
        channels, height, image_width = shape
        self.patch = patch
        levels = range(len(pyramid(height, image_width, patch)))
        self.stem = convolution((inputs or channels) * patch**2, width)
        inputs, skips = width, []
        self.down = nn.ModuleList()
        for level in levels:
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs, channels_at(width, level), embed=embed))
                inputs = channels_at(width, level)
                skips.append(inputs)
            self.down.append(stack)
        self.middle = Residual(inputs, inputs, embed=embed)
        self.attention = Attention(inputs) if attention else nn.Identity()
        self.up = nn.ModuleList()
        for level in reversed(levels):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs + skips.pop(), channels_at(width, level), embed=embed))
                inputs = channels_at(width, level)
            self.up.append(stack)
        self.norm = nn.GroupNorm(math.gcd(8, inputs), inputs)
        self.head = convolution(inputs, channels * patch**2, zero=True)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], c: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch channels height width"]:
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = []
        for level, stack in enumerate(self.down):
            h = F.avg_pool2d(h, 2) if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(h, c)
                skips.append(h)
        h = self.attention(self.middle(h, c))
        for level, stack in enumerate(self.up):
            h = F.interpolate(h, scale_factor=2, mode="nearest") if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(torch.cat([h, skips.pop()], dim=1), c)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


class Attention(nn.Module):
    """Residual single-head self-attention over the positions of a feature map, zero at the start.

    Arguments:
        channels: Of the feature map.
        norm: Group normalization first; critics have none, and are differentiated twice, which the fused
            attention of torch is not made for.
        spectral: Spectral normalization of both maps (which then do not start at zero).
    """

    def __init__(self, channels: int, *, norm: bool = True, spectral: bool = False) -> None:
        super().__init__()
        self.twice = not norm
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels) if norm else nn.Identity()
        self.qkv = convolution(channels, 3 * channels, kernel=1, spectral=spectral)
        self.out = convolution(channels, channels, kernel=1, zero=not spectral, spectral=spectral)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        if self.twice:
            attended = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(2) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))
