"""One contract test over families, capabilities and domains; nothing is skipped silently."""

from __future__ import annotations

import math
from dataclasses import asdict, fields

import pytest
import torch

from models import CAPABILITIES, FAMILIES, Batch, Streams, build, tasks
from models.contract import GenerativeModel

SMALL = {
    "autoencoder": {"latent": 4, "width": 8},
    "vae": {"latent": 4, "width": 8},
    "gan": {"latent": 4, "width": 8, "critic_width": 8, "features": 8},
    "flow": {"steps": 2, "width": 8, "embed": 8},
    "diffusion": {"width": 8, "embed": 16},
}


OTHER_SAMPLING = {"sampler": "heun", "sigma_min": 0.1, "sigma_max": 5.0, "density_sigma": 0.1}
"""Another value of a setting of sampling that cannot be one more."""


def numbers(low: float, high: float) -> dict:
    """A column's statistics: evenly spread between two values."""
    grid = torch.linspace(low, high, 101, dtype=torch.float64)
    return {"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 3.46, "quantiles": grid.tolist()}


DOMAINS = {
    "grey 8x8, 17 levels": {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17},
    "colour 12x16": {"kind": "image", "channels": 3, "height": 12, "width": 16, "levels": 256},
    "grey 7x7": {"kind": "image", "channels": 1, "height": 7, "width": 7, "levels": 256},
    "table": {
        "kind": "table",
        "columns": [
            {"name": "a", "type": "continuous", **numbers(-2.5, 2.5)},
            {"name": "b", "type": "integer", **numbers(0, 9)},
            {"name": "c", "type": "categorical", "categories": ["x", "y", "z"], "frequencies": [5, 3, 2]},
            {"name": "d", "type": "continuous", **numbers(1e12, 2e12)},
        ],
    },
}
CODES = {"encode", "decode", "interpolate"}
EVERY = {"sample", "reconstruct", "anomaly_score", "impute"}
TASKS = {
    "autoencoder": EVERY | CODES | {"denoise", "translate"},
    "vae": EVERY | CODES | {"elbo", "denoise", "translate"},
    "gan": EVERY,
    "flow": EVERY | CODES | {"log_prob", "translate"},
    "diffusion": EVERY | CODES | {"log_prob", "elbo", "denoise", "translate"},
}


def examples(domain: dict, n: int, classes: int) -> Batch:
    """Random examples: images on the domain's levels, rows with a quarter of the cells missing."""
    generator = torch.Generator().manual_seed(5)
    label = torch.randint(-1, classes, (n,), generator=generator) if classes else None
    if domain["kind"] == "table":
        u = torch.rand(n, 4, generator=generator, dtype=torch.float64)
        low, width = torch.tensor([-2.5, 0, 0, 1e12]), torch.tensor([5, 10, 3, 1e12])
        x = low + u * width
        x[:, 1:3] = x[:, 1:3].floor()
        x[torch.rand(n, 4, generator=generator) < 0.25] = torch.nan
        return Batch(x, label)
    generator = torch.Generator().manual_seed(5)
    shape = (n, domain["height"], domain["width"], domain["channels"])
    step = 255 / (domain["levels"] - 1)
    x = (torch.randint(domain["levels"], shape, generator=generator) * step).round().to(torch.uint8)
    label = torch.randint(-1, classes, (n,), generator=generator) if classes else None
    return Batch(x, label)


def assert_valid(x: torch.Tensor, domain: dict, n: int) -> None:
    """`n` examples as the domain's data is: types, ranges, levels, no gaps."""
    if domain["kind"] == "table":
        assert x.dtype == torch.float64
        assert x.shape == (n, 4)
        low, high = torch.tensor([[-2.5, 0, 0, 1e12], [2.5, 9, 2, 2e12]], dtype=torch.float64)
        assert ((x >= low) & (x <= high)).all()
        assert torch.equal(x[:, 1:3], x[:, 1:3].round())
        return
    assert x.dtype == torch.uint8
    assert x.shape == (n, domain["height"], domain["width"], domain["channels"])
    step = 255 / (domain["levels"] - 1)
    assert torch.equal(x, ((x / step).round() * step).round().to(torch.uint8))


def elsewhere() -> torch.device:
    """Within it a tensor made without a word of its device cannot meet the examples, as on a GPU."""
    return torch.device("meta")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request) -> str:
    return request.param


CASES = [("grey 8x8, 17 levels", 3), ("colour 12x16", 3), ("grey 7x7", 0), ("table", 3), ("table", 0)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {case[1]} classes")
def setting(request) -> tuple[dict, int]:
    return DOMAINS[request.param[0]], request.param[1]


@pytest.fixture(scope="module")
def domain(setting) -> dict:
    return setting[0]


@pytest.fixture(scope="module")
def case(family, setting) -> tuple[GenerativeModel, Batch]:
    """A model after three steps of training, finalized, and data."""
    domain, classes = setting
    torch.manual_seed(0)
    model = build({"family": family, "config": SMALL[family], "domain": domain, "classes": classes})
    batch = examples(domain, 48, classes)
    optimizers = [torch.optim.Adam(objective.parameters(), 1e-3) for objective in model.objectives()]
    with elsewhere():
        model.initialize(batch, Streams.seeded("initialize"))
        for step in range(3):
            for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
                optimizer.zero_grad()
                objective(batch, Streams.seeded(step, ranks=range(8))).total.mean().backward()
                optimizer.step()
        model.eval().finalize(batch, Streams.seeded("finalize"))
    return model, batch


def test_every_family_is_enumerated():
    assert set(SMALL) == set(TASKS) == set(FAMILIES)


def test_tasks_are_those_of_the_design(case, family):
    model, _ = case
    assert set(tasks(model)) == TASKS[family]
    assert set(tasks(model)) <= set(CAPABILITIES)


def test_objectives_train_every_parameter_they_register(case):
    model, batch = case
    for objective in model.objectives():
        objective.zero_grad()
        losses = objective(batch, Streams.seeded(1, ranks=range(8)))
        assert losses.total.shape == (len(batch),)
        assert all(term.shape == (len(batch),) for term in losses.terms.values())
        losses.total.mean().backward()
        assert all(parameter.grad is not None for parameter in objective.parameters())


def test_objectives_share_no_parameter(case):
    model, _ = case
    owned = [id(p) for objective in model.objectives() for p in objective.parameters()]
    assert len(owned) == len(set(owned))


def test_samples_are_valid_examples(case, domain):
    model, _ = case
    label = torch.arange(6) % 3 if model.classes else None
    with elsewhere():
        drawn = model.sample(6, label, Streams.seeded(0))
    assert_valid(drawn, domain, 6)


def test_every_other_task_answers_per_example_in_its_space(case, domain):
    model, batch = case
    x, label = batch.x[:5], torch.arange(5) % 4 - 1 if model.classes else None
    answers = {
        "log_prob": lambda: model.log_prob(x, Streams.seeded(0)),
        "elbo": lambda: model.elbo(x, Streams.seeded(0), samples=2),
        "anomaly_score": lambda: model.anomaly_score(x, Streams.seeded(0)),
        "encode": lambda: model.encode(x),
        "decode": lambda: model.decode(model.encode(x)),
        "interpolate": lambda: model.decode(model.encode(x).lerp(model.encode(x.flip(0)), 0.5)),
        "reconstruct": lambda: model.reconstruct(x, Streams.seeded(0)),
        "denoise": lambda: model.denoise(x + (0 if domain["kind"] == "table" else 3.0), 20.0),
        "translate": lambda: model.translate(x, label, 0.5, Streams.seeded(0)),
    }
    for task in set(tasks(model)) - {"sample", "impute"}:
        with elsewhere():
            answer = answers[task]()
        assert len(answer) == 5, task
        assert torch.isfinite(answer.float()).all(), task
        if task in ("log_prob", "elbo", "anomaly_score"):
            assert answer.shape == (5,), task
        if task in ("decode", "interpolate", "reconstruct", "denoise", "translate"):
            assert_valid(answer, domain, 5)


def test_imputed_examples_are_valid_and_keep_what_is_observed(case, domain):
    model, batch = case
    x = batch.x[:3]
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    observed[0], observed[1] = False, True
    observed &= model.domain.observed(x)
    with elsewhere():
        draws = model.impute(x, observed, Streams.seeded(0), draws=2)
    for draw in draws:
        assert_valid(draw, domain, 3)
        assert torch.equal(draw[observed], x[observed])


@pytest.mark.parametrize("name", DOMAINS)
def test_codes_of_a_flow_come_back(name):
    model = build({"family": "flow", "config": SMALL["flow"], "domain": DOMAINS[name], "classes": 0}).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = examples(DOMAINS[name], 48, 0).x
    known = model.domain.observed(x)
    back = model.decode(model.encode(x))
    assert torch.allclose(back[known].double(), x[known].double(), rtol=1e-4, atol=1e-3)


def test_another_shape_is_refused_by_name(case, domain):
    model, _ = case
    table = domain["kind"] == "table"
    wrong = torch.zeros(2, 7, dtype=torch.float64) if table else torch.zeros(2, 5, 5, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"expected (images|rows) of shape \[n, "):
        model.anomaly_score(wrong, Streams.seeded(0))


def test_the_state_dict_holds_everything(case, family, domain):
    model, batch = case
    again = build({"family": family, "config": SMALL[family], "domain": domain, "classes": model.classes}).eval()
    again.load_state_dict(model.state_dict())
    for task in ("sample", "anomaly_score"):
        answers = [
            m.sample(4, None, Streams.seeded(2)) if task == "sample" else m.anomaly_score(batch.x, Streams.seeded(2))
            for m in (model, again)
        ]
        assert torch.equal(*answers)


SHARES = {"hide", "dropout", "label_dropout", "jumps"}
ANY_SIGN = {"p_mean"}


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_bad_settings_are_refused_by_name(kind):
    """None that is not there; no number below 0 (-1 stands for a choice), no share above 1, no layer without units."""
    classes = FAMILIES[kind].Config, FAMILIES[kind].SamplingConfig
    numbers = [(cls, field) for cls in classes for field in fields(cls) if type(field.default) in (int, float)]
    bad = [(cls, field.name, type(field.default)(-3)) for cls, field in numbers if field.name not in ANY_SIGN]
    bad += [(cls, field.name, 1.5) for cls, field in numbers if field.name in SHARES]
    for cls, name, value in [*bad, (classes[0], "width", 0)]:
        with pytest.raises(ValueError, match=name):
            cls(**{name: value})
    with pytest.raises(TypeError, match="nonsense"):
        classes[0](nonsense=1)


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_how_it_draws_changes_at_use_and_nothing_else_does(kind):
    """Of each setting another value, in a model of the same weights; the model itself stays as it was."""
    model = build({"family": kind, "config": SMALL[kind], "domain": DOMAINS["table"], "classes": 3})
    for name, default in asdict(model.sampling).items():
        other = OTHER_SAMPLING[name] if name in OTHER_SAMPLING else (not default) if default is False else default + 1
        changed = model.with_sampling(**{name: other})
        assert asdict(changed.sampling) == asdict(model.sampling) | {name: other}
        assert asdict(model.sampling)[name] == default
        assert all(a is b for a, b in zip(changed.parameters(), model.parameters(), strict=True))
        for wrong in ("text", None, math.nan):
            with pytest.raises(ValueError, match=name):
                model.with_sampling(**{name: wrong})
    with pytest.raises(ValueError, match=r"unknown settings of sampling: nonsense; (known: |this family has none)"):
        model.with_sampling(nonsense=1)
