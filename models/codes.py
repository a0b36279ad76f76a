"""What autoencoder and VAE share: a code per example, a model of the codes, and what they make of both."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from .anomaly import ENOUGH, MahalanobisScore
from .capabilities import (
    AnomalyScoring,
    Coding,
    Denoising,
    Filling,
    Reconstruction,
    Sampling,
    Translation,
    check_sigma,
    check_strength,
)
from .chunking import map_chunks
from .contract import Batch, GenerativeModel, Objective
from .denoising import Blend
from .domains.base import Domain, Likelihood
from .mixture import GaussianMixture
from .networks.principal import measure_components
from .prior import LatentPrior, PriorObjective
from .rng import Streams
from .shapes import Bool, Float, Int, Num

POOL = 1024
"""Generated images from which the filling of a gap starts."""


class CodeModel(GenerativeModel, Sampling, Coding, Reconstruction, AnomalyScoring, Filling, Denoising, Translation):
    """A model of an encoder, a decoder, and a density of the codes.

    Codes are drawn from a Gaussian mixture fitted to them after training, or from a flow or a diffusion model that is
    trained on them beside encoder and decoder (`prior`). Translation and anomaly scores always take the mixture.

    Arguments:
        config: Settings; of these `latent`, `width`, `blocks`, `patch`, `principal` and `prior` are read.
        domain: What an example is.
        classes: Number of labels; 0 for none.
        likelihood: What the decoder's outputs are the parameters of.
        outputs: Length of the vector that the encoder returns.
        components: Gaussians per class.
        told: Numbers that the decoder is told beside a code.
    """

    def __init__(
        self,
        config: Any,
        domain: Domain,
        classes: int,
        likelihood: Likelihood,
        *,
        outputs: int,
        components: int,
        told: int = 0,
    ) -> None:
        super().__init__(domain, classes)
        self.config, self.likelihood = config, likelihood
        scale = {"width": config.width, "blocks": config.blocks, "patch": config.patch}
        scale["principal"] = min(config.principal, config.latent)
        self.encoder = domain.encoder(outputs, **scale)
        self.decoder = domain.decoder(
            config.latent + told, parameters=likelihood.outputs, places=likelihood.places, **scale
        )
        self.mixture = GaussianMixture(config.latent, classes, components)
        learned = config.prior != "mixture"
        self.latent_prior = LatentPrior(config.prior, config.latent, classes, config.width) if learned else None
        self.blend = Blend()
        self.typicality = MahalanobisScore(2 + domain.textures, upper_only=domain.anomaly_tails == "upper")

    @property
    def drawn(self) -> bool:
        """Whether samples are drawn from the likelihood; otherwise they are its mean."""
        return self.likelihood.drawn

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        super().initialize(batch, generator)
        measure_components(self, self.domain, batch.visible)
        if self.latent_prior is not None:
            codes = map_chunks(self.encode, batch.visible[:ENOUGH], self.domain.dimensions)
            self.latent_prior.initialize(codes, self.label_frequencies)

    def _prior_objectives(self) -> tuple[Objective, ...]:
        """What is trained beside encoder and decoder, on the codes of the one as it is."""
        return () if self.latent_prior is None else (PriorObjective(self.latent_prior, self._codes_to_model),)

    def _codes_to_model(self, batch: Batch, generator: Streams) -> Float[Tensor, "batch latent"]:
        """Codes whose distribution a prior is wanted of."""
        return self.encode(batch.visible)

    def _draw_codes(self, n: int, label: Int[Tensor, " n"] | None, generator: Streams) -> Float[Tensor, "n latent"]:
        return (self.latent_prior or self.mixture).sample(n, label, generator)

    def _of_draws(self, z: Float[Tensor, "n latent"], generator: Streams) -> Float[Tensor, "n *outputs"]:
        """What the decoder says of codes that are draws."""
        return self.decoder(z)

    @abstractmethod
    def _code(
        self, y: Float[Tensor, "batch *event"], observed: Bool[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch latent"]:
        """Codes of examples in model space, of which these cells are known."""

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        return self._code(self.domain.to_model(x), self.domain.observed(x))

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        return self._decoded(z, None)

    def _decoded(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Num[Tensor, "batch *event"]:
        return self.domain.to_data(self.likelihood.mean(self.likelihood.labelled(self.decoder(z), label)))

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        raw = self._of_draws(self._draw_codes(n, label, generator), generator)
        return self._to_data(self.likelihood.labelled(raw, label), generator)

    def _to_data(self, raw: Float[Tensor, "n *outputs"], generator: Streams) -> Num[Tensor, "n *event"]:
        """Examples given the decoder's outputs: draws or means."""
        return self.domain.to_data(self.likelihood.sample(raw, generator) if self.drawn else self.likelihood.mean(raw))

    def _pool(self, generator: Streams) -> Float[Tensor, "pool *event"]:
        """Generated examples in model space, from which the filling of a gap starts."""
        codes = self._draw_codes(POOL, self.draw_labels(POOL, None, generator), generator)
        return map_chunks(lambda z: self.likelihood.mean(self._of_draws(z, generator)), codes, self.domain.dimensions)

    @torch.no_grad()
    def translate(
        self,
        x: Num[Tensor, "batch *event"],
        label: Int[Tensor, " batch"] | None,
        strength: float,
        generator: Streams,
        *,
        steps: int = 0,
    ) -> Num[Tensor, "batch *event"]:
        """The code moved from its own class to the same place in the class wanted, and decoded as of that."""
        check_strength(strength)
        label = self.checked_labels(len(x), label)
        z = self.mixture.transported(self.encode(x), label, self.label_frequencies, strength, generator)
        return self._decoded(z, label)

    def _rebuilt(
        self, y: Float[Tensor, "batch *event"], observed: Bool[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch *event"]:
        """Reconstruction in model space, of an example there."""
        return self.likelihood.mean(self.decoder(self._code(y, observed)))

    def _fit_blend(self, x: Num[Tensor, "batch *event"], generator: Streams) -> None:
        """Measure how well reconstructions of noisy examples do beside these."""
        self.blend.fit(self._rebuilt, self.domain, x[:ENOUGH], generator)

    @torch.no_grad()
    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        """The best mixture, for that noise, of the example and its reconstruction (see `Blend`)."""
        check_sigma(sigma)
        y = self.domain.to_model(x)
        rebuilt = self._rebuilt(y, self.domain.observed(x))
        return self.domain.to_data(self.blend(y, rebuilt, sigma / self.domain.noise_unit))
