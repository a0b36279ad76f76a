"""Diffusion against known answers: orders of convergence, analytic denoisers, exact likelihoods and conditionals."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from models import Batch, Streams, build
from models.diffusion import Diffusion
from models.diffusion.config import Config
from models.diffusion.denoiser import coefficients, schedule_of
from models.diffusion.samplers import SAMPLERS
from models.diffusion.schedules import Cosine, Linear, Power, Straight
from models.domains.grid import Image
from models.vae.gaussians import gaussian_log_prob

OBJECTIVES = {
    "edm": {"objective": "edm"},
    "ddpm cosine": {"objective": "ddpm", "schedule": "cosine"},
    "ddpm linear": {"objective": "ddpm", "schedule": "linear"},
    "flow matching": {"objective": "flow_matching"},
}
objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
NONE = Streams.seeded(0)


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


def exact_diffusion(**config) -> Diffusion:
    """A model of 4x4 images whose denoiser is the mixture's own."""
    model = Diffusion(Config(width=8, embed=8, **config), Image(channels=1, height=4, width=4), 0)
    model.denoised = lambda x, sigma, label: Mixture().denoise(x, sigma)
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
        self.sigma_data = torch.tensor(spread)

    def forward(self, x, sigma, label):
        s = sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        return x * self.spread**2 / (self.spread**2 + s**2)


@objectives
def test_ode_likelihood_is_exact_on_a_gaussian(objective):
    """Dequantized levels under N(0, 0.3^2): the density is known. The network's exact output goes in."""
    model = Diffusion(Config(width=8, embed=8, **objective), Image(channels=1, height=4, width=4), 0)
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
    x = torch.randint(90, 165, (32, 4, 4, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    claimed = model.log_prob(x, Streams.seeded(0))
    image = model.domain
    y = (
        ((image.uniform_dequantize(x, Streams.seeded(0)) * 2 - 1) * image.spacing * image.levels / 2)
        .flatten(1)
        .double()
    )
    variance = torch.full_like(y, math.log(0.3**2 + 0.002**2))
    exact = gaussian_log_prob(y, torch.zeros_like(y), variance) + 16 * math.log(image.spacing)
    assert torch.allclose(claimed.double(), exact, rtol=2e-3)


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
    cells = model.domain.cells(x)
    exact = torch.where(cells.wide, (cells.upper - cells.lower).log(), cells.log_slope)
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
    model = exact_diffusion(steps=40, sigma_max=20.0)
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
    plain, guided = (build({**spec, "config": {"width": 8, "guidance": g}}) for g in (1.0, 2.5))
    for parameter in plain.denoiser.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    guided.load_state_dict(plain.state_dict())
    x, label = torch.randn(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        free, of_class = plain.denoised(x, 0.5, None), plain.denoised(x, 0.5, label)
        assert torch.allclose(guided.denoised(x, 0.5, label), free + 2.5 * (of_class - free), atol=1e-5)
        assert torch.equal(guided.denoised(x, 0.5, None), free)


def test_noise_levels_go_from_largest_to_smallest():
    for objective in OBJECTIVES.values():
        levels = exact_diffusion(**objective).noise_levels(18, device=torch.device("cpu"))
        assert (levels.diff() < 0).all()
        assert float(levels[0]) == pytest.approx(80.0, rel=1e-4)
        assert float(levels[-1]) == pytest.approx(0.002, rel=1e-4)
        assert schedule_of(Config(**objective)) is not None
