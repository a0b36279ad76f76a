"""Families against known answers: Jacobians, exact likelihoods, analytic denoisers, orders of convergence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models import Streams
from models.domains.grid import Image
from models.gan import gradient_penalty
from models.mixture import GaussianMixture
from models.vae import VAE
from models.vae.config import Config as VAEConfig
from models.vae.gaussians import gaussian_divergence, gaussian_log_prob
from models.vae.ladder import Ladder


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_discretized_logistic_sums_to_one(double):
    image = Image(channels=1, height=1, width=1, levels=17)
    likelihood = image.likelihood(3)
    raw = 2 * torch.randn(1, likelihood.parameters, 1, 1)
    levels = (torch.arange(17) * 255 / 16).round().to(torch.uint8).reshape(17, 1, 1, 1)
    total = likelihood.log_prob(raw.expand(17, -1, -1, -1), levels).exp().sum()
    assert abs(float(total) - 1) < 1e-5


def test_gaussian_divergence_is_the_expected_log_ratio():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(1, 3), torch.randn(1, 3)
    mean0, log_variance0 = torch.randn(1, 3), torch.randn(1, 3)
    z = mean + (0.5 * log_variance).exp() * torch.randn(400_000, 3)
    ratio = gaussian_log_prob(z, mean, log_variance) - gaussian_log_prob(z, mean0, log_variance0)
    exact = gaussian_divergence(mean, log_variance, mean0, log_variance0).sum()
    assert abs(ratio.mean() - exact) < 0.01 * exact


class LinearGaussian:
    """x = z + noise in one dimension, z standard normal: log p(x) is known."""

    parameters, noise = 1, 0.5

    def log_prob(self, raw, x):
        return gaussian_log_prob(x.double(), raw, torch.full_like(raw, math.log(self.noise**2)))[:, None]


def linear_gaussian_vae(slack: float) -> VAE:
    """A VAE of which decoder and prior are exact, and the posterior's variance too large by `slack`."""

    class Identity(Image):
        def to_model(self, x):
            return x.double()

    model = VAE(VAEConfig(latent=1, width=4, prior_components=0), Identity(channels=1, height=1, width=1), 0)
    variance = 1 / (1 + 1 / LinearGaussian.noise**2)

    class Posterior(nn.Module):
        def forward(self, y):
            mean = variance / LinearGaussian.noise**2 * y
            return torch.cat([mean, torch.full_like(mean, math.log(variance * slack))], dim=1)

    model.encoder, model.decoder, model.likelihood = Posterior(), nn.Identity(), LinearGaussian()
    return model


@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_vae_bound_is_below_the_exact_likelihood_and_tight_with_many_draws(slack):
    model = linear_gaussian_vae(slack)
    x = torch.linspace(-2, 2, 64).double()[:, None]
    exact = gaussian_log_prob(x, torch.zeros_like(x), torch.full_like(x, math.log(1 + LinearGaussian.noise**2)))
    bounds = {
        k: torch.stack([model.elbo(x, Streams.seeded(k, r), samples=k) for r in range(20)]).mean(0) for k in (1, 256)
    }
    gap = {k: float((exact - bound).mean()) for k, bound in bounds.items()}
    if slack == 1.0:
        assert abs(gap[1]) < 1e-5  # the posterior is exact: so is a single draw
    else:
        assert gap[1] > 0.05
        assert -0.002 < gap[256] < 0.1 * gap[1]


def two_level_vae(slack: float) -> VAE:
    """z standard normal, w = 0.8 z + 0.6 noise, x = w + noise: every part exact but q(z | x), too wide by `slack`."""

    class Pixel(Image):
        def to_model(self, x):
            return x.double()[:, :, None, None]

    class Constant(nn.Module):
        """A Gaussian's mean (its input, scaled) and log-variance, as a ladder's parts give them."""

        def __init__(self, scale: float, variance: float) -> None:
            super().__init__()
            self.scale, self.log_variance = scale, math.log(variance)

        def forward(self, h):
            mean = self.scale * h
            return torch.cat([mean, torch.full_like(mean, self.log_variance)], dim=1)

    noise = LinearGaussian.noise**2
    config = VAEConfig(latent=1, width=4, fine=1, levels=2, prior_components=0)
    model = VAE(config, Pixel(channels=1, height=1, width=1), 0)
    share = 0.8 / (1 + noise)

    class Posterior(nn.Module):
        def forward(self, y):
            return Constant(share, (1 - 0.8 * share) * slack)(y.flatten(1))

    ladder = model.decoder
    assert isinstance(ladder, Ladder)
    ladder.down = nn.Unflatten(1, (1, 1, 1))
    ladder.prior, ladder.up, ladder.evidence = Constant(0.8, 0.36), nn.Identity(), Constant(1.0, noise)
    ladder._outputs = lambda features, fine: fine.flatten(1)  # x is the map's value, and noise
    model.encoder, model.likelihood = Posterior(), LinearGaussian()
    return model


@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_a_ladders_bound_is_below_the_exact_likelihood_and_tight_with_many_draws(double, slack):
    """Its inference joins prior and evidence by their precisions, which is exact here: so is the bound, at slack 1."""
    model = two_level_vae(slack)
    x = torch.linspace(-2, 2, 64)[:, None]
    exact = gaussian_log_prob(x, torch.zeros_like(x), torch.full_like(x, math.log(1 + LinearGaussian.noise**2)))
    gap = {
        k: float((exact - torch.stack([model.elbo(x, Streams.seeded(k, r), samples=k) for r in range(20)])).mean())
        for k in (1, 256)
    }
    if slack == 1.0:
        assert abs(gap[1]) < 1e-9
    else:
        assert gap[1] > 0.05
        assert -0.002 < gap[256] < 0.1 * gap[1]


def test_a_ladders_code_says_all_that_its_decoder_was_given():
    """The vector and the map's deviations, decoded, are what inference handed to the likelihood; and interpolate."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(latent=3, width=8, levels=2), Image(channels=3, height=12, width=20), 0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    y = torch.rand(4, 3, 12, 20) * 2 - 1
    inferred = model.decoder.infer(torch.randn(4, 3), y, Streams.seeded(0))
    assert inferred.code.shape == (4, 3 + 4 * 6 * 10)
    assert torch.allclose(model.decoder(inferred.code), inferred.raw, atol=1e-4)
    assert inferred.divergence.shape == (4, 4)
    assert (inferred.divergence > 0).all()


def test_gradient_penalty_is_the_hand_computed_one():
    y = torch.randn(4, 1, 2, 2, requires_grad=True)
    weight = torch.randn(4)
    score = (y.flatten(1).square() * weight).sum(1)
    expected = (2 * y.flatten(1) * weight).square().sum(1)
    assert torch.allclose(gradient_penalty(score, y), expected)


def test_mixture_finds_known_gaussians():
    torch.manual_seed(0)
    means = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    label = torch.arange(2000) % 2
    z = means[label] + torch.randn(2000, 2) * torch.tensor([1.0, 0.5])
    mixture = GaussianMixture(2, 2, 1)
    mixture.fit(z, label, Streams.seeded(0))
    assert torch.allclose(mixture.mean[:, 0], means, atol=0.15)
    moved = mixture.transported(z, 1 - label, torch.full((2,), 0.5), 0.0, Streams.seeded(2))
    assert torch.allclose(moved - z, means[1 - label] - means[label], atol=0.3)
    assert torch.allclose(mixture.transported(z, None, torch.full((2,), 0.5), 0.0, Streams.seeded(2)), z, atol=1e-4)
    drawn = mixture.sample(4000, torch.zeros(4000, dtype=torch.long), Streams.seeded(1))
    assert torch.allclose(drawn.std(0), torch.tensor([1.0, 0.5]), rtol=0.1)
    exact = gaussian_log_prob(z, means[label], torch.tensor([0.0, 2 * math.log(0.5)]))
    assert abs(float((mixture.log_prob(z, label, torch.full((2,), 0.5)) - exact).mean())) < 0.02
