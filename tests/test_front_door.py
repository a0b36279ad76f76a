"""Data whose truth is known, in at the front door, and what comes out of the registry checked against the truth."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from claims import CLAIMS, Ask, fresh, fresh_images
from small_projects import MODELS, SmallProject, edit_card, write_source
from test_pipeline import Project
from test_tracking import free_port, started
from truth import NAMES, SHARES, Patterns, Rows, auroc

from models import FAMILIES
from models.capabilities import CAPABILITIES
from pipelines import tracking

__all__ = ["free_port"]
pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


# The truth itself: what it says agrees with its own draws


def test_the_truth_of_rows_agrees_with_its_draws() -> None:
    truth, random = Rows(), np.random.default_rng(0)
    x, c = truth.draw(4000, random)
    odd = truth.shuffled(4000, random)
    assert_whole(truth, x, odd)
    mean, variance = truth.mass_given(x)
    z = (x["mass"] - mean) / np.sqrt(variance)
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    assert z.var() == pytest.approx(1, abs=0.1)
    hidden = truth.with_gaps(x, 0.3, random)
    for k in range(len(SHARES)):  # calibrated: where it says so, it is so often
        told = truth.posterior(hidden)[:, k]
        assert told.mean() == pytest.approx((c == k).mean(), abs=0.02)
        assert (told * (1 - told)).mean() == pytest.approx(((c == k) - told).var(), abs=0.01)
    without = x.assign(city=None)
    told = truth.city_given(without)
    assert (told.max(1)[x["country"] != "Norway"] == 1).all()  # one city of its country
    hits = np.array(truth.cities, object)[told.argmax(1)] == x["city"]
    assert told.max(1).mean() == pytest.approx(hits.mean(), abs=0.03)


def assert_whole(truth: Rows | Patterns, normal: Any, odd: Any) -> None:
    """Two densities of mass 1 agree with draws of each: E_p[q / (p + q)] = E_q[p / (p + q)]."""
    one, other = expit(truth.ratio(normal)), expit(-truth.ratio(odd))
    assert abs(one.mean() - other.mean()) < 4 * np.hypot(one.std(), other.std()) / np.sqrt(len(one))


def test_the_truth_of_images_agrees_with_its_draws() -> None:
    truth, random = Patterns(), np.random.default_rng(0)
    x, c = truth.draw(4000, random)
    for k in range(len(SHARES)):
        weight = np.eye(len(SHARES))[[k]]
        off = (x[c == k].mean(0) - truth.mean(weight)[0]) / np.sqrt(truth.variance(weight)[0] / (c == k).sum())
        assert np.abs(off).max() < 4.5
    strange = truth.strange(4000, random)
    assert_whole(truth, x, strange)
    both = np.concatenate([x, strange])
    best = auroc(truth.ratio(both), np.arange(8000) >= 4000)
    assert 0.95 < best < 1
    noisy = x + random.normal(0, 51, x.shape)
    clean = truth.denoised(noisy, 51)
    assert ((x - clean) * clean).mean() == pytest.approx(0, abs=20)  # the error of a projection is orthogonal to it
    assert ((x - clean) ** 2).mean() < min(((x - truth.denoised(noisy, s)) ** 2).mean() for s in (34, 76))


# Small projects: all but the training by the command line's `main`


def asking(project: SmallProject, family: str) -> Ask:
    """`predict` of a family's registered version."""
    record = json.loads((project.root / f"runs/{project.name}/registry.json").read_text())
    model = tracking.load_served(f"models:/{project.name}/{record['versions'][family]['version']}")
    return lambda rows, **params: model.predict(rows, params=params)


@pytest.fixture(scope="module")
def small(shop: SmallProject, tiles: SmallProject) -> Callable[[str, str], Ask]:
    """The registered models of the small projects, each loaded once."""
    loaded: dict[tuple[str, str], Ask] = {}

    def load(name: str, family: str) -> Ask:
        if (name, family) not in loaded:
            project = shop if name == "shop" else tiles
            with project.entered():
                loaded[name, family] = asking(project, family)
        return loaded[name, family]

    return load


def claims_of(models: Mapping[str, Any], faults: Mapping[tuple[str, str, str], str]) -> list[Any]:
    """Every claim about every model that has the task; those that a known fault breaks are marked."""
    return [
        pytest.param(
            name,
            family,
            claim,
            id=f"{name}-{family}-{claim}",
            marks=[pytest.mark.xfail(strict=True, raises=AssertionError, reason=faults[name, family, claim])]
            if (name, family, claim) in faults
            else [],
        )
        for name, families in models.items()
        for family in families
        for claim, (task, _) in CLAIMS[name].items()
        if issubclass(FAMILIES[family], CAPABILITIES[task])
    ]


DEPENDENCY = "families draw a category's dependent column on its own: rows that cannot exist"
SIGMA = "autoencoders reconstruct, and do not read sigma"
SMALL_FAULTS = {
    ("shop", "flow", "possible"): DEPENDENCY,
    ("shop", "vae", "possible"): DEPENDENCY,
    ("shop", "vae", "denoised"): SIGMA,
    ("tiles", "diffusion", "bound well"): "levels finer than the training looks at are not told apart: 11 nats loose",
    ("tiles", "diffusion", "anomalies well"): "errors of denoising tell little of noisy images",
}


@pytest.mark.parametrize(("name", "family", "claim"), claims_of(MODELS, SMALL_FAULTS))
def test_a_registered_model_tells_the_truth(
    small: Callable[[str, str], Ask], name: str, family: str, claim: str
) -> None:
    CLAIMS[name][claim][1](small(name, family), family)
