"""Flows against known answers: Jacobians, inverses, densities that integrate to one, exact conditionals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models import Batch, Streams, build
from models.capabilities import Imputation
from models.flow import network_of
from models.flow.config import Config
from models.flow.couplings import Affine, Spline
from models.flow.imputation import gibbs, langevin
from models.flow.principal import PrincipalFlow


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomized(module: nn.Module) -> nn.Module:
    """Zero-initialized layers would make every flow the identity."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


SHAPES = [(1, 4, 4), (3, 4, 2), (1, 3, 3), (1,), (2,), (5,)]
VARIANTS = [
    {"architecture": architecture, "coupling": coupling, "linear": linear}
    for architecture, linear in (("glow", "lu"), ("realnvp", "permutation"), ("principal", "lu"))
    for coupling in ("affine", "spline")
]


def flow(shape: tuple[int, ...], variant: dict, **options) -> nn.Module:
    config = Config(steps=2, width=8, embed=4, components=5, **variant, **options)
    network = randomized(network_of(shape, config))
    if isinstance(network, PrincipalFlow):
        dims = math.prod(shape)
        network.measure(torch.randn(64, dims) @ torch.randn(dims, dims))
    return network


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v.values()))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_determinant_is_that_of_the_autograd_jacobian(double, shape, variant):
    torch.manual_seed(0)
    network = flow(shape, variant)
    x, c = torch.randn(1, *shape), torch.randn(1, 4)

    def latent(flat):
        latents, _ = network(flat.reshape(1, *shape), c)
        return torch.cat([z.flatten() for z in latents])

    exact = torch.linalg.slogdet(torch.autograd.functional.jacobian(latent, x.flatten())).logabsdet
    assert abs((network(x, c)[1][0] - exact) / exact) <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v.values()))
@pytest.mark.parametrize("shape", [*SHAPES, (1, 8, 8), (3, 4, 8), (1, 5, 5)], ids=str)
def test_a_flow_inverts_itself(double, shape, variant):
    torch.manual_seed(1)
    network = flow(shape, variant)
    x, c = 2 * torch.randn(16, *shape), torch.randn(16, 4)
    latents, _ = network(x, c)
    assert torch.allclose(network.inverse(latents, c), x, atol=1e-8)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v.values()))
def test_density_integrates_to_one_in_two_dimensions(double, variant):
    torch.manual_seed(2)
    network = flow((2,), variant)
    axis = torch.linspace(-12, 12, 501)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        (z,), log_det = network(grid, torch.zeros(len(grid), 4))
    log_p = -0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_det
    assert abs(log_p.exp().sum() * (axis[1] - axis[0]) ** 2 - 1) < 1e-3


def test_a_principal_flow_starts_as_the_gaussian_of_its_first_batch(double):
    torch.manual_seed(6)
    y = torch.randn(500, 1, 3, 3) + (torch.randn(500, 9) @ torch.randn(9, 9)).reshape(500, 1, 3, 3)
    network = PrincipalFlow((1, 3, 3), Config(architecture="principal", components=4, steps=2, width=8, embed=4))
    latents, log_det = network(y, torch.zeros(500, 4), initialize=True)
    assert [z.shape[1] for z in latents] == [5, 4]
    log_p = -0.5 * (sum(z.square().sum(1) for z in latents) + 9 * math.log(2 * math.pi)) + log_det
    flat = y.flatten(1)
    exact = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.T)).log_prob(flat)
    assert torch.allclose(log_p, exact, atol=1e-8)


def test_a_principal_flow_of_images_samples_less_detail_when_asked():
    torch.manual_seed(7)
    spec = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 256}
    config = {"architecture": "principal", "components": 4, "steps": 2, "width": 8, "embed": 8}
    x = torch.randint(256, (300, 8, 8, 1), dtype=torch.uint8)
    spreads = []
    for detail in (1.0, 0.1):
        built = build({"family": "flow", "config": {**config, "detail": detail}, "domain": spec, "classes": 0})
        built.initialize(Batch(x), Streams.seeded(0))
        spreads.append(built.sample(300, None, Streams.seeded(1)).float().std(0).mean())
    assert spreads[0] > 0.8 * x.float().std(0).mean()
    assert spreads[1] < 0.5 * spreads[0]


@pytest.mark.parametrize("function", [Affine(2.0), Spline(8, 3.0), Spline(3, 1.0)], ids=["affine", "spline", "coarse"])
def test_elementwise_functions_are_monotone_with_the_stated_slope(double, function):
    """Also at the knots, at the tails and far outside."""
    torch.manual_seed(3)
    raw = 3 * torch.randn(1, function.parameters, 1)
    x = torch.cat([torch.linspace(-5, 5, 2001), torch.tensor([-3.0, 3.0, -1.0, 1.0, 100.0])])[:, None].requires_grad_()
    raw = raw.expand(len(x), -1, -1)
    y, log_slope = function(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(log_slope.exp(), slope, rtol=1e-9)
    assert (y[:2001].diff(dim=0) > 0).all()
    back, log_back = function(y, raw, inverse=True)
    assert torch.allclose(back, x, atol=1e-8)
    assert torch.allclose(log_back, -log_slope, atol=1e-6)


def test_a_spline_is_the_identity_at_zero_parameters(double):
    spline = Spline(8, 3.0)
    x = torch.linspace(-4, 4, 99)[:, None]
    y, log_slope = spline(x, torch.zeros(99, spline.parameters, 1))
    assert torch.allclose(y, x)
    assert torch.allclose(log_slope, torch.zeros_like(log_slope), atol=1e-12)


CORRELATION = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 1.0]], dtype=torch.float64)


def correlated(y: torch.Tensor) -> torch.Tensor:
    """Log-density of a Gaussian of which every conditional is known."""
    flat = y.flatten(1)
    return -0.5 * torch.einsum("ni,ij,nj->n", flat, torch.linalg.inv(CORRELATION), flat)


def exact_conditional(given: float) -> tuple[float, float]:
    """Mean and standard deviation of the second value given that the first is `given`."""
    return 0.8 * given, math.sqrt(1 - 0.8**2)


def test_gibbs_draws_from_the_exact_conditional_of_a_gaussian():
    """Hidden: the second and third of three correlated values."""
    y = torch.zeros(2000, 3, dtype=torch.float64)
    y[:, 0] = 1.5
    hidden = torch.tensor([False, True, True]).expand(2000, 3)
    quantiles = torch.distributions.Normal(0, 1).icdf(torch.linspace(0.0005, 0.9995, 33)).double().repeat(3, 1)
    states = gibbs(correlated, y, hidden, quantiles, lambda: y, Streams.seeded(0))
    for _ in range(8):
        state = next(states)
    mean, spread = exact_conditional(1.5)
    assert (state[:, 0] == 1.5).all()
    assert abs(float(state[:, 1].mean()) - mean) < 0.06
    assert abs(float(state[:, 1].std()) - spread) < 0.06


def test_langevin_draws_from_the_exact_conditional_of_a_gaussian():
    y = torch.zeros(2000, 1, 1, 3, dtype=torch.float64)
    y[..., 0] = 1.5
    hidden = torch.tensor([False, True, True]).expand(2000, 1, 1, 3)
    state = langevin(correlated, y, hidden, Streams.seeded(0), steps=200).flatten(1)
    mean, spread = exact_conditional(1.5)
    assert (state[:, 0] == 1.5).all()
    assert abs(float(state[:, 1].mean()) - mean) < 0.06
    assert abs(float(state[:, 1].std()) - spread) < 0.06


IMAGE = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 16}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v.values()))
def test_every_variant_learns_the_entropy_of_noise(variant):
    """On uniform noise of 16 levels no model beats 4 bits/dim, and a fitted flow comes close."""
    torch.manual_seed(0)
    config = {"steps": 2, "width": 8, "embed": 4, **variant}
    model = build({"family": "flow", "config": config, "domain": IMAGE, "classes": 0})
    generator = torch.Generator().manual_seed(0)

    def noise() -> Batch:
        return Batch((torch.randint(16, (256, 4, 4, 1), generator=generator) * 17).to(torch.uint8))

    model.initialize(noise(), Streams.seeded(0))
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters(), 4e-3)
    for step in range(100):
        optimizer.zero_grad()
        objective(noise(), Streams.seeded(step)).total.mean().backward()
        optimizer.step()
    bits = float(-model.log_prob(noise().x, Streams.seeded(1)).mean()) / 16 / math.log(2)
    assert 3.99 < bits < 4.2


def test_imputed_images_keep_what_was_observed():
    torch.manual_seed(0)
    model = build({"family": "flow", "config": {"steps": 2, "width": 8}, "domain": IMAGE, "classes": 3})
    assert isinstance(model, Imputation)
    x = (torch.randint(16, (6, 4, 4, 1)) * 17).to(torch.uint8)
    observed = torch.rand(x.shape) < 0.6
    filled = model.impute(x, observed, Streams.seeded(0), draws=3)
    assert filled.shape == (3, *x.shape)
    assert (filled == x)[:, observed].all()
    assert not torch.equal(filled[0], filled[1])
