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
    Domain,
    GenerativeModel,
    Imputation,
    Losses,
    Objective,
    Reconstruction,
    Sampling,
    Streams,
)
from .imputing import hidden, nearest, repeated, without
from .mixture import GaussianMixture
from .networks import LabelEmbedding, full_precision
from .shapes import Bool, Float, Int, Num
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
        draw_pixels: Whether sampled images are drawn from the likelihood; otherwise they are its mean.
            Rows of tables are always drawn.
        warmup_examples: Examples over which `beta` rises from zero.
        hide: Part of the training examples of which a random share of the cells is taken for missing,
            so that the encoder learns to do without; -1 for half the rows of tables and no images.
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

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("latent", "width", "blocks", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta", "free_bits", "prior_components", "warmup_examples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.hide != -1 and not 0 <= self.hide <= 1:
            raise ValueError(f"hide must lie between 0 and 1, or be -1 to choose by domain, got {self.hide}")


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
        self.hide = model.hide

    def beta(self, seen: int) -> float:
        """Weight of the divergence after `seen` examples."""
        warmup = self.config.warmup_examples
        return self.config.beta * min(1.0, seen / warmup) if warmup else self.config.beta

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        x = batch.visible
        if self.hide:  # the bound is that of the cells left: the others are integrated out
            x = without(x, hidden(self.domain.observed(x), self.hide, generator))
        mean, log_variance = posterior(self.domain, self.encoder, x)
        z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        nll = -self.likelihood.log_prob(self.decoder(z), x).flatten(1).sum(1)
        divergence = gaussian_divergence(mean, log_variance, *self.prior(batch.label, len(batch)))
        penalty = divergence.clamp(min=self.config.free_bits).sum(1)
        return Losses(
            nll + self.beta(batch.seen) * penalty, {"reconstruction_nats": nll, "divergence_nats": divergence.sum(1)}
        )


def posterior(
    domain: Domain, encoder: nn.Module, x: Num[Tensor, "batch *event"]
) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
    """Mean and log-variance of q(z | x), given the known cells of `x`."""
    raw = domain.look(encoder, domain.to_model(x), domain.observed(x))
    mean, log_variance = full_precision(raw).chunk(2, dim=1)
    return mean, log_variance.clamp(-10, 4)


class VAE(GenerativeModel, Sampling, DensityBound, Coding, Reconstruction, AnomalyScoring, Imputation, Denoising):
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
        self.hide = 0.5 * domain.looks_at_masks if config.hide == -1 else config.hide
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
        self.typicality = Typicality(2, upper_only=domain.looks_at_masks)

    def objectives(self) -> tuple[Objective, ...]:
        return (EvidenceObjective(self),)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        label = batch.label if self.classes else None
        if self.config.prior_components:
            mean, log_variance = posterior(self.domain, self.encoder, batch.x)
            draws = [mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape) for _ in range(4)]
            self.mixture.fit(torch.cat(draws), None if label is None else label.repeat(4), generator)
        else:
            groups = torch.arange(self.classes, device=batch.x.device) if self.classes else None
            mean, log_variance = self.prior(groups, max(self.classes, 1))
            self.mixture.mean.copy_(mean[:, None])
            self.mixture.scale.copy_((0.5 * log_variance).exp().diag_embed()[:, None])
        self.typicality.fit(self._statistics(batch.x, generator))

    def _draw(self, x: Num[Tensor, "batch *event"], generator: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """One draw: the decoder's outputs, log p(x | z), and log p(z) - log q(z | x), the last two `[batch]`."""
        mean, log_variance = posterior(self.domain, self.encoder, x)
        z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        raw = self.decoder(z)
        log_likelihood = self.likelihood.log_prob(raw, x).flatten(1).sum(1)
        log_ratio = self.mixture.log_prob(z, None, self.label_frequencies) - gaussian_log_prob(z, mean, log_variance)
        return raw, log_likelihood, log_ratio

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch 2"]:
        draws = torch.stack([torch.stack(self._draw(x, generator)[1:], dim=1) for _ in range(8)])
        if self.domain.looks_at_masks:  # surprise: of the row given its code, and as a whole
            whole = torch.stack([draws[:, :, 0].mean(0), draws.sum(2).logsumexp(0) - math.log(8)], dim=1)
            return self.domain.units(x).sum(1, keepdim=True) - whole
        return draws.mean(0)

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
        weights = torch.stack([sum(self._draw(x, generator)[1:]) for _ in range(samples)])  # type: ignore[arg-type]
        return weights.logsumexp(0) - math.log(samples)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        raw = self.decoder(self.mixture.sample(n, self.draw_labels(n, label, generator), generator))
        drawn = self.config.draw_pixels or self.likelihood.drawn
        return self.domain.to_data(self.likelihood.sample(raw, generator) if drawn else self.likelihood.mean(raw))

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        return posterior(self.domain, self.encoder, x)[0]

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self.domain.to_data(self.likelihood.mean(self.decoder(z)))

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    @torch.no_grad()
    def impute(
        self,
        x: Num[Tensor, "batch *event"],
        observed: Bool[Tensor, "batch *event"],
        generator: Streams,
        *,
        draws: int = 1,
    ) -> Num[Tensor, "draws batch *event"]:
        r"""Draws of the missing cells given the observed ones.

        Tables: codes from :math:`q(z \mid x_{obs})`, resampled by their importance
        :math:`p(x_{obs} \mid z) \, p(z) / q(z \mid x_{obs})`, then cells from :math:`p(x \mid z)`.
        Images: the same, sweep after sweep, from a first filling by samples that agree with the
        observed pixels (pseudo-Gibbs), since the encoder sees whole images only.

        References:
            | MIWAE: deep generative modelling and imputation of incomplete data (Mattei and Frellsen, 2019), eq. 13
            | https://arxiv.org/abs/1812.02633
            | Stochastic backpropagation (Rezende et al., 2014), appendix F (pseudo-Gibbs)
            | https://arxiv.org/abs/1401.4082
        """
        given = without(x, observed)
        if self.domain.looks_at_masks:
            return self.domain.merge(x, observed, self._resampled(given, given, generator, draws, proposals=64))
        known = self.domain.expand(self.domain.observed(given))
        prior = self.mixture.sample(1024, self.draw_labels(1024, None, generator), generator)
        pool = self.likelihood.mean(self.decoder(prior))
        fills = []
        for chosen in nearest(self.domain.to_model(given), known, pool, generator, draws=draws):
            current = self.domain.merge(x, observed, self.domain.to_data(pool[chosen]))
            for _ in range(12):
                fill = self._resampled(given, current, generator, 1, proposals=4)[0]
                current = self.domain.merge(x, observed, fill)
            fills.append(current)
        return torch.stack(fills)

    def _resampled(
        self, given: Tensor, proposing: Tensor, generator: Streams, draws: int, *, proposals: int
    ) -> Num[Tensor, "draws batch *event"]:
        """Examples from codes proposed by q(z | proposing) and resampled to suit the cells of `given`."""
        mean, log_variance = posterior(self.domain, self.encoder, proposing)
        codes, weights = [], []
        for _ in range(proposals):
            z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
            log_likelihood = self.likelihood.log_prob(self.decoder(z), given).flatten(1).sum(1)
            prior = self.mixture.log_prob(z, None, self.label_frequencies)
            codes.append(z)
            weights.append(log_likelihood + prior - gaussian_log_prob(z, mean, log_variance))
        numbered = torch.arange(len(mean), device=mean.device)
        weight, z = torch.stack(weights, dim=1), torch.stack(codes)

        def fill(row: Tensor, noise: Streams) -> Tensor:
            raw = self.decoder(z[noise.choice(weight[row]), row])
            drawn = self.config.draw_pixels or self.likelihood.drawn
            return self.domain.to_data(self.likelihood.sample(raw, noise) if drawn else self.likelihood.mean(raw))

        return repeated(fill, numbered, generator, draws)

    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))
