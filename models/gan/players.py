"""The two players: a generator of examples, and a critic of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..domains.base import Domain
from ..networks.convolutional import averaged
from ..networks.embeddings import LabelEmbedding, full_precision
from ..shapes import Bool, Float, Int
from .class_gaussians import ClassGaussians
from .config import Config


class Generator(nn.Module):
    """Noise and label to an example in model space.

    The noise is the latent vector and, for tables, one number per category of each categorical
    column, which chooses among them: all randomness is in it.

    Attributes:
        noise: Length of the noise.
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        self.domain = domain
        self.latent = config.latent
        self.noise = config.latent + domain.gumbel
        self.label = LabelEmbedding(classes, config.latent)
        self.decoder = domain.decoder(
            2 * config.latent,
            width=config.width,
            blocks=config.blocks,
            patch=config.patch,
            embed=2 * config.latent,
            attention=config.attention,
        )
        self.start = None
        if config.principal and domain.layout == "grid":
            self.start = ClassGaussians(domain.event_shape, min(config.principal, config.latent), classes)
            with torch.no_grad():
                for weight in self.decoder.head.parameters():
                    weight.zero_()

    def forward(
        self, z: Float[Tensor, "batch noise"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch *event"]:
        latent, choices = z[:, : self.latent], z[:, self.latent :]
        c = torch.cat([latent, self.label(label, len(z))], dim=1)
        raw = full_precision(self.decoder(c, c))
        if self.start is None:
            return self.domain.generator_output(raw, choices)
        return self.start(latent, label) + averaged(raw, self.decoder.patches.patch)


class Critic(nn.Module):
    r"""Projection critic, :math:`D(x, y) = w^\top \phi(x) + e_y^\top \phi(x)`.

    References:
        | cGANs with projection discriminator (Miyato and Koyama, 2018), eq. 4
        | https://arxiv.org/abs/1802.05637
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        spectral = config.loss == "hinge"
        self.domain = domain
        self.features = domain.critic(
            config.features,
            width=config.critic_width,
            blocks=config.blocks,
            patch=config.patch,
            spectral=spectral,
            attention=config.attention,
        )
        head = nn.Linear(config.features, 1)
        self.head = spectral_norm(head) if spectral else head
        self.label = LabelEmbedding(classes, config.features)
        if spectral:
            spectral_norm(self.label.table)

    def forward(
        self,
        y: Float[Tensor, "batch *event"],
        label: Int[Tensor, " batch"] | None,
        observed: Bool[Tensor, "batch *data"],
    ) -> Float[Tensor, " batch"]:
        phi = F.leaky_relu(full_precision(self.domain.apply_masked(self.features, y, observed)), 0.2)
        return self.head(phi)[:, 0] + (self.label(label, len(y)) * phi).sum(1)
