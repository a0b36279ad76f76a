"""Flows against known answers: Jacobians, inverses, densities that integrate to one, exact conditionals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from models import Batch, Streams, build
from models.flow.config import Config
from models.flow.couplings import Affine, Spline
from models.flow.imputation import gibbs, langevin
from models.flow.principal import PrincipalFlow
from models.networks.registry import network as network_for


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


SHAPES = [(1, 4, 4), (3, 4, 2), (2, 5, 3), (1, 2, 3), (1, 9, 4), (1,), (2,), (5,)]
VARIANTS = [
    {"architecture": architecture, "coupling": coupling, "linear": linear}
    for architecture, linear in (("glow", "lu"), ("realnvp", "permutation"), ("principal", "lu"))
    for coupling in ("affine", "spline")
]


def flow(shape: tuple[int, ...], variant: dict, **options) -> nn.Module:
    kind, layout = ("table", "vector") if len(shape) == 1 else ("image", "grid")
    if kind == "table":
        variant = variant | {"architecture": "couplings"}
    config = Config(steps=2, width=8, embed=4, components=5, **variant, **options)
    domain = SimpleNamespace(kind=kind, flow_shape=shape, rank=len(shape) - 1)
    network = randomized(network_for("bijection", layout)(domain, config))
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
@pytest.mark.parametrize("shape", [*SHAPES, (1, 8, 8), (3, 4, 8), (1, 13, 9)], ids=str)
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


@pytest.mark.parametrize("architecture", ["glow", "realnvp", "principal"])
def test_probabilities_of_all_images_of_an_odd_size_add_up_to_one(architecture):
    """Of 512 binary images of 3x3 pixels, but for the tails beyond the unit interval (a standard normal's .002).

    Dequantized images drawn uniformly estimate the sum; the mean of e^(log p) over them is that of every cell."""
    torch.manual_seed(3)
    spec = {"kind": "image", "channels": 1, "height": 3, "width": 3, "levels": 2}
    config = {"architecture": architecture, "steps": 2, "width": 8, "embed": 4, "components": 4}
    model = build({"family": "flow", "config": config, "domain": spec, "classes": 0})
    x = torch.randint(2, (200_000, 3, 3, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255
    for parameter in model.network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    total = 512 * model.log_prob(x, Streams.seeded(0)).double().exp().mean()
    assert float(total) == pytest.approx(1, abs=0.03)


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
        built = build({"family": "flow", "config": config, "domain": spec, "classes": 0}).with_sampling(detail=detail)
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


# Labels, conditionals and codes of flows whose network is known


class Shift(nn.Module):
    """A flow that takes the class's mean from every value: y given c is N(mean of c, 1)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shapes = [shape]

    def forward(self, y, c, *, initialize=False):
        return [y - c.reshape(-1, *[1] * (y.ndim - 1))], y.new_zeros(len(y))

    def inverse(self, latents, c):
        return latents[0] + c.reshape(-1, *[1] * (latents[0].ndim - 1))


class MeanOf(nn.Module):
    """Of classes 0 and 1; of an unknown label 0."""

    def forward(self, label, n):
        return torch.zeros(n) if label is None else torch.where(label < 0, 0.0, 3.0 * label - 1.5)


FREQUENCIES = (0.8, 0.2)
LABELS = (torch.arange(1000) >= 800).long()


def normal_column(count: int = 1) -> dict:
    """Standard normal columns by their quantiles, up to 6 standard deviations."""
    grid = torch.special.ndtri(torch.linspace(5e-4, 1 - 5e-4, 1001, dtype=torch.float64)).tolist()
    facts = {"type": "continuous", "min": grid[0], "max": grid[-1], "mean": 0.0, "std": 1.0, "quantiles": grid}
    return {"kind": "table", "columns": [{"name": f"x{i}", **facts} for i in range(count)]}


COUPLINGS = {"architecture": "couplings", "steps": 1, "width": 4}


def shifting():
    model = build({"family": "flow", "config": COUPLINGS, "domain": normal_column(), "classes": 2})
    model.network, model.label = Shift(1), MeanOf()
    model.initialize(Batch(torch.zeros(1000, 1, dtype=torch.float64), LABELS), Streams.seeded(0))
    return model


def test_a_flows_marginal_weighs_its_classes_by_their_frequencies():
    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None]
    found = shifting().log_prob(x, Streams.seeded(0))
    density = sum(f * stats.norm(m, 1).pdf(x[:, 0].numpy()) for f, m in zip(FREQUENCIES, (-1.5, 1.5), strict=True))
    assert np.allclose(found, np.log(density), atol=0.05)


@pytest.mark.parametrize("domain", [IMAGE, normal_column(3)], ids=["image", "table"])
def test_classes_that_the_couplings_ignore_change_no_density(domain):
    """An untrained flow's couplings ignore the label: with classes and without the density is the same."""
    torch.manual_seed(0)
    plain, labelled = (
        build({"family": "flow", "config": COUPLINGS | {"steps": 2}, "domain": domain, "classes": classes})
        for classes in (0, 3)
    )
    x = torch.randn(32, 3).double() if domain is not IMAGE else (torch.randint(16, (32, 4, 4, 1)) * 17).to(torch.uint8)
    labelled.initialize(Batch(x, torch.arange(32) // 12), Streams.seeded(0))
    plain.initialize(Batch(x), Streams.seeded(0))
    plain.network.load_state_dict(labelled.network.state_dict())
    plain_density, labelled_density = (model.log_prob(x, Streams.seeded(1)) for model in (plain, labelled))
    assert torch.allclose(plain_density, labelled_density, rtol=1e-4, atol=1e-3)


def test_a_flow_translates_from_the_likeliest_class_by_bayes_rule():
    """Between the means, at 0, the frequent class is the likelier; the border lies at ln(4) / 3."""
    x = torch.tensor([[-2.0], [0.0], [0.42], [0.5], [2.0]], dtype=torch.float64)
    moved = shifting().translate(x, torch.ones(5, dtype=torch.long), 0.0, Streams.seeded(0))
    assert torch.allclose(moved, torch.where(x < math.log(4) / 3, x + 3, x).clamp(max=3.29), atol=0.02)
    assert torch.allclose(shifting().translate(x, None, 0.0, Streams.seeded(0)), x, atol=0.02)


def test_a_translated_code_stays_standard_normal():
    model = build({"family": "flow", "config": COUPLINGS, "domain": normal_column(2), "classes": 0})
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-3, 3)
    moved = model.translate(x, None, 0.6, Streams.seeded(0))
    assert abs(float(moved.std()) - 1) < 0.03
    assert abs(np.corrcoef(x.flatten(), moved.flatten())[0, 1] - 0.8) < 0.02


def test_a_flow_samples_each_class_and_all_as_often_as_the_data():
    model = shifting()
    for label, mean in ((torch.zeros(3000, dtype=torch.long), -1.5), (torch.ones(3000, dtype=torch.long), 1.5)):
        drawn = model.sample(3000, label, Streams.seeded(0)).clamp(-3, 3)
        expected = np.clip(stats.norm(mean, 1).rvs(100_000, random_state=0), -3, 3)
        assert abs(float(drawn.mean()) - expected.mean()) < 0.06
        assert abs(float(drawn.std()) - expected.std()) < 0.04
    anything = model.sample(3000, None, Streams.seeded(1))
    above = 0.8 * stats.norm.sf(1.5) + 0.2 * stats.norm.cdf(1.5)
    assert abs(float((anything > 0).double().mean()) - above) < 0.03


def test_a_flows_training_hides_the_stated_part_of_the_labels():
    model = shifting()
    model.config = Config(label_dropout=0.3)
    seen = []
    model.label.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = model.objectives()[0]
    objective(Batch(torch.zeros(1000, 1, dtype=torch.float64), LABELS), Streams.seeded(0))
    assert abs(float((seen[-1] < 0).double().mean()) - 0.3) < 0.05
    assert torch.equal(seen[-1][seen[-1] >= 0], LABELS[seen[-1] >= 0])


class Correlated(nn.Module):
    """Two values of correlation 0.9, the first unit normal: z = L^-1 y."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shapes = [shape]
        self.root = torch.linalg.cholesky(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))

    def forward(self, y, c, *, initialize=False):
        z = torch.linalg.solve(self.root.to(y.dtype), y.flatten(1).T).T
        return [z.reshape(y.shape)], y.new_full((len(y),), -float(self.root.diagonal().log().sum()))

    def inverse(self, latents, c):
        return (latents[0].flatten(1) @ self.root.to(latents[0].dtype).T).reshape(latents[0].shape)


PAIR = {"kind": "image", "channels": 1, "height": 1, "width": 2, "levels": 256}


@pytest.mark.parametrize("domain", [normal_column(2), PAIR], ids=["table", "image"])
def test_a_flow_imputes_from_the_exact_conditional(domain):
    """Given the first value y the second is N(0.9 y, 0.19), on the table's normal scale or on the pixels' logits."""
    model = build({"family": "flow", "config": COUPLINGS, "domain": domain, "classes": 0})
    model = model.with_sampling(sweeps=3)
    model.network = Correlated(2) if domain is not PAIR else Correlated(1, 1, 2)
    y = torch.tensor([[1.2, 0.0], [-0.8, 0.0]]).repeat(150, 1)
    x = model.domain.quantize(y.double() if domain is not PAIR else y.reshape(-1, 1, 1, 2))
    observed = torch.zeros(x.shape, dtype=torch.bool)
    observed[..., :1] = True
    if domain is PAIR:
        observed = torch.tensor([True, False]).reshape(1, 1, 2, 1).expand(x.shape)
    draws = model.impute(x, observed, Streams.seeded(0), draws=6)
    given = model.domain.cell_center(x).flatten(1)[:, 0].double()
    found = model.domain.cell_center(draws.flatten(0, 1)).flatten(1)[:, 1].double().reshape(6, -1)
    assert abs(float(((found - 0.9 * given) * given.sign()).mean())) < 0.05
    assert float((found - 0.9 * given).std()) == pytest.approx(math.sqrt(0.19), rel=0.08)


def test_a_flows_density_of_known_cells_leaves_the_others_out():
    """Independent columns: hiding one leaves the other's density, and hiding both leaves 0."""
    model = build({"family": "flow", "config": COUPLINGS, "domain": normal_column(2), "classes": 0})
    x = torch.tensor([[0.7, -1.1], [0.7, math.nan], [math.nan, math.nan]], dtype=torch.float64)
    exact = [stats.norm.logpdf([0.7, -1.1]).sum(), stats.norm.logpdf(0.7), 0.0]
    assert np.allclose(model.log_prob(x, Streams.seeded(0)), exact, atol=0.03)
