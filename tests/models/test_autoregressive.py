"""The autoregressive flow of rows, and what is built on it, against enumerations and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from test_tables import double, seeded, table, train  # noqa: F401 (double is a fixture)
from torch.utils.flop_counter import FlopCounterMode

from data.tails import MOST, tails_of
from models import Batch, Streams, build
from models.capabilities import Translation
from models.domains.table import Table


def randomized(domain: dict, classes: int = 0, **config) -> torch.nn.Module:
    """A flow of rows whose conditionals are arbitrary, and depend on everything that they may depend on."""
    torch.manual_seed(0)
    config = {"width": 16, "embed": 8} | config
    model = build({"family": "flow", "config": config, "domain": domain, "classes": classes}).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return model


def small() -> tuple[torch.Tensor, dict]:
    """A category, a number of three values, one with a bulk at 0, and another category, all related."""
    g = seeded(1)
    a = torch.randint(3, (500,), generator=g)
    number = torch.where(torch.rand(500, generator=g) < 0.3, 0.0, torch.randn(500, generator=g) + a)
    x = torch.stack([a, (a + torch.randint(2, (500,), generator=g)) % 3, number, a % 2], dim=1).double()
    return x, table(x, "3ic2")


@pytest.mark.usefixtures("double")
def test_the_mixed_density_sums_and_integrates_to_one():
    _, domain = small()
    model = randomized(domain, classes=2)
    knots = model.domain.knots(torch.device("cpu"))
    ends = knots.x[2][knots.x[2].isfinite()].unique()  # between two of these the density is constant
    beyond = torch.linspace(0, 7, 150).expm1()
    places = torch.cat([(ends[1:] + ends[:-1]) / 2, ends[:1] - beyond[1:], ends[-1:] + beyond[1:], torch.zeros(1)])
    total = 0.0
    for a, b, d in itertools.product(range(3), range(-1, 4), range(2)):
        rows = torch.stack([torch.full_like(places, v) for v in (a, b)] + [places, torch.full_like(places, d)], dim=1)
        inside, below, above, bulk = (
            model.log_prob(rows, Streams.seeded(0)).exp().split([len(ends) - 1, len(beyond) - 1, len(beyond) - 1, 1])
        )
        total += float((inside * ends.diff()).sum() + bulk.sum())
        total += float(torch.trapezoid(below, beyond[1:]) + torch.trapezoid(above, beyond[1:]))
    assert total == pytest.approx(1, abs=5e-3)  # whole numbers lie further out, too


@pytest.mark.usefixtures("double")
def test_missing_cells_are_summed_out_exactly():
    """Missing cells come last: what is known has the probability that the sum over them gives, whichever they are."""
    x, domain = small()
    model = randomized(domain)
    row = x[:1].repeat(3, 1)
    row[:, 3] = torch.tensor([0.0, 1.0, math.nan])
    zero, one, either = model.log_prob(row, Streams.seeded(0)).exp().tolist()
    assert zero + one == pytest.approx(either, rel=1e-8)
    row[:, 0], row[:, 3] = torch.tensor([0.0, 1.0, 2.0]), math.nan
    nothing = torch.full((1, 4), math.nan).double()
    assert float(model.log_prob(nothing, Streams.seeded(0))) == 0
    row[:, 1:] = math.nan
    assert float(model.log_prob(row, Streams.seeded(0)).exp().sum()) == pytest.approx(1, rel=1e-8)


@pytest.mark.usefixtures("double")
def test_codes_are_those_of_the_change_of_variables():
    """Standard normal log-density of the code plus the log-derivatives of a triangular map, by differences."""
    x = torch.randn(2000, 3, generator=seeded(2)).double()
    model = randomized(table(x, "ccc"))
    rows = 0.9 * x[:50]
    z, log_p = model.encode(rows), model.log_prob(rows, Streams.seeded(0))
    step, log_det = 1e-7, 0.0
    for column in range(3):
        ahead, behind = rows.clone(), rows.clone()
        ahead[:, column] += step
        behind[:, column] -= step
        slope = (model.encode(ahead)[:, column] - model.encode(behind)[:, column]) / (2 * step)
        log_det = log_det + slope.log()
    expected = (-0.5 * (z.square() + math.log(2 * math.pi))).sum(1) + log_det
    smooth = (expected - log_p).abs() < 1e-4  # all but points within 1e-7 of a knot
    assert smooth.double().mean() > 0.95
    assert torch.allclose(model.decode(z), rows, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("double")
def test_many_categories_asked_for_in_two_steps_sum_to_one():
    """Untrained, each has the frequency it has in the data (with one more of each); trained, any; always 1 in all.

    The groups of 309 categories are of four, the last of one.
    """
    x = torch.stack([torch.randint(309, (900,), generator=seeded(11)), torch.arange(900) % 2], dim=1).double()
    every = torch.cartesian_prod(torch.arange(309.0), torch.arange(2.0)).double()
    model = build({"family": "flow", "config": {"width": 16}, "domain": table(x, ("309", "2")), "classes": 0})
    counts = torch.bincount(x[:, 0].long(), minlength=309) + 1
    probability = model.log_prob(every, Streams.seeded(0)).exp().reshape(309, 2)
    assert torch.allclose(probability.sum(1), counts / counts.sum(), atol=1e-6)
    model = randomized(table(x, ("309", "2")))
    probability = model.log_prob(every, Streams.seeded(0)).exp().reshape(309, 2)
    assert float(probability.sum()) == pytest.approx(1, rel=1e-8)
    drawn = model.sample(20_000, None, Streams.seeded(0)).long()
    assert torch.allclose(torch.bincount(drawn[:, 0], minlength=309) / 20_000, probability.sum(1), atol=0.012)
    likely = probability.sum(1).topk(3).indices
    given = torch.stack([drawn[drawn[:, 0] == k, 1].double().mean() for k in likely])
    assert torch.allclose(given, (probability[:, 1] / probability.sum(1))[likely], atol=0.08)


@pytest.mark.parametrize("family", ["autoencoder", "vae", "gan", "flow", "diffusion"])
def test_ten_thousand_categories_cost_at_most_three_times_ten(family):
    """Ten columns of them: multiplications of the losses, and weights but for two short vectors a category."""
    config = {"width": 64} | ({"critic_width": 64, "loss": "hinge"} if family == "gan" else {})
    cost, weights = [], []
    for count in (10, 10_000):
        entry = {"type": "categorical", "categories": [str(k) for k in range(count)], "frequencies": [1] * count}
        columns = [entry | {"name": f"c{i}"} for i in range(10)]
        spec = {"family": family, "config": config, "domain": {"kind": "table", "columns": columns}, "classes": 0}
        model = build(spec).requires_grad_(False)
        rows = torch.randint(count, (8, 10), generator=seeded()).double()
        with FlopCounterMode(display=False) as counter:
            for objective in model.objectives():
                objective(Batch(rows), Streams.seeded(0))
        cost.append(counter.get_total_flops())
        weights.append(sum(parameter.numel() for parameter in model.parameters()) - 10 * count * 2 * 64 // 4)
    assert cost[1] <= 3 * cost[0]
    assert weights[1] <= 6 * weights[0]


def test_codes_of_mixed_rows_come_back_and_are_standard_normal():
    _, domain = small()
    model = randomized(domain)
    drawn = model.sample(400, None, Streams.seeded(0))
    assert torch.allclose(model.decode(model.encode(drawn)), drawn, rtol=1e-6, atol=1e-6)
    gappy = torch.where(torch.rand(drawn.shape, generator=seeded(3)) < 0.4, torch.nan, drawn)
    back, known = model.decode(model.encode(gappy)), ~gappy.isnan()
    assert torch.allclose(back[known], gappy[known], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("frequencies", [(20, 28, 26, 26), (2000, 2000, 2000, 4000), (5, 1, 1, 1)])
@pytest.mark.parametrize("family", ["autoencoder", "vae"])
def test_a_code_is_decoded_to_the_likeliest_category(family, frequencies):
    """An untrained decoder gives every category the frequency that it has in the data, whatever the code."""
    x = torch.repeat_interleave(torch.arange(4.0), torch.tensor(frequencies))[:, None].double()
    torch.manual_seed(0)
    spec = {"family": family, "config": {"latent": 2, "width": 8}, "domain": table(x, "4"), "classes": 0}
    decoded = build(spec).eval().decode(torch.randn(5, 2, generator=seeded()))
    assert decoded[:, 0].tolist() == [float(np.argmax(frequencies))] * 5


def test_codes_far_out_have_values_where_the_data_have_no_gaps():
    """The normal distribution function is 1.0 from 8.3 on: neither codes nor outliers beyond that are gaps."""
    x = torch.randn(400, 2, generator=seeded(2)).double()
    model = randomized(table(x, "cc"))
    assert not model.decode(torch.tensor([[9.0, -9.0], [0.5, 40.0]])).isnan().any()
    far = torch.tensor([[1e30, 0.0], [0.0, 1e12]]).double()
    assert not model.translate(far, None, 0.0, Streams.seeded(0)).isnan().any()


def test_any_conditional_is_that_of_the_data():
    """Three related categories: each one's draws given every value of every subset of the others."""
    joint = torch.rand(2, 3, 2, generator=seeded(4)).pow(2) + 0.1
    cells = torch.multinomial(joint.flatten(), 6000, True, generator=seeded(5))
    x = torch.stack([cells // 6, cells // 2 % 3, cells % 2], dim=1).double()
    data = torch.bincount(cells, minlength=12).reshape(2, 3, 2) / len(cells)
    config = {"width": 16, "embed": 8, "order": "random"}
    model = train("flow", x, table(x, "232"), steps=300, config=config)
    distances, weights = [], []
    for given in itertools.chain.from_iterable(itertools.combinations(range(3), size) for size in range(3)):
        hidden = [c for c in range(3) if c not in given]
        for values in itertools.product(*[range(data.shape[c]) for c in given]):
            at = dict(zip(given, values, strict=True))
            conditional = data[tuple(at.get(c, slice(None)) for c in range(3))]
            row = torch.tensor([[float(at.get(c, 0)) for c in range(3)]]).double()
            seen = torch.tensor([[c in given for c in range(3)]])
            draws = model.impute(row, seen, Streams.seeded(0), draws=2000)[:, 0, hidden].long()
            counts = torch.zeros_like(conditional)
            counts.index_put_(tuple(draws.T), torch.ones(len(draws)), accumulate=True)
            weights.append(float(conditional.sum()))
            distances.append(0.5 * float((counts / len(draws) - conditional / conditional.sum()).abs().sum()))
    assert max(distances) < 0.12
    assert np.average(distances, weights=weights) < 0.04


def test_rows_given_some_cells_have_the_labels_and_gaps_that_these_have():
    """One category tells the class; another does not, but is often missing in one: all conditionals are known."""
    p_class, p_one, p_gap = torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.9]), torch.tensor([0.6, 0.1])
    label = torch.multinomial(p_class, 6000, True, generator=seeded(1))
    one = (torch.rand(6000, generator=seeded(2)) < p_one[label]).double()
    other = torch.randint(2, (6000,), generator=seeded(3)).double()
    other[torch.rand(6000, generator=seeded(4)) < p_gap[label]] = torch.nan
    x = torch.stack([one, other], dim=1)
    spec = table(x, "22")
    spec["columns"][1]["missing"] = int(other.isnan().sum())
    model = train("flow", x, spec, steps=300, config={"width": 16, "embed": 8}, label=label)
    for value in (0.0, 1.0):
        given = torch.tensor([value, torch.nan], dtype=torch.float64).expand(4000, -1)
        rows, drawn = model.sample_given(given, None, Streams.seeded(5))
        likely = p_class * (p_one if value else 1 - p_one)
        likely = likely / likely.sum()
        assert (rows[:, 0] == value).all()
        assert abs(drawn.double().mean() - likely[1]) < 0.05
        for c in (0, 1):
            tolerance = 0.05 + 4 * math.sqrt(0.25 / int((drawn == c).sum()))
            assert abs(rows[drawn == c, 1].isnan().double().mean() - p_gap[c]) < tolerance
    given = torch.tensor([torch.nan, 1.0], dtype=torch.float64).expand(4000, -1)
    drawn = model.sample_given(given, None, Streams.seeded(6))[1]
    known = p_class * (1 - p_gap)
    assert abs(drawn.double().mean() - known[1] / known.sum()) < 0.06  # .49; .30 if being known told nothing
    asked = torch.full((4000,), -1)
    asked[:1000] = 0
    assert (model.sample_given(given, asked, Streams.seeded(6))[1][:1000] == 0).all()


def test_conditionals_are_called_exact_only_of_orders_that_are_trained():
    """In the table's order alone nothing is learned of the first column given the second, which it always equals."""
    x = (torch.arange(60) % 3)[:, None].expand(-1, 2).double().contiguous()
    for order, exact in (("random", True), ("mixed", True), ("table", False)):
        model = train("flow", x, table(x, "33"), steps=80, config={"width": 16, "order": order}, lr=1e-2)
        second = torch.tensor([[False, True]]).expand(60, -1)
        right = float((model.impute(x, second, Streams.seeded(0)) == x).all(2).double().mean())
        assert model.exact_conditionals == exact
        assert (right > 0.9) == exact, (order, right)


@pytest.mark.parametrize(
    ("family", "steps", "config"),
    [
        ("flow", 500, {}),
        pytest.param("vae", 500, {}, marks=pytest.mark.slow),
        pytest.param("autoencoder", 600, {"code_noise": 1.0, "code_penalty": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_what_is_determined_is_drawn_so(family, steps, config):
    """c = a + b, and a category that says whether c is even: at most half a percent of the rows drawn break either."""
    a, b = torch.randint(5, (4000,), generator=seeded(6)), torch.randint(5, (4000,), generator=seeded(7))
    x = torch.stack([a, b, a + b, (a + b) % 2], dim=1).double()
    model = train(family, x, table(x, "iii2"), steps=steps, config={"width": 32} | config, lr=5e-3)
    rows = model.sample(4000, None, Streams.seeded(0))
    wrong = (rows[:, 2] != rows[:, 0] + rows[:, 1]) | (rows[:, 3] != rows[:, 2] % 2)
    assert float(wrong.double().mean()) <= 0.005


def test_couplings_of_many_columns_with_a_category_impute():
    x = torch.cat(
        [torch.randn(60, 32, generator=seeded(8)), torch.randint(3, (60, 1), generator=seeded(9))], 1
    ).double()
    model = train("flow", x, table(x, "c" * 32 + "3"), steps=2, config={"architecture": "couplings"})
    observed = torch.rand(x[:4].shape, generator=seeded(10)) < 0.5
    filled = model.impute(x[:4], observed, Streams.seeded(0), draws=2)
    assert torch.equal(filled[:, observed], x[:4][observed].expand(2, -1))
    assert set(filled[:, :, 32].flatten().tolist()) <= {0.0, 1.0, 2.0}


# Tails


def heavy(values: np.ndarray) -> Table:
    """The domain of one number, with its tails, as a prepared dataset describes it."""
    x = np.sort(values)
    facts = {"count": len(x), "min": x[0], "max": x[-1], "mean": x.mean(), "std": x.std()}
    tails = tails_of(x[: MOST + 1], x[-MOST - 1 :], len(x))
    grid = np.quantile(x, np.linspace(0, 1, 1001)).tolist()
    return Table(columns=[{"name": "x", "type": "continuous", **facts, "quantiles": grid, "tails": tails}])


LAWS = {
    "lognormal, sigma 1": lambda rng, n: rng.lognormal(0, 1, n),
    "lognormal, sigma 2": lambda rng, n: rng.lognormal(0, 2, n),
    "Pareto, alpha 2.5": lambda rng, n: rng.pareto(2.5, n) + 1,
    "Student t, 3": lambda rng, n: rng.standard_t(3, n),
}


def figures(x: np.ndarray) -> np.ndarray:
    return np.array([x.mean(), x.std(), np.quantile(x, 0.999)])


@pytest.mark.parametrize("n", [10_000, 100_000])
@pytest.mark.parametrize("law", list(LAWS))
def test_tails_are_as_far_off_as_a_fresh_sample(law, n):
    """Mean, deviation and 99.9 % quantile of draws, against those of the data, over several data sets."""
    rng = np.random.default_rng(0)
    drawn, fresh = [], []
    for _ in range(12):
        x = LAWS[law](rng, n)
        y = heavy(x).from_probit(torch.from_numpy(rng.standard_normal((n, 1))))[:, 0].numpy()
        assert np.mean(y == x.max()) == 0
        scale = np.array([x.std(), x.std(), np.quantile(x, 0.999)])
        drawn.append(np.abs(figures(y) - figures(x)) / scale)
        fresh.append(np.abs(figures(LAWS[law](rng, n)) - figures(x)) / scale)
    assert (np.median(drawn, 0) <= 1.5 * np.median(fresh, 0) + 0.01).all()


def test_a_tail_is_fitted_only_where_the_data_go_on():
    rng = np.random.default_rng(1)
    n = 20_000
    fitted = {
        "uniform": rng.random(n),
        "cut off": np.minimum(rng.lognormal(0, 1, n), 5.0),
        "positive": rng.lognormal(0, 1, n),
        "few values": rng.integers(0, 50, n).astype(float),
        "normal": rng.standard_normal(n),
    }
    found = {name: set(heavy(x).columns[0]["tails"]) for name, x in fitted.items()}
    assert found == {
        "uniform": set(), "cut off": set(), "positive": {"upper"}, "few values": set(), "normal": {"lower", "upper"},
    }  # fmt: skip


HUGE = {
    "exponential of Pareto, alpha 2": lambda rng: np.exp(rng.pareto(2, 20_000)),
    "exponential of lognormal": lambda rng: np.exp(rng.lognormal(0, 1, 20_000)),
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("law", list(HUGE))
def test_a_tail_whose_law_goes_on_to_infinity_ends_at_a_number(law):
    x = HUGE[law](np.random.default_rng(1))
    domain = heavy(x)
    assert np.isfinite(np.square(domain.columns[0]["tails"]["upper"]["x"])).all()  # that draws have a deviation
    places = torch.linspace(-7, 7, 1001)[:, None]
    drawn = domain.from_probit(places)
    assert torch.isfinite(drawn).all()
    assert (drawn.diff(dim=0) >= 0).all()
    known = torch.from_numpy(np.quantile(x, [0.01, 0.5, 0.9, 0.99]))
    assert torch.allclose(domain.quantize(domain.cell_center(known[:, None]))[:, 0], known, rtol=1e-6)
    shares = torch.special.ndtr(domain.cell_center(known[:, None]))[:, 0]
    assert torch.allclose(shares, torch.tensor([0.01, 0.5, 0.9, 0.99]), atol=5e-3)
    column = domain.columns[0] | {"tails": {"upper": {"x": [1e300, math.inf], "u": [0.99, 1 - 1e-9]}}}
    with pytest.raises(ValueError, match="column 'x': its tails must be finite; prepare the dataset again"):
        Table(columns=[column])


@pytest.mark.usefixtures("double")
def test_a_tailed_density_is_that_of_the_map_and_integrates_to_one():
    domain = heavy(np.random.default_rng(2).standard_t(3, 10_000))
    far = torch.tensor([-30.0, -8.0, 1.0, 15.0, 40.0])[:, None]
    (y, log_det), step = domain.dequantize(far, Streams.seeded(0)), 1e-6
    ahead, behind = (domain.dequantize(far + d, Streams.seeded(0))[0] for d in (step, -step))
    assert torch.allclose(log_det, ((ahead - behind) / (2 * step)).log()[:, 0], atol=1e-4)
    assert torch.allclose(domain.quantize(y), far, rtol=1e-8)
    grid = torch.linspace(-300, 300, 600_001)[:, None]
    y, log_det = domain.dequantize(grid, Streams.seeded(0))
    density = (-0.5 * (y[:, 0].square() + math.log(2 * math.pi)) + log_det).exp()
    assert float(density.sum() * 1e-3) == pytest.approx(1, abs=1e-3)


# Missing as part of the data

GAPS = (0.05, 0.3, 0.7)
"""Probability that the second category is missing, by the first."""


def gappy_world(n: int = 6000) -> tuple[torch.Tensor, dict]:
    """A category, and another whose value and whose being missing depend on it; the domain counts missing cells."""
    g = seeded(8)
    a = torch.randint(3, (n,), generator=g).double()
    value = (a + torch.randint(2, (n,), generator=g)) % 3
    b = torch.where(torch.rand(n, generator=g) < torch.tensor(GAPS)[a.long()], torch.nan, value)
    x = torch.stack([a, b], dim=1)
    domain = table(x, "33")
    for index, entry in enumerate(domain["columns"]):
        entry["missing"] = int(x[:, index].isnan().sum())
    return x, domain


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("autoencoder", {"code_noise": 1.0, "code_penalty": 0.1}),
        ("vae", {}),
        pytest.param("gan", {}, marks=pytest.mark.slow),
        ("flow", {"embed": 8}),
        ("diffusion", {}),
    ],
)
def test_draws_have_gaps_where_the_data_has_them_and_fillings_none(family, config):
    x, domain = gappy_world()
    config = {"width": 16} | config
    model = train(family, x, domain, steps=150, lr=6e-3, config=config)
    drawn = model.sample(4000, None, Streams.seeded(0))
    assert not drawn[:, 0].isnan().any()
    for a, share in enumerate(GAPS):
        rows = drawn[drawn[:, 0] == a, 1]
        tolerance = 0.05 + 4 * math.sqrt(share * (1 - share) / len(rows))
        assert abs(float(rows.isnan().double().mean()) - share) < tolerance, (a, len(rows))
        values = torch.bincount(rows[~rows.isnan()].long(), minlength=3) / (~rows.isnan()).sum()
        assert float(values[[a, (a + 1) % 3]].sum()) > 0.9
    given = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]).double()
    seen = torch.tensor([[True, False]]).expand(3, -1)
    filled = model.impute(given, seen, Streams.seeded(0), draws=500)
    assert not filled.isnan().any()
    for a in range(3):
        shares = torch.bincount(filled[:, a, 1].long(), minlength=3) / 500
        assert torch.allclose(shares[[a, (a + 1) % 3]], torch.tensor(0.5), atol=0.13), (a, shares)
    whole = x[~x.isnan().any(1)][:200]
    assert not model.reconstruct(whole, Streams.seeded(0)).isnan().any()
    if isinstance(model, Translation):
        assert not model.translate(whole, None, 0.5, Streams.seeded(0)).isnan().any()


def test_a_table_to_be_filled_draws_no_gaps():
    x, domain = gappy_world(500)
    model = train("flow", x, domain | {"missing": "fill"}, steps=10, config={"embed": 8})
    assert not model.sample(500, None, Streams.seeded(0)).isnan().any()
    with pytest.raises(ValueError, match="missing must be model or fill, got 'drop'"):
        Table(columns=domain["columns"], missing="drop")


@pytest.mark.parametrize("policy", ["model", "fill"])
def test_a_settled_row_takes_no_middle_for_a_missing_cell(policy):
    """The noisy version of a cell that training rows may lack decides on that cell's value and on no other."""
    x, domain = gappy_world(300)
    table = Table(columns=domain["columns"], missing=policy)
    torch.manual_seed(0)
    settler = table.settler(0, sigma=0.5, width=8)
    for parameter in settler.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    noisy = torch.randn(200, table.dimensions, generator=seeded())
    other = torch.where(table.expand(torch.tensor([[True, False]])), noisy, 3.0 * noisy)
    known = torch.stack([torch.full((200,), torch.nan), torch.arange(200) % 3], dim=1).double()
    for given, changes in ((None, [False, True]), (known, [False, False])):
        one, two = (settler.draw(y, given, None, Streams.seeded(0)) for y in (noisy, other))
        assert [not torch.equal(*pair) for pair in zip(one.T, two.T, strict=True)] == changes
        assert not one.isnan().any()  # rows are complete unless gaps are asked for
    nats = [settler.nats(x[:200], y, None, Streams.seeded(0), x[:200].isnan()) for y in (noisy, other)]
    lacking = x[:200, 1].isnan()
    assert torch.equal(nats[0][lacking], nats[1][lacking])


@pytest.mark.usefixtures("double")
def test_gaps_have_codes_of_their_own_and_count_in_training_only():
    """What training maximizes sums to one over a cell's values and its being a gap; `log_prob` over its values."""
    x, domain = gappy_world(300)
    model = randomized(domain, order="table", label_dropout=0.0)
    back = model.decode(model.encode(x))
    assert torch.equal(back.isnan(), x.isnan())
    assert torch.equal(back.nan_to_num(-1), x.nan_to_num(-1))
    rows = torch.tensor([[1.0, v] for v in (0, 1, 2, math.nan)]).double()
    *values, unknown = model.log_prob(rows, Streams.seeded(0)).exp().tolist()
    assert sum(values) == pytest.approx(unknown, rel=1e-8)
    (objective,) = model.objectives()
    objective.requires_grad_(False)
    trained = (-objective(Batch(rows), Streams.seeded(0)).total).exp()
    assert float(trained.sum()) == pytest.approx(unknown, rel=1e-8)
    hidden = objective(Batch(rows[:1], observed=torch.tensor([[True, False]])), Streams.seeded(0))
    assert float((-hidden.total).exp()) == pytest.approx(unknown, rel=1e-8)
    drawn = model.sample(8000, None, Streams.seeded(0))
    drawn = drawn[drawn[:, 0] == 1, 1]
    expected, spread = float(trained[3]) / unknown, 4 * math.sqrt(0.25 / len(drawn))
    assert float(drawn.isnan().double().mean()) == pytest.approx(expected, abs=spread)


def test_dropout_keeps_rows_without_relations_from_being_learned_by_heart():
    """96 rows of four unrelated categories: over all rows there are, dropout halves the divergence from the truth."""
    x = torch.randint(4, (96, 4), generator=seeded(8)).double()
    every = torch.cartesian_prod(*[torch.arange(4)] * 4).double()
    divergence = {}
    for dropout in (0.0, 0.5):
        model = train("flow", x, table(x, "4444"), steps=150, config={"width": 32, "dropout": dropout}, lr=5e-3)
        log_prob = model.log_prob(every, Streams.seeded(0))
        assert torch.allclose(log_prob.exp().sum(), torch.ones(()), atol=1e-4)  # and draws are made without
        divergence[dropout] = float(-math.log(256) - log_prob.double().mean())
    assert divergence[0.5] < 0.5 * divergence[0.0]


@pytest.mark.parametrize("family", ["autoencoder", "vae", "gan", "flow", "diffusion"])
def test_dropout_is_of_the_row_alone(family):
    """Eight rows by eight virtual ranks cost what each costs by its own."""
    x, domain = small()
    torch.manual_seed(0)
    model = build({"family": family, "config": {"width": 8, "dropout": 0.5}, "domain": domain, "classes": 0})
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    objective = model.objectives()[-1]
    whole = objective(Batch(x[:8]), Streams.seeded("noise", ranks=range(8))).total
    each = [objective(Batch(x[i : i + 1]), Streams.seeded("noise", ranks=[i])).total for i in range(8)]
    assert torch.allclose(whole, torch.cat(each), rtol=1e-4)
