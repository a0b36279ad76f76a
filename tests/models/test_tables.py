"""Tables: scales against autograd, odd columns, and families against exact conditionals of a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from models import FAMILIES, Batch, Streams, build
from models.capabilities import Imputation
from models.domains.table import Table
from models.gan import interpolated_penalty
from models.imputation import tempered

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # MLflow's own

SMALL = {
    "autoencoder": {"latent": 4, "width": 8},
    "vae": {"latent": 4, "width": 8},
    "gan": {"latent": 8, "width": 8, "critic_width": 8, "features": 16},
    "flow": {"steps": 2, "width": 8, "embed": 8},
    "diffusion": {"width": 8, "embed": 16},
}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def column(name: str, values: torch.Tensor, kind: str = "continuous", size: int = 0) -> dict:
    """A column's entry in the manifest, from its training values (NaN: missing)."""
    known = values[~torch.isnan(values)].double()
    if kind == "categorical":
        counts = torch.bincount(known.long(), minlength=size).tolist()
        return {"name": name, "type": kind, "categories": [f"c{i}" for i in range(size)], "frequencies": counts}
    grid = torch.quantile(known, torch.linspace(0, 1, 1001, dtype=torch.float64))
    spread = float(known.std(correction=0)) or 1.0
    facts = {"min": float(known.min()), "max": float(known.max()), "mean": float(known.mean()), "std": spread}
    facts["count"] = len(known)
    return {"name": name, "type": kind, **facts, "quantiles": grid.tolist()}


def table(x: torch.Tensor, kinds: Sequence[str]) -> dict:
    """A table's domain; of each column: c(ontinuous), i(nteger), or the number of categories."""
    columns = []
    for index, letter in enumerate(kinds):
        kind = {"c": "continuous", "i": "integer"}.get(letter, "categorical")
        columns.append(column(f"x{index}", x[:, index], kind, int(letter) if kind == "categorical" else 0))
    return {"kind": "table", "columns": columns}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixed(n: int = 400) -> tuple[torch.Tensor, str]:
    """Continuous, tied, huge, integer, wide integer and categorical columns."""
    g = seeded()
    normal = torch.randn(n, 3, generator=g, dtype=torch.float64)
    tied = torch.where(torch.rand(n, generator=g) < 0.6, 0.0, normal[:, 1].exp())
    small, wide = torch.randint(0, 4, (n,), generator=g), torch.randint(-(10**6), 10**6, (n,), generator=g)
    code = torch.randint(0, 5, (n,), generator=g)
    return torch.stack([normal[:, 0], tied, 1e12 * normal[:, 2], small, wide, code], dim=1).double(), "cccii5"


# Scales


def test_every_space_comes_back(double):
    x, kinds = mixed()
    x, kinds = torch.cat([x, torch.arange(400.0, dtype=torch.float64)[:, None] % 309], dim=1), [*kinds, "309"]
    domain = Table(columns=table(x, kinds)["columns"])
    for back in (
        domain.to_data(domain.to_model(x)),
        domain.quantize(domain.cell_center(x)),
        domain.quantize(domain.dequantize(x, Streams.seeded(0))[0]),
    ):
        assert torch.allclose(back, x, rtol=1e-11, atol=1e-12)
        assert torch.equal(back[:, 3:], x[:, 3:])


def test_flow_space_is_standard_normal(double):
    x, kinds = mixed(4000)
    y, _ = Table(columns=table(x, kinds)["columns"]).dequantize(x, Streams.seeded(0))
    assert y.mean(0).abs().max() < 0.06
    assert (y.std(0) - 1).abs().max() < 0.05


def test_log_determinant_of_continuous_columns_is_that_of_autograd(double):
    """Inside the range and beyond it: dy/dx by differences of the map itself."""
    x, _ = mixed()
    domain = Table(columns=table(x[:, :1], "c")["columns"])
    inside, outside = torch.linspace(-2, 2, 37, dtype=torch.float64) + 1e-4, torch.tensor([-9.0, 9.0, 50.0])
    values = torch.cat([inside, outside])[:, None]
    y, log_det = domain.dequantize(values, Streams.seeded(0))
    step = 1e-7
    ahead, _ = domain.dequantize(values + step, Streams.seeded(0))
    behind, _ = domain.dequantize(values - step, Streams.seeded(0))
    assert torch.allclose(log_det, ((ahead - behind) / (2 * step)).log()[:, 0], atol=1e-5)
    # the inverse, by autograd
    places = y[:37].clone().requires_grad_()
    u = (torch.special.ndtr(places) - 5e-4) / (1 - 1e-3)
    (slope,) = torch.autograd.grad(domain._value(u, domain.knots(u.device)).sum(), places)
    assert torch.allclose(log_det[:37], -slope.log()[:, 0], rtol=1e-10)


def test_cells_of_discrete_columns_have_the_probability_of_the_data(double):
    """Under the standard normal in flow space, a value's expected weight is its frequency."""
    x, _ = mixed(4000)
    domain = Table(columns=table(x[:, 3:4], "i")["columns"])
    for value in range(4):
        rows = torch.full((2000, 1), float(value))
        y, log_det = domain.dequantize(rows, Streams.seeded(0))
        weight = (-0.5 * (y[:, 0].square() + math.log(2 * math.pi)) + log_det).exp().mean()
        assert abs(float(weight) - float((x[:, 3] == value).double().mean())) < 2e-3


def test_a_flow_bound_with_missing_cells_is_below_that_of_the_observed(double):
    """Standard normal in flow space, independent columns: the bound of a row is that of its known cells."""
    x, kinds = mixed()
    domain = Table(columns=table(x, kinds)["columns"])
    gappy = x.clone()
    gappy[:, ::2] = torch.nan
    y, log_det = domain.dequantize(gappy, Streams.seeded(0))
    total = (-0.5 * (y.square() + math.log(2 * math.pi))).sum(1) + log_det
    known = Table(columns=[domain.columns[i] for i in (1, 3, 5)])
    y, log_det = known.dequantize(x[:, 1::2], Streams.seeded(0))
    alone = (-0.5 * (y.square() + math.log(2 * math.pi))).sum(1) + log_det
    assert torch.allclose(total, alone + 3 * math.log1p(-1e-3), atol=1e-9)


@pytest.mark.parametrize(("count", "margin"), [(None, 5e-4), (40_000, 0.5 / 40_000)])
def test_places_on_the_normal_scale_are_scipys(double, count, margin):
    """Of a number the probit of numpy's interpolated share, of a whole one that of its cell's middle; beyond the range
    that of what is kept there, half an observation, and the logarithm of one plus the excess in standard deviations.
    Beyond categories nothing is kept."""
    grid = np.sort(np.random.default_rng(0).gamma(2.0, size=201))
    counts = np.array([10, 0, 30, 60])
    whole = np.repeat(np.arange(4.0), counts)
    columns = [
        {"name": "a", "type": "continuous", "min": grid[0], "max": grid[-1], "std": 1.5, "quantiles": grid.tolist()},
        {"name": "b", "type": "integer", "min": 0.0, "max": 3.0, "std": 0.9, "quantiles": whole.tolist()},
        {"name": "c", "type": "categorical", "categories": list("xyz"), "frequencies": [1, 2, 4]},
    ]
    domain = Table(columns=[column | {"count": count} for column in columns])

    def probit(share: np.ndarray) -> np.ndarray:
        return stats.norm.ppf(margin + (1 - 2 * margin) * np.asarray(share))

    inside = np.linspace(grid[0], grid[-1], 50)
    x = torch.tensor(inside)[:, None].repeat(1, 3)
    x[:, 1:] = 0.0
    share = np.interp(inside, grid, np.linspace(0, 1, 201))
    assert np.allclose(domain.cell_center(x)[:, 0], probit(share), atol=1e-6)
    x = torch.tensor([[grid[-1] + 3.0, 0, 0], [grid[0] - 1.5, 2, 1], [1.0, 3, 2]], dtype=torch.float64)
    found = domain.cell_center(x).numpy()
    edge = stats.norm.ppf(1 - margin)
    assert np.allclose(found[:2, 0], [edge + math.log(3), -edge - math.log(2)])
    assert np.allclose(found[:, 1], probit(np.array([0.05, 0.25, 0.70])), atol=0.05)  # 99 steps for 100 rows
    frequencies = np.array([2, 3, 5]) / 10  # one more of each
    assert np.allclose(found[:, 2], stats.norm.ppf(frequencies.cumsum() - frequencies / 2))
    model = domain.to_model(x).numpy()
    assert np.allclose(model[:, :2], found[:, :2])
    assert np.array_equal(model[:, 2:], np.eye(3))
    assert np.array_equal(domain.to_model(x * math.nan).numpy(), np.zeros((3, 5)))


def test_the_share_of_gaps_is_the_posterior_mean_of_a_proportion():
    """Of a uniform prior; of a column without gaps there is none to learn."""
    x, nan = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]), float("nan")
    numbers, codes = (torch.tensor([1.0, nan, 3, nan, 5, 6, 7, nan]), torch.tensor([0, 1, 2, 0, 1, nan, 1, 0.0]))
    domain = table(torch.stack([x, numbers, codes], 1), "cc3")
    for entry, missing in zip(domain["columns"], (0, 3, 1), strict=True):
        entry["missing"] = missing
    shares = Table(columns=domain["columns"]).missing_shares
    assert shares == pytest.approx({1: stats.beta(3 + 1, 5 + 1).mean(), 2: stats.beta(1 + 1, 7 + 1).mean()})


def ordinary() -> tuple[Table, torch.Tensor]:
    """Whole numbers and categories, and outputs that give each a narrow place within the range."""
    x = torch.stack([torch.arange(600) % 5, torch.arange(600) % 3], dim=1).double()
    raw = torch.tensor([[0.0, 1.0, -0.8, 0.5, -1.0, -1.5, 0.3, -1.0, 0.9]])
    return Table(columns=table(x, "i3")["columns"]), raw


def test_likelihood_of_cells_sums_to_one_and_is_how_often_they_are_drawn():
    domain, raw = ordinary()
    likelihood = domain.likelihood(2)
    assert likelihood.outputs == raw.shape[1]
    drawn = domain.to_data(likelihood.sample(raw.expand(30_000, -1), Streams.seeded(0)))
    for index, size in enumerate((5, 3)):
        rows = torch.zeros(size, 2, dtype=torch.float64)
        rows[:, index] = torch.arange(size)
        each = likelihood.log_prob(raw.expand(size, -1), rows)
        assert torch.equal(each[:, 1 - index], each[:1, 1 - index].expand(size))
        p = each[:, index].exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-3)
        found = torch.bincount(drawn[:, index].long(), minlength=size) / 30_000
        assert (found - p).abs().max() < 0.012
    gap = likelihood.log_prob(raw, torch.tensor([[2.0, math.nan]], dtype=torch.float64))
    assert gap[0, 1] == 0
    assert gap[0, 0] == likelihood.log_prob(raw, torch.tensor([[2.0, 1.0]], dtype=torch.float64))[0, 0]
    mean = likelihood.mean(raw)[0]
    assert torch.allclose(mean[1:], raw[0, 6:].softmax(0))
    scores = domain.cell_center(drawn)[:, 0]
    assert abs(float(mean[0] - scores.mean())) < 0.1


def test_many_categories_are_written_in_two_digits():
    """309 are 18 groups of 18, the last of three: any numbers stand for the likeliest group and its likeliest place."""
    domain = Table(columns=table(torch.arange(309.0)[:, None].double(), ["309"])["columns"])
    assert domain.event_shape == (36,)
    y = torch.rand(5000, 36, generator=seeded())
    code = domain.to_data(y)[:, 0].long()
    assert torch.equal(code // 18, y[:, :18].argmax(1))
    assert torch.equal((code % 18)[code < 306], y[:, 18:].argmax(1)[code < 306])
    assert torch.equal((code % 18)[code >= 306], y[:, 18:21].argmax(1)[code >= 306])
    chosen = domain.generator_output(y, torch.randn(5000, domain.gumbel, generator=seeded(1)))
    assert torch.allclose(chosen[:, :18].sum(1), torch.ones(5000))
    assert torch.allclose(chosen[:, 18:].sum(1), torch.ones(5000))
    likelihood = domain.likelihood(1)
    logits = torch.randn(1, 309, generator=seeded(2))
    drawn = domain.to_data(likelihood.sample(logits.expand(20_000, -1), Streams.seeded(0)))[:, 0].long()
    assert torch.allclose(torch.bincount(drawn, minlength=309) / 20_000, logits[0].softmax(0), atol=0.006)
    assert domain.to_data(likelihood.mean(logits))[0, 0] == logits[0].argmax()


def test_a_generators_categories_are_drawn_as_often_as_its_outputs_say():
    domain = Table(columns=table(torch.arange(6)[:, None].double() % 3, "3")["columns"])
    raw = torch.tensor([[0.3, -1.0, 0.9]])
    drawn = domain.generator_output(
        raw.expand(20_000, -1), torch.randn(20_000, domain.gumbel, generator=seeded())
    ).argmax(1)
    assert torch.allclose(torch.bincount(drawn) / 20_000, raw[0].softmax(0), atol=0.012)


@pytest.mark.parametrize("kind", ["encoder", "critic"])
def test_networks_of_rows_see_which_cells_are_known_and_nothing_of_the_others(kind):
    x, kinds = mixed(20)
    domain = Table(columns=table(x, kinds)["columns"])
    torch.manual_seed(0)
    network = getattr(domain, kind)(4, width=4).eval()
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    observed = torch.rand(x.shape, generator=seeded()) < 0.5
    other = torch.where(domain.expand(observed), domain.to_model(x), 7.0)
    with torch.no_grad():
        seen = domain.apply_masked(network, domain.to_model(x), observed)
        assert torch.equal(seen, domain.apply_masked(network, other, observed))
        fewer = observed.clone()
        fewer[:, :3] = False
        zeroed = torch.where(domain.expand(fewer), domain.to_model(x), 0.0)
        masks = [domain.apply_masked(network, zeroed, mask) for mask in (observed, fewer)]
        changed = (observed != fewer).any(1)
        assert ((masks[0] != masks[1]).any(1) == changed).all()
        marked = domain.apply_masked(network, zeroed, fewer, ~fewer)  # cells known to be gaps, not unknown ones
        assert ((marked != masks[1]).any(1) == (~fewer).any(1)).all()
        assert torch.equal(domain.apply_masked(network, zeroed, fewer, fewer), masks[1])


@pytest.mark.parametrize("family", ["autoencoder", "vae", "flow", "diffusion"])
def test_units_change_nothing_but_the_units_of_a_density(family):
    """Columns in thousandths: the same codes and scores, and log(1000) nats less for every known number."""
    x = torch.randn(100, 3, generator=seeded(), dtype=torch.float64).cumsum(1)
    if family != "flow":  # whose score of a row with gaps depends on the columns' units
        x[::3, 1] = torch.nan
    models = []
    for rows in (x, 1000 * x):
        torch.manual_seed(0)
        domain = table(rows, "ccc")
        model = build({"family": family, "config": SMALL[family], "domain": domain, "classes": 0}).eval()
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.finalize(Batch(rows), Streams.seeded(0))
        models.append((model, rows[:12]))
    (small, a), (large, b) = models
    assert torch.allclose(small.encode(a), large.encode(b), atol=1e-3)
    scores = [model.anomaly_score(rows, Streams.seeded(1)) for model, rows in models]
    assert torch.allclose(*scores, rtol=1e-2, atol=2e-2)
    for task in ("log_prob", "elbo"):
        if hasattr(small, task):
            one, other = (getattr(model, task)(rows, Streams.seeded(2)) for model, rows in models)
            known = (~a.isnan()).sum(1)
            assert torch.allclose(one - other, known * math.log(1000.0), rtol=2e-3, atol=0.02)


def test_likelihood_of_a_continuous_column_is_a_density_in_its_units(double):
    x, _ = mixed()
    domain = Table(columns=table(x[:, :1], "c")["columns"])
    likelihood = domain.likelihood(2)
    raw = torch.tensor([[0.1, -0.2, 0.0, -0.5, -0.3, 0.2]])
    grid = torch.linspace(-200, 200, 400_001)[:, None]
    density = likelihood.log_prob(raw.expand(len(grid), -1), grid).exp()
    assert float(density.sum() * (grid[1] - grid[0])) == pytest.approx(1, abs=0.02)


def test_a_narrow_and_a_broad_cell_agree_with_the_normal_distribution():
    """The two formulas of a cell's mass meet: same figures in float32 as the exact difference in float64."""
    x = torch.arange(0, 2000, dtype=torch.float64)[:, None]
    domain = Table(columns=table(x, "i")["columns"])
    likelihood = domain.likelihood(1)
    for log_scale in (-4.0, -1.0, 1.0):
        raw = torch.tensor([[0.0, 0.3, log_scale]])
        got = likelihood.log_prob(raw.expand(2000, -1), x).double()[:, 0]
        cells = domain.cells(x)
        ends = [torch.special.ndtr((cells.probit(u) - 6 * math.tanh(0.05)) / math.exp(log_scale)) for u in cells[:2]]
        exact = (ends[1] - ends[0])[:, 0]
        sure = exact > 1e-9
        assert torch.allclose(got[sure].exp(), exact[sure], rtol=5e-3)


def test_outliers_stay_outliers():
    x, kinds = mixed()
    domain = Table(columns=table(x, kinds)["columns"])
    far = x[:3].clone()
    far[0, 0], far[1, 2], far[2, 4] = 1e6, -1e30, 1e9
    y, log_det = domain.dequantize(far, Streams.seeded(0))
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_det).all()
    assert min(abs(y[0, 0]), abs(y[1, 2]), abs(y[2, 4])) > 3.29
    assert torch.equal(domain.to_data(domain.to_model(far)).amax(0) <= x.amax(0), torch.ones(6, dtype=torch.bool))


def test_a_distribution_learned_from_few_rows_is_coarse_enough_to_hold_for_others(double):
    known, others = (
        torch.randn(1000, 1, generator=seeded(1)).double(),
        torch.randn(4000, 1, generator=seeded(2)).double(),
    )
    domain = table(known, "c")

    def nats(columns: list[dict]) -> float:
        """Of other rows, in a flow space taken to be standard normal."""
        y, log_det = Table(columns=columns).dequantize(others, Streams.seeded(0))
        return float((0.5 * (y[:, 0].square() + math.log(2 * math.pi)) - log_det).mean())

    every_quantile = [{key: value for key, value in c.items() if key != "count"} for c in domain["columns"]]
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert nats(domain["columns"]) < entropy + 0.08
    assert nats(every_quantile) > entropy + 0.2


def test_bulk_and_tails_stay_sharp_in_a_coarse_distribution(double):
    bulk, tail = torch.full((300, 1), 2.5), 10 ** torch.linspace(0, 6, 100)[:, None]
    x = torch.cat([bulk, torch.randn(600, 1, generator=seeded(3)), tail]).double()
    domain = Table(columns=table(x, "c")["columns"])
    cells = domain.cells(x[:1])
    assert 0.29 < float(cells.upper - cells.lower) < 0.31
    back = domain.quantize(domain.cell_center(tail.double()))
    assert torch.allclose(back.log10(), tail.log10(), atol=0.1)


def test_a_category_that_does_not_exist_is_refused_by_name():
    x, kinds = mixed()
    domain = Table(columns=table(x, kinds)["columns"])
    x[3, 5] = 5
    with pytest.raises(ValueError, match="column 'x5': category 5 is not an index from 0 to 4"):
        domain.to_model(x)


def test_tempered_weights_leave_enough_choices_and_good_ones_alone():
    weight = torch.randn(50, 64, generator=seeded(0)) * torch.linspace(0, 20, 50)[:, None]

    def effective(w: torch.Tensor) -> torch.Tensor:
        return 1 / w.softmax(1).square().sum(1)

    flat = effective(weight) >= 16
    assert flat.any()
    assert not flat.all()
    found = tempered(weight, effective=16.0)
    assert torch.equal(found[flat], weight[flat])
    assert torch.allclose(effective(found)[~flat], torch.tensor(16.0), rtol=0.02)
    assert (effective(found) >= 16).all()
    steep = torch.cat([-1e4 * torch.arange(60.0), torch.full((4,), -torch.inf)])[None]
    found = tempered(steep, effective=16.0)
    assert 16 <= float(effective(found)) < 16.4
    assert (found.diff() < 0)[0, :60].all()


# Families


def train(
    family: str,
    x: torch.Tensor,
    domain: dict,
    *,
    steps: int,
    config: dict | None = None,
    lr: float = 3e-3,
    label: torch.Tensor | None = None,
):
    """A model after a few hundred steps on all of `x`."""
    torch.manual_seed(0)
    classes = 0 if label is None else int(label.max()) + 1
    model = build({"family": family, "config": SMALL[family] | (config or {}), "domain": domain, "classes": classes})
    batch = Batch(x, label)
    model.initialize(batch, Streams.seeded("initialize"))
    optimizers = [torch.optim.Adam(objective.parameters(), lr, (0.5, 0.99)) for objective in model.objectives()]
    for step in range(steps):
        rows = torch.randint(len(x), (256,), generator=seeded(step)) if len(x) > 256 else torch.arange(len(x))
        for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            part = Batch(x[rows], None if label is None else label[rows], seen=step * 256)
            loss = objective(part, Streams.seeded(step)).total.mean()
            assert torch.isfinite(loss), (family, step)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = objective.speed * lr * (1 - step / steps)
            optimizer.step()
    model.eval().finalize(batch, Streams.seeded("finalize"))
    return model


def odd_tables() -> dict[str, tuple[torch.Tensor, str]]:
    """Tables that break what is written for ordinary ones."""
    g = seeded(1)
    n = 60
    normal = torch.randn(n, 4, generator=g, dtype=torch.float64)
    codes = torch.randint(0, 3, (n, 3), generator=g).double()
    rare = torch.zeros(n, 1, dtype=torch.float64)
    rare[:2] = 1
    gappy = torch.cat([normal[:, :2], codes[:, :1]], dim=1)
    gappy[torch.rand(gappy.shape, generator=g) < 0.9] = torch.nan
    return {
        "a constant column": (torch.cat([normal[:, :1], torch.full((n, 1), 7.0)], dim=1).double(), "cc"),
        "only constants": (torch.full((n, 2), 7.0, dtype=torch.float64), "ci"),
        "one number": (normal[:, :1], "c"),
        "one category": (codes[:, :1], "3"),
        "one value of one category": (torch.zeros(n, 1, dtype=torch.float64), "1"),
        "huge magnitudes": (torch.stack([1e12 * normal[:, 0], 1e12 + 1e-3 * normal[:, 1].round()], dim=1), "cc"),
        "heavy ties": (torch.stack([(normal[:, 0] > 1.5).double(), normal[:, 1].round() * 1e6], dim=1), "ci"),
        "all categorical": (codes, "333"),
        "all numeric": (normal, "cccc"),
        "nine tenths missing": (gappy, "cc3"),
        "a rare category": (torch.cat([rare, normal[:, :1]], dim=1), "2c"),
        "five rows": (torch.cat([normal[:5, :2], codes[:5, :1]], dim=1), "cc3"),
    }


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("name", list(odd_tables()))
def test_every_family_survives_odd_tables(family, name):
    x, kinds = odd_tables()[name]
    domain = table(x, kinds)
    model = train(family, x, domain, steps=4)
    low = [0.0 if c["type"] == "categorical" else c["min"] for c in domain["columns"]]
    high = [len(c["categories"]) - 1.0 if c["type"] == "categorical" else c["max"] for c in domain["columns"]]
    observed = (torch.rand(x.shape, generator=seeded(2)) < 0.5) & ~torch.isnan(x)
    outputs = [model.sample(7, None, Streams.seeded(0))]
    outputs.append(model.reconstruct(x, Streams.seeded(0)))
    if isinstance(model, Imputation):
        filled = model.impute(x, observed, Streams.seeded(0), draws=2)
        assert torch.equal(filled[:, observed], x[observed].expand(2, -1))
        outputs += list(filled)
    for rows in outputs:
        assert rows.dtype == torch.float64
        assert torch.isfinite(rows).all()
        assert (rows >= torch.tensor(low, dtype=torch.float64)).all()
        assert (rows <= torch.tensor(high, dtype=torch.float64)).all()
        for index, kind in enumerate(kinds):
            assert kind == "c" or torch.equal(rows[:, index], rows[:, index].round())
    assert torch.isfinite(model.anomaly_score(x, Streams.seeded(0))).all()


@pytest.mark.parametrize("family", ["autoencoder", "vae", "gan", "diffusion"])
def test_imputation_is_near_the_exact_conditional_of_a_gaussian(family):
    """Two standard normals of correlation 0.9: mean 0.9 x, standard deviation 0.436; the gaps are random ones."""
    correlation = 0.9
    noise = torch.randn(4000, 2, generator=seeded(3), dtype=torch.float64)
    second = correlation * noise[:, 0] + math.sqrt(1 - correlation**2) * noise[:, 1]
    x = torch.stack([noise[:, 0], second], dim=1)
    domain = table(x, "cc")
    gappy = torch.where(torch.rand(x.shape, generator=seeded(4)) < 0.1, torch.nan, x)
    more = {"gan": {"critic_width": 16, "gamma": 1.0}, "diffusion": {}}
    config = {"width": 16} | more.get(family, {})
    model = train(family, gappy, domain, steps=300, config=config)
    given = torch.stack([torch.linspace(-1.5, 1.5, 7), torch.zeros(7)], dim=1).double()
    observed = torch.tensor([True, False]).expand(7, 2)
    draws = model.impute(given, observed, Streams.seeded(0), draws=100)[:, :, 1]
    assert (draws.mean(0) - correlation * given[:, 0]).abs().max() < (0.45 if family == "gan" else 0.25)
    spread = draws.std(0).mean()
    assert (0.15 if family == "gan" else 0.33) < float(spread) < 0.6


@pytest.mark.parametrize(
    ("family", "config", "columns"),
    [
        *((family, {}, 2) for family in FAMILIES),
        ("diffusion", {"hide": 0.0}, 2),
        ("flow", {"architecture": "couplings"}, 34),
    ],
    ids=str,
)
def test_cells_that_are_not_observed_may_hold_anything(family, config, columns):
    """A category that there is not, a number beyond all others, nothing: the same fillings."""
    x = torch.cat([torch.randn(40, columns - 1), torch.arange(40)[:, None] % 3], dim=1).double()
    torch.manual_seed(0)
    spec = {"family": family, "config": SMALL[family] | config, "domain": table(x, "c" * (columns - 1) + "3")}
    model = build(spec | {"classes": 0}).eval()
    observed = torch.rand(4, columns, generator=seeded()) < 0.4
    fillings = [
        model.impute(torch.where(observed, x[:4], held), observed, Streams.seeded(0))
        for held in (torch.nan, -1.0, 1e300)
    ]
    assert torch.equal(fillings[0], fillings[1])
    assert torch.equal(fillings[0], fillings[2])


def test_a_given_category_decides_a_number_whatever_else_is_hidden():
    """The number follows from the category; the noise in the other hidden columns must not drown it."""
    codes = torch.randint(0, 9, (4000,), generator=seeded(5))
    number = torch.randperm(9, generator=seeded(6))[codes]
    others = torch.randint(0, 8, (4000, 4), generator=seeded(7))
    x = torch.cat([codes[:, None], number[:, None], others], dim=1).double()
    domain = table(x, "9i8888")
    model = train("diffusion", x, domain, steps=400, config={"width": 32})
    observed = torch.tensor([True, *[False] * 5]).expand(200, 6)
    draws = model.impute(x[:200], observed, Streams.seeded(0), draws=4)[:, :, 1]
    assert (draws == x[:200, 1]).double().mean() > 0.6


@pytest.mark.parametrize("family", ["autoencoder", "vae"])
def test_a_row_is_decoded_as_of_the_class_it_is_translated_to(family, monkeypatch):
    """All codes alike: then only the decoder, which was told the label in training, can tell the classes apart."""
    label = torch.arange(400) % 2
    number = 3.0 * (2 * label - 1) + 0.5 * torch.randn(400, generator=seeded())
    x = torch.stack([number, label], dim=1).double()
    model = train(family, x, table(x, "c2"), steps=50, config={"hide": 0.0}, lr=1e-2, label=label)
    monkeypatch.setattr(model.mixture, "transported", lambda z, *_: torch.zeros_like(z))
    for wanted in (label, 1 - label):
        moved = model.translate(x, wanted, 0.0, Streams.seeded(0))
        assert torch.equal(moved[:, 1].long(), wanted)
        assert torch.equal((moved[:, 0] > 0).long(), wanted)


def test_a_vae_moves_rows_to_another_class_and_keeps_the_rest():
    """Class c lies at 3 (2c - 1) in the first column; the second has nothing to do with it."""
    label = torch.randint(2, (3000,), generator=seeded(0))
    noise = torch.randn(3000, 2, generator=seeded(1), dtype=torch.float64)
    x = torch.stack([3.0 * (2 * label - 1) + 0.5 * noise[:, 0], noise[:, 1]], dim=1)
    model = train("vae", x, table(x, "cc"), steps=300, config={"width": 16}, label=label)
    start, other = x[:300], 1 - label[:300]

    def alike(rows: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([start[:, 1], rows[:, 1]]))[0, 1])

    for wanted, found in ((other, other), (None, label[:300])):
        moved = model.translate(start, wanted, 0.0, Streams.seeded(0))
        assert float(((moved[:, 0] > 0).long() == found).double().mean()) > 0.9
        assert alike(moved) > 0.5
    assert abs(alike(model.translate(start, other, 1.0, Streams.seeded(0)))) < 0.25


def test_a_trained_vae_bounds_the_exact_likelihood_of_observed_cells():
    noise = torch.randn(4000, 2, generator=seeded(3), dtype=torch.float64)
    x = torch.stack([noise[:, 0], 0.9 * noise[:, 0] + math.sqrt(1 - 0.81) * noise[:, 1]], dim=1)
    model = train("vae", x, table(x, "cc"), steps=100, config={"width": 16, "hide": 0.25})
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    fresh = exact.sample((500,)).double()
    gap = exact.log_prob(fresh.float()) - model.elbo(fresh, Streams.seeded(0), samples=64)
    assert 0 < float(gap.mean()) < 0.4
    fresh[:, 1] = torch.nan
    first = torch.distributions.Normal(0.0, 1.0).log_prob(fresh[:, 0].float())
    assert -0.02 < float((first - model.elbo(fresh, Streams.seeded(0), samples=64)).mean()) < 0.2


def test_temperature_is_the_spread_of_the_latents():
    x = torch.randn(2000, 3, generator=seeded(0), dtype=torch.float64)
    model = train("flow", x, table(x, "ccc"), steps=20).with_sampling(temperature=0.5)
    spread = model.encode(model.sample(2000, None, Streams.seeded(0))).std()
    assert abs(float(spread) - 0.5) < 0.02


# Options


def test_wasserstein_penalty_is_the_hand_computed_one():
    """A linear critic's gradient is its weight everywhere; a quadratic one's is known at the point between."""
    real, fake, part = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5)
    weight = torch.tensor([3.0, 4.0, 0.0])
    assert torch.allclose(interpolated_penalty(lambda y: y @ weight, real, fake, part), torch.full((5,), 16.0))
    between = part[:, None] * real + (1 - part[:, None]) * fake
    expected = (between.norm(dim=1) - 1).square()
    quadratic = interpolated_penalty(lambda y: 0.5 * y.square().sum(1), real, fake, part)
    assert torch.allclose(quadratic, expected, atol=1e-5)


def test_beta_rises_with_the_examples_seen():
    x, kinds = mixed(16)
    config = SMALL["vae"] | {"warmup_examples": 1000, "beta": 2.0}
    model = build({"family": "vae", "config": config, "domain": table(x, kinds), "classes": 0})
    (objective,) = model.objectives()
    assert [objective.beta(seen) for seen in (0, 250, 1000, 9000)] == [0.0, 0.5, 2.0, 2.0]


@pytest.mark.parametrize("loss", ["relativistic", "wasserstein", "hinge"])
def test_attention_in_generator_and_critic_trains(loss):
    domain = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17}
    config = {"latent": 4, "width": 8, "critic_width": 8, "features": 8, "attention": True, "loss": loss}
    model = build({"family": "gan", "config": config, "domain": domain, "classes": 0})
    assert any("attention" in name for name, _ in model.critic.named_parameters())
    batch = Batch((torch.randint(17, (8, 8, 8, 1), generator=seeded()) * 255 / 16).round().to(torch.uint8))
    for objective in model.objectives():
        objective(batch, Streams.seeded(0)).total.mean().backward()
        assert all(parameter.grad is not None for parameter in objective.parameters())


# Served: DataFrames in and out


def people():
    """A small DataFrame and its domain: all types, missing cells, categories that are numbers and booleans."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "age": pd.array([31, None, 50], dtype="Int64"),
            "height": [1.75, 1.62, None],
            "city": ["Oslo", None, "Rome"],
            "grade": [1.0, 2.0, None],
            "member": [True, False, None],
        }
    )
    columns = [
        {"name": "age", "type": "integer", "dtype": "int64"},
        {"name": "height", "type": "continuous", "dtype": "float64"},
        {"name": "city", "type": "categorical", "dtype": "string", "categories": ["Oslo", "Rome"]},
        {"name": "grade", "type": "categorical", "dtype": "int64", "categories": ["1", "2"]},
        {"name": "member", "type": "categorical", "dtype": "bool", "categories": ["false", "true"]},
    ]
    return frame, {"kind": "table", "columns": columns}


def test_a_data_frame_becomes_numbers_and_comes_back():
    from pipelines.serving.domains.table import Tables

    frame, domain = people()
    tables = Tables(domain)
    rows = tables.read(frame[["city", "age", "member", "grade", "height"]], "impute")
    nan = math.nan
    expected = torch.tensor([[31, 1.75, 0, 0, 1], [nan, 1.62, nan, 1, 0], [50, nan, 1, nan, nan]], dtype=torch.float64)
    assert torch.equal(rows.x.nan_to_num(-1), expected.nan_to_num(-1))
    assert torch.equal(rows.observed, ~torch.isnan(expected))
    back = tables.write(torch.tensor([[31, 1.75, 0, 0, 1], [50, 1.5, 1, 1, 0]], dtype=torch.float64))
    assert list(back.columns) == ["age", "height", "city", "grade", "member"]
    assert [str(dtype) for dtype in back.dtypes] == ["int64", "float64", "object", "int64", "bool"]
    assert back.iloc[0].tolist() == [31, 1.75, "Oslo", 1, True]
    again = tables.read(tables.write(expected), "impute")
    assert torch.equal(again.x.nan_to_num(-1), expected.nan_to_num(-1))
    assert tables.write(expected).to_csv(index=False).splitlines()[1:] == [
        "31,1.75,Oslo,1,True",
        ",1.62,,2,False",
        "50,,Rome,,",
    ]
    several = tables.write(torch.zeros(3, 2, 5, dtype=torch.float64))
    assert several["draw"].tolist() == [0, 0, 1, 1, 2, 2]
    assert tables.read(frame.iloc[:0], "sample").x.shape == (0, 5)
    assert len(tables.write(tables.empty())) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"city": "citty"}), "missing: city, unknown: citty .rename citty"),
        (lambda f: f.assign(city="Paris"), "row 0, column 'city': expected one of 'Oslo', 'Rome'.*got 'Paris'"),
        (lambda f: f.assign(age=[1, 2, 2.5]), "row 2, column 'age': expected a whole number"),
        (lambda f: f.assign(height=["1.5", "tall", None]), "row 1, column 'height': expected a finite number.*'tall'"),
        (lambda f: f.assign(height=math.inf), "row 0, column 'height': expected a finite number"),
    ],
)
def test_a_bad_data_frame_is_refused_by_row_and_column(change, message):
    from pipelines.serving.domains.table import Tables

    frame, domain = people()
    with pytest.raises(ValueError, match=message):
        Tables(domain).read(change(frame), "reconstruct")


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize(
    ("family", "config"), [*((family, {}) for family in FAMILIES), ("flow", {"architecture": "couplings"})], ids=str
)
def test_what_a_batch_says_is_not_observed_makes_no_difference(family, config, kind):
    """The losses of a batch whose mask hides cells do not depend on what stands in them, nor does where training
    starts."""
    x, kinds = mixed(32)
    domain = table(x, kinds)
    if kind == "image":
        x = torch.randint(256, (32, 8, 8, 1), generator=seeded()).to(torch.uint8)
        domain = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 256}
    if config and kind == "image":
        config = {"architecture": "realnvp"}
    observed = torch.rand(x.shape, generator=seeded(5)) < 0.7
    losses = []
    for values in (x, torch.where(observed, x, -1 if kind == "table" else x.flip(0))):
        torch.manual_seed(0)
        model = build({"family": family, "config": SMALL[family] | config, "domain": domain, "classes": 0})
        batch = Batch(values, observed=observed)
        model.initialize(batch, Streams.seeded("initialize"))
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        losses.append(torch.stack([o(batch, Streams.seeded(0)).total for o in model.objectives()]))
    assert torch.equal(*losses)
