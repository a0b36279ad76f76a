"""Settings of the diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..config import (
    check_at_least_one,
    check_choices,
    check_dropout,
    check_hide,
    check_label_dropout,
    check_not_negative,
    check_positive,
)
from .schedules import SIGMA_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the diffusion model draws, and how far it goes for codes and densities; noise levels in model space.

    Arguments:
        sampler: `heun`, `dpmpp_2m`, `euler` and `ddim` (one method, two names), `ddpm` (ancestral, stochastic); or, of
            a model trained with `jumps`, `consistency` (stochastic): to the end in one evaluation, from `sigma_max` and
            again after a little noise was added, which takes 1 to 4 `steps`; the levels between are its own.
        steps: Steps of the sampler, of rows of a table as far as they are settled from (`settle`); each is one
            evaluation of the network, of `heun` two; at least 2, of `consistency` 1. On digits (two trainings, 2,000
            draws of each) the Fréchet distance of 8 is .19 and .19, of 127 evaluations of `heun` from 80 to .002 .21
            and .22 (bootstrap of the difference -.06 to .03 and -.09 to .03), of its 35 .23 and .24, which is worse by
            .01 to .04.
        sigma_min: Smallest noise level of the sampler, noise to example.
        sigma_max: Largest noise level of the sampler.
        rho: Curvature of the sampler's noise levels (`edm`).
        guidance: Weight of classifier-free guidance; 1 samples the model itself. `consistency` guides where a jump
            ends, not the way there.
        detail: Of a model with `principal`: factor on the standard deviation of what the leading components leave
            open, below 1 less of the noise that details start with. `consistency` takes none.
        impute_steps: Steps of imputation by a denoiser that has not learned it (`hide: 0`, as of images), by draws of
            their own from the most noise to the least whatever the sampler's range.
        resample: How often it repeats each of them, so that hidden and observed values agree.
        code_steps: Steps of the ODE between examples and codes, by `heun` and from the least noise to the most whatever
            the sampler's range.
        density_sigma: Noise level at which bound and ODE density end, whatever the sampler's range; 0 for
            the data's own (what tells their levels, or categories, apart).
        density_steps: Steps of the ODE density, each of four evaluations and their gradients. On digits 16 are .010
            bits/dim better than 128, which is too good; 24 are .002, 32 .001.
    """

    sampler: Literal["heun", "ddim", "ddpm", "dpmpp_2m", "euler", "consistency"] = "dpmpp_2m"
    steps: int = 8
    sigma_min: float = 0.02
    sigma_max: float = SIGMA_MAX
    rho: float = 7.0
    guidance: float = 1.0
    detail: float = 1.0
    impute_steps: int = 18
    resample: int = 4
    code_steps: int = 18
    density_sigma: float = 0.0
    density_steps: int = 24

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least_one(self, "density_steps", "resample")
        for name in ("steps", "impute_steps", "code_steps"):
            least = 1 if name == "steps" and self.sampler == "consistency" else 2
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        if not 0 <= self.density_sigma < SIGMA_MAX:
            raise ValueError(f"density_sigma must be at least 0 and below {SIGMA_MAX:g}, got {self.density_sigma}")
        check_positive(self, "rho")
        check_not_negative(self, "guidance", "detail")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the diffusion model.

    Arguments:
        objective: What the network predicts: `edm` (a preconditioned mixture of example and noise),
            `ddpm` (the noise) or `flow_matching` (noise minus example, the straight path's velocity).
        schedule: Noise levels of `ddpm`, in training and sampling: `cosine` or `linear`.
        width: Channels of the denoiser at the finest level; of tables its units are 4 to 8 times as many, and this is
            the length of a cell's vector in the network that settles rows.
        blocks: Residual blocks per level and direction; of tables not in the network that settles rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        principal: Leading principal components (of images) along which the denoiser starts as that of a Gaussian
            mixture per class, so that its network learns the rest; 0 for none.
        attention: Every block of the levels of at most so many places a side (pixels through the fold) attends over all
            positions, of images; the middle, at the coarsest level, always does.
        heads: Of attention; they divide `width`.
        embed: Length of the vector of noise level and label.
        p_mean: Mean of the log noise level in training (`edm`).
        p_std: Standard deviation of the log noise level in training (`edm`).
        hide: Part of the training examples of which a random share of the cells is given to the denoiser and
            the others are asked for, which is how it then imputes; 0 trains none so, and imputation tries
            again and again instead (`resample`); -1 for half the rows of tables and no images.
        settle: Noise level (model space) at which the sampler hands a row of a table over to be settled cell after
            cell, each given those before it and the noisy row; below the sampler's `sigma_max`, 0 for never. Imputation
            settles no rows under `hide: 0`.
        dropout: Share of the values that training sets to zero, so that few examples are not learned by heart: of
            images in every block, of tables in the network that settles rows.
        label_dropout: Part of the training examples whose label is hidden.
        jumps: Share of a batch from which, in the second half of the training, is learned where the sampler ends, for
            `sampler: consistency`; in weights of its own, so that all else stays as without. 0 for none.
    """

    objective: Literal["edm", "ddpm", "flow_matching"] = "edm"
    schedule: Literal["cosine", "linear"] = "cosine"
    width: int = 32
    blocks: int = 1
    patch: int = 0
    principal: int = 0
    attention: int = 0
    heads: int = 1
    embed: int = 64
    p_mean: float = -1.2
    p_std: float = 1.2
    hide: float = -1.0
    settle: float = 1.0
    dropout: float = 0.0
    label_dropout: float = 0.1
    jumps: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least_one(self, "width", "blocks", "embed", "heads")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width ({self.width}), got {self.heads}")
        check_hide(self.hide)
        check_label_dropout(self.label_dropout)
        check_dropout(self.dropout)
        if not 0 <= self.jumps <= 1:
            raise ValueError(f"jumps must lie between 0 and 1, got {self.jumps}")
        check_positive(self, "p_std")
        check_not_negative(self, "patch", "principal", "attention", "settle")
