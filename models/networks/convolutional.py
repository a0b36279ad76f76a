"""Networks of grids of one, two or three axes (sound, images, video and volumes): residual encoders, decoders, U-Nets.

All of them take and return model-space tensors, channels first, and an optional conditioning vector
that modulates every block by a scale and a shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..rng import Streams
from ..shapes import Float
from .dropout import Drop, dropout, keep_all
from .principal import DecoderFromComponents, EncoderFromComponents
from .registry import register

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def convolution(
    inputs: int, outputs: int, *, rank: int = 2, kernel: int = 3, spectral: bool = False, zero: bool = False
) -> nn.Module:
    """A same-size convolution over `rank` axes, optionally spectrally normalized or initialized to zero."""
    conv = CONVOLUTIONS[rank](inputs, outputs, kernel, padding=kernel // 2)
    if zero:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return spectral_norm(conv) if spectral else conv


class Residual(nn.Module):
    """Pre-activation residual block, modulated by a conditioning vector.

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        rank: Axes of the grid.
        embed: Length of the conditioning vector; 0 for none.
        norm: Whether to apply group normalization (a critic under a gradient penalty must not).
        spectral: Whether every convolution is spectrally normalized.
    """

    def __init__(
        self, inputs: int, outputs: int, *, rank: int = 2, embed: int = 0, norm: bool = True, spectral: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(8, inputs), inputs) if norm else nn.Identity()
        self.conv1 = convolution(inputs, outputs, rank=rank, spectral=spectral)
        self.norm2 = nn.GroupNorm(math.gcd(8, outputs), outputs) if norm else nn.Identity()
        self.conv2 = convolution(outputs, outputs, rank=rank, spectral=spectral, zero=not spectral)
        self.skip = nn.Identity()
        if inputs != outputs:
            self.skip = convolution(inputs, outputs, rank=rank, kernel=1, spectral=spectral)
        self.modulation = nn.Linear(embed, 2 * outputs) if embed else None

    def forward(
        self,
        x: Float[Tensor, "batch _ *size"],
        c: Float[Tensor, "batch _"] | None = None,
        drop: Drop = keep_all,
    ) -> Tensor:
        """`drop` sets some of the values before the last convolution to zero."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h)
        if self.modulation is not None:
            scale, shift = self.modulation(c).reshape(len(c), -1, *[1] * (h.ndim - 2)).chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(drop(F.silu(h)))


def pyramid(size: Sequence[int]) -> list[tuple[int, ...]]:
    """Sizes from the finest level down: sides above 7 places are halved, rounded up, until none is left."""
    sizes = [tuple(size)]
    while max(sizes[-1]) > 7:
        sizes.append(tuple(math.ceil(side / 2) if side > 7 else side for side in sizes[-1]))
    return sizes


class Patches:
    """Blocks of places folded into channels and back; a grid of any size, padded with zeros to whole blocks.

    Arguments:
        size: Places along each axis.
        patch: Places folded along each axis; 0 for 2 along those of more than 8 places (of which 8 blocks at
            least are made, so that no grid costs more than a larger one), 1 along the others.

    Attributes:
        places: Blocks along each axis.
        volume: Places of a block.
    """

    def __init__(self, size: Sequence[int], patch: int) -> None:
        self.size = tuple(size)
        self.patch = tuple(min(patch, side) if patch else 1 + (side > 8) for side in size)
        least = 1 if patch else 8
        sides = zip(self.size, self.patch, strict=True)
        self.places = tuple(max(math.ceil(side / block), min(side, least)) for side, block in sides)
        self.volume = math.prod(self.patch)

    def fold(self, x: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch _ *places"]:
        """The grid padded, its blocks in channels."""
        sides = zip(self.size, self.patch, self.places, strict=True)
        missing = [block * places - side for side, block, places in sides]
        if any(missing):
            x = F.pad(x, [end for axis in reversed(missing) for end in (0, axis)])
        return fold(x, self.patch)

    def unfold(self, x: Float[Tensor, "batch _ *places"]) -> Float[Tensor, "batch channels *size"]:
        """The inverse of `fold`, the padding cut off."""
        return cropped(unfold(x, self.patch), self.size)


def fold(x: Float[Tensor, "batch channels *size"], patch: Sequence[int]) -> Tensor:
    """Blocks of `patch` places along the axes into channels."""
    if x.ndim == 4 and patch[0] == patch[1]:
        return F.pixel_unshuffle(x, patch[0])
    rank = x.ndim - 2
    batch, channels, *size = x.shape
    places = [side // block for side, block in zip(size, patch, strict=True)]
    blocks = x.reshape(batch, channels, *(n for pair in zip(places, patch, strict=True) for n in pair))
    order = [0, 1, *(3 + 2 * axis for axis in range(rank)), *(2 + 2 * axis for axis in range(rank))]
    return blocks.permute(order).reshape(batch, channels * math.prod(patch), *places)


def unfold(x: Float[Tensor, "batch channels *size"], patch: Sequence[int]) -> Tensor:
    """The inverse of `fold`."""
    if x.ndim == 4 and patch[0] == patch[1]:
        return F.pixel_shuffle(x, patch[0])
    rank = x.ndim - 2
    batch, channels, *size = x.shape
    channels //= math.prod(patch)
    blocks = x.reshape(batch, channels, *patch, *size)
    order = [0, 1, *(place for axis in range(rank) for place in (2 + rank + axis, 2 + axis))]
    sides = [side * block for side, block in zip(size, patch, strict=True)]
    return blocks.permute(order).reshape(batch, channels, *sides)


def cropped(h: Float[Tensor, "batch channels *larger"], size: Sequence[int]) -> Float[Tensor, "batch channels *size"]:
    """The first places along each axis."""
    return h[(..., *(slice(side) for side in size))]


def coarsened(h: Float[Tensor, "batch channels *size"], size: Sequence[int]) -> Tensor:
    """Averages over blocks of two places along each axis that is not yet as short as in `size`; a last place that has
    no other is averaged with none."""
    kernel = [1 if now == then else 2 for now, then in zip(h.shape[2:], size, strict=True)]
    return AVERAGES[h.ndim - 2](h, kernel, ceil_mode=True)


def refined(h: Float[Tensor, "batch channels *size"], size: Sequence[int]) -> Tensor:
    """Every place repeated along each axis that is not yet as long as in `size`."""
    factors = [1.0 if now == then else 2.0 for now, then in zip(h.shape[2:], size, strict=True)]
    return cropped(F.interpolate(h, scale_factor=factors, mode="nearest"), size)  # type: ignore[arg-type]


def averaged(h: Float[Tensor, "batch channels *size"], patch: Sequence[int]) -> Tensor:
    """Every place replaced by the average of a block of `patch` places about it: nothing is left of what repeats from
    block to block, the grid that networks which fold blocks into channels leave early in training."""
    sides = [side for block in reversed(patch) for side in ((block - 1) // 2, block // 2)]
    return AVERAGES[h.ndim - 2](F.pad(h, sides, mode="replicate"), list(patch), stride=1)


def channels_at(width: int, level: int) -> int:
    """Channels of a pyramid's level: doubled once per level, at most fourfold."""
    return width * min(2**level, 4)


class Encoder(nn.Module):
    """Grid to vector: residual blocks and average pooling down to about 4 places a side, then a linear map.

    Arguments:
        shape: Channels, then the size along each axis.
        outputs: Length of the vector.
        width: Channels at the finest level.
        blocks: Residual blocks per level.
        patch: Places along a side folded into channels first; 0 chooses by size (see `Patches`).
        norm: Group normalization in the blocks.
        spectral: Spectral normalization of every layer (for critics).
        attention: Whether the coarsest level attends over all its positions.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        *,
        width: int,
        blocks: int = 1,
        patch: int = 0,
        norm: bool = True,
        spectral: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        channels, *size = shape
        rank = len(size)
        self.patches = Patches(size, patch)
        self.sizes = sizes = pyramid(self.patches.places)
        self.stem = convolution(channels * self.patches.volume, width, rank=rank, spectral=spectral)
        self.levels = nn.ModuleList()
        inputs = width
        for level in range(len(sizes)):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs, channels_at(width, level), rank=rank, norm=norm, spectral=spectral))
                inputs = channels_at(width, level)
            self.levels.append(stack)
        self.attention = Attention(inputs, rank=rank, norm=norm, spectral=spectral) if attention else nn.Identity()
        self.norm = nn.GroupNorm(math.gcd(8, inputs), inputs) if norm else nn.Identity()
        head = nn.Linear(inputs * math.prod(sizes[-1]), outputs)
        self.head = spectral_norm(head) if spectral else head

    def forward(self, x: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch outputs"]:
        h = self.stem(self.patches.fold(x))
        for level, stack in enumerate(self.levels):
            h = coarsened(h, self.sizes[level]) if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(h)
        return self.head(F.silu(self.norm(self.attention(h))).flatten(1))


class Decoder(nn.Module):
    """Vector to grid: a linear map to about 4 places a side, then residual blocks and nearest upsampling.

    Arguments:
        inputs: Length of the vector.
        shape: Channels (of parameters per place), then the size along each axis.
        width: Channels at the finest level.
        blocks: Residual blocks per level.
        patch: Places along a side folded into channels, unfolded at the end; 0 chooses by size.
        embed: Length of a conditioning vector; 0 for none.
        norm: Group normalization in the blocks.
        attention: Whether the coarsest level attends over all its positions.
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, ...],
        *,
        width: int,
        blocks: int = 1,
        patch: int = 0,
        embed: int = 0,
        norm: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        outputs, *size = shape
        rank = len(size)
        self.patches = Patches(size, patch)
        self.sizes = sizes = pyramid(self.patches.places)
        channels = channels_at(width, len(sizes) - 1)
        self.coarsest = (channels, *sizes[-1])
        self.stem = nn.Linear(inputs, math.prod(self.coarsest))
        self.attention = Attention(channels, rank=rank, norm=norm) if attention else nn.Identity()
        self.levels = nn.ModuleList()
        for level in reversed(range(len(sizes))):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(channels, channels_at(width, level), rank=rank, embed=embed, norm=norm))
                channels = channels_at(width, level)
            self.levels.append(stack)
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels) if norm else nn.Identity()
        self.head = convolution(channels, outputs * self.patches.volume, rank=rank)

    def forward(
        self, z: Float[Tensor, "batch inputs"], c: Float[Tensor, "batch _"] | None = None
    ) -> Float[Tensor, "batch outputs *size"]:
        h = self.attention(self.stem(z).unflatten(1, self.coarsest))
        for level, stack in enumerate(self.levels):
            h = refined(h, self.sizes[-1 - level]) if level else h
            for block in stack:  # type: ignore[union-attr]
                h = block(h, c)
        return self.patches.unfold(self.head(F.silu(self.norm(h))))


class UNet(nn.Module):
    """Grid to grid of the same size, with skip connections and a conditioning vector.

    Arguments:
        shape: Channels, then the size along each axis.
        width: Channels at the finest level.
        blocks: Residual blocks per level and direction.
        embed: Length of the conditioning vector.
        patch: Places along a side folded into channels first and unfolded at the end; 0 chooses by size.
        attention: Every block of the levels of at most so many places a side attends over all positions; the middle,
            at the coarsest level, always does.
        heads: Of attention; they divide `width`.
        dropout: Share of the values in every block that training sets to zero.
        inputs: Channels in, if other than `shape` says.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int,
        embed: int,
        blocks: int = 1,
        patch: int = 0,
        attention: int = 0,
        heads: int = 1,
        dropout: float = 0.0,
        inputs: int = 0,
    ) -> None:
        super().__init__()
        channels, *size = shape
        rank = len(size)
        self.patches = Patches(size, patch)
        self.sizes = pyramid(self.patches.places)
        levels = range(len(self.sizes))
        self.stem = convolution((inputs or channels) * self.patches.volume, width, rank=rank)
        self.dropout = dropout

        def attends(level: int) -> nn.Module:
            seen = max(self.sizes[level]) <= attention
            return Attention(channels_at(width, level), rank=rank, heads=heads) if seen else nn.Identity()

        inputs, skips = width, []
        self.down, self.down_attention = nn.ModuleList(), nn.ModuleList()
        for level in levels:
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs, channels_at(width, level), rank=rank, embed=embed))
                inputs = channels_at(width, level)
                skips.append(inputs)
            self.down.append(stack)
            self.down_attention.append(nn.ModuleList(attends(level) for _ in range(blocks)))
        self.middle = Residual(inputs, inputs, rank=rank, embed=embed)
        self.attention = Attention(inputs, rank=rank, heads=heads)
        self.up, self.up_attention = nn.ModuleList(), nn.ModuleList()
        for level in reversed(levels):
            stack = nn.ModuleList()
            for _ in range(blocks):
                stack.append(Residual(inputs + skips.pop(), channels_at(width, level), rank=rank, embed=embed))
                inputs = channels_at(width, level)
            self.up.append(stack)
            self.up_attention.append(nn.ModuleList(attends(level) for _ in range(blocks)))
        self.norm = nn.GroupNorm(math.gcd(8, inputs), inputs)
        self.head = convolution(inputs, channels * self.patches.volume, rank=rank, zero=True)

    def forward(
        self,
        x: Float[Tensor, "batch inputs *size"],
        c: Float[Tensor, "batch embed"],
        generator: Streams | None = None,
    ) -> Float[Tensor, "batch channels *size"]:
        """`generator`, of a training, says which values are set to zero; without, none are."""
        drop = dropout(self.dropout, generator)
        h = self.stem(self.patches.fold(x))
        skips = []
        for level, stack in enumerate(self.down):
            h = coarsened(h, self.sizes[level]) if level else h
            for block, attention in zip(stack, self.down_attention[level], strict=True):  # type: ignore[arg-type]
                h = attention(block(h, c, drop))
                skips.append(h)
        h = self.attention(self.middle(h, c, drop))
        for level, stack in enumerate(self.up):
            h = refined(h, self.sizes[-1 - level]) if level else h
            for block, attention in zip(stack, self.up_attention[level], strict=True):  # type: ignore[arg-type]
                h = attention(block(torch.cat([h, skips.pop()], dim=1), c, drop))
        return self.patches.unfold(self.head(F.silu(self.norm(h))))


class Attention(nn.Module):
    """Residual self-attention over the positions of a feature map, zero at the start.

    Arguments:
        channels: Of the feature map.
        rank: Axes of the grid.
        norm: Group normalization first; critics have none, and are differentiated twice, which the fused
            attention of torch is not made for.
        spectral: Spectral normalization of both maps (which then do not start at zero).
        heads: Each attends by its own part of the channels.
    """

    def __init__(
        self, channels: int, *, rank: int = 2, norm: bool = True, spectral: bool = False, heads: int = 1
    ) -> None:
        super().__init__()
        self.twice, self.heads = not norm, heads
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels) if norm else nn.Identity()
        self.qkv = convolution(channels, 3 * channels, rank=rank, kernel=1, spectral=spectral)
        self.out = convolution(channels, channels, rank=rank, kernel=1, zero=not spectral, spectral=spectral)

    def forward(self, x: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch channels *size"]:
        places = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # [batch, places, 3 channels]
        if self.heads > 1:
            places = places.unflatten(2, (3, self.heads, -1)).movedim(3, 1).flatten(3)  # each head's own queries first
        q, k, v = places.chunk(3, dim=-1)
        if self.twice:
            attended = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        if self.heads > 1:
            attended = attended.transpose(1, 2).flatten(2)
        return x + self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


@register("encoder", "grid")
def grid_encoder(
    grid: Any, outputs: int, *, width: int, blocks: int = 1, patch: int = 0, principal: int = 0
) -> nn.Module:
    """Example to vector; from its leading principal components, if asked for."""
    network = Encoder(grid.event_shape, outputs, width=width, blocks=blocks, patch=patch)
    return EncoderFromComponents(network, grid.event_shape, principal, outputs) if principal else network


@register("critic", "grid")
def grid_critic(
    grid: Any, outputs: int, *, width: int, blocks: int, patch: int, spectral: bool, attention: bool
) -> Encoder:
    """Example to features, without normalization over positions."""
    scale = {"width": width, "blocks": blocks, "patch": patch}
    return Encoder(grid.event_shape, outputs, **scale, norm=False, spectral=spectral, attention=attention)


@register("decoder", "grid")
def grid_decoder(
    grid: Any,
    inputs: int,
    *,
    parameters: int | None,
    width: int,
    blocks: int,
    patch: int,
    embed: int,
    attention: bool,
    principal: int,
    places: slice,
) -> nn.Module:
    """Vector to an example, or to `parameters` numbers per value of one; from leading principal components, if asked
    for, which then add to the parameters in `places`."""
    channels, *size = grid.event_shape
    scale = {"width": width, "blocks": blocks, "patch": patch, "embed": embed}
    network = Decoder(inputs, (channels * (parameters or 1), *size), **scale, attention=attention)
    if not principal:
        return network
    return DecoderFromComponents(network, inputs, grid.event_shape, principal, parameters or 1, places)


@register("denoiser", "grid")
def grid_denoiser(
    grid: Any,
    *,
    width: int,
    embed: int,
    blocks: int,
    patch: int,
    more: int,
    attention: int,
    heads: int,
    dropout: float,
) -> UNet:
    """Example to example of the same shape, conditional on a vector."""
    scale = {"width": width, "embed": embed, "blocks": blocks, "patch": patch}
    scale |= {"attention": attention, "heads": heads, "dropout": dropout}
    return UNet(grid.event_shape, inputs=(1 + more) * grid.event_shape[0], **scale)
