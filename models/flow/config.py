"""Settings of the normalizing flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import (
    check_at_least_one,
    check_choices,
    check_dropout,
    check_label_dropout,
    check_not_negative,
    check_positive,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the normalizing flow draws.

    Arguments:
        temperature: Standard deviation of the latent draws when sampling; 1 samples the model.
        detail: Factor on the temperature of all latents but the last level's (or the leading components'):
            below 1 less of the noise that details are modelled with. Of images.
        sweeps: Passes over a row's missing cells when imputing (couplings of fewer than 32 columns).
    """

    temperature: float = 1.0
    detail: float = 1.0
    sweeps: int = 6

    def __post_init__(self) -> None:
        check_positive(self, "temperature")
        check_not_negative(self, "detail")
        check_at_least_one(self, "sweeps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the normalizing flow.

    `autoregressive` reads `width`, `blocks`, `embed`, `label_dropout`, `order`, `parts` and `dropout` of them, the last
    three alone; the others read the rest, as far as each says.

    Arguments:
        architecture: `auto`: `autoregressive` on tables (every column given those before it, in any order), else
            `couplings`, which are `glow` on images and the only other choice on tables. Of image flows: `glow`
            (actnorm, invertible 1x1, channel couplings) or `realnvp` (checkerboard and channel couplings only), or
            `principal` (splines on the leading principal components, a conditional Gaussian on the rest: good
            samples soon, looser densities).
        coupling: `affine`, `spline` (rational-quadratic), or `auto`: affine between
            pixels, splines between columns or principal components.
        linear: What mixes columns or principal components between couplings: `lu` (a learned linear map) or
            `permutation`.
        components: Leading components of `principal`.
        steps: Couplings (with what stands before each) per level of `glow` and `realnvp`, else in all.
        levels: Levels of `glow` and `realnvp`; 0 for as many as the size allows, up to 3.
        width: Channels (of a table: units) of the couplings' networks; length of a cell's vector (`autoregressive`).
        blocks: Residual blocks in the couplings' networks (not of `glow` and `realnvp`); blocks of attention
            (`autoregressive`).
        embed: Length of the label's vector.
        bins: Bins of a spline.
        tail: A spline bends [-tail, tail] and is the identity outside.
        scale_bound: Largest log-scale of one affine coupling.
        label_dropout: Part of the training examples whose label is hidden, so that the flow also
            knows the density without one.
        order: Of the columns in training (`autoregressive`): `random`, so that any can be given, `table`, its own only
            (in which rows are drawn and densities taken; what is drawn given columns that are not the first ones is
            then not learned), or `mixed`, each in half the rows.
        parts: Parts of equal probability into which a column of numbers is divided (`autoregressive`).
        dropout: Share of the network's values that training sets to zero (`autoregressive`): without, few rows are
            learned by heart.
    """

    architecture: Literal["auto", "autoregressive", "couplings", "glow", "realnvp", "principal"] = "auto"
    coupling: Literal["auto", "affine", "spline"] = "auto"
    linear: Literal["lu", "permutation"] = "lu"
    components: int = 128
    steps: int = 8
    levels: int = 0
    width: int = 64
    blocks: int = 2
    embed: int = 32
    bins: int = 8
    tail: float = 4.0
    scale_bound: float = 2.0
    label_dropout: float = 0.1
    order: Literal["mixed", "random", "table"] = "mixed"
    parts: int = 128
    dropout: float = 0.0

    def check_architecture(self, kind: str, known: tuple[str, ...]) -> None:
        """Refuse an architecture that is none of the `known` ones of a kind of data.

        Raises:
            ValueError: If it is not; names those.
        """
        if self.architecture not in known:
            choices = ", ".join(known)
            raise ValueError(f"architecture: {self.architecture} is not for a {kind}; choose one of: {choices}")

    def __post_init__(self) -> None:
        check_choices(self)
        check_not_negative(self, "levels")
        check_at_least_one(self, "components", "steps", "width", "blocks", "embed", "parts")
        if not 2 <= self.bins <= 256:
            raise ValueError(f"bins must be between 2 and 256, got {self.bins}")
        check_label_dropout(self.label_dropout)
        check_dropout(self.dropout)
        check_positive(self, "scale_bound", "tail")
