"""Data whose truth is known, in at the front door, and what comes out of the registry checked against the truth."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claims import CLAIMS, Ask, fresh, fresh_images
from ruamel.yaml import YAML
from scipy.special import expit
from small_projects import MODELS, SmallProject, edit_card, write_source
from test_pipeline import Project
from test_tracking import free_port, started
from truth import SHARES, Patterns, Rows, auroc

from models import FAMILIES
from models.capabilities import CAPABILITIES
from pipelines import tracking
from pipelines.__main__ import main

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


class Hairline(str):
    """Why a claim lies so near its bound that another processor's rounding may let it hold."""


def claims_of(models: Mapping[str, Any], faults: Mapping[tuple[str, str, str], str]) -> list[Any]:
    """Every claim about every model that has the task; those that a known fault breaks are marked."""
    return [
        pytest.param(
            name,
            family,
            claim,
            id=f"{name}-{family}-{claim}",
            marks=[
                pytest.mark.xfail(strict=not isinstance(fault, Hairline), raises=AssertionError, reason=fault)
                for fault in [faults.get((name, family, claim))]
                if fault
            ],
        )
        for name, families in models.items()
        for family in families
        for claim, (task, _) in CLAIMS[name].items()
        if issubclass(FAMILIES[family], CAPABILITIES[task])
    ]


SIGMA = "autoencoders reconstruct, and do not read sigma"
COLLAPSE = "a decoder that sees the cells before leaves little to the code (beta 1): class .74, city .5, length 1.4 off"
SMALL_FAULTS = {
    ("shop", "flow", "possible"): Hairline("at the bound: 1.0 to 1.2 of a hundred rows, one allowed"),
    ("shop", "vae", "denoised"): SIGMA,
    ("shop", "vae", "coded"): COLLAPSE,
}


@pytest.mark.parametrize(("name", "family", "claim"), claims_of(MODELS, SMALL_FAULTS))
def test_a_registered_model_tells_the_truth(
    small: Callable[[str, str], Ask], name: str, family: str, claim: str
) -> None:
    CLAIMS[name][claim][1](small(name, family), family)


# DVC


@pytest.mark.parametrize("stage", ["register", "report"])
def test_dvc_knows_what_the_last_stages_read(shop: SmallProject, stage: str) -> None:
    """Every file of the project's data and results that is opened for reading lies below a dependency or an output."""
    opened: set[str] = set()

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and opened_by and isinstance(arguments[0], (str, Path)) and arguments[1] in ("r", "rb"):
            opened.add(os.path.relpath(arguments[0], shop.root))

    opened_by = [stage]  # a hook cannot be taken off: emptied, it is deaf
    sys.addaudithook(listen)
    try:
        with shop.entered():
            assert main([stage]) == 0
    finally:
        opened_by.clear()
    written = YAML(typ="safe").load(Path(__file__).parents[2] / "dvc.yaml")["stages"][stage]
    paths = [path if isinstance(path, str) else next(iter(path)) for path in (*written["deps"], *written["outs"])]
    rooms = [path.replace("${dataset}", "shop") for path in paths]
    read = {path for path in opened if path.startswith(("data/", "runs/"))}
    assert "data/prepared/shop/manifest.json" in read
    state = "runs/shop/state"  # of trainings: nobody's output
    unseen = {path for path in read if not any(path == room or path.startswith(f"{room}/") for room in (*rooms, state))}
    assert unseen == set()


# REST


def body_of(rows: Any, params: Mapping[str, Any]) -> bytes:
    """A request: missing cells are null."""
    if isinstance(rows, pd.DataFrame):
        return json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split")), "params": params}).encode()
    known = np.asarray(rows).astype(object)
    known[pd.isna(known)] = None
    return json.dumps({"inputs": known.tolist(), "params": params}).encode()


def rows_of(answer: str | bytes) -> Any:
    """The predictions in an answer: a DataFrame, or an array."""
    found = json.loads(answer)["predictions"]
    if found and isinstance(found[0], dict):
        return pd.DataFrame(found)
    return np.array(found)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, pd.DataFrame):
        expected = expected.reset_index(drop=True)  # which JSON does not carry
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_column_type=False)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def calls(name: str) -> list[tuple[Any, dict[str, Any]]]:
    """Inputs and parameters, none at its default."""
    if name == "shop":
        x = fresh(6, 8)[0]
        nothing, gappy = x.iloc[:0], Rows().with_gaps(x, 0.4, np.random.default_rng(8))
    else:
        x = fresh_images(6, 8)[0]
        nothing, gappy = x[:0], np.where(np.random.default_rng(8).random(x.shape) < 0.4, np.nan, x)
    return [
        (nothing, {"task": "sample", "n": 5, "label": 2, "seed": 3}),
        (gappy, {"task": "impute", "draws": 3, "seed": 4}),
        (x, {"task": "anomaly_score", "seed": 5}),
        (x, {"task": "encode"}),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_rest_answers_as_python_does(shop: SmallProject, tiles: SmallProject, name: str) -> None:
    """Through what MLflow's server does with each request, without the server."""
    from mlflow.pyfunc import scoring_server

    project = {"shop": shop, "tiles": tiles}[name]
    with project.entered():
        model = tracking.load_served(f"models:/{name}@generation")
        record = json.loads((project.root / f"runs/{name}/registry.json").read_text())["jobs"]["generation"]
        version = tracking.load_served(f"models:/{name}/{record['version']}")
    for rows, params in calls(name):
        answer = scoring_server.invocations(
            body_of(rows, params).decode(), "application/json", model, model.metadata.get_input_schema()
        )
        assert answer.status == 200, answer.response
        assert_same(rows_of(answer.response), version.predict(rows, params=params))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_server_answers_as_python_does(shop: SmallProject, tiles: SmallProject, name: str, free_port: int) -> None:
    project = {"shop": shop, "tiles": tiles}[name]
    with project.entered(), serving(project, "generation", free_port) as ask:
        model = tracking.load_served(f"models:/{name}@generation")
        for rows, params in calls(name):
            status, answer = ask(rows, params)
            assert status == 200, answer
            assert_same(rows_of(answer), model.predict(rows, params=params))
        wrong = (
            (fresh(2, 8)[0].assign(city="Paris"), "row 0, column 'city': expected one of 'Bergen', 'New York'")
            if name == "shop"
            else (fresh_images(2, 8)[0].astype(int) + 300, "0 to 255")
        )
        status, answer = ask(wrong[0], {"task": "impute"})
        assert status == 400
        assert wrong[1] in answer.decode()
        status, answer = ask(wrong[0], {"task": "fly"})
        assert status == 400
        assert "it can do: sample" in answer.decode()


@contextmanager
def serving(project: SmallProject, alias: str, port: int) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """`mlflow models serve` of an alias, and how it is asked: status and answer."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{project.name}@{alias}"]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]

    def ready() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/ping", timeout=1).status == 200
        except OSError:
            return False

    def ask(rows: Any, params: Mapping[str, Any]) -> tuple[int, bytes]:
        content = {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/invocations", body_of(rows, params), content)
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    uri = f"sqlite:///{project.root}/mlflow.db"
    with started([*command, *options], project.root, ready, tracking_uri=uri, seconds=180):
        yield ask


# The whole way: five families by `dvc repro`

TRAINING = "training: {total_examples: 100000, batch_size: 128, lr: 2e-3, warmup_examples: 2000, evaluations: 2}"
ADVERSARIAL = (
    "training: {total_examples: 100000, batch_size: 64, lr: 1e-3, beta1: 0.0, grad_clip: 0, warmup_examples: 2000,"
    " evaluations: 2}"
)
WHOLE: dict[str, dict[str, str]] = {
    "shop": {
        "autoencoder": f"{{model: {{latent: 16, width: 48}}, {TRAINING}}}",
        "vae": f"{{model: {{latent: 16, width: 48}}, {TRAINING}}}",
        "gan": f"{{model: {{width: 48, critic_width: 48, gamma: 0.5}}, {ADVERSARIAL}}}",
        "flow": f"{{model: {{width: 48}}, {TRAINING}}}",
        "diffusion": f"{{model: {{width: 48, blocks: 2, p_mean: -0.5, p_std: 1.4}}, {TRAINING}}}",
    },
    "tiles": {
        "autoencoder": f"{{model: {{latent: 8, width: 16}}, {TRAINING}}}",
        "vae": f"{{model: {{latent: 8, width: 16}}, sampling: {{draw_pixels: true}}, {TRAINING}}}",
        "gan": f"{{model: {{width: 16, critic_width: 16}}, {ADVERSARIAL}}}",
        "flow": f"{{model: {{steps: 4, width: 24}}, {TRAINING}}}",
        "diffusion": f"{{model: {{width: 16}}, {TRAINING}}}",
    },
}
WHOLE_FAULTS = {
    ("shop", "autoencoder", "possible"): "2.6 of a hundred rows hold a country that is not their city's",
    ("shop", "autoencoder", "denoised"): SIGMA,
    ("shop", "vae", "labels"): Hairline("draws of a class have .113 gaps in a column, .11 allowed"),
    (
        "shop",
        "vae",
        "coded",
    ): "a decoder that sees the cells before leaves less to the code: length .97 off, .7 allowed",
    ("shop", "vae", "denoised"): SIGMA,
    ("shop", "gan", "possible"): "1.9 of a hundred rows hold a country that is not their city's",
    ("shop", "diffusion", "possible"): Hairline("1.2 of a hundred rows, one allowed"),
    ("shop", "diffusion", "density"): "categories are points to the noise: 3.1 nats short, 2.7 allowed",
    ("shop", "diffusion", "bound well"): "categories are points to the noise: 3.8 nats loose",
    ("tiles", "autoencoder", "filled"): Hairline(
        "the mean of the fillings errs by .54 standard deviations, .50 allowed"
    ),
    ("tiles", "autoencoder", "denoised"): SIGMA,
    ("tiles", "vae", "denoised"): SIGMA,
    ("tiles", "gan", "filled"): Hairline("the mean of the fillings errs by .53 standard deviations, .50 allowed"),
    ("tiles", "gan", "anomalies well"): "an area of .66, .69 asked: midway between chance and the true density",
    ("tiles", "diffusion", "anomalies well"): "errors of denoising tell little of noisy images: an area of .63",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SmallProject]:
    """Projects in which all families went from the source's file to the registry, by the user's own commands."""
    done: dict[str, SmallProject] = {}

    def make(name: str) -> SmallProject:
        if name not in done:
            families = list(WHOLE[name])
            project = Project(tmp_path_factory.mktemp("whole") / name, families)
            project.run("fivefold", *write_source(name, project.folder, 3_000))
            edit_card(name, project.folder)
            (project.folder / f"recipes/{name}.yaml").write_text("{}\n")
            (project.folder / "params.yaml").write_text(
                f"dataset: {name}\nseed: 0\nfamilies: [{', '.join(families)}]\ntune: {{enabled: false}}\n"
                "train: {workers: auto}\n"
                "features: {examples: 6000, samples: 500, bootstrap: 20, components: [4]}\n"
                "evaluate: {samples: 500, bootstrap: 20}\n"
                + "".join(f"{family}: {section}\n" for family, section in WHOLE[name].items())
            )
            project.run("dvc", "repro", seconds=1500)
            done[name] = SmallProject(project.folder, name)
        return done[name]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family", "claim"), claims_of(WHOLE, WHOLE_FAULTS))
def test_the_whole_way_tells_the_truth(
    whole: Callable[[str], SmallProject], name: str, family: str, claim: str
) -> None:
    project = whole(name)
    with project.entered():
        CLAIMS[name][claim][1](asking(project, family), family)
