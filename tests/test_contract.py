"""One contract test over families, capabilities and domains; nothing is skipped silently."""

from __future__ import annotations

import pytest
import torch

from models import CAPABILITIES, FAMILIES, Batch, Streams, build, tasks
from models.contract import Coding, GenerativeModel

SMALL = {
    "autoencoder": {"latent": 4, "width": 8},
    "vae": {"latent": 4, "width": 8},
    "gan": {"latent": 4, "width": 8, "critic_width": 8, "features": 8},
    "flow": {"steps": 2, "width": 8, "embed": 8},
    "diffusion": {"width": 8, "embed": 16, "steps": 4},
}
DOMAINS = {
    "grey 8x8, 17 levels": {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17},
    "colour 12x16": {"kind": "image", "channels": 3, "height": 12, "width": 16, "levels": 256},
    "grey 7x7": {"kind": "image", "channels": 1, "height": 7, "width": 7, "levels": 256},
}
TASKS = {
    "autoencoder": {"sample", "encode", "decode", "interpolate", "reconstruct", "anomaly_score", "denoise"},
    "vae": {"sample", "elbo", "encode", "decode", "interpolate", "reconstruct", "anomaly_score", "denoise"},
    "gan": {"sample", "anomaly_score"},
    "flow": {"sample", "log_prob", "encode", "decode", "interpolate", "reconstruct", "anomaly_score"},
    "diffusion": {
        "sample",
        "log_prob",
        "elbo",
        "encode",
        "decode",
        "interpolate",
        "reconstruct",
        "anomaly_score",
        "denoise",
    },
}


def examples(domain: dict, n: int, classes: int) -> Batch:
    """Images of a few smooth shapes, on the domain's levels."""
    generator = torch.Generator().manual_seed(5)
    shape = (n, domain["height"], domain["width"], domain["channels"])
    step = 255 / (domain["levels"] - 1)
    x = (torch.randint(domain["levels"], shape, generator=generator) * step).round().to(torch.uint8)
    label = torch.randint(-1, classes, (n,), generator=generator) if classes else None
    return Batch(x, label)


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=list(DOMAINS))
def domain(request) -> dict:
    return DOMAINS[request.param]


@pytest.fixture(scope="module", params=[3, 0], ids=["labelled", "unlabelled"])
def case(request, family, domain) -> tuple[GenerativeModel, Batch]:
    """A model after three steps of training, finalized, and data."""
    torch.manual_seed(0)
    model = build({"family": family, "config": SMALL[family], "domain": domain, "classes": request.param})
    batch = examples(domain, 48, request.param)
    model.initialize(batch, Streams.seeded("initialize"))
    optimizers = [torch.optim.Adam(objective.parameters(), 1e-3) for objective in model.objectives()]
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


def test_noise_does_not_depend_on_who_plays_the_virtual_ranks():
    whole = Streams.seeded(3, ranks=range(8)).normal(16, 2)
    halves = [Streams.seeded(3, ranks=ranks).normal(8, 2) for ranks in (range(4), range(4, 8))]
    assert torch.equal(whole, torch.cat(halves))


def test_samples_are_valid_examples_and_reproducible(case, domain):
    model, _ = case
    label = torch.arange(6) % 3 if model.classes else None
    first = model.sample(6, label, Streams.seeded(0))
    assert first.dtype == torch.uint8
    assert first.shape == (6, domain["height"], domain["width"], domain["channels"])
    assert torch.equal(first, model.sample(6, label, Streams.seeded(0)))
    assert not torch.equal(first, model.sample(6, label, Streams.seeded(1)))
    step = 255 / (domain["levels"] - 1)
    levels = (first / step).round()
    assert torch.equal(first, (levels * step).round().to(torch.uint8))
    assert len(model.sample(0, None, Streams.seeded(0))) == 0


def test_a_label_out_of_range_is_refused(case):
    model, _ = case
    if model.classes:
        with pytest.raises(ValueError, match="below 3"):
            model.sample(1, torch.tensor([3]), Streams.seeded(0))


def test_every_other_task_answers_per_example(case, domain):
    model, batch = case
    x = batch.x[:5]
    answers = {
        "log_prob": lambda: model.log_prob(x, Streams.seeded(0)),
        "elbo": lambda: model.elbo(x, Streams.seeded(0), samples=2),
        "anomaly_score": lambda: model.anomaly_score(x, Streams.seeded(0)),
        "encode": lambda: model.encode(x),
        "decode": lambda: model.decode(model.encode(x)),
        "interpolate": lambda: model.decode(model.encode(x).lerp(model.encode(x.flip(0)), 0.5)),
        "reconstruct": lambda: model.reconstruct(x, Streams.seeded(0)),
        "denoise": lambda: model.denoise(x.float() + 3, 20.0),
    }
    for task in set(tasks(model)) - {"sample"}:
        answer = answers[task]()
        assert len(answer) == 5, task
        assert torch.isfinite(answer.float()).all(), task
        if task in ("log_prob", "elbo", "anomaly_score"):
            assert answer.shape == (5,), task
        if task in ("decode", "interpolate", "reconstruct", "denoise"):
            assert answer.shape == x.shape, task
            assert answer.dtype == torch.uint8, task


def test_codes_of_exact_families_come_back(case, family):
    model, batch = case
    if isinstance(model, Coding) and family == "flow":
        assert torch.equal(model.decode(model.encode(batch.x)), batch.x)


def test_another_shape_is_refused_by_name(case):
    model, _ = case
    with pytest.raises(ValueError, match="expected images of shape"):
        model.anomaly_score(torch.zeros(2, 5, 5, 1, dtype=torch.uint8), Streams.seeded(0))


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


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("nonsense", 1)])
def test_bad_settings_are_refused(family, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        FAMILIES[family].Config(**{name: value})
