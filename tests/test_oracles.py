"""Families against known answers: Jacobians, exact likelihoods, analytic denoisers, orders of convergence."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from models import Batch, Streams, build
from models.diffusion import Config, Diffusion
from models.domains import Image
from models.flow import AffineCoupling, MultiScale
from models.flow import Config as FlowConfig
from models.gan import gradient_penalty
from models.mixture import GaussianMixture
from models.vae import VAE, gaussian_divergence, gaussian_log_prob
from models.vae import Config as VAEConfig


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomized(module: nn.Module) -> nn.Module:
    """Zero-initialized layers would make every flow the identity."""
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return module


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 2), (1, 3, 3)])
def test_flow_log_determinant_is_that_of_the_autograd_jacobian(double, shape):
    torch.manual_seed(0)
    flow = randomized(MultiScale(shape, FlowConfig(steps=2, width=8, embed=4)))
    x, c = torch.randn(1, *shape), torch.randn(1, 4)

    def latent(flat):
        latents, _ = flow(flat.reshape(1, *shape), c)
        return torch.cat([z.flatten() for z in latents])

    jacobian = torch.autograd.functional.jacobian(latent, x.flatten())
    exact = torch.linalg.slogdet(jacobian).logabsdet
    claimed = flow(x, c)[1][0]
    assert abs((claimed - exact) / exact) <= 1e-10


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 8), (1, 5, 5)])
def test_flow_inverts_itself(double, shape):
    torch.manual_seed(1)
    flow = randomized(MultiScale(shape, FlowConfig(steps=3, width=8, embed=4)))
    x, c = torch.randn(5, *shape), torch.randn(5, 4)
    latents, _ = flow(x, c)
    assert torch.allclose(flow.inverse(latents, c), x, atol=1e-9)


def test_flow_density_integrates_to_one_in_two_dimensions(double):
    """Two channels of one pixel: a grid over the plane of logits."""
    torch.manual_seed(2)
    coupling = randomized(AffineCoupling(2, FlowConfig(width=8, embed=4)))
    axis = torch.linspace(-9, 9, 401)
    grid = torch.cartesian_prod(axis, axis)[:, :, None, None]
    with torch.no_grad():
        z, log_det = coupling(grid, torch.zeros(len(grid), 4))
    log_p = -0.5 * z.flatten(1).square().sum(1) - math.log(2 * math.pi) + log_det
    assert abs(log_p.exp().sum() * (axis[1] - axis[0]) ** 2 - 1) < 1e-3


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


class MixtureDenoiser(nn.Module):
    """The exact denoiser of a two-point-plus-Gaussian mixture, in place of a trained one."""

    means = (-0.6, 0.5)
    spread = 0.2

    def forward(self, x, sigma, label):
        variance = self.spread**2 + sigma.reshape(-1, 1, 1, 1).double() ** 2
        total, norm = 0.0, 0.0
        flat = x.double()
        weights = torch.stack([-0.5 * ((flat - m) ** 2 / variance).flatten(1).sum(1) for m in self.means]).softmax(0)
        for weight, m in zip(weights, self.means, strict=True):
            w = weight.reshape(-1, 1, 1, 1)
            total = total + w * (m + self.spread**2 / variance * (flat - m))
            norm = norm + w
        return total / norm


def exact_diffusion(channels: int = 1, **config) -> Diffusion:
    model = Diffusion(Config(width=8, embed=8, **config), Image(channels=channels, height=4, width=4), 0)
    exact = MixtureDenoiser()
    model.denoised = lambda x, sigma, label: exact(x, torch.as_tensor(sigma).expand(len(x)), label).to(x.dtype)
    return model


def test_heun_is_of_second_order():
    """Halving the steps between fixed levels divides the error by about four."""
    model = exact_diffusion(sigma_min=0.05, sigma_max=5.0)
    x = 5.0 * torch.randn(16, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = {n: model.integrate(x, model.noise_levels(n + 1, device=x.device), None) for n in (16, 32, 64, 1024)}
    errors = [float((ends[n] - ends[1024]).abs().mean()) for n in (16, 32, 64)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.7
    assert max(orders) < 2.5


def test_ode_samples_a_known_mixture():
    model = exact_diffusion(sigma_min=0.002, sigma_max=20.0)
    noise = torch.randn(2000, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    levels = torch.cat([model.noise_levels(24, device=noise.device), torch.zeros(1, dtype=torch.float64)])
    x = model.integrate(noise * 20.0, levels, None).flatten(1)
    right = x.mean(1) > 0
    assert abs(right.double().mean() - 0.5) < 0.05
    assert abs(x[right].mean() - 0.5) < 0.02
    assert abs(x[right].std() - 0.2) < 0.02


class GaussianDenoiser(nn.Module):
    """Exact for independent values of mean 0 and standard deviation `spread`."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread
        self.sigma_data = torch.tensor(spread)

    def forward(self, x, sigma, label):
        s = sigma.reshape(-1, 1, 1, 1).to(x.dtype)
        return x * self.spread**2 / (self.spread**2 + s**2)


def test_ode_likelihood_is_exact_on_a_gaussian():
    """Dequantized levels under N(0, 0.3^2): the density is known."""
    model = Diffusion(Config(width=8, embed=8), Image(channels=1, height=4, width=4), 0)
    model.denoiser = GaussianDenoiser(0.3)
    x = torch.randint(90, 165, (32, 4, 4, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    claimed = model.log_prob(x, Streams.seeded(0))
    image = model.domain
    y = ((image.dequantize(x, Streams.seeded(0)) * 2 - 1) * image.spacing * image.levels / 2).flatten(1).double()
    variance = torch.full_like(y, math.log(0.3**2 + 0.002**2))
    exact = gaussian_log_prob(y, torch.zeros_like(y), variance) + 16 * math.log(image.spacing)
    assert torch.allclose(claimed.double(), exact, rtol=1e-3)


def test_variational_bound_is_near_the_exact_likelihood_of_a_gaussian():
    """With the exact denoiser the continuous-time bound is tight: entropy of the levels, in nats."""
    model = Diffusion(Config(width=8, embed=8), Image(channels=1, height=4, width=4), 0)
    model.denoiser = GaussianDenoiser(0.3)
    y = (0.3 * torch.randn(512, 4, 4, 1, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    x = ((y + 1) * 127.5).round().to(torch.uint8)
    bound = float(model.elbo(x, Streams.seeded(1), samples=64).mean())
    entropy = 16 * (0.5 * math.log(2 * math.pi * math.e * 0.3**2) - math.log(model.domain.spacing))
    assert bound < -entropy + 0.3
    assert abs(bound + entropy) < 0.03 * entropy


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
    drawn = mixture.sample(4000, torch.zeros(4000, dtype=torch.long), Streams.seeded(1))
    assert torch.allclose(drawn.std(0), torch.tensor([1.0, 0.5]), rtol=0.1)
    exact = gaussian_log_prob(z, means[label], torch.tensor([0.0, 2 * math.log(0.5)]))
    assert abs(float((mixture.log_prob(z, label, torch.full((2,), 0.5)) - exact).mean())) < 0.02


def test_flow_learns_the_entropy_of_noise():
    """On uniform noise of 16 levels no model beats 4 bits/dim, and a fitted flow comes close."""
    torch.manual_seed(0)
    domain = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 16}
    config = {"steps": 2, "width": 8, "embed": 4}
    model = build({"family": "flow", "config": config, "domain": domain, "classes": 0})
    generator = torch.Generator().manual_seed(0)

    def noise() -> Batch:
        return Batch((torch.randint(16, (512, 4, 4, 1), generator=generator) * 17).to(torch.uint8))

    model.initialize(noise(), Streams.seeded(0))
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    for step in range(200):
        optimizer.zero_grad()
        objective(noise(), Streams.seeded(step)).total.mean().backward()
        optimizer.step()
    bits = float(-model.log_prob(noise().x, Streams.seeded(1)).mean()) / 16 / math.log(2)
    assert 3.99 < bits < 4.15
