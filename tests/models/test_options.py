"""Every setting of every family is trained: each value of a choice, both of a switch, another of a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from specs import spec_of
from test_contract import DOMAINS, SMALL, assert_valid, examples
from test_tables import seeded

from models import FAMILIES, Streams, build, tasks

NUMBERS: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "latent": 3,
        "width": 4,
        "blocks": 2,
        "patch": 2,
        "principal": 2,
        "noise": 0.0,
        "code_penalty": 0.1,
        "code_noise": 0.5,
        "components": 1,
        "hide": 0.3,
        "dropout": 0.3,
    },
    "vae": {
        "latent": 3,
        "width": 4,
        "blocks": 2,
        "patch": 2,
        "principal": 2,
        "beta": 2.0,
        "free_bits": 0.5,
        "components": 2,
        "prior_components": 0,
        "warmup_examples": 64,
        "hide": 0.3,
        "dropout": 0.3,
    },
    "gan": {
        "latent": 3,
        "width": 4,
        "critic_width": 4,
        "blocks": 2,
        "patch": 2,
        "principal": 2,
        "features": 4,
        "gamma": 1.0,
        "penalty": 1.0,
        "critic_steps": 2,
        "generator_rate": 0.5,
        "shift": 0.2,
        "inversion_steps": 1,
        "settle": 0.0,
        "dropout": 0.3,
    },
    "flow": {
        "components": 4,
        "detail": 0.5,
        "steps": 3,
        "levels": 1,
        "width": 4,
        "blocks": 1,
        "embed": 4,
        "bins": 4,
        "tail": 3.0,
        "scale_bound": 1.0,
        "label_dropout": 0.5,
        "temperature": 0.7,
        "sweeps": 1,
        "parts": 4,
        "dropout": 0.3,
    },
    "diffusion": {
        "width": 4,
        "blocks": 2,
        "patch": 2,
        "embed": 8,
        "p_mean": -1.0,
        "p_std": 1.0,
        "hide": 0.3,
        "settle": 0.0,
        "sigma_min": 0.01,
        "density_sigma": 0.05,
        "density_steps": 3,
        "sigma_max": 20.0,
        "rho": 5.0,
        "steps": 3,
        "code_steps": 3,
        "impute_steps": 3,
        "resample": 1,
        "label_dropout": 0.5,
        "guidance": 2.0,
        "detail": 0.5,
        "principal": 5,
        "attention": 8,
        "heads": 2,
        "dropout": 0.3,
        "jumps": 0.5,
    },
}
"""Another value of every setting that is a number."""

WITH = {
    "schedule": {"objective": "ddpm"},
    "penalty": {"loss": "wasserstein"},
    "flow.components": {"architecture": "principal"},
    "flow.detail": {"architecture": "principal", "components": 4},
    "diffusion.detail": {"principal": 4},
    "bins": {"architecture": "couplings"},
    "tail": {"architecture": "couplings"},
    "sweeps": {"architecture": "couplings"},
    "sampler": {"jumps": 0.5},
}
"""What a setting, of any family or of one, needs to have an effect."""


def needs(family: str, name: str) -> dict[str, Any]:
    """What a family's setting needs to have an effect."""
    return WITH.get(name, {}) | WITH.get(f"{family}.{name}", {})


def choices(family: str) -> Iterator[tuple[str, Any]]:
    """Settings that are a choice or a switch, and each of their values."""
    cls = FAMILIES[family]
    for name, kind in (get_type_hints(cls.Config) | get_type_hints(cls.SamplingConfig)).items():
        values = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
        for value in values:
            yield name, value


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for family, numbers in NUMBERS.items():
        yield family, numbers
        yield family, {"width": 1}
        for name, value in choices(family):
            yield family, needs(family, name) | {name: value}
        for name in numbers:
            if needs(family, name):
                yield family, needs(family, name) | {name: numbers[name]}


IMPOSSIBLE = {
    **{("table", "architecture", name): f"{name} is not for a table" for name in ("glow", "realnvp", "principal")},
    ("grey 8x8, 17 levels", "architecture", "autoregressive"): "architecture: autoregressive is for tables",
}
"""What there is not for a kind of data, and the error that says so."""


def impossible(domain: str, config: dict[str, Any]) -> str:
    """The error of settings that there is nothing for; empty if there is."""
    return next((IMPOSSIBLE[domain, *pair] for pair in config.items() if (domain, *pair) in IMPOSSIBLE), "")


def test_every_setting_is_among_those_tried():
    for family, cls in FAMILIES.items():
        known = {field.name: field.default for kind in (cls.Config, cls.SamplingConfig) for field in fields(kind)}
        assert set(known) == set(NUMBERS[family]) | {name for name, _ in choices(family)}, family
        assert all(known[name] != value for name, value in NUMBERS[family].items()), family


def answers(family: str, domain: str, config: dict[str, Any]) -> Iterator[tuple]:
    """What a setting can change, the cheap first: what is trained and when, losses, and what a model then answers."""
    torch.manual_seed(0)
    spec = spec_of(family, SMALL[family] | config, domain=DOMAINS[domain], classes=3)
    model, batch = build(spec), examples(DOMAINS[domain], 16, 3)
    model.initialize(batch, Streams.seeded("initialize"))
    yield tuple((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())
    yield tuple((objective.every, objective.speed) for objective in model.objectives())
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    yield tuple(objective(batch, Streams.seeded(0)).total.sum().item() for objective in model.objectives())
    model.eval().finalize(batch, Streams.seeded("finalize"))
    label = torch.tensor([0, 1, 2, -1])
    yield tuple(model.sample(4, label, Streams.seeded(0)).flatten().tolist())
    yield tuple(model.reconstruct(batch.x[:2], Streams.seeded(0)).flatten().tolist())
    observed = model.domain.observed(batch.x[:4]) & (torch.rand(batch.x[:4].shape, generator=seeded()) < 0.5)
    yield tuple(model.impute(batch.x[:4], observed, Streams.seeded(0)).flatten().tolist())
    if "log_prob" in tasks(model):
        yield tuple(model.log_prob(batch.x[:2], Streams.seeded(0)).tolist())


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, numbers in NUMBERS.items() for name in numbers], ids=str
)
def test_every_setting_changes_something(family, name):
    """A setting that nobody reads would leave all answers as they are, of images and of rows."""
    needed = needs(family, name)
    other = needed | {name: NUMBERS[family][name]}
    for domain in ("table", "grey 8x8, 17 levels"):  # rows are the cheaper
        if impossible(domain, needed):
            continue
        pairs = zip(answers(family, domain, needed), answers(family, domain, other), strict=True)
        if any(a != b for a, b in pairs):
            return
    pytest.fail(f"{family}: {name} has no effect")


def test_how_rows_are_settled_asks_nothing_of_images():
    """Noise levels of images may lie below the default one from which rows are settled; those of rows may not."""
    low = spec_of("diffusion", SMALL["diffusion"] | {"sigma_max": 0.9}, classes=0)
    images = DOMAINS["grey 8x8, 17 levels"]
    assert_valid(build(low | {"domain": images}).sample(2, None, Streams.seeded(0)), images, 2)
    rows = low | {"domain": DOMAINS["table"]}
    with pytest.raises(ValueError, match=r"settle must be below sigma_max, got 1\.0 and 0\.9; set settle: 0"):
        build(rows)
    build(rows | {"config": rows["config"] | {"settle": 0.5}})


@pytest.mark.parametrize("domain", ["grey 8x8, 17 levels", "table"])
@pytest.mark.parametrize(("family", "config"), list(cases()), ids=str)
def test_every_option_trains(family, config, domain):
    spec = spec_of(family, SMALL[family] | config, domain=DOMAINS[domain], classes=3)
    if error := impossible(domain, config):
        with pytest.raises(ValueError, match=error):
            build(spec)
        return
    torch.manual_seed(0)
    model, batch = build(spec), examples(DOMAINS[domain], 16, 3)
    model.initialize(batch, Streams.seeded("initialize"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizers = [torch.optim.Adam(objective.parameters(), 1e-3) for objective in model.objectives()]
    for step in range(2):
        for objective, optimizer in zip(model.objectives(), optimizers, strict=True):
            optimizer.zero_grad()
            loss = objective(batch, Streams.seeded(step)).total.mean()
            assert torch.isfinite(loss)
            loss.backward()
            assert all(parameter.grad is not None for parameter in objective.parameters())
            optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval().finalize(batch, Streams.seeded("finalize"))
    assert_valid(model.sample(4, None, Streams.seeded(0)), DOMAINS[domain], 4)
    if config is NUMBERS[family]:
        draws = model.impute(batch.x[:2], torch.rand(batch.x[:2].shape) < 0.5, Streams.seeded(0), draws=2)
        assert_valid(draws[1], DOMAINS[domain], 2)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"width": float("nan")}, "width must be a whole number, got nan"),
        ({"width": 8.5}, "width must be a whole number, got 8.5"),
        ({"latent": "4"}, "latent must be a whole number, got '4'"),
        ({"beta": True}, "beta must be a number, got True"),
        ({"prior": "none"}, "prior must be one of mixture, flow, diffusion, got 'none'"),
    ],
)
def test_settings_of_another_type_build_nothing(config: dict[str, Any], sentence: str) -> None:
    spec = {"family": "vae", "config": config, "domain": DOMAINS["table"], "classes": 0}
    with pytest.raises(ValueError, match=sentence):
        build(spec)
