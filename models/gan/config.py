"""Settings of the generative adversarial network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import check_at_least_one, check_choices, check_dropout, check_not_negative, check_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the generative adversarial network is searched for an example.

    Arguments:
        inversion_steps: Gradient steps of the search for an example's noise (`reconstruct`, `impute`).
    """

    inversion_steps: int = 20

    def __post_init__(self) -> None:
        check_not_negative(self, "inversion_steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the generative adversarial network.

    Arguments:
        loss: `hinge` with a spectrally normalized critic; `relativistic` with gradient penalties
            on real and generated examples (R1 + R2); or `wasserstein` with a penalty on gradients
            between them that differ from 1 in norm (WGAN-GP; wants several `critic_steps`).
        gamma: Weight of the gradient penalties (relativistic).
        penalty: Weight of the gradient penalty (wasserstein).
        latent: Length of the generator's input.
        width: Channels of the generator at the finest level; of tables its units are 4 to 8 times as many, and this is
            the length of a cell's vector in the network that settles rows.
        critic_width: Channels of the critic at the finest level; of tables its units are 4 to 8 times as many.
        blocks: Residual blocks per level; of tables in generator and critic, not in the network that settles rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        principal: Leading principal components (of images, at most `latent`) along which the generator starts to draw,
            so that it learns the rest; 0 for none.
        critic_steps: Updates of the critic per update of the generator.
        generator_rate: Learning rate of the generator as a multiple of the critic's, which is the training's: below 1,
            a generator with a good start does not leave it before the critic knows where to.
        features: Length of the critic's feature vector.
        shift: Largest random shift, as a part of the size, applied to real and generated examples
            alike before the critic (differentiable augmentation for small data); 0 for none. On very
            small images shifts leak into the samples: digits of 8x8 pixels come out shifted.
        attention: Whether generator and critic attend over all positions at the coarsest level (images).
        settle: Noise (its standard deviation in model space) from which generated rows of a table are settled cell
            after cell, each given those before it and the noisy row; 0 for never.
        dropout: Share of the values of the network that settles rows that training sets to zero: without, few rows are
            learned by heart.
    """

    loss: Literal["hinge", "relativistic", "wasserstein"] = "relativistic"
    gamma: float = 0.1
    penalty: float = 10.0
    latent: int = 32
    width: int = 32
    critic_width: int = 32
    blocks: int = 1
    patch: int = 0
    principal: int = 0
    critic_steps: int = 1
    generator_rate: float = 1.0
    features: int = 64
    shift: float = 0.0
    attention: bool = False
    settle: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least_one(self, "latent", "width", "critic_width", "blocks", "critic_steps", "features")
        check_choices(self)
        check_dropout(self.dropout)
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift must be at least 0 and below 0.5, got {self.shift}")
        check_not_negative(self, "patch", "principal", "gamma", "penalty", "settle")
        check_positive(self, "generator_rate")
