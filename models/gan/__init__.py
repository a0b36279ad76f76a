"""Generative adversarial network: a conditional generator against a projection critic.

`players.py` holds the two networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..anomaly import MANY, MahalanobisScore
from ..capabilities import AnomalyScoring, Filling, Reconstruction, Sampling
from ..chunking import chunk_size, map_chunks
from ..contract import Batch, GenerativeModel, Losses, Objective
from ..domains.base import Domain
from ..domains.table_rows import Settler
from ..imputation import sample_nearest, with_gaps
from ..networks.embeddings import full_precision
from ..networks.principal import fitted_examples, measure_components
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .config import Config, SamplingConfig
from .players import Critic, Generator

__all__ = ["GAN", "Config", "Critic", "CriticObjective", "Generator", "GeneratorObjective"]


POOL = 4096
"""Generated examples among which the search for one that agrees with an example starts; fewer if they are large."""


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
    """What the critic minimizes: hinge, Wasserstein, or relativistic with R1 + R2 (no unit).

    A generated example is shown with the gaps of a real one, so that rows with missing cells teach
    the generator complete rows.

    References:
        | Geometric GAN (Lim and Ye, 2017), eq. 18
        | https://arxiv.org/abs/1705.02894
        | The GAN is dead; long live the GAN! (Huang et al., 2024), eq. 2-5
        | https://arxiv.org/abs/2501.05441
        | AmbientGAN (Bora et al., 2018), eq. 1 (gaps)
        | https://openreview.net/forum?id=Hy7fDog0b
    """

    name = "critic"

    def __init__(self, model: GAN) -> None:
        super().__init__()
        self.critic = model.critic
        self._opponent = (model.generator,)
        self.domain, self.config = model.domain, model.config

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (opponent,) = self._opponent
        x, label = batch.visible, batch.label
        observed = self.domain.observed(x)
        with torch.no_grad():
            fake = opponent(generator.normal(len(batch), opponent.noise), label)
        real = self.domain.to_model(x)
        real = self.domain.random_shift(real, self.config.shift, generator)
        fake = self.domain.random_shift(fake, self.config.shift, generator)
        if self.config.loss == "hinge":
            on_real, on_fake = self.critic(real, label, observed), self.critic(fake, label, observed)
            return Losses(F.relu(1 - on_real) + F.relu(1 + on_fake), {"on_real": on_real, "on_fake": on_fake})
        if self.config.loss == "wasserstein":
            return self._wasserstein(real, fake, label, observed, generator)
        real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        on_real, on_fake = self.critic(real, label, observed), self.critic(fake, label, observed)
        penalty = gradient_penalty(on_real, real) + gradient_penalty(on_fake, fake)
        loss = F.softplus(on_fake - on_real)
        terms = {"on_real": on_real, "on_fake": on_fake, "gradient_penalty": penalty}
        return Losses(loss + 0.5 * self.config.gamma * penalty, terms)

    def _wasserstein(
        self, real: Tensor, fake: Tensor, label: Tensor | None, observed: Tensor, generator: Streams
    ) -> Losses:
        on_real, on_fake = self.critic(real, label, observed), self.critic(fake, label, observed)
        part = generator.uniform(len(real)).to(real.dtype)
        penalty = interpolated_penalty(lambda y: self.critic(y, label, observed), real, fake, part)
        terms = {"on_real": on_real, "on_fake": on_fake, "gradient_penalty": penalty}
        return Losses(on_fake - on_real + self.config.penalty * penalty, terms)


def interpolated_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, "batch *event"],
    fake: Float[Tensor, "batch *event"],
    part: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    r"""How far the critic's gradient between real and generated examples is from norm 1, in full precision.

    .. math:: (\|\nabla D(t \, x + (1 - t) \, \tilde x)\| - 1)^2

    References:
        | Improved training of Wasserstein GANs (Gulrajani et al., 2017), eq. 3
        | https://arxiv.org/abs/1704.00028
    """
    part = part.reshape(-1, *[1] * (real.ndim - 1))
    between = (part * real + (1 - part) * fake).detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):  # the double backward wants full precision
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (norm - 1).square()


def gradient_penalty(score: Float[Tensor, " batch"], y: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
    """Squared norm of the critic's gradient at each example, differentiable."""
    (gradient,) = torch.autograd.grad(score.sum(), y, create_graph=True)
    return gradient.flatten(1).square().sum(1)


class GeneratorObjective(Objective):
    """What the generator minimizes: the critic's verdict on its examples, turned round (no unit).

    References:
        | GANs trained by a two time-scale update rule (Heusel et al., 2017), section 2
        | https://arxiv.org/abs/1706.08500
    """

    name = "generator"

    def __init__(self, model: GAN) -> None:
        super().__init__()
        self.generator = model.generator
        self._opponent = (model.critic,)
        self.domain, self.config = model.domain, model.config
        self.every, self.speed = model.config.critic_steps, model.config.generator_rate

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (critic,) = self._opponent
        x, label = batch.visible, batch.label
        observed = self.domain.observed(x)
        fake = self.generator(generator.normal(len(batch), self.generator.noise), label)
        fake = self.domain.random_shift(fake, self.config.shift, generator)
        with frozen(critic):
            on_fake = critic(fake, label, observed)
            if self.config.loss == "relativistic":
                real = self.domain.random_shift(self.domain.to_model(x), self.config.shift, generator)
                loss = F.softplus(critic(real, label, observed) - on_fake)
            else:
                loss = -on_fake
        return Losses(loss)


class SettlingObjective(Objective):
    """What settling a row of a table costs, in nats; of generated rows it knows nothing.

    It is fitted to data and not played, so it learns at a rate that would be too much for players.
    """

    name = "settler"
    speed = 4.0

    def __init__(self, settler: Settler, domain: Domain) -> None:
        super().__init__()
        self.settler, self.domain = settler, domain

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        x, label = batch.visible, batch.label
        if label is not None:  # what completes a row is not told its label
            label = torch.where(generator.uniform(len(batch)) < 0.5, -1, label)
        return Losses(self.settler.nats(x, self.domain.to_model(x), label, generator, batch.gaps))


class GAN(GenerativeModel, Sampling, Reconstruction, AnomalyScoring, Filling):
    """Conditional generative adversarial network.

    References:
        | Spectral normalization for generative adversarial networks (Miyato et al., 2018)
        | https://arxiv.org/abs/1802.05957
    """

    Config, SamplingConfig = Config, SamplingConfig

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.generator = Generator(config, domain, classes)
        self.critic = Critic(config, domain, classes)
        self.settler = domain.settler(classes, sigma=config.settle, width=config.width, dropout=config.dropout)
        self.typicality = MahalanobisScore(config.features + domain.textures, both_sides=domain.anomaly_tails == "both")

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        super().initialize(batch, generator)
        measure_components(self, self.domain, batch.visible)
        if (start := self.generator.start) is not None:
            start.measure(*fitted_examples(self.domain, batch), generator)

    def objectives(self) -> tuple[Objective, ...]:
        players = (CriticObjective(self), GeneratorObjective(self))
        return players if self.settler is None else (*players, SettlingObjective(self.settler, self.domain))

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.typicality.fit(map_chunks(self._statistics, batch.x[:MANY], self.domain.dimensions))

    def _statistics(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch statistics"]:
        """The critic's features, and what it may not have needed to look at: texture."""
        features = self.domain.apply_masked(self.critic.features, self.domain.to_model(x), self.domain.observed(x))
        return torch.cat([full_precision(features), self.domain.texture(x)], dim=1)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        y = self.generator(generator.normal(n, self.generator.noise), label)
        return self._settled(y, None, label, generator, gaps=True)

    def _settled(
        self,
        y: Float[Tensor, "batch *event"],
        known: Tensor | None,
        label: Tensor | None,
        generator: Streams,
        *,
        gaps: bool = False,
    ) -> Num[Tensor, "batch *data"]:
        """Generated examples in data space; a table's cells drawn one after the other, given them and what is known."""
        if self.settler is None:
            return self.domain.to_data(y)
        noisy = y + self.config.settle * generator.normal(*y.shape)
        return self.settler.draw(noisy, known, label, generator, gaps=gaps)

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x))

    # Inversion: the noise that gives an example

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        """The generated example nearest to `x`, found from several starts."""
        fills, errors = self._inverted(x, self.domain.observed(x), generator, starts=4)
        best = errors.argmin(0)
        return fills[best, torch.arange(len(x), device=x.device)]

    def fill(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch *event"]:
        """Several completions: generated examples that agree with the observed cells, each from its own start."""
        fills, _ = self._inverted(x, observed, generator, starts=draws)
        if self.settler is None:
            return fills
        return torch.stack([self._settled(self.domain.to_model(y), x, None, generator) for y in fills])

    def _inverted(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, *, starts: int
    ) -> tuple[Num[Tensor, "starts batch *event"], Float[Tensor, "starts batch"]]:
        r"""Generated examples near to the observed cells of `x`, and their squared errors there.

        Every start is a random one of those generated examples (of a few thousand) that agree best;
        from it, gradient descent lowers

        .. math:: \|m \odot (G(z, y) - x)\|^2

        References:
            | Semantic image inpainting with deep generative models (Yeh et al., 2017), eq. 2
            | https://arxiv.org/abs/1607.07539
        """
        size = max(256, min(POOL, chunk_size(self.domain.dimensions)))
        known, y = self.domain.expand(observed), self.domain.to_model(with_gaps(x, observed))
        label = self.draw_labels(size, None, generator)
        with torch.no_grad():
            noise = generator.normal(size, self.generator.noise)
            rows = torch.arange(size, device=noise.device)
            pool = map_chunks(
                lambda part: self.generator(noise[part], None if label is None else label[part]),
                rows,
                self.domain.dimensions,
            )
            chosen = sample_nearest(y, known, pool, generator, draws=starts)
        fills, errors = [], []
        for index in chosen:
            found = self._descend(noise[index], None if label is None else label[index], y, known)
            fills.append(self.domain.to_data(found))
            errors.append((known * (found - y)).flatten(1).square().sum(1))
        return torch.stack(fills), torch.stack(errors)

    def _descend(self, z: Tensor, label: Tensor | None, y: Tensor, known: Tensor) -> Float[Tensor, "batch *event"]:
        """The generated example after Polyak's gradient steps, which move the noise no further than they must."""
        with frozen(self.generator), torch.enable_grad():
            for _ in range(self.sampling.inversion_steps):
                z = z.detach().requires_grad_()
                error = (known * (self.generator(z, label) - y)).flatten(1).square().sum(1)
                (gradient,) = torch.autograd.grad(error.sum(), z)
                length = gradient.norm(dim=1)
                step = torch.minimum(error / (length.square() + 1e-4), 0.3 / (length + 1e-12))
                z = z.detach() - step.detach()[:, None] * gradient
        with torch.no_grad():
            return self.generator(z, label)
