"""Diffusion against known answers: orders of convergence, analytic denoisers, exact likelihoods and conditionals."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from specs import spec_of
from torch import nn

from models import Batch, Streams, build
from models.diffusion import Diffusion
from models.diffusion.config import Config
from models.diffusion.denoiser import coefficients, schedule_of
from models.diffusion.samplers import SAMPLERS
from models.diffusion.schedules import Cosine, Linear, Power, Straight
from models.domains.grid import Image

OBJECTIVES = {
    "edm": {"objective": "edm"},
    "ddpm cosine": {"objective": "ddpm", "schedule": "cosine"},
    "ddpm linear": {"objective": "ddpm", "schedule": "linear"},
    "flow matching": {"objective": "flow_matching"},
}
objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
NONE = Streams.seeded(0)
FOUR = Image(channels=1, height=4, width=4)
IMAGE = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 256}


class Mixture:
    """Two Gaussians in the plane of all values: its exact denoiser, samples and conditionals."""

    means = (-0.6, 0.5)
    spread = 0.2

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        variance = self.spread**2 + sigma**2
        near = [-0.5 * ((x - m).square() / variance).flatten(1).sum(1) for m in self.means]
        weights = torch.stack(near).softmax(0).reshape(2, *sigma.shape)
        return sum(w * (m + self.spread**2 / variance * (x - m)) for w, m in zip(weights, self.means, strict=True))

    def draw(self, n: int, *shape: int, generator: torch.Generator) -> torch.Tensor:
        side = torch.randint(2, (n, *[1] * len(shape)), generator=generator)
        return torch.tensor(self.means)[side] + self.spread * torch.randn(n, *shape, generator=generator)


def diffusion(domain: Image = FOUR, **settings) -> Diffusion:
    """A small model, with settings of either kind."""
    spec = spec_of("diffusion", {"width": 8, "embed": 8} | settings)
    return Diffusion(Config(**spec["config"]), domain, 0).with_sampling(**spec["sampling"])


def exact_diffusion(**config) -> Diffusion:
    """A model of 4x4 images whose denoiser is the mixture's own."""
    model = diffusion(**config)
    model.denoised = lambda x, sigma, label, *_, **__: Mixture().denoise(x, sigma)
    return model


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Schedules


@pytest.mark.parametrize("schedule", [Power(7.0), Cosine(), Linear(), Straight()], ids=lambda s: type(s).__name__)
def test_schedules_invert_themselves(schedule):
    for sigma in (0.002, 0.3, 1.0, 80.0):
        position = torch.tensor(schedule.position(sigma), dtype=torch.float64)
        assert float(schedule.sigma(position)) == pytest.approx(sigma, rel=1e-6)


def test_the_linear_schedule_is_the_thousand_steps_of_ddpm():
    """Betas from 0.0001 to 0.02: the product of 1 - beta is alpha squared."""
    alpha_squared = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    time = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(1 / (1 + Linear().sigma(time).square()), alpha_squared, rtol=0.06, atol=1e-3)


@objectives
def test_the_loss_is_the_objectives_own_squared_error(objective):
    """The denoiser's error over c_out squared: of the noise (ddpm), of noise minus example (flow matching)."""
    y, epsilon, sigma = torch.randn(3), torch.randn(3), torch.rand(3).double() + 0.1
    c_skip, c_out, c_in = coefficients(objective["objective"], sigma, torch.tensor(0.5))
    x, output = y + sigma * epsilon, torch.randn(3).double()
    loss = (c_skip * x + c_out * output - y).square() / c_out.square()
    if objective["objective"] == "ddpm":
        assert torch.allclose(loss, (output - epsilon).square())
    elif objective["objective"] == "flow_matching":
        assert torch.allclose(loss, (output - (epsilon - y)).square())
        t = sigma / (1 + sigma)
        assert torch.allclose(c_in * x, (1 - t) * y + t * epsilon)
    else:
        assert torch.allclose(loss, (output - (y - c_skip * x) / c_out).square())


# Samplers


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if sampler.order])
@objectives
def test_samplers_are_of_the_order_they_claim(name, objective):
    """Halving the steps between fixed levels divides the error by two to the order."""
    model = exact_diffusion(sigma_min=0.05, sigma_max=5.0, **objective)
    x, denoise = 5.0 * noise(16), Mixture().denoise

    def end(sampler, steps):
        return sampler(denoise, x, model.noise_levels(steps + 1, device=x.device), NONE)

    sampler, exact = SAMPLERS[name], end(SAMPLERS["heun"], 2048)
    errors = [float((end(sampler, n) - exact).abs().mean()) for n in (64, 128, 256)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > sampler.order - 0.3
    assert max(orders) < sampler.order + 0.6


@pytest.mark.parametrize("name", SAMPLERS)
@objectives
def test_samplers_draw_from_a_known_mixture(name, objective):
    model = exact_diffusion(sigma_min=0.01, sigma_max=20.0, **objective)
    levels = torch.cat([model.noise_levels(80, device=torch.device("cpu")), torch.zeros(1, dtype=torch.float64)])
    x = SAMPLERS[name](Mixture().denoise, 20.0 * noise(1000, 1), levels, Streams.seeded(0)).flatten(1)
    right = x.mean(1) > 0
    assert abs(right.double().mean() - 0.5) < 0.06
    assert abs(x[right].mean() - 0.5) < 0.02
    assert abs(x[right].std() - 0.2) < 0.03


def test_ddim_is_eulers_method_on_the_straight_path():
    """x <- x + (t' - t) (noise - example), both as the denoiser estimates them."""
    levels = Straight().between(5.0, 0.1, torch.linspace(0, 1, 12, dtype=torch.float64))
    x, denoise = 5.0 * noise(4), Mixture().denoise
    ours = SAMPLERS["ddim"](denoise, x, levels, NONE)
    times = levels / (1 + levels)
    z = (1 - times[0]) * x
    for t, later in pairwise(times):
        example = denoise(z / (1 - t), t / (1 - t))
        z = z + (later - t) * ((z - (1 - t) * example) / t - example)
    assert torch.allclose(ours, z / (1 - times[-1]))


# What training learns


@objectives
def test_a_trained_denoiser_is_near_the_analytic_one(objective):
    """After 350 short steps on two Gaussians the error is below a tenth of the examples' variance, or 5 % worse
    than the least possible."""
    torch.manual_seed(0)
    domain = {"kind": "image", "channels": 1, "height": 2, "width": 2, "levels": 256}
    config = {"width": 16, "embed": 32, "label_dropout": 0.0, **objective}
    model = build({"family": "diffusion", "config": config, "domain": domain, "classes": 0})
    generator = torch.Generator().manual_seed(0)

    def examples(n: int) -> torch.Tensor:
        y = Mixture().draw(n, 2, 2, 1, generator=generator).clamp(-1, 1)
        return ((y + 1) * 127.5).round().to(torch.uint8)

    model.initialize(Batch(examples(1024)), Streams.seeded(0))
    (loss,) = model.objectives()
    optimizer = torch.optim.Adam(loss.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 350)
    for step in range(350):
        optimizer.zero_grad()
        loss(Batch(examples(128)), Streams.seeded(step)).total.mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for sigma in (0.1, 0.3, 1.0):
            y = model.domain.to_model(examples(2000))
            x = y + sigma * torch.randn(y.shape, generator=generator)
            learned, exact = model.denoised(x, sigma, None), Mixture().denoise(x, sigma)
            apart = float((learned - exact).square().mean())
            least = float((exact - y).square().mean())
            assert apart < max(0.05 * least, 0.1 * Mixture.spread**2), (sigma, apart, least)


# Likelihoods


class GaussianDenoiser(nn.Module):
    """Exact for independent values of mean 0 and standard deviation `spread`."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread
        self.sigma_data, self.masked = torch.tensor(spread), False

    def forward(self, x, sigma, label):
        s = sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        return x * self.spread**2 / (self.spread**2 + s**2)


def gaussian_levels(levels: int, n: int, spread: float = 0.3) -> tuple[torch.Tensor, np.ndarray]:
    """4x4 images of independent pixels, of the levels next to Gaussian draws, and log-probabilities by scipy."""
    spacing = 2 / (levels - 1)
    y = spread * torch.randn(n, 4, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index = ((y + 1) / spacing).round().clamp(1, levels - 2)
    values, normal = (index * spacing - 1).numpy(), stats.norm(0, spread)
    exact = np.log(normal.cdf(values + spacing / 2) - normal.cdf(values - spacing / 2))
    return (index * 255 / (levels - 1)).round().to(torch.uint8), exact.reshape(n, 16).sum(1)


@objectives
@pytest.mark.parametrize("levels", [256, 17])
def test_ode_likelihood_is_exact_on_a_gaussian(objective, levels):
    """Log-probabilities of levels under N(0, 0.3^2) are known. The network's exact output goes in.

    Dequantization costs (spacing / 0.3)^2 / 24 nats per pixel: nothing of 256 levels, 0.12 per image of 17.
    """
    model = Diffusion(Config(width=8, embed=8, **objective), Image(channels=1, height=4, width=4, levels=levels), 0)
    exact_denoiser = GaussianDenoiser(0.3)
    model.denoiser.sigma_data.fill_(0.3)

    class Network(nn.Module):
        """What F must be for c_skip x + c_out F to be the exact denoiser."""

        def forward(self, scaled, c):
            c_skip, c_out, c_in = coefficients(model.config.objective, model.denoiser.now, model.denoiser.sigma_data)
            x = scaled / c_in.reshape(-1, 1, 1, 1)
            wanted = exact_denoiser(x, model.denoiser.now, None)
            return (wanted - c_skip.reshape(-1, 1, 1, 1) * x) / c_out.reshape(-1, 1, 1, 1)

    model.denoiser.network = Network()
    model.denoiser.register_forward_pre_hook(lambda module, inputs: setattr(module, "now", inputs[1]))
    x, exact = gaussian_levels(levels, 400)
    claimed = model.log_prob(x, Streams.seeded(0)).double().numpy()
    dequantization = 16 * (2 / (levels - 1) / 0.3) ** 2 / 24
    assert abs((claimed - exact).mean() + dequantization) < 0.1
    assert (claimed - exact).std() < (0.3 if levels == 256 else 3.0)


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


class ClassDenoiser(nn.Module):
    """Exact of independent pixels N(m_c, 0.3^2) given the class c; for an unknown label it knows nothing."""

    sigma_data = torch.tensor(0.5)

    def __init__(self, means: torch.Tensor) -> None:
        super().__init__()
        self.means = means

    def forward(self, x, sigma, label):
        if label is None:
            return torch.zeros_like(x)
        wide = [-1, *[1] * (x.ndim - 1)]
        mean, s = self.means.to(x.dtype)[label].reshape(wide), sigma.reshape(wide).to(x.dtype)
        return mean + 0.3**2 / (0.3**2 + s**2) * (x - mean)


@pytest.mark.parametrize("classes", [2, 20])
def test_density_and_bound_of_an_unknown_label_are_marginal(classes):
    """log of the sum of the classes' shares and probabilities, by scipy. Classes overlap; of 20 the eight kept hold
    most, the three that a density by the ODE is summed over less: both are below. What a bound loses where the label is
    given (by where it ends), it loses where it is not."""
    means = torch.linspace(-0.25, 0.25, classes)
    model = Diffusion(Config(width=8, embed=8), Image(channels=1, height=2, width=2), classes)
    model.denoiser = ClassDenoiser(means)
    shares = torch.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    model.label_frequencies.copy_(shares)
    random = torch.Generator().manual_seed(0)
    label = torch.multinomial(shares, 400, replacement=True, generator=random)
    y = means[label].reshape(-1, 1, 1, 1) + 0.3 * torch.randn(400, 2, 2, 1, generator=random)
    x = ((y.clamp(-0.99, 0.99) + 1) * 127.5).round().to(torch.uint8)
    values, half = (x / 127.5 - 1).double().numpy()[..., None], model.domain.spacing / 2
    normal = stats.norm(means.double().numpy(), 0.3)
    each = np.log(normal.cdf(values + half) - normal.cdf(values - half)).sum((1, 2, 3))
    exact = np.log(np.exp(each) @ shares.double().numpy()).mean()
    unsure = each[np.arange(400), each.argmax(1)].mean() - exact
    assert unsure > 0.4  # nats that a certain class would be wrong by
    of_label = float(model.elbo(x, Streams.seeded(0), samples=64, label=label).mean())
    lost = each[np.arange(400), label.numpy()].mean() - of_label
    assert 0 < lost < 0.3
    bound = float(model.elbo(x, Streams.seeded(0), samples=64).mean()) + lost
    assert exact - (0.03 if classes == 2 else 0.6) < bound < exact + 0.03
    density = float(model.log_prob(x, Streams.seeded(0), steps=24).mean())
    assert exact - (0.05 if classes == 2 else 1.3) < density < exact + 0.05


class LevelsDenoiser(nn.Module):
    """The expected level of pixels that are uniform on `levels` and independent: the exact denoiser, by enumeration."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.values = torch.linspace(-1, 1, levels, dtype=torch.float64)
        self.sigma_data = self.values.square().mean().sqrt()

    def forward(self, x, sigma, label):
        distance = (x.double()[..., None] - self.values) / sigma.double().reshape(-1, 1, 1, 1, 1)
        return ((-0.5 * distance.square()).softmax(-1) @ self.values).to(x.dtype)


@pytest.mark.parametrize("density_sigma", [0.0, 0.01, 0.02, 0.5])
@pytest.mark.parametrize("levels", [256, 17])
def test_bound_of_uniform_noise_is_its_entropy_wherever_it_ends(levels, density_sigma):
    """log2 of the number of levels in bits per pixel, of which no valid bound has less; the sampler's range is none
    of its business. The far end's Gaussian costs less than .001."""
    domain = Image(channels=1, height=4, width=4, levels=levels)
    model = diffusion(domain, sigma_min=0.1, density_sigma=density_sigma)
    model.denoiser = LevelsDenoiser(levels)
    index = torch.randint(levels, (1000, 4, 4, 1), generator=torch.Generator().manual_seed(0))
    x = (index * 255 / (levels - 1)).round().to(torch.uint8)
    bits = -model.elbo(x, Streams.seeded(0), samples=32).double() / 16 / math.log(2)
    assert float(bits.mean()) == pytest.approx(math.log2(levels), abs=0.03)


def table(*kinds: str) -> dict:
    """Columns of standard normal values, rounded to whole numbers of a fifth if integer."""
    grid = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 1001, dtype=torch.float64))
    scale = {"continuous": 1.0, "integer": 5.0}
    columns = []
    for number, kind in enumerate(kinds):
        quantiles = (scale[kind] * grid).round() if kind == "integer" else grid
        ends = {"min": float(quantiles[0]), "max": float(quantiles[-1]), "mean": 0.0, "std": scale[kind]}
        columns.append({"name": f"x{number}", "type": kind, "quantiles": quantiles.tolist(), **ends})
    return {"kind": "table", "columns": columns}


@pytest.mark.parametrize("kinds", [("continuous", "continuous"), ("integer", "integer"), ("continuous", "integer")])
def test_likelihood_and_bound_of_rows_are_near_the_exact_ones(kinds):
    """Independent columns, each with the distribution of its quantiles: nats per row are known, and with the
    exact denoiser both bounds are tight. A missing cell counts nothing."""
    spec = {"family": "diffusion", "config": {"width": 8}, "domain": table(*kinds), "classes": 0}
    model = build(spec)
    model.denoiser = GaussianDenoiser(1.0)
    y = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-2.5, 2.5)
    x = model.domain.quantize(y)
    half = {"continuous": 0.0, "integer": 0.1}  # of a cell, in standard deviations
    exact = torch.tensor([[0.0, 0.0]] * len(x), dtype=torch.float64)
    for index, kind in enumerate(kinds):
        z = x[:, index].numpy() / (5 if kind == "integer" else 1)
        mass = stats.norm.cdf(z + half[kind]) - stats.norm.cdf(z - half[kind])
        exact[:, index] = torch.tensor(stats.norm.logpdf(z) if kind == "continuous" else np.log(mass))
    for hidden in (False, True):
        known = torch.tensor([True, not hidden])
        row = torch.where(known, x, torch.nan)
        expected = float((exact * known).sum(1).mean())
        bound = float(model.elbo(row, Streams.seeded(0), samples=64).mean())
        assert abs(float(model.log_prob(row, Streams.seeded(0), steps=16).mean()) - expected) < 0.1
        assert expected - 0.25 < bound < expected + 0.1


class CategoryDenoiser(nn.Module):
    """Exact for one categorical column: the corners, weighted by how likely each is."""

    def __init__(self, shares: list[float]) -> None:
        super().__init__()
        self.shares, self.sigma_data = torch.tensor(shares), torch.tensor(0.5)

    def forward(self, x, sigma, label):
        return (self.shares.log() + x / sigma[:, None].square()).softmax(1)


def test_likelihood_and_bound_of_categories_are_near_the_exact_ones():
    shares = [0.7, 0.2, 0.1]
    column = {"name": "a", "type": "categorical", "categories": ["x", "y", "z"], "frequencies": [70, 20, 10]}
    domain = {"kind": "table", "columns": [column]}
    model = build({"family": "diffusion", "config": {"width": 8}, "domain": domain, "classes": 0})
    model.denoiser = CategoryDenoiser(shares)
    x = torch.arange(3).double().repeat_interleave(2000)[:, None]
    exact = torch.tensor(shares).log()
    by_ode = model.log_prob(x, Streams.seeded(0), steps=32).unflatten(0, (3, 2000)).mean(1)
    bound = model.elbo(x, Streams.seeded(0), samples=32).unflatten(0, (3, 2000)).mean(1)
    assert torch.allclose(by_ode, exact, atol=0.12)
    assert torch.allclose(bound, exact, atol=0.12)


# What a trained model is used for


def test_imputation_draws_from_the_conditional_of_a_mixture():
    """Half of the values say on which side the example lies; the others follow, with the mixture's spread."""
    model = exact_diffusion(impute_steps=60)
    x = torch.full((400, 4, 4, 1), round((0.5 + 1) * 127.5), dtype=torch.uint8)
    x[::2] = round((-0.6 + 1) * 127.5)
    observed = torch.zeros(x.shape, dtype=torch.bool)
    observed[:, :2] = True
    filled = model.impute(x, observed, Streams.seeded(0), draws=2)
    assert filled.shape == (2, *x.shape)
    assert (filled == x)[:, observed].all()
    hidden = (filled[:, :, 2:].double() / 127.5 - 1).flatten(2)
    for start, mean in ((0, -0.6), (1, 0.5)):
        assert abs(float(hidden[:, start::2].mean()) - mean) < 0.05
        assert abs(float(hidden[:, start::2].std()) - 0.2) < 0.03


def test_translation_keeps_less_the_stronger_it_is():
    model = exact_diffusion()
    x = torch.randint(0, 256, (8, 4, 4, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(model.translate(x, None, 0.0, Streams.seeded(0)), x)
    moved = [
        float((model.translate(x, None, strength, Streams.seeded(0)).float() - x.float()).square().mean())
        for strength in (0.2, 0.5, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]
    with pytest.raises(ValueError, match="strength must lie between 0 and 1"):
        model.translate(x, None, 1.5, Streams.seeded(0))


def test_guidance_moves_the_denoiser_away_from_the_unconditional_one():
    torch.manual_seed(0)
    domain = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 17}
    spec = {"family": "diffusion", "domain": domain, "classes": 3}
    plain, guided = (build({**spec, "config": {"width": 8}, "sampling": {"guidance": g}}) for g in (1.0, 2.5))
    for parameter in plain.denoiser.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    guided.load_state_dict(plain.state_dict())
    x, label = torch.randn(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        free, of_class = plain.denoised(x, 0.5, None), plain.denoised(x, 0.5, label)
        assert torch.allclose(guided.denoised(x, 0.5, label), free + 2.5 * (of_class - free), atol=1e-5)
        assert torch.equal(guided.denoised(x, 0.5, None), free)


@pytest.mark.parametrize("name", ["edm", "ddpm cosine", "ddpm linear", "flow matching"])
def test_noise_levels_are_those_of_the_papers(name):
    """From largest to smallest; the third of nine by each paper's formula."""
    levels = exact_diffusion(sigma_min=0.002, sigma_max=50.0, **OBJECTIVES[name]).noise_levels(
        9, device=torch.device("cpu")
    )
    assert (levels.diff() < 0).all()
    assert float(levels[0]) == pytest.approx(50.0, rel=1e-4)
    assert float(levels[-1]) == pytest.approx(0.002, rel=1e-4)

    def alpha_squared(t: float) -> float:
        if name == "ddpm linear":
            return math.exp(-0.1 * t - 19.9 * t**2 / 2)
        return (math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2

    def time(sigma: float) -> float:
        return optimize.brentq(lambda t: math.log(1 / alpha_squared(t) - 1) - 2 * math.log(sigma), 1e-9, 1 - 1e-9)

    if name == "edm":
        third = (50 ** (1 / 7) + 2 / 8 * (0.002 ** (1 / 7) - 50 ** (1 / 7))) ** 7
    elif name == "flow matching":
        t = 50 / 51 + 2 / 8 * (0.002 / 1.002 - 50 / 51)
        third = t / (1 - t)
    else:
        third = math.sqrt(1 / alpha_squared(time(50) + 2 / 8 * (time(0.002) - time(50))) - 1)
    assert float(levels[2]) == pytest.approx(third, rel=1e-3)


def test_dpm_solver_is_algorithm_2_by_hand():
    """Levels 8, 4, 1, 0.5 (unequal steps of log sigma), D = 0.04 x / (0.04 + sigma^2), from 3."""
    levels = torch.tensor([8.0, 4.0, 1.0, 0.5], dtype=torch.float64)
    x = torch.full((1, 1), 3.0, dtype=torch.float64)
    found = SAMPLERS["dpmpp_2m"](lambda x, sigma: 0.04 * x / (0.04 + sigma**2), x, levels, NONE)
    assert float(found) == pytest.approx(0.198375, abs=1e-6)


def gaussian_model(spread: float = 0.3, **config):
    """A model of 4x4 images whose denoiser is that of N(0, spread^2)."""
    model = diffusion(**config)
    model.denoiser = GaussianDenoiser(spread)
    return model


def test_denoising_is_that_of_the_noise_stated_in_data_units():
    """Noise as wide as the data: half way to the mean, mid-grey of an image, the median of a column."""
    x = torch.tensor([10.0, 100, 127.5, 140, 250]).reshape(5, 1, 1, 1).expand(5, 4, 4, 1)
    found = gaussian_model().denoise(x, 127.5 * 0.3)
    assert torch.allclose(found.float(), (x + 127.5) / 2, atol=0.51)
    model = build({"family": "diffusion", "config": {"width": 8}, "domain": table("continuous"), "classes": 0})
    model.denoiser = GaussianDenoiser(1.0)
    row = torch.tensor([[2.0], [-1.0], [0.4]], dtype=torch.float64)
    assert torch.allclose(model.denoise(row, 1.0), row / 2, atol=0.01)
    assert torch.allclose(model.denoise(row, 2.0), row / 5, atol=0.01)


def test_codes_of_a_gaussian_are_its_standard_scores():
    """The probability-flow ODE scales: z = y sqrt(spread^2 + sigma_max^2) / (spread sigma_max)."""
    model = gaussian_model(code_steps=60)
    x = torch.linspace(20, 235, 6).round().to(torch.uint8).reshape(6, 1, 1, 1).expand(6, 4, 4, 1)
    y = (x.double() / 127.5 - 1).reshape(6, 16)
    z = model.encode(x)
    assert torch.allclose(z.double(), y / 0.3, rtol=0.01, atol=1e-3)
    assert (model.decode(z).int() - x.int()).abs().max() <= 1
    assert (model.reconstruct(x, NONE).int() - x.int()).abs().max() <= 1


@pytest.mark.parametrize("strength", [0.5, 0.75])
def test_translation_adds_as_much_noise_as_its_strength_says(strength):
    """From noise of level s back to a Gaussian: the spread stays, the correlation is spread / sqrt(spread^2 + s^2)."""
    model = gaussian_model(steps=20, sigma_min=0.002, sigma_max=10.0)
    x = (127.5 + 0.3 * 127.5 * torch.randn(600, 4, 4, 1, generator=torch.Generator().manual_seed(0))).round()
    x = x.clamp(0, 255).to(torch.uint8)
    moved = model.translate(x, None, strength, Streams.seeded(0))
    least, most = 0.002 ** (1 / 7), 10 ** (1 / 7)
    level = (most + (20 - 20 * strength) / 19 * (least - most)) ** 7
    both = np.corrcoef(x.flatten(), moved.flatten())[0, 1]
    assert abs(both - 0.3 / math.hypot(0.3, level)) < 0.03
    assert float(moved.double().std()) == pytest.approx(0.3 * 127.5, rel=0.04)


def test_samples_of_a_gaussian_have_its_spread():
    drawn = gaussian_model(steps=60).sample(200, None, Streams.seeded(0)).double()
    assert abs(float(drawn.mean()) - 127.5) < 3
    assert abs(float(drawn.std()) - 0.3 * 127.5) < 2


def test_an_ancestral_step_draws_from_the_conditional_of_the_lower_level():
    """x at 1.2 and x at 2 about 0.5 are jointly Gaussian, covariance 1.44: given the latter is 3, by conditioning."""
    x, levels = torch.full((20_000, 1), 3.0, dtype=torch.float64), torch.tensor([2.0, 1.2], dtype=torch.float64)
    drawn = SAMPLERS["ddpm"](lambda x, sigma: torch.full_like(x, 0.5), x, levels, Streams.seeded(0))
    assert abs(float(drawn.mean()) - (0.5 + 1.44 / 4 * 2.5)) < 0.03
    assert abs(float(drawn.var()) - (1.44 - 1.44**2 / 4)) < 0.04


def test_sigma_data_is_the_spread_of_the_known_values():
    x = (100 + 20 * torch.randn(300, 4, 4, 1, generator=torch.Generator().manual_seed(0))).round().to(torch.uint8)
    model = Diffusion(Config(width=8, embed=8), Image(channels=1, height=4, width=4), 0)
    model.initialize(Batch(x), NONE)
    assert float(model.denoiser.sigma_data) == pytest.approx(float((x.double() / 127.5).std()), rel=1e-4)
    rows = build(
        {"family": "diffusion", "config": {"width": 8}, "domain": table("continuous", "integer"), "classes": 0}
    )
    y = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = rows.domain.quantize(y)
    values[torch.rand(values.shape, generator=torch.Generator().manual_seed(2)) < 0.5] = torch.nan
    rows.initialize(Batch(values), NONE)
    assert float(rows.denoiser.sigma_data) == pytest.approx(1.0, abs=0.03)


def test_gaps_alone_do_not_make_a_row_odd():
    """The denoising error per known value is what counts: half the cells, the same score on average."""
    model = build({"family": "diffusion", "config": {"width": 8}, "domain": table(*["continuous"] * 8), "classes": 0})
    model.denoiser = GaussianDenoiser(1.0)
    y = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-3, 3)
    x = model.domain.quantize(y)
    model.finalize(Batch(x), Streams.seeded(0))
    gappy = torch.where(torch.arange(8) % 2 == 0, x, torch.nan)
    whole, half = (model.anomaly_score(rows, Streams.seeded(1)) for rows in (x, gappy))
    assert abs(float(half.mean() - whole.mean())) < 0.6 * float(whole.std())
    far = x.clone()
    far[:, 0] = 1e3
    assert float(model.anomaly_score(far, Streams.seeded(1)).median()) > float(whole.quantile(0.95))


@objectives
def test_training_draws_the_stated_noise_levels_and_hides_the_stated_labels(objective):
    """Log-normal levels (edm), else uniform in the schedule's time; a third of the labels hidden."""
    config = {"width": 8, "embed": 8, "label_dropout": 1 / 3, "p_mean": -0.7, "p_std": 0.9, **objective}
    model = build({"family": "diffusion", "config": config, "domain": IMAGE, "classes": 2})
    seen: dict[str, torch.Tensor] = {}
    model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.update(sigma=inputs[1], label=inputs[2]))
    n = 3000
    x, label = torch.zeros(n, 4, 4, 1, dtype=torch.uint8), torch.arange(n) % 2
    with torch.no_grad():
        model.objectives()[0](Batch(x, label), Streams.seeded(0))
    hidden = seen["label"] < 0
    assert abs(float(hidden.double().mean()) - 1 / 3) < 0.04
    assert torch.equal(seen["label"][~hidden], label[~hidden])
    sigma = seen["sigma"].double().numpy()
    if objective["objective"] == "edm":
        assert stats.kstest(np.log(sigma), stats.norm(-0.7, 0.9).cdf)[0] < 0.04
    else:
        schedule = schedule_of(model.config)
        first, last = (schedule.position(s) for s in (0.002, 80.0))
        time = (np.array([schedule.position(s) for s in sigma]) - first) / (last - first)
        assert stats.kstest(time, "uniform")[0] < 0.04
