"""Settings of the variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import check_at_least_one, check_choices, check_dropout, check_hide, check_not_negative
from ..prior import Prior


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the variational autoencoder draws.

    Arguments:
        draw_pixels: Whether sampled images are drawn from the likelihood; otherwise they are its mean.
            Rows of tables are always drawn.
    """

    draw_pixels: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the variational autoencoder.

    Arguments:
        latent: Length of a code.
        width: Channels of the networks at the finest level; of tables their units are 4 to 8 times as many, and this is
            the length of a cell's vector in the likelihood of rows.
        blocks: Residual blocks per level; of tables in encoder and decoder, not in the likelihood of rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        principal: Leading principal components (of images, at most `latent`) that encoder and decoder start from,
            so that they learn the rest; 0 for none.
        beta: Weight of the divergence from the prior; 1 maximizes the bound itself.
        free_bits: Nats per latent dimension below which the divergence is not penalized.
        components: Logistics in the likelihood's mixture (images), or Gaussians (tables of `independent` cells).
        prior_components: Gaussians per class in the prior that replaces the learned one after
            training; 0 keeps the learned Gaussian per class.
        prior: What codes are drawn from: `mixture` (`prior_components`), or a `flow` or `diffusion` model trained on
            draws from the posteriors beside the VAE, on the same examples. The flow, whose density is exact, is then
            the prior of bounds and imputation, too; beside a diffusion model they keep the mixture.
        warmup_examples: Examples over which `beta` rises from zero.
        hide: Part of the training examples of which a random share of the cells is taken for missing,
            so that the encoder learns to do without; -1 for half the rows of tables and no images.
        cells: Of a table given the code: `given others` (each drawn given those before it) or `independent`.
        dropout: Share of the values of the likelihood of rows (`given others`) that training sets to zero: without,
            few rows are learned by heart.
    """

    latent: int = 16
    width: int = 32
    blocks: int = 1
    patch: int = 0
    principal: int = 0
    beta: float = 1.0
    free_bits: float = 0.05
    components: int = 3
    prior_components: int = 2
    prior: Prior = "mixture"
    warmup_examples: int = 0
    hide: float = -1.0
    cells: Literal["given others", "independent"] = "given others"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least_one(self, "latent", "width", "blocks", "components")
        check_not_negative(self, "patch", "principal", "beta", "free_bits", "prior_components", "warmup_examples")
        check_choices(self)
        check_hide(self.hide)
        check_dropout(self.dropout)
