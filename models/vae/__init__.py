"""Variational autoencoder: a Gaussian code with a class-conditional prior and a proper likelihood.

`gaussians.py` holds the densities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..anomaly import ENOUGH
from ..capabilities import DensityBound
from ..chunking import map_chunks
from ..codes import CodeModel
from ..contract import Batch, Losses, Objective
from ..domains.base import Domain
from ..imputation import mask_cells, repeated, sample_nearest, tempered, with_gaps
from ..networks.embeddings import LabelEmbedding, full_precision
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .config import Config, SamplingConfig
from .gaussians import gaussian_divergence, gaussian_log_prob

__all__ = ["VAE", "Config", "EvidenceObjective"]


LIKELIEST = 8
"""Classes, given the code, that a likelihood which is told the class is summed over."""

DRAWS = 16384
"""Draws of codes that the prior is fitted to: one of every example's at least, four at most."""


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
        x, gaps = batch.visible, batch.gaps
        if self.hide:  # the bound is that of the cells left: the others are integrated out
            left = mask_cells(self.domain.observed(x) | gaps, self.hide, generator)
            x, gaps = with_gaps(x, left), gaps & left
        mean, log_variance = posterior(self.domain, self.encoder, x)
        z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        raw = self.likelihood.labelled(self.decoder(z), batch.label, generator)
        nll = -self.likelihood.training_log_prob(raw, x, generator, gaps).flatten(1).sum(1)
        divergence = gaussian_divergence(mean, log_variance, *self.prior(batch.label, len(batch)))
        penalty = divergence.clamp(min=self.config.free_bits).sum(1)
        return Losses(
            nll + self.beta(batch.seen) * penalty, {"reconstruction_nats": nll, "divergence_nats": divergence.sum(1)}
        )


def posterior(
    domain: Domain, encoder: nn.Module, x: Num[Tensor, "batch *event"]
) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
    """Mean and log-variance of q(z | x), given the known cells of `x`."""
    raw = domain.apply_masked(encoder, domain.to_model(x), domain.observed(x))
    mean, log_variance = full_precision(raw).chunk(2, dim=1)
    return mean, log_variance.clamp(-10, 4)


class Draw(NamedTuple):
    """A draw from q(z | x).

    Arguments:
        code: z, `[batch, latent]`.
        log_likelihood: log p(x | z) in nats, `[batch]`.
        log_ratio: log p(z) - log q(z | x) in nats, `[batch]`.
    """

    code: Tensor
    log_likelihood: Tensor
    log_ratio: Tensor


class VAE(CodeModel, DensityBound):
    """Variational autoencoder whose prior is conditional on the label.

    The encoder never sees the label; the decoder is told that of rows in half the training examples, in draws and in
    translation, and bounds sum over it. So codes, imputations and reconstructions need none. After training the prior
    may be replaced by a mixture fitted to the aggregate posterior, or by the flow trained on it: the bound stays a
    bound, and samples come from where the codes are.

    References:
        | VAE with a VampPrior (Tomczak and Welling, 2018), section 2: the aggregate posterior is the best prior
        | https://arxiv.org/abs/1705.07120
    """

    Config, SamplingConfig = Config, SamplingConfig

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        likelihood = domain.likelihood(
            config.components, cells=config.cells, classes=classes, width=config.width, dropout=config.dropout
        )
        components = max(config.prior_components, 1)
        super().__init__(config, domain, classes, likelihood, outputs=2 * config.latent, components=components)
        self.hide = 0.5 * domain.takes_mask if config.hide == -1 else config.hide
        self.prior = LearnedPrior(classes, config.latent)

    @property
    def drawn(self) -> bool:
        return self.sampling.draw_pixels or self.likelihood.drawn

    def objectives(self) -> tuple[Objective, ...]:
        return (EvidenceObjective(self), *self._prior_objectives())

    def _codes_to_model(self, batch: Batch, generator: Streams) -> Float[Tensor, "batch latent"]:
        """Draws from the posteriors, which together are the best prior there is."""
        mean, log_variance = posterior(self.domain, self.encoder, batch.visible)
        return mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)

    def _joint_log_prob(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch groups"]:
        """Log-density of codes together with each class, in nats: the flow's, else the mixture's."""
        if self.latent_prior is not None and self.latent_prior.has_density:
            return self.latent_prior.joint_log_prob(z)
        return self.mixture.joint_log_prob(z, self.label_frequencies)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        label = batch.label if self.classes else None
        if self.config.prior_components:

            def both(x: Tensor) -> Tensor:
                return torch.cat(posterior(self.domain, self.encoder, x), dim=1)

            mean, log_variance = map_chunks(both, batch.x, self.domain.dimensions).chunk(2, dim=1)
            copies = max(1, min(4, DRAWS // max(len(mean), 1)))
            draws = [mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape) for _ in range(copies)]
            repeats = None if label is None else label.repeat(copies)
            self.mixture.fit(torch.cat(draws), repeats, generator, copies=copies)
        else:
            groups = torch.arange(self.classes, device=batch.x.device) if self.classes else None
            mean, log_variance = self.prior(groups, max(self.classes, 1))
            self.mixture.mean.copy_(mean[:, None])
            self.mixture.scale.copy_((0.5 * log_variance).exp().diag_embed()[:, None])
        self.typicality.fit(
            map_chunks(lambda x: self._statistics(x, generator), batch.x[:ENOUGH], self.domain.dimensions)
        )
        self._fit_blend(batch.x, generator)

    def _draws(
        self,
        x: Num[Tensor, "batch *event"],
        given: Num[Tensor, "batch *event"],
        generator: Streams,
        n: int,
        label: Int[Tensor, " batch"] | None = None,
        told: bool = True,
    ) -> Iterator[Draw]:
        """`n` draws from q(z | x), their likelihood that of the known cells of `given`, of the class where its `label`
        is known, else summed over the classes that the decoder is `told` of."""
        mean, log_variance = posterior(self.domain, self.encoder, x)
        for _ in range(n):
            z = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
            joint = self._joint_log_prob(z)
            if label is not None and self.classes:
                joint = torch.where(label[:, None] >= 0, self._of_label(joint, label), joint)
            prior = joint.logsumexp(1)
            raw = self.decoder(z)
            if told and self.likelihood.takes_labels:
                log_likelihood = self._summed(raw, given, joint) - prior
            else:
                log_likelihood = self.likelihood.log_prob(raw, given).flatten(1).sum(1)
            yield Draw(z, log_likelihood, prior - gaussian_log_prob(z, mean, log_variance))

    def _of_label(
        self, joint: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Log-density given the label, in its place; the other classes are impossible."""
        at = label.clamp(min=0)[:, None]
        given = joint.gather(1, at) - self.label_frequencies.log()[at]
        return torch.full_like(joint, -torch.inf).scatter(1, at, given)

    def _summed(
        self, raw: Float[Tensor, "batch *outputs"], given: Num[Tensor, "batch *event"], joint: Tensor
    ) -> Float[Tensor, " batch"]:
        """log p(x, z), summed over the `LIKELIEST` classes given the code."""
        log_p, likeliest = joint.topk(min(LIKELIEST, joint.shape[1]), dim=1)
        each = [
            self.likelihood.log_prob(self.likelihood.labelled(raw, label), given).flatten(1).sum(1)
            for label in likeliest.unbind(1)
        ]
        return (log_p + torch.stack(each, dim=1)).logsumexp(1)

    def _statistics(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, "batch _"]:
        each = [torch.stack(draw[1:], dim=1) for draw in self._draws(x, x, generator, 8)]
        draws = torch.stack(each)
        if self.domain.takes_mask:  # surprise: of the row given its code, and as a whole
            whole = torch.stack([draws[:, :, 0].mean(0), draws.sum(2).logsumexp(0) - math.log(8)], dim=1)
            return self.domain.unit_log_jacobian(x).sum(1, keepdim=True) - whole
        return torch.cat([draws.mean(0), self.domain.texture(x)], dim=1)

    @torch.no_grad()
    def elbo(
        self,
        x: Num[Tensor, "batch *event"],
        generator: Streams,
        *,
        samples: int = 1,
        label: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        r"""Importance-weighted bound, given the label where it is known, else marginal over labels.

        .. math:: \log \frac1K \sum_k \sum_c p(c) \, p(x|z_k, c) \, p(z_k|c) / q(z_k|x), \quad z_k \sim q(z|x)

        A likelihood that is told the class is summed over the `LIKELIEST` given the code: less is a bound, too.

        References:
            | Importance weighted autoencoders (Burda et al., 2016), eq. 8
            | https://arxiv.org/abs/1509.00519
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        draws = self._draws(x, x, generator, samples, self.checked_labels(len(x), label))
        weights = torch.stack([draw.log_likelihood + draw.log_ratio for draw in draws])
        return weights.logsumexp(0) - math.log(samples)

    def _code(
        self, y: Float[Tensor, "batch *event"], observed: Bool[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch latent"]:
        """Means of the posterior."""
        return full_precision(self.domain.apply_masked(self.encoder, y, observed)).chunk(2, dim=1)[0]

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    def fill(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch *event"]:
        r"""Draws of the missing cells given the observed ones.

        Tables: codes from :math:`q(z \mid x_{obs})`, resampled by their importance
        :math:`p(x_{obs} \mid z) \, p(z) / q(z \mid x_{obs})` (tempered where few hold it all), then cells
        from :math:`p(x \mid z)`.
        Images: the same, sweep after sweep, from a first filling by samples that agree with the
        observed pixels (pseudo-Gibbs), since the encoder sees whole images only.

        References:
            | MIWAE: deep generative modelling and imputation of incomplete data (Mattei and Frellsen, 2019), eq. 13
            | https://arxiv.org/abs/1812.02633
            | Stochastic backpropagation (Rezende et al., 2014), appendix F (pseudo-Gibbs)
            | https://arxiv.org/abs/1401.4082
        """
        if self.domain.takes_mask:
            return self._resampled(x, x, generator, draws, proposals=128)
        given = with_gaps(x, observed)
        known = self.domain.expand(self.domain.observed(given))
        pool = self._pool(generator)
        fills = []
        for chosen in sample_nearest(self.domain.to_model(given), known, pool, generator, draws=draws):
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
        proposed = list(self._draws(proposing, given, generator, proposals, told=False))
        weight = torch.stack([draw.log_likelihood + draw.log_ratio for draw in proposed], dim=1)
        weight = tempered(weight, effective=proposals / 4)
        code = torch.stack([draw.code for draw in proposed])
        numbered = torch.arange(len(given), device=given.device)

        def fill(row: Tensor, noise: Streams) -> Tensor:
            raw = self.decoder(code[noise.choice(weight[row]), row])
            if self.likelihood.drawn:
                return self.domain.to_data(self.likelihood.completed(raw, given[row], noise))
            return self._to_data(raw, noise)

        return repeated(fill, numbered, generator, draws)
