"""Generative adversarial network: a conditional generator against a projection critic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .contract import AnomalyScoring, Batch, GenerativeModel, Losses, Objective, Sampling, Streams
from .domains import Domain
from .networks import LabelEmbedding, full_precision
from .shapes import Float, Int, Num
from .typicality import Typicality


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the generative adversarial network.

    Arguments:
        loss: `hinge` with a spectrally normalized critic, or `relativistic` with gradient penalties
            on real and generated examples (R1 + R2) and no spectral normalization.
        gamma: Weight of the gradient penalties (relativistic only).
        latent: Length of the generator's input.
        width: Channels of the generator at the finest level.
        critic_width: Channels of the critic at the finest level.
        blocks: Residual blocks per level.
        patch: Pixels (along a side) folded into channels before the first convolution; 0 chooses by size.
        critic_steps: Updates of the critic per update of the generator.
        features: Length of the critic's feature vector.
        shift: Largest random shift, as a part of the size, applied to real and generated examples
            alike before the critic (differentiable augmentation for small data); 0 for none. On very
            small images shifts leak into the samples: digits of 8x8 pixels come out shifted.
    """

    loss: Literal["hinge", "relativistic"] = "relativistic"
    gamma: float = 0.1
    latent: int = 32
    width: int = 32
    critic_width: int = 32
    blocks: int = 1
    patch: int = 0
    critic_steps: int = 1
    features: int = 64
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise ValueError(f"patch must not be negative, got {self.patch}")
        for name in ("latent", "width", "critic_width", "blocks", "critic_steps", "features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.loss not in ("hinge", "relativistic"):
            raise ValueError(f"loss must be hinge or relativistic, got {self.loss!r}")
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift must be at least 0 and below 0.5, got {self.shift}")
        if self.gamma < 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma}")


class Generator(nn.Module):
    """Noise and label to an example in model space."""

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        self.latent = config.latent
        self.label = LabelEmbedding(classes, config.latent)
        self.decoder = domain.decoder(
            2 * config.latent, width=config.width, blocks=config.blocks, patch=config.patch, embed=2 * config.latent
        )

    def forward(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch *event"]:
        c = torch.cat([z, self.label(label, len(z))], dim=1)
        return torch.tanh(full_precision(self.decoder(c, c)))


class Critic(nn.Module):
    r"""Projection critic, :math:`D(x, y) = w^\top \phi(x) + e_y^\top \phi(x)`.

    References:
        | cGANs with projection discriminator (Miyato and Koyama, 2018), eq. 4
        | https://arxiv.org/abs/1802.05637
    """

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__()
        spectral = config.loss == "hinge"
        self.features = domain.critic(
            config.features, width=config.critic_width, blocks=config.blocks, patch=config.patch, spectral=spectral
        )
        head = nn.Linear(config.features, 1)
        self.head = spectral_norm(head) if spectral else head
        self.label = LabelEmbedding(classes, config.features)
        if spectral:
            spectral_norm(self.label.table)

    def forward(self, y: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None) -> Float[Tensor, " batch"]:
        phi = F.leaky_relu(full_precision(self.features(y)), 0.2)
        return self.head(phi)[:, 0] + (self.label(label, len(y)) * phi).sum(1)


def shifted(y: Float[Tensor, "batch *event"], part: float, generator: Streams) -> Float[Tensor, "batch *event"]:
    """Each image moved by its own random whole number of pixels, the rest filled with the lowest value.

    References:
        | Differentiable augmentation for data-efficient GAN training (Zhao et al., 2020)
        | https://arxiv.org/abs/2006.10738
    """
    if y.ndim != 4 or part == 0:
        return y
    batch, _, height, width = y.shape
    reach = max(1, round(part * min(height, width)))
    padded = F.pad(y, (reach,) * 4, value=-1.0)
    offset = generator.integers(2 * reach + 1, batch, 2)
    rows = offset[:, :1] + torch.arange(height, device=y.device)
    columns = offset[:, 1:] + torch.arange(width, device=y.device)
    index = torch.arange(batch, device=y.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within the block no parameter of `module` asks for a gradient."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class CriticObjective(Objective):
    """What the critic minimizes: hinge, or relativistic with R1 + R2 (no unit).

    References:
        | Geometric GAN (Lim and Ye, 2017), eq. 18
        | https://arxiv.org/abs/1705.02894
        | The GAN is dead; long live the GAN! (Huang et al., 2024), eq. 2-5
        | https://arxiv.org/abs/2501.05441
    """

    name = "critic"

    def __init__(self, model: GAN) -> None:
        super().__init__()
        self.critic = model.critic
        self._reads = (model.generator,)
        self.domain, self.config = model.domain, model.config

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (player,) = self._reads
        with torch.no_grad():
            fake = player(generator.normal(len(batch), self.config.latent), batch.label)
        real = self.domain.to_model(batch.x)
        real = shifted(real, self.config.shift, generator)
        fake = shifted(fake, self.config.shift, generator)
        if self.config.loss == "hinge":
            on_real, on_fake = self.critic(real, batch.label), self.critic(fake, batch.label)
            return Losses(F.relu(1 - on_real) + F.relu(1 + on_fake), {"on_real": on_real, "on_fake": on_fake})
        real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        on_real, on_fake = self.critic(real, batch.label), self.critic(fake, batch.label)
        penalty = gradient_penalty(on_real, real) + gradient_penalty(on_fake, fake)
        loss = F.softplus(on_fake - on_real)
        terms = {"on_real": on_real, "on_fake": on_fake, "gradient_penalty": penalty}
        return Losses(loss + 0.5 * self.config.gamma * penalty, terms)


def gradient_penalty(score: Float[Tensor, " batch"], y: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
    """Squared norm of the critic's gradient at each example, differentiable."""
    (gradient,) = torch.autograd.grad(score.sum(), y, create_graph=True)
    return gradient.flatten(1).square().sum(1)


class GeneratorObjective(Objective):
    """What the generator minimizes: the critic's verdict on its examples, turned round (no unit)."""

    name = "generator"

    def __init__(self, model: GAN) -> None:
        super().__init__()
        self.generator = model.generator
        self._reads = (model.critic,)
        self.domain, self.config = model.domain, model.config
        self.every = model.config.critic_steps

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (critic,) = self._reads
        fake = self.generator(generator.normal(len(batch), self.config.latent), batch.label)
        fake = shifted(fake, self.config.shift, generator)
        with frozen(critic):
            on_fake = critic(fake, batch.label)
            if self.config.loss == "hinge":
                return Losses(-on_fake)
            real = shifted(self.domain.to_model(batch.x), self.config.shift, generator)
            return Losses(F.softplus(critic(real, batch.label) - on_fake))


class GAN(GenerativeModel, Sampling, AnomalyScoring):
    """Conditional generative adversarial network.

    References:
        | Spectral normalization for generative adversarial networks (Miyato et al., 2018)
        | https://arxiv.org/abs/1802.05957
    """

    Config = Config

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.generator = Generator(config, domain, classes)
        self.critic = Critic(config, domain, classes)
        self.typicality = Typicality(config.features)

    def objectives(self) -> tuple[Objective, ...]:
        return (CriticObjective(self), GeneratorObjective(self))

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.typicality.fit(full_precision(self.critic.features(self.domain.to_model(batch.x))))

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        return self.domain.to_data(self.generator(generator.normal(n, self.config.latent), label))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(full_precision(self.critic.features(self.domain.to_model(x))))
