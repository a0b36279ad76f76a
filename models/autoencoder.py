"""Autoencoder: a code per example, and a density of the codes fitted after training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .contract import (
    AnomalyScoring,
    Batch,
    Coding,
    Denoising,
    GenerativeModel,
    Losses,
    Objective,
    Reconstruction,
    Sampling,
    Streams,
)
from .domains import Domain
from .mixture import GaussianMixture
from .networks import full_precision
from .shapes import Float, Int, Num
from .typicality import Typicality


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the autoencoder.

    Arguments:
        latent: Length of a code.
        width: Channels of the networks at the finest level.
        blocks: Residual blocks per level.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        noise: Largest standard deviation (model space) of the noise that training adds to inputs
            and asks to remove; 0 for a plain autoencoder.
        code_penalty: Weight of the squared norm of the codes, which keeps their density simple.
        components: Gaussians per class in the density of the codes.
    """

    latent: int = 16
    width: int = 32
    blocks: int = 1
    patch: int = 0
    noise: float = 0.2
    code_penalty: float = 0.01
    components: int = 2

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("latent", "width", "blocks", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("noise", "code_penalty"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class ReconstructionObjective(Objective):
    """Squared error of the reconstruction (summed over values, no unit) plus the penalty on codes."""

    name = "autoencoder"

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.domain, self.config = model.domain, model.config

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        y = self.domain.to_model(batch.x)
        sigma = self.config.noise * generator.uniform(len(y)).reshape(-1, *[1] * (y.ndim - 1))
        z = full_precision(self.encoder(y + sigma * generator.normal(*y.shape)))
        error = F.mse_loss(full_precision(self.decoder(z)), y, reduction="none").flatten(1).sum(1)
        penalty = z.square().sum(1)
        return Losses(error + self.config.code_penalty * penalty, {"squared_error": error, "code_norm": penalty})


class Autoencoder(GenerativeModel, Sampling, Coding, Reconstruction, AnomalyScoring, Denoising):
    """Regularized autoencoder with a Gaussian mixture over its codes.

    References:
        | From variational to deterministic autoencoders (Ghosh et al., 2020)
        | https://arxiv.org/abs/1903.12436
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.encoder = domain.encoder(config.latent, width=config.width, blocks=config.blocks, patch=config.patch)
        self.decoder = domain.decoder(config.latent, width=config.width, blocks=config.blocks, patch=config.patch)
        self.mixture = GaussianMixture(config.latent, classes, config.components)
        self.typicality = Typicality(2)

    def objectives(self) -> tuple[Objective, ...]:
        return (ReconstructionObjective(self),)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.mixture.fit(self.encode(batch.x), batch.label if self.classes else None, generator)
        self.typicality.fit(self._statistics(batch.x))

    def _statistics(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch 2"]:
        z = self.encode(x)
        error = (self.decoder(z) - self.domain.to_model(x)).flatten(1).square().sum(1)
        return torch.stack([error.clamp(min=1e-8).log(), self.mixture.log_prob(z, None, self.label_frequencies)], dim=1)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        return self.decode(self.mixture.sample(n, self.draw_labels(n, label, generator), generator))

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        return full_precision(self.encoder(self.domain.to_model(x)))

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self.domain.to_data(self.decoder(z))

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x))

    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))
