"""Variational autoencoder: a Gaussian code with a class-conditional prior and a proper likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import (
    AnomalyScoring,
    Batch,
    Coding,
    Denoising,
    DensityBound,
    GenerativeModel,
    Losses,
    Objective,
    Reconstruction,
    Sampling,
    Streams,
)
from .domains import Domain
from .mixture import GaussianMixture
from .networks import LabelEmbedding, full_precision
from .shapes import Float, Int, Num
from .typicality import Typicality


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the variational autoencoder.

    Arguments:
        latent: Length of a code.
        width: Channels of the networks at the finest level.
        blocks: Residual blocks per level.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        beta: Weight of the divergence from the prior; 1 maximizes the bound itself.
        free_bits: Nats per latent dimension below which the divergence is not penalized.
        components: Logistics in the likelihood's mixture (images).
        prior_components: Gaussians per class in the prior that replaces the learned one after
            training; 0 keeps the learned Gaussian per class.
        draw_pixels: Whether samples draw from the likelihood; otherwise they are its mean.
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

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("latent", "width", "blocks", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta", "free_bits", "prior_components"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class LearnedPrior(nn.Module):
    """A diagonal Gaussian per class, and one for unknown labels."""

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.parameters_of = LabelEmbedding(classes, 2 * latent)
        nn.init.normal_(self.parameters_of.table.weight, std=0.02)

    def forward(self, label: Int[Tensor, " batch"] | None, batch: int) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each `[batch, latent]`."""
        mean, log_variance = self.parameters_of(label, batch).chunk(2, dim=1)
        return mean, log_variance.clamp(-6, 6)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Float[Tensor, "*batch"]:
    """Log-density of a diagonal Gaussian in nats, summed over the last dimension."""
    return -0.5 * (log_variance + (z - mean).square() * (-log_variance).exp() + math.log(2 * math.pi)).sum(-1)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, mean0: Tensor, log_variance0: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians in nats, per dimension."""
    ratio = (log_variance - log_variance0).exp()
    return 0.5 * (ratio + (mean - mean0).square() * (-log_variance0).exp() - 1 + log_variance0 - log_variance)


class EvidenceObjective(Objective):
    r"""Negative evidence lower bound, in nats.

    .. math:: -E_{q(z|x)}[\log p(x|z)] + \beta \sum_d \max(KL_d, \lambda)

    References:
        | Auto-encoding variational Bayes (Kingma and Welling, 2014), eq. 3
        | https://arxiv.org/abs/1312.6114
        | Improving variational inference with inverse autoregressive flow (2016), eq. 15 (free bits)
        | https://arxiv.org/abs/1606.04934
    """

    name = "vae"

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior = model.encoder, model.decoder, model.prior
        self.domain, self.config, self.likelihood = model.domain, model.config, model.likelihood

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        mean, log_variance = posterior(self.encoder, self.domain.to_model(batch.x))
        z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        nll = -self.likelihood.log_prob(self.decoder(z), batch.x).flatten(1).sum(1)
        divergence = gaussian_divergence(mean, log_variance, *self.prior(batch.label, len(batch)))
        penalty = divergence.clamp(min=self.config.free_bits).sum(1)
        return Losses(
            nll + self.config.beta * penalty, {"reconstruction_nats": nll, "divergence_nats": divergence.sum(1)}
        )


def posterior(encoder: nn.Module, y: Tensor) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
    """Mean and log-variance of q(z | x)."""
    mean, log_variance = full_precision(encoder(y)).chunk(2, dim=1)
    return mean, log_variance.clamp(-10, 4)


class VAE(GenerativeModel, Sampling, DensityBound, Coding, Reconstruction, AnomalyScoring, Denoising):
    """Variational autoencoder whose prior is conditional on the label.

    Encoder and decoder never see the label, so codes, bounds and reconstructions need none. After
    training the prior may be replaced by a mixture fitted to the aggregate posterior: the bound
    stays a bound, and samples come from where the codes are.

    References:
        | VAE with a VampPrior (Tomczak and Welling, 2018), section 2: the aggregate posterior is the best prior
        | https://arxiv.org/abs/1705.07120
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.likelihood = domain.likelihood(config.components)
        self.encoder = domain.encoder(2 * config.latent, width=config.width, blocks=config.blocks, patch=config.patch)
        self.decoder = domain.decoder(
            config.latent,
            width=config.width,
            blocks=config.blocks,
            patch=config.patch,
            parameters=self.likelihood.parameters,
        )
        self.prior = LearnedPrior(classes, config.latent)
        self.mixture = GaussianMixture(config.latent, classes, max(config.prior_components, 1))
        self.typicality = Typicality(2)

    def objectives(self) -> tuple[Objective, ...]:
        return (EvidenceObjective(self),)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        label = batch.label if self.classes else None
        if self.config.prior_components:
            mean, log_variance = posterior(self.encoder, self.domain.to_model(batch.x))
            draws = [mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape) for _ in range(4)]
            self.mixture.fit(torch.cat(draws), None if label is None else label.repeat(4), generator)
        else:
            groups = torch.arange(self.classes, device=batch.x.device) if self.classes else None
            mean, log_variance = self.prior(groups, max(self.classes, 1))
            self.mixture.mean.copy_(mean[:, None])
            self.mixture.scale.copy_((0.5 * log_variance).exp().diag_embed()[:, None])
        self.typicality.fit(self._statistics(batch.x, generator))

    def _log_weight(self, x: Num[Tensor, "batch *event"], generator: Streams) -> tuple[Tensor, Tensor]:
        """One draw of log p(x | z) and of log p(z) - log q(z | x), each `[batch]`."""
        mean, log_variance = posterior(self.encoder, self.domain.to_model(x))
        z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        log_likelihood = self.likelihood.log_prob(self.decoder(z), x).flatten(1).sum(1)
        log_ratio = self.mixture.log_prob(z, None, self.label_frequencies) - gaussian_log_prob(z, mean, log_variance)
        return log_likelihood, log_ratio

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch 2"]:
        draws = [torch.stack(self._log_weight(x, generator), dim=1) for _ in range(8)]
        return torch.stack(draws).mean(0)

    @torch.no_grad()
    def elbo(self, x: Num[Tensor, "batch *event"], generator: Streams, *, samples: int = 1) -> Float[Tensor, " batch"]:
        r"""Importance-weighted bound, marginal over labels.

        .. math:: \log \frac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x), \quad z_k \sim q(z|x)

        References:
            | Importance weighted autoencoders (Burda et al., 2016), eq. 8
            | https://arxiv.org/abs/1509.00519
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        weights = torch.stack([sum(self._log_weight(x, generator)) for _ in range(samples)])  # type: ignore[arg-type]
        return weights.logsumexp(0) - math.log(samples)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        raw = self.decoder(self.mixture.sample(n, self.draw_labels(n, label, generator), generator))
        y = self.likelihood.sample(raw, generator) if self.config.draw_pixels else self.likelihood.mean(raw)
        return self.domain.to_data(y)

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        return posterior(self.encoder, self.domain.to_model(x))[0]

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self.domain.to_data(self.likelihood.mean(self.decoder(z)))

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))
