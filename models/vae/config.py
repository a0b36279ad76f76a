"""Settings of the variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import check_choices


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the variational autoencoder.

    Arguments:
        latent: Length of a code.
        width: Channels of the networks at the finest level; of tables their units are 4 to 8 times as many, and this is
            the length of a cell's vector in the likelihood of rows.
        blocks: Residual blocks per level; of tables in encoder and decoder, not in the likelihood of rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        beta: Weight of the divergence from the prior; 1 maximizes the bound itself.
        free_bits: Nats per latent dimension below which the divergence is not penalized.
        components: Logistics in the likelihood's mixture (images), or Gaussians (tables of `independent` cells).
        prior_components: Gaussians per class in the prior that replaces the learned one after
            training; 0 keeps the learned Gaussian per class.
        draw_pixels: Whether sampled images are drawn from the likelihood; otherwise they are its mean.
            Rows of tables are always drawn.
        warmup_examples: Examples over which `beta` rises from zero.
        hide: Part of the training examples of which a random share of the cells is taken for missing,
            so that the encoder learns to do without; -1 for half the rows of tables and no images.
        cells: Of a table given the code: `given others` (each drawn given those before it) or `independent`.
    """

    latent: int = 16
    width: int = 32
    blocks: int = 1
    patch: int = 0
    beta: float = 1.0
    free_bits: float = 0.05
    components: int = 3
    prior_components: int = 2
    draw_pixels: bool = False
    warmup_examples: int = 0
    hide: float = -1.0
    cells: Literal["given others", "independent"] = "given others"

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("latent", "width", "blocks", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta", "free_bits", "prior_components", "warmup_examples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        check_choices(self)
        if self.hide != -1 and not 0 <= self.hide <= 1:
            raise ValueError(f"hide must lie between 0 and 1, or be -1 to choose by domain, got {self.hide}")
