"""The specialists of each family: their own networks and losses, trained the way their documentation does it.

Each is given what `inputs` makes of the data, trains until the clock says stop, and samples (or tells densities).
`players` says what it trains and how, for our own loop to train the same networks (`borrowed.py`).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import math
import sys
import tempfile
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from clock import Clock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

Loss = Callable[[Tensor, Tensor], Tensor]
"""Inputs (images `[batch, 1, 28, 28]` in [0, 1], rows as they are) and labels to a loss, a scalar or `[batch]`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Player:
    """What one optimizer trains.

    Arguments:
        name: For messages.
        network: The trained parameters.
        loss: What it minimizes.
    """

    name: str
    network: nn.Module
    loss: Loss


class Specialist(ABC):
    """One family's specialist.

    Attributes:
        name: Library and version, or "plain PyTorch".
        what: Its recipe in a line.
        batch: Examples per update.
    """

    name: str
    what: str
    batch: int

    @abstractmethod
    def players(self) -> list[Player]:
        """What is trained, in the order of the updates within a step."""

    def inputs(self, x: Tensor) -> Tensor:
        """What it takes of a batch of ours: images in [0, 1], channels first."""
        return x.permute(0, 3, 1, 2).float() / 255

    @abstractmethod
    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        """Train by the specialist's own loop until the budget is spent."""

    def sample(self, n: int) -> Tensor:
        """Images in [0, 1], `[n, 1, 28, 28]`."""
        raise NotImplementedError

    def loop(self, optimizers: list[torch.optim.Optimizer], x: Tensor, label: Tensor, clock: Clock) -> None:
        """The loop of the libraries' tutorials: a shuffling DataLoader, a backward pass, a step."""
        loader = DataLoader(TensorDataset(x, label), self.batch, shuffle=True, drop_last=True)
        clock.restart()
        while True:
            for images, labels in loader:
                for player, optimizer in zip(self.players(), optimizers, strict=True):
                    optimizer.zero_grad()
                    player.loss(images, labels).mean().backward()
                    optimizer.step()
                if clock.add(len(images)):
                    return


class PlainAutoencoder(Specialist):
    """What one writes in an afternoon: convolutions down and up, and a mixture of ten Gaussians on the codes."""

    name = "plain PyTorch autoencoder"
    what = "convolutions 32-64-128, 16 codes, Adam 1e-3, batch 256; scikit-learn mixture of 10 on the codes"
    batch = 256

    def __init__(self) -> None:
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(128 * 16, 16)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(16, 128 * 16), nn.ReLU(), nn.Unflatten(1, (128, 4, 4))),
            *(nn.ConvTranspose2d(128, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 1, 3, 2, 1, 1), nn.Sigmoid()),
        )
        self.both = nn.Sequential(self.encoder, self.decoder)

    def players(self) -> list[Player]:
        def loss(x: Tensor, label: Tensor) -> Tensor:
            return (self.both(x) - x).square().flatten(1).sum(1)

        return [Player(name="autoencoder", network=self.both, loss=loss)]

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        self.loop([torch.optim.Adam(self.both.parameters(), 1e-3)], x, label, clock)
        from sklearn.mixture import GaussianMixture

        self.both.eval()
        with torch.no_grad():
            codes = torch.cat([self.encoder(part) for part in x.split(1000)])
        self.mixture = GaussianMixture(10, max_iter=500, random_state=0).fit(codes.numpy())

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return self.decoder(torch.from_numpy(self.mixture.sample(n)[0]).float())


class TimeIsUp(Exception):
    """Leaves a trainer that knows epochs only."""


class Pythae(Specialist):
    """pythae's variational autoencoder and trainer, and the better of its samplers."""

    name = "pythae 0.1.2"
    what = "its default networks (784-512-16), Adam 1e-3, batch 100; its sampler with a mixture of 10"
    batch = 100

    def __init__(self) -> None:
        from pythae.models import VAE, VAEConfig

        self.model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16))

    def players(self) -> list[Player]:
        def loss(x: Tensor, label: Tensor) -> Tensor:
            return self.model({"data": x}).loss

        return [Player(name="vae", network=self.model, loss=loss)]

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        from pythae.data.datasets import BaseDataset
        from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
        from pythae.trainers.training_callbacks import TrainingCallback

        batch = self.batch

        class Counting(TrainingCallback):
            def on_train_begin(self, training_config, **kwargs):
                clock.restart()

            def on_train_step_end(self, training_config, **kwargs):
                if clock.add(batch):
                    raise TimeIsUp

        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=batch, num_epochs=10**6, learning_rate=1e-3, no_cuda=True
            )
            trainer = BaseTrainer(self.model, BaseDataset(x, label), training_config=config, callbacks=[Counting()])
            with contextlib.suppress(TimeIsUp):
                trainer.train()
        self.model.eval()
        self.sampler = GaussianMixtureSampler(self.model, GaussianMixtureSamplerConfig(n_components=10))
        self.sampler.fit(x)

    def sample(self, n: int) -> Tensor:
        return self.sampler.sample(n).reshape(n, 1, 28, 28).detach()


class TorchGAN(Specialist):
    """torchgan's DCGAN with its losses, on images padded to its 32x32 pixels."""

    name = "torchgan 0.1.0"
    what = "DCGAN, 64 noise dimensions, step_channels 32, non-saturating loss, Adam 2e-4 (0.5, 0.999), batch 128"
    batch = 128

    def __init__(self) -> None:
        _without_trainer("torchgan")
        from torchgan.losses.functional import minimax_discriminator_loss, minimax_generator_loss
        from torchgan.models.dcgan import DCGANDiscriminator, DCGANGenerator

        shape = {"step_channels": 32}
        self.generator = DCGANGenerator(64, 32, 1, **shape)
        self.critic = DCGANDiscriminator(32, 1, last_nonlinearity=nn.Identity(), **shape)
        self.losses = minimax_generator_loss, minimax_discriminator_loss

    def players(self) -> list[Player]:
        of_generator, of_critic = self.losses

        def critic(x: Tensor, label: Tensor) -> Tensor:
            real = F.pad(2 * x - 1, (2, 2, 2, 2), value=-1.0)
            fake = self.generator(torch.randn(len(x), 64)).detach()
            return of_critic(self.critic(real), self.critic(fake))

        def generator(x: Tensor, label: Tensor) -> Tensor:
            return of_generator(self.critic(self.generator(torch.randn(len(x), 64))), True)

        return [
            Player(name="critic", network=self.critic, loss=critic),
            Player(name="generator", network=self.generator, loss=generator),
        ]

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        adam = [torch.optim.Adam(p.network.parameters(), 2e-4, betas=(0.5, 0.999)) for p in self.players()]
        self.loop(adam, x, label, clock)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        self.generator.eval()
        return (self.generator(torch.randn(n, 64))[:, :, 2:-2, 2:-2] + 1) / 2


def _without_trainer(package: str) -> None:
    """Let a package's submodules be imported without its `__init__`, which imports the missing torchvision."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    bare = types.ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[package] = bare


class Glow(Specialist):
    """normflows' Glow as in its example, with two levels and a class-conditional base."""

    name = "normflows 1.7.3"
    what = "Glow, 2 levels of 8 steps, 64 channels, Adamax 1e-3 (weight decay 1e-5), batch 128"
    batch = 128

    def __init__(self) -> None:
        import normflows as nf

        levels, steps = 2, 8
        base, flows, merges = [], [], []
        for level in range(levels):
            channels = 2 ** (levels + 1 - level)
            blocks = [nf.flows.GlowBlock(channels, 64, split_mode="channel", scale=True) for _ in range(steps)]
            flows.append([*blocks, nf.flows.Squeeze()])
            side = 28 // 2 ** (levels - level)
            if level:
                merges.append(nf.flows.Merge())
                base.append(nf.distributions.ClassCondDiagGaussian((channels // 2, side, side), 10))
            else:
                base.append(nf.distributions.ClassCondDiagGaussian((channels, side, side), 10))
        self.model = nf.MultiscaleFlow(base, flows, merges)

    def players(self) -> list[Player]:
        def loss(x: Tensor, label: Tensor) -> Tensor:
            return self.model(x * 255 / 256 + torch.rand_like(x) / 256, label)

        return [Player(name="flow", network=self.model, loss=loss)]

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        with torch.no_grad():
            self.players()[0].loss(x[: self.batch], label[: self.batch])  # actnorm looks at its first batch
        self.loop([torch.optim.Adamax(self.model.parameters(), 1e-3, weight_decay=1e-5)], x, label, clock)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        drawn = torch.cat([self.model.sample(min(250, n - at))[0] for at in range(0, n, 250)])
        return drawn.nan_to_num(0.0)

    @torch.no_grad()
    def bits_per_dim(self, x: Tensor, label: Tensor) -> float:
        """Of images in [0, 1] whose labels it is told."""
        nats = torch.cat([self.players()[0].loss(*part) for part in zip(x.split(250), label.split(250), strict=True)])
        return nats.mean().item() / (x[0].numel() * math.log(2)) + 8


class FlowMatching(Specialist):
    """torchcfm's class-conditional example for MNIST."""

    name = "torchcfm 1.0.7"
    what = "U-Net of 1.1 M parameters (32 channels, one block), independent couplings, Adam 1e-3, batch 128"
    batch = 128

    def __init__(self) -> None:
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
        from torchcfm.models.unet import UNetModel

        self.model = UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1, num_classes=10, class_cond=True)
        self.matcher = ConditionalFlowMatcher(sigma=0.0)

    def players(self) -> list[Player]:
        def loss(x: Tensor, label: Tensor) -> Tensor:
            data = 2 * x - 1
            t, between, velocity = self.matcher.sample_location_and_conditional_flow(torch.randn_like(data), data)
            return (self.model(t, between, label) - velocity).square().flatten(1).mean(1)

        return [Player(name="diffusion", network=self.model, loss=loss)]

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        self.loop([torch.optim.Adam(self.model.parameters())], x, label, clock)

    @torch.no_grad()
    def sample(self, n: int, steps: int = 5) -> Tensor:
        """By the midpoint rule; the example's adaptive solver takes several times as many evaluations."""
        self.model.eval()
        parts = []
        for at in range(0, n, 250):
            y = torch.randn(min(250, n - at), 1, 28, 28)
            label = torch.randint(10, (len(y),))
            for step in range(steps):
                t = torch.full((len(y),), step / steps)
                middle = y + 0.5 / steps * self.model(t, y, label)
                y = y + self.model(t + 0.5 / steps, middle, label) / steps
            parts.append((y + 1) / 2)
        return torch.cat(parts)


class SplineFlow(Specialist):
    """zuko's autoregressive neural spline flow, on standardized rows."""

    name = "zuko 1.6.0"
    what = "NSF of 8 transforms, networks of 64-64-64 units, 8 bins, Adam 1e-3, batch 256, best weights by validation"
    batch = 256
    columns = 16

    def __init__(self) -> None:
        import zuko

        self.flow = zuko.flows.NSF(self.columns, transforms=8, hidden_features=(64, 64, 64), bins=8)
        self.model = Standardized(self.flow, self.columns)

    def inputs(self, x: Tensor) -> Tensor:
        return x.float()

    def players(self) -> list[Player]:
        return [Player(name="flow", network=self.model, loss=lambda x, label: -self.model(x))]

    def look(self, x: Tensor, kept_out: Tensor) -> None:
        """See all rows once before training, and some that are kept out of it."""
        self.model.mean, self.model.std, self.kept_out = x.mean(0), x.std(0), kept_out

    def train(self, x: Tensor, label: Tensor, clock: Clock) -> None:
        """Looking at the rows kept out after every epoch, for the best weights."""
        best, weights = math.inf, copy.deepcopy(self.model.state_dict())
        optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        loader = DataLoader(TensorDataset(x), self.batch, shuffle=True, drop_last=True)
        clock.restart()
        running = True
        while running:
            for (rows,) in loader:
                optimizer.zero_grad()
                (-self.model(rows)).mean().backward()
                optimizer.step()
                if clock.add(len(rows)):
                    running = False
                    break
            found = self.nats(self.kept_out)
            if found < best:
                best, weights = found, copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(weights)

    @torch.no_grad()
    def nats(self, x: Tensor) -> float:
        """Mean negative log-density of rows, in their own units."""
        return -self.model(x).mean().item()


class Standardized(nn.Module):
    """A flow of standardized columns as a density of the columns as they are."""

    def __init__(self, flow: nn.Module, columns: int) -> None:
        super().__init__()
        self.flow = flow
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))

    def forward(self, x: Tensor) -> Tensor:
        return self.flow().log_prob((x - self.mean) / self.std) - self.std.log().sum()


SPECIALISTS: dict[str, type[Specialist]] = {
    "autoencoder": PlainAutoencoder,
    "vae": Pythae,
    "gan": TorchGAN,
    "flow": Glow,
    "diffusion": FlowMatching,
    "columns": SplineFlow,
}


def to_pixels(x: Tensor) -> Tensor:
    """Images in [0, 1] as the judge takes them: uint8, channels last."""
    return torch.from_numpy(np.asarray((x.clamp(0, 1) * 255).round(), np.uint8)).permute(0, 2, 3, 1).contiguous()
