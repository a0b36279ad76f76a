"""A served model hands on what it is asked for: every parameter of every task, over Python and over HTTP.

The model is a family that answers with what it was asked (`echo.py`), packaged and loaded as any other.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_contract import numbers
from test_tracking import free_port, migrated, store

from data.files import sha256
from models import CAPABILITIES
from pipelines.cli import sample
from pipelines.registry.package import vendored_code
from pipelines.serving import artifact
from pipelines.tracking.served_files import save_served

__all__ = ["free_port", "migrated", "store"]

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the HTTP server's
]

NAMES = [f"c{place:02}" for place in range(12)]
DOMAINS = {
    "image": {"kind": "image", "channels": 1, "height": 3, "width": 4, "levels": 256},
    "table": {
        "kind": "table",
        "columns": [{"name": name, "type": "continuous", "dtype": "float64", **numbers(0, 255)} for name in NAMES],
    },
}
READS = {
    "sample": {"n", "label", "seed", "steps"},
    "reconstruct": {"seed"},
    "encode": set(),
    "decode": set(),
    "interpolate": {"n"},
    "log_prob": {"label", "seed"},
    "elbo": {"label", "seed", "draws"},
    "anomaly_score": {"seed"},
    "impute": {"seed", "draws"},
    "denoise": {"sigma"},
    "translate": {"label", "strength", "seed", "steps"},
}
"""By task, the parameters that change its answer; all others must leave it as it is."""

DEFAULTS = {"n": 16, "label": -1, "steps": 0, "draws": 1, "sigma": 25.5, "strength": 0.5}
OTHERS = {"rate": 0.01, "on_unknown": "fail", "given": "{}"}
"""Defaults of parameters of which the echo says nothing; other tests ask for them."""
ASKED: dict[str, tuple[Any, ...]] = {
    "n": (0, 1, 5, 600),
    "seed": (1, 2, 2**40),
    "label": (0, 3, 9),
    "steps": (1, 50),
    "draws": (2, 5),
    "sigma": (1.0, 100.0),
    "strength": (0.0, 0.25, 1.0),
}
"""What is asked for, by parameter."""

Ask = Callable[..., Any]
PAIRS = np.arange(4 * 12).reshape(4, 12) % 97 + 1


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The echo as MLflow loads it, by kind of data, classes, and what the version knows of itself."""
    import mlflow

    models: dict[Any, Any] = {}

    def load(kind: str, classes: int = 10, names: tuple[str, ...] = (), **about: Any) -> Any:
        key = (kind, classes, names, json.dumps(about))
        if key not in models:
            root = tmp_path_factory.mktemp(kind)
            spec = {"family": "echo", "config": {}, "domain": DOMAINS[kind], "classes": classes}
            facts = {"dataset": "d", "class_names": list(names), "data_digest": "d", "run_id": "r"}
            folder = root / "model"
            folder.mkdir()
            save_file({"label_frequencies": torch.full((classes,), 1 / max(1, classes))}, folder / artifact.WEIGHTS)
            (folder / artifact.FACTS).write_text(json.dumps(spec | facts))
            hashes = {name: sha256(folder / name) for name in (artifact.FACTS, artifact.WEIGHTS)}
            (folder / artifact.MANIFEST).write_text(json.dumps({"format": artifact.FORMAT, "files": hashes}))
            with vendored_code() as package:
                (package / "echo.py").write_text((Path(__file__).parents[1] / "support/echo.py").read_text())
                with (package / "__init__.py").open("a") as file:
                    file.write('\nfrom .echo import Echo\n\nFAMILIES["echo"] = Echo\n')
                save_served(root / "served", model=folder, package=package, run_id="r", model_id="m", about=about)
            models[key] = mlflow.pyfunc.load_model(str(root / "served"))
            models[key].folder = root / "served"
        return models[key]

    return load


def examples(kind: str, values: np.ndarray) -> Any:
    """Rows of twelve values as callers of that kind of data hold them."""
    if kind == "table":
        return pd.DataFrame(values.astype(float), columns=NAMES)
    return values.reshape(-1, 3, 4, 1).astype(np.uint8)


def values_of(answer: Any) -> np.ndarray:
    """An answer as numbers: twelve values a row, or what a task says of rows."""
    if hasattr(answer, "columns"):
        answer = answer[NAMES].to_numpy()
    array = np.asarray(answer, np.float64)
    return array.reshape(-1, 12) if array.ndim != 1 and array.size else array


def over_python(model: Any, kind: str) -> Ask:
    """Asks a loaded model."""

    def ask(task: str, rows: np.ndarray = PAIRS, **params: Any) -> np.ndarray:
        given = rows.astype(float) if task == "decode" else examples(kind, rows)
        if task == "sample":
            given = given[:0]
        return values_of(model.predict(given, params={"task": task, **params}))

    return ask


def heard(task: str, answer: np.ndarray) -> dict[str, Any]:
    """What the model was asked, from its answer."""
    if task == "interpolate":
        return {"n": len(answer) / 2}
    if task in ("encode", "decode"):
        return {}
    if task in ("log_prob", "anomaly_score", "elbo"):
        told = np.abs(answer) - PAIRS[:, 0]
        np.testing.assert_allclose(told, told[0], atol=1e-9)
        given, rest = divmod(told[0], 1e6)
        label = {} if task == "anomaly_score" else {"label": given - 1}
        return {"seed": round(rest % 1, 6), **label, **({"draws": rest // 1000} if task == "elbo" else {})}
    found: dict[str, Any] = {}
    if task == "sample":
        found["n"] = len(answer)
    if task == "impute":
        draws = len(answer) // len(PAIRS)
        assert answer[:, 4].tolist() == [draw for draw in range(draws) for _ in PAIRS]
        found["draws"] = draws
    if len(answer):
        first = answer[0]
        assert set(answer[:, 11]) == {list(CAPABILITIES).index(task)}
        if task in ("sample", "translate"):
            assert (answer[:, [2, 3, 6]] == first[[2, 3, 6]]).all()
            found |= {"label": -1 if first[2] == 255 else first[2], "steps": first[3]}
        if task == "translate":
            found["strength"] = first[6] / 100
        if task == "denoise":
            assert (answer[:, 5] == first[5]).all()
            found["sigma"] = first[5] / 2
        else:
            found["seed"] = tuple(first[7:9])
    return found


def walk(ask: Ask, task: str) -> None:
    """Every parameter: what is asked for is what arrives, and what the task does not read changes nothing."""
    plain = ask(task)
    base = heard(task, plain)
    assert set(base) == READS[task]
    assert {name: value for name, value in base.items() if name != "seed"} == {
        name: value for name, value in DEFAULTS.items() if name in base
    }
    seeds = [base.get("seed")]
    for name, values in ASKED.items():
        for value in values:
            answer = ask(task, **{name: value})
            if name not in READS[task]:
                np.testing.assert_array_equal(answer, plain, err_msg=name)
                continue
            found = heard(task, answer)
            if name == "seed":
                seeds.append(found["seed"])
                assert found == heard(task, ask(task, seed=value))
            else:
                assert found.pop(name) == value
            assert found.items() <= {**base, "seed": found.get("seed") if name == "seed" else base.get("seed")}.items()
    assert len(set(seeds)) == len(seeds) or "seed" not in READS[task]


def test_every_task_and_parameter_is_walked(loaded: Callable[..., Any]) -> None:
    """A new one needs a line in the tables above."""
    assert set(READS) == set(CAPABILITIES)
    stated = {param.name: param.default for param in loaded("image").metadata.get_params_schema()}
    assert stated == {"task": "sample", "seed": 0, **DEFAULTS, **OTHERS}
    assert set(stated) == {"task", *ASKED, *OTHERS}


@pytest.mark.parametrize("kind", DOMAINS)
@pytest.mark.parametrize("task", READS)
def test_what_is_asked_for_is_what_arrives(loaded: Callable[..., Any], kind: str, task: str) -> None:
    walk(over_python(loaded(kind), kind), task)


def test_a_model_without_classes_is_given_no_labels(loaded: Callable[..., Any]) -> None:
    ask = over_python(loaded("image", 0), "image")
    assert set(ask("sample")[:, 2]) == set(ask("translate")[:, 2]) == {254}
    with pytest.raises(ValueError, match="trained without labels"):
        ask("sample", label=0)


@pytest.mark.parametrize("kind", DOMAINS)
def test_many_rows_come_back_in_their_order_and_none_is_drawn_twice(loaded: Callable[..., Any], kind: str) -> None:
    """More than are given to the model at once."""
    ask = over_python(loaded(kind), kind)
    rows = np.zeros((600, 12), int)
    rows[:, 0], rows[:, 1], rows[:, 9] = np.arange(600) % 251, np.arange(600) // 251, np.arange(600) % 100
    for task in ("reconstruct", "denoise", "translate", "impute", "encode", "decode"):
        answer = ask(task, rows)
        np.testing.assert_array_equal(answer[:, :2], rows[:, :2], err_msg=task)
        if task not in ("denoise", "encode", "decode"):
            assert len(np.unique(answer[:, 7:9], axis=0)) > 1, task
    np.testing.assert_array_equal(ask("impute", rows, draws=3)[:, :2], np.tile(rows[:, :2], (3, 1)))
    for task, sign in (("log_prob", 1), ("anomaly_score", -1)):
        np.testing.assert_array_equal(np.floor(sign * ask(task, rows)), rows[:, 0])
    assert len(np.unique(ask("sample", n=600)[:, 7:9], axis=0)) > 1
    between = ask("interpolate", rows, n=2)
    np.testing.assert_array_equal(between, rows.reshape(600, 12))


@pytest.mark.parametrize(
    ("first", "last", "middle"),
    [
        ([60, 0], [0, 120], [90 / 2**0.5] * 2),  # at right angles: 45 degrees, the length between
        ([100, 0], [50, 50 * 3**0.5], [100 * 0.75**0.5, 50]),  # at 60 degrees: 30
        ([50, 0], [100, 0], [75, 0]),
        ([0, 0], [10, 20], [5, 10]),  # nothing has no direction
    ],
)
def test_interpolation_follows_the_great_circle(
    loaded: Callable[..., Any], first: list[float], last: list[float], middle: list[float]
) -> None:
    ends = np.zeros((4, 12), int)
    ends[0, :2], ends[1, :2], ends[2, 2:4], ends[3, 2:4] = np.round(first), np.round(last), last, first
    path = over_python(loaded("image"), "image")("interpolate", ends, n=3)
    np.testing.assert_array_equal(path[[0, 2, 3, 5]], ends)
    np.testing.assert_allclose(path[1, :2], middle, atol=1)
    np.testing.assert_allclose(path[4, 2:4], middle, atol=1)
    assert not path[1, 2:].any()
    assert not path[4, :2].any()


@pytest.mark.parametrize("kind", DOMAINS)
def test_missing_cells_and_noise_reach_the_model(loaded: Callable[..., Any], kind: str) -> None:
    model = loaded(kind)
    values = np.full((2, 12), 7.0)
    noisy = examples(kind, values) if kind == "table" else values.reshape(2, 3, 4, 1)
    denoised = values_of(model.predict(noisy + 0.5, params={"task": "denoise", "sigma": 3.0}))
    assert set(denoised[:, 9]) == {15}  # twice 7.5
    values[0, 3:6], values[1, 0] = np.nan, np.nan
    gappy = pd.DataFrame(values, columns=NAMES) if kind == "table" else values.reshape(2, 3, 4, 1)
    assert values_of(model.predict(gappy, params={"task": "impute"}))[:, 10].tolist() == [9, 11]


def test_columns_are_known_by_their_names(loaded: Callable[..., Any]) -> None:
    model, frame = loaded("table"), examples("table", PAIRS)
    for task in ("encode", "impute"):
        asked = {"task": task}
        expected, found = (values_of(model.predict(f, params=asked)) for f in (frame, frame[NAMES[::-1]]))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "ending", "read"), [("image", ".npy", np.load), ("table", ".csv", pd.read_csv)])
def test_the_verb_sample_hands_on_what_it_is_asked(
    loaded: Callable[..., Any], store: Path, kind: str, ending: str, read: Callable[[Path], Any]
) -> None:
    def drawn(name: str, **asked: int) -> dict[str, Any]:
        return heard(
            "sample", values_of(read(sample.sample(str(loaded(kind).folder), store / (name + ending), **asked)))
        )

    base = drawn("a")
    assert base == {"n": 16, "label": -1, "steps": 0, "seed": base["seed"]}
    for name, value in {"n": 5, "label": 3, "steps": 50}.items():
        assert drawn(name, **{name: value}) == base | {name: value}
    assert drawn("seed", seed=4)["seed"] != base["seed"]


@contextlib.contextmanager
def over_http(model: Any, kind: str, port: int) -> Iterator[Ask]:
    """Asks the HTTP application that `mlflow models serve` runs, here in a thread."""
    import uvicorn
    from mlflow.pyfunc import scoring_server

    application = scoring_server.init(model)
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)

    def ask(task: str, rows: np.ndarray = PAIRS, **params: Any) -> np.ndarray:
        given = rows.astype(float) if task == "decode" else examples(kind, rows)
        if task == "sample":
            given = given[:0]
        if hasattr(given, "columns"):
            body: dict[str, Any] = {"dataframe_split": {"columns": NAMES, "data": given.to_numpy().tolist()}}
        else:
            body = {"inputs": given.tolist()}
        text = json.dumps({**body, "params": {"task": task, **params}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", text, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            predictions = json.load(response)["predictions"]
        return values_of(pd.DataFrame(predictions) if predictions and isinstance(predictions[0], dict) else predictions)

    try:
        yield ask
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("kind", DOMAINS)
def test_what_is_asked_for_over_http_is_what_arrives(loaded: Callable[..., Any], kind: str, free_port: int) -> None:
    model = loaded(kind)
    with over_http(model, kind, free_port) as ask:
        for task in READS:
            walk(ask, task)
