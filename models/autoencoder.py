"""Autoencoder: a code per example, and a density of the codes, fitted after training or trained beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .anomaly import MANY
from .chunking import map_chunks
from .codes import CodeModel
from .config import check_at_least_one, check_choices, check_dropout, check_hide, check_not_negative
from .contract import Batch, Losses, Objective
from .domains.base import Domain
from .imputation import impute_in_random_order, mask_cells, repeated, sample_nearest
from .networks.embeddings import full_precision
from .prior import Prior
from .rng import Streams
from .shapes import Bool, Float, Num


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the autoencoder.

    Arguments:
        latent: Length of a code.
        width: Channels of the networks at the finest level; of tables their units are 4 to 8 times as many, and this is
            the length of a cell's vector in the likelihood of rows.
        blocks: Residual blocks per level; of tables in encoder and decoder, not in the likelihood of rows.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        principal: Leading principal components (of images, at most `latent`) that encoder and decoder start from,
            so that they learn the rest; 0 for none.
        noise: Largest standard deviation (model space) of the noise that training adds to inputs
            and asks to remove; 0 for a plain autoencoder.
        code_penalty: Weight of the squared norm of the codes, which keeps their density simple.
        code_noise: Standard deviation of noise that is added to the codes of half the training examples, which the
            decoder is told of, and to those that are drawn or filled from: so what draws get wrong within it does no
            harm, and cells of a table rely the more on those before. Reconstructions have none. 0 for none.
        components: Gaussians per class in the density of the codes.
        prior: What codes are drawn from: a `mixture` of Gaussians fitted after training, or a `flow` or `diffusion`
            model trained on them beside the autoencoder, on the same examples.
        hide: Part of the training examples of which a random share of the cells is hidden from the
            encoder and asked for; -1 for all rows of tables and no images.
        cells: Of a table given the code: `given others` (each drawn given those before it) or `independent`.
        dropout: Share of the values of the likelihood of rows (`given others`) that training sets to zero: without,
            few rows are learned by heart.
    """

    latent: int = 16
    width: int = 32
    blocks: int = 1
    patch: int = 0
    principal: int = 0
    noise: float = 0.2
    code_penalty: float = 0.01
    code_noise: float = 0.0
    components: int = 2
    prior: Prior = "mixture"
    hide: float = -1.0
    cells: Literal["given others", "independent"] = "given others"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least_one(self, "latent", "width", "blocks", "components")
        check_not_negative(self, "patch", "principal", "noise", "code_penalty", "code_noise")
        check_hide(self.hide)
        check_dropout(self.dropout)


class ReconstructionObjective(Objective):
    """What the reconstruction costs, summed over values, plus the penalty on codes.

    Images: the squared error (no unit); tables: the negative log-likelihood in nats.
    """

    name = "autoencoder"

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.domain, self.config, self.likelihood = model.domain, model.config, model.likelihood
        self.hide = model.hide

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        x = batch.visible
        y, seen = self.domain.to_model(x), self.domain.observed(x)
        sigma = self.config.noise * generator.uniform(len(y)).reshape(-1, *[1] * (y.ndim - 1))
        noisy = y + sigma * generator.normal(*y.shape)
        gaps = batch.gaps
        left = seen | gaps
        if self.hide:
            left = mask_cells(left, self.hide, generator)
            noisy = noisy * self.domain.expand(seen & left)
        z = full_precision(self.domain.apply_masked(self.encoder, noisy, seen & left, gaps & left))
        penalty = z.square().sum(1)
        if self.config.code_noise:
            moved = generator.uniform(len(z)) < 0.5
            z = z + self.config.code_noise * moved[:, None] * generator.normal(*z.shape)
            raw = self.decoder(z, moved)
        else:
            raw = self.decoder(z)
        raw = self.likelihood.labelled(raw, batch.label, generator)
        error = -self.likelihood.training_log_prob(raw, x, generator, gaps).flatten(1).sum(1)
        return Losses(
            error + self.config.code_penalty * penalty, {self.likelihood.loss_name: error, "code_norm": penalty}
        )


class NoiseAwareDecoder(nn.Module):
    """A decoder that is told whether its codes have noise."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, z: Float[Tensor, "batch latent"], noisy: Bool[Tensor, " batch"] | bool = False
    ) -> Float[Tensor, "batch *outputs"]:
        told = torch.as_tensor(noisy, device=z.device).expand(len(z))
        return self.decoder(torch.cat([z, told[:, None].to(z.dtype)], dim=1))


class Autoencoder(CodeModel):
    """Regularized autoencoder with a density of its codes.

    References:
        | From variational to deterministic autoencoders (Ghosh et al., 2020)
        | https://arxiv.org/abs/1903.12436
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        likelihood = domain.reconstruction(
            cells=config.cells, classes=classes, width=config.width, dropout=config.dropout
        )
        noise = config.code_noise > 0
        super().__init__(
            config, domain, classes, likelihood, outputs=config.latent, components=config.components, told=int(noise)
        )
        if noise:
            self.decoder = NoiseAwareDecoder(self.decoder)
        self.hide = float(domain.takes_mask) if config.hide == -1 else config.hide

    def objectives(self) -> tuple[Objective, ...]:
        return (ReconstructionObjective(self), *self._prior_objectives())

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        codes = self._codes_to_model(batch, generator)
        self.mixture.fit(codes, batch.label if self.classes else None, generator)
        self.typicality.fit(map_chunks(self._statistics, batch.x[:MANY], self.domain.dimensions))
        self._fit_blend(batch.x, generator)

    def _codes_to_model(self, batch: Batch, generator: Streams) -> Float[Tensor, "batch latent"]:
        """Codes of the examples, with the gaps that the data have."""
        x, gaps, rows = batch.visible, batch.gaps, torch.arange(len(batch), device=batch.x.device)

        def codes(part: Tensor) -> Tensor:
            y, observed = self.domain.to_model(x[part]), self.domain.observed(x[part])
            return full_precision(self.domain.apply_masked(self.encoder, y, observed, gaps[part]))

        with torch.no_grad():
            return map_chunks(codes, rows, self.domain.dimensions)

    def _of_draws(self, z: Float[Tensor, "n latent"], generator: Streams) -> Float[Tensor, "n *outputs"]:
        if not self.config.code_noise:
            return self.decoder(z)
        return self.decoder(z + self.config.code_noise * generator.normal(*z.shape), True)

    def _statistics(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch _"]:
        """Reconstruction error, log-density of the code, texture; of tables, each cell's error given the others only.

        Flat images have a small error and an ordinary code as soon as they are near real ones on average.
        """
        z = self.encode(x)
        density = self.mixture.log_prob(z, None, self.label_frequencies)
        if self.domain.takes_mask:
            surprise = self.domain.unit_log_jacobian(x).sum(1) - self._pseudo_log_likelihood(x)
            return torch.stack([surprise, -density], dim=1)
        error = -self.likelihood.log_prob(self.decoder(z), x).flatten(1).sum(1)
        return torch.cat([torch.stack([error.clamp(min=1e-8).log(), density], dim=1), self.domain.texture(x)], dim=1)

    def _pseudo_log_likelihood(self, x: Num[Tensor, "batch columns"], groups: int = 16) -> Float[Tensor, " batch"]:
        r"""Sum over cells of the log-probability given the other cells, in nats, a few columns at a time."""
        total = torch.zeros(len(x), device=x.device)
        columns = torch.arange(x.shape[1], device=x.device)
        for group in range(min(groups, x.shape[1])):
            asked = (columns % groups == group).expand(x.shape)
            z = self.encode(torch.where(asked, torch.nan, x))
            raw = self.decoder(z, True) if self.config.code_noise else self.decoder(z)
            total = total + (self.likelihood.log_prob(raw, x) * asked).sum(1).to(total.dtype)
        return total

    def _code(
        self, y: Float[Tensor, "batch *event"], observed: Bool[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch latent"]:
        return full_precision(self.domain.apply_masked(self.encoder, y, observed))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x))

    def fill(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch *event"]:
        """Tables: cell after cell, each drawn given the observed and the filled ones (`independent` cells: in a few
        rounds and a random order, given the code of what is filled by then).
        Images: start from samples that agree with the observed pixels, then let the autoencoder
        replace the missing ones until they fit.
        """
        if self.domain.takes_mask:
            return repeated(self._fill_cells, x, generator, draws)
        return self._fill_from_samples(x, observed, generator, draws)

    def _fill_cells(self, x: Float[Tensor, "batch columns"], generator: Streams) -> Float[Tensor, "batch columns"]:
        def draw(current: Tensor) -> Tensor:
            raw = self._of_draws(self.encode(current), generator)
            return self.domain.to_data(self.likelihood.completed(raw, current, generator))

        rounds = 1 if self.config.cells == "given others" else min(8, x.shape[1])
        return impute_in_random_order(self.domain.observed(x), x, generator, draw, rounds=rounds)

    def _fill_from_samples(self, x: Tensor, observed: Tensor, generator: Streams, draws: int) -> Tensor:
        known = self.domain.expand(observed)
        y = self.domain.to_model(x)
        pool = self._pool(generator)
        fills = []
        for chosen in sample_nearest(y, known, pool, generator, draws=draws):
            current = torch.where(known, y, pool[chosen])
            for _ in range(3):  # more would draw all starts to the same end
                current = torch.where(known, y, self.decoder(full_precision(self.encoder(current))))
            fills.append(self.domain.to_data(current))
        return torch.stack(fills)
