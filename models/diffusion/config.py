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


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the diffusion model.

    Arguments:
        objective: What the network predicts: `edm` (a preconditioned mixture of example and noise),
            `ddpm` (the noise) or `flow_matching` (noise minus example, the straight path's velocity).
        schedule: Noise levels of `ddpm`, in training and sampling: `cosine` or `linear`.
        sampler: `heun`, `dpmpp_2m`, `euler` and `ddim` (one method, two names), or `ddpm` (ancestral, stochastic).
        width: Channels of the denoiser at the finest level; of tables its units are 4 to 8 times as many, and this is
            the length of a cell's vector in the network that settles rows.
        blocks: Residual blocks per level and direction; of tables not in the network that settles rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        embed: Length of the vector of noise level and label.
        p_mean: Mean of the log noise level in training (`edm`).
        p_std: Standard deviation of the log noise level in training (`edm`).
        sigma_min: Smallest noise level of the sampler, noise to example, in model space.
        sigma_max: Largest noise level, of sampler, bound and ODE.
        density_sigma: Noise level (model space) at which bound and ODE density end, whatever the sampler's range; 0 for
            the data's own (what tells their levels, or categories, apart).
        density_steps: Steps of the ODE density, each of four evaluations and their gradients. On digits 16 are .010
            bits/dim better than 128, which is too good; 24 are .002, 32 .001.
        rho: Curvature of the sampler's noise levels (`edm`).
        steps: Steps of the sampler.
        resample: How often imputation repeats each step, so that hidden and observed values agree (`hide: 0`).
        hide: Part of the training examples of which a random share of the cells is given to the denoiser and
            the others are asked for, which is how it then imputes; 0 trains none so, and imputation tries
            again and again instead (`resample`); -1 for half the rows of tables and no images.
        settle: Noise level (model space) at which the sampler hands a row of a table over to be settled cell after
            cell, each given those before it and the noisy row; below `sigma_max`, 0 for never. Imputation settles
            no rows under `hide: 0`.
        dropout: Share of the values of the network that settles rows that training sets to zero: without, few rows are
            learned by heart.
        label_dropout: Part of the training examples whose label is hidden.
        guidance: Weight of classifier-free guidance; 1 samples the model itself.
    """

    objective: Literal["edm", "ddpm", "flow_matching"] = "edm"
    schedule: Literal["cosine", "linear"] = "cosine"
    sampler: Literal["heun", "ddim", "ddpm", "dpmpp_2m", "euler"] = "heun"
    width: int = 32
    blocks: int = 1
    patch: int = 0
    embed: int = 64
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    density_sigma: float = 0.0
    density_steps: int = 24
    rho: float = 7.0
    steps: int = 18
    resample: int = 4
    hide: float = -1.0
    settle: float = 1.0
    dropout: float = 0.0
    label_dropout: float = 0.1
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least_one(self, "density_steps", "width", "blocks", "embed", "resample")
        if not 0 <= self.density_sigma < self.sigma_max:
            raise ValueError(
                f"density_sigma must be at least 0 and below sigma_max, got {self.density_sigma} and {self.sigma_max}"
            )
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        check_hide(self.hide)
        check_label_dropout(self.label_dropout)
        check_dropout(self.dropout)
        check_positive(self, "p_std", "rho")
        check_not_negative(self, "patch", "settle", "guidance")
