"""What a downstream team may count on: a version does its job, scores are calibrated, tables come back whole, and
every mistake is answered by a sentence, over Python and over HTTP.

The model is the echo of `test_served.py`: its answers have known values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from test_served import NAMES, PAIRS, examples, loaded, over_http, pytestmark, values_of
from test_tracking import free_port, migrated, store

from pipelines.cli import sample
from pipelines.serving.calibration import HeldOutScores

__all__ = ["free_port", "loaded", "migrated", "pytestmark", "store"]

Load = Callable[..., Any]
CLASSES = ("<=50K", ">50K")
HELD_OUT = [-float(k) for k in range(1, 100)]
"""The score of a row that begins with `a` is above `-a - 1` and not above `-a`: `a` of these are at least it."""


def table(load: Load, **about: Any) -> Any:
    """The echo as a table with a label."""
    return load("table", 2, CLASSES, label="income", held_out_scores=HELD_OUT, **about)


# A job per alias


@pytest.mark.parametrize(
    ("job", "task"), [("density", "log_density"), ("anomaly", "anomaly"), ("imputation", "impute")]
)
def test_a_version_does_its_job_unasked(loaded: Load, job: str, task: str) -> None:
    model, rows = table(loaded, job=job, exact=True), examples("table", PAIRS)
    pd.testing.assert_frame_equal(model.predict(rows), model.predict(rows, params={"task": task}))
    stated = {param.name: param.default for param in model.metadata.get_params_schema()}
    assert stated["task"] == task
    given = model.predict(rows)
    outputs = model.metadata.get_output_schema().input_names()
    assert outputs == [*given.columns, "income"][: len(outputs)]


@pytest.mark.parametrize(("job", "why"), [("", "has no job"), ("generation", "is generation, which takes no rows")])
def test_rows_without_a_task_are_not_answered_by_samples(loaded: Load, job: str, why: str) -> None:
    model = table(loaded, job=job)
    with pytest.raises(ValueError, match=f"4 rows were given without a task, and .*{why}: .*one of sample, .*describe"):
        model.predict(examples("table", PAIRS))
    assert len(model.predict(pd.DataFrame())) == 16  # as every generator answers when it is given nothing


def test_density_says_whether_it_is_exact(loaded: Load) -> None:
    answer = table(loaded).predict(examples("table", PAIRS), params={"task": "log_density"})
    assert list(answer.columns) == ["log_density", "exact"]
    np.testing.assert_array_equal(np.floor(answer["log_density"]), PAIRS[:, 0])


@pytest.mark.parametrize(("label", "number"), [(1, 1), (">50K", 1), ("<=50K", 0), ("1", 1), (" >50K ", 1)])
def test_classes_are_known_by_name_and_by_number(loaded: Load, label: Any, number: int) -> None:
    drawn = table(loaded).predict(None, params={"task": "sample", "label": label, "n": 3})
    assert drawn["income"].tolist() == [CLASSES[number]] * 3
    assert set(values_of(drawn)[:, 2]) == {number}  # what the model was asked for


def test_a_version_describes_itself(loaded: Load) -> None:
    said = table(loaded, job="anomaly").predict(None, params={"task": "describe"})
    assert said["classes"] == [{"label": 0, "name": "<=50K"}, {"label": 1, "name": ">50K"}]
    assert said["default_task"] == "anomaly"
    assert {"sample", "anomaly", "log_density", "impute"} <= set(said["tasks"])
    assert said["shape"] == [12]
    assert [column["name"] for column in said["columns"]] == NAMES
    assert said["units"]["log_density"] == "nats per example"
    assert said["thresholds"]["score_at_rate"] == {"0.01": -1.0, "0.05": -5.0, "0.1": -10.0}
    assert json.loads(json.dumps(said)) == said


# Calibrated anomalies


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.1, 0.5])
def test_p_values_are_valid_under_exchangeability(loaded: Load, rate: float) -> None:
    """Each of a hundred exchangeable rows is the new one once: of p-values, exactly the rate is at most the rate."""
    rows = np.zeros((100, 12), int)
    rows[:, 0] = np.arange(100)
    answer = table(loaded).predict(examples("table", rows), params={"task": "anomaly", "rate": rate})
    np.testing.assert_allclose(answer["p_value"], (1 + np.arange(100)) / 100)
    assert answer["flag"].mean() == pytest.approx(rate)
    assert answer["flag"].tolist() == (answer["p_value"] <= rate).tolist()


@pytest.mark.parametrize(("score", "p_value"), [(0.5, 1), (1, 1), (1.5, 0.5), (2, 0.5), (3, 0.25)])
def test_rows_that_score_alike_count_as_at_least_as_anomalous(score: float, p_value: float) -> None:
    assert HeldOutScores([2, 1, 1]).p_values(np.array([score])) == [p_value]


def test_a_rate_that_cannot_be_told_is_refused(loaded: Load) -> None:
    rows = examples("table", PAIRS)
    with pytest.raises(ValueError, match=r"rate must be at least 0.01, the lowest that 99 held-out rows"):
        table(loaded).predict(rows, params={"task": "anomaly", "rate": 0.001})
    with pytest.raises(ValueError, match=r"no scores of held-out rows.*anomaly_score"):
        loaded("table").predict(rows, params={"task": "anomaly"})


# Tables whole


def test_what_the_model_does_not_see_comes_back(loaded: Load) -> None:
    model = table(loaded)
    rows = examples("table", PAIRS).assign(income=[">50K", None, "<=50K", ">50K"], note=list("abcd"))
    rows.index = pd.Index(["w", "x", "y", "z"], name="key")
    for task in ("reconstruct", "impute", "anomaly", "log_density", "denoise"):
        answer = model.predict(rows, params={"task": task})
        pd.testing.assert_frame_equal(answer[["income", "note"]], rows[["income", "note"]])
    drawn = model.predict(rows, params={"task": "impute", "draws": 3})
    assert drawn["note"].tolist() == list("abcd") * 3
    assert drawn["draw"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    moved = model.predict(rows, params={"task": "translate", "label": ">50K"})
    assert moved["income"].tolist() == [">50K"] * 4
    assert model.predict(None, params={"n": 300})["income"].value_counts().min() > 100
    with pytest.raises(ValueError, match=r"row 1, column 'income': expected one of '<=50K', '>50K'.*got '50K'"):
        model.predict(rows.assign(income=[">50K", "50K", None, None]), params={"task": "encode"})


def test_samples_given_the_values_of_columns(loaded: Load) -> None:
    """Asked of a family whose fillings are exact draws; the others refuse."""
    model = table(loaded)
    params = {"n": 300, "given": {"c00": 7}}
    with pytest.raises(ValueError, match=r"\(echo\) cannot draw exactly given.*task 'impute'"):
        model.predict(None, params=params)
    inner = model.unwrap_python_model().model
    inner.exact_conditionals = True
    try:
        drawn = values_of(model.predict(None, params=params))
        with pytest.raises(ValueError, match=r"given has no column 'cc03'.*did you mean 'c03'"):
            model.predict(None, params={"given": {"cc03": 7}})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIVEFOLD_MAX_WORK", "60000")
            assert len(model.predict(None, params={"n": 4500, "given": {"c00": 7}})) == 4500
            with pytest.raises(ValueError, match=r"10800000 values are too many .* 4500 examples x 200 draws"):
                model.predict(None, params={"n": 4500, "given": {"c00": [7, 9]}})  # met by drawing again
    finally:
        del inner.exact_conditionals
    assert (len(drawn), set(drawn[:, 0]), set(drawn[:, 10])) == (300, {7}, {1})  # one cell was known
    assert len(np.unique(drawn[:, 7:9], axis=0)) > 1  # drawn in parts, none twice


def test_frames_of_other_libraries(loaded: Load) -> None:
    model, rows = table(loaded), examples("table", PAIRS)
    expected = model.predict(rows, params={"task": "reconstruct"})

    class Frame:  # as polars: columns, length, and `to_pandas`
        columns = NAMES

        def __len__(self) -> int:
            return len(rows)

        def to_pandas(self) -> pd.DataFrame:
            return rows

    for given in (pa.Table.from_pandas(rows), Frame(), rows.to_dict(orient="list")):
        pd.testing.assert_frame_equal(model.predict(given, params={"task": "reconstruct"}), expected)


def test_unknown_categories_fail_or_are_missing() -> None:
    from pipelines.serving.domains.table import Tables

    column = {"name": "city", "type": "categorical", "categories": ["Oslo", "Rome"], "dtype": ""}
    tables, rows = Tables({"columns": [column]}), pd.DataFrame({"city": ["Rome", "Paris", None]})
    read = tables.read(rows, "impute", on_unknown="missing")
    assert read.observed[:, 0].tolist() == [True, False, False]
    assert read.x[0, 0] == 1
    with pytest.raises(ValueError, match=r"row 1, column 'city': expected one of 'Oslo', 'Rome'"):
        tables.read(rows, "impute")


# Randomness and work


def test_seed_minus_one_is_new_every_time(loaded: Load) -> None:
    model = table(loaded)
    drawn = [model.predict(None, params={"n": 8, "seed": seed}).to_numpy(str) for seed in (0, 0, -1, -1)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[2] != drawn[3]).any()


@pytest.mark.parametrize(
    ("params", "product"),
    [
        ({"n": 100}, 1200),
        ({"n": 10, "steps": 9}, 1080),
        ({"task": "impute", "draws": 25}, 1200),
        ({"task": "elbo", "draws": 25}, 1200),
    ],
)
def test_work_is_bounded_before_it_begins(
    loaded: Load, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any], product: int
) -> None:
    model = table(loaded)
    rows = examples("table", PAIRS) if "task" in params else None
    monkeypatch.setenv("FIVEFOLD_MAX_WORK", str(product - 1))
    with pytest.raises(ValueError, match=rf"{product} values are too many.*at most {product - 1} \(FIVEFOLD_MAX_WORK"):
        model.predict(rows, params=params)
    monkeypatch.setenv("FIVEFOLD_MAX_WORK", str(product))
    model.predict(rows, params=params)
    monkeypatch.setenv("FIVEFOLD_MAX_ROWS", "3")
    with pytest.raises(ValueError, match=r"4 rows are too many.*at most 3 \(FIVEFOLD_MAX_ROWS\)"):
        model.predict(examples("table", PAIRS), params={"task": "encode"})


# Mistakes over HTTP

ROW = dict.fromkeys(NAMES, 1.0)
ENCODE = {"task": "encode"}
WRONG: list[tuple[Any, str, str]] = [
    ({"params": {"task": "fly"}}, "application/json", "cannot do task 'fly'; it can do: sample"),
    ({"params": {"n": "many"}}, "application/json", "n must be a whole number of at least 0, got 'many'"),
    ({"params": {"n": 2.5}}, "application/json", "n must be a whole number"),
    ({"params": {"n": True}}, "application/json", "n must be a whole number"),
    ({"params": {"n": -1}}, "application/json", "n must be a whole number of at least 0, got -1"),
    ({"params": {"n": None}}, "application/json", "n must be a whole number"),
    ({"params": {"n": 10**15}}, "application/json", "too many for one call"),
    ({"params": {"steps": 10**12}}, "application/json", "too many for one call"),
    ({"params": {"nn": 3}}, "application/json", "unknown params nn; known: task, n"),
    ({"params": {"seed": -2}}, "application/json", "seed must be a whole number of at least -1"),
    ({"params": {"label": ">51K"}}, "application/json", "label must be -1 (any) or 0 to 1 (<=50K, >50K), got '>51K'"),
    ({"params": {"label": "<=50k"}}, "application/json", "(<=50K, >50K), got '<=50k'; did you mean '<=50K'?"),
    ({"params": {"label": 2}}, "application/json", "label must be -1 (any) or 0 to 1"),
    ({"params": {"label": [1]}}, "application/json", "label must be a class's name or a whole number"),
    ({"params": {"strength": 2}}, "application/json", "strength must lie between 0 and 1, got 2"),
    ({"params": {"sigma": "x"}}, "application/json", "sigma must be a positive number"),
    ({"params": {"rate": 0}}, "application/json", "rate must lie above 0 and below 1"),
    ({"params": {"on_unknown": "skip"}}, "application/json", "on_unknown must be 'fail' or 'missing', got 'skip'"),
    ({"params": {"given": "{c00"}}, "application/json", "given must be a JSON object"),
    ({"params": {"given": {"c0": 1}}}, "application/json", "cannot draw exactly given the values of columns"),
    ({"params": {"task": 3}}, "application/json", "task must be a text, got 3"),
    ({"params": [1]}, "application/json", "params must be a JSON object"),
    ({"n": 3}, "application/json", "unknown keys n in the request"),
    ({"inputs": [[1] * 12], "instances": []}, "application/json", "give the rows once"),
    ({"inputs": [[1] * 12]}, "application/json", "1 rows were given without a task"),
    ({"inputs": [[1] * 11], "params": ENCODE}, "application/json", "takes a DataFrame with the columns c00"),
    ({"inputs": [[1], [1, 2]], "params": ENCODE}, "application/json", "takes a DataFrame with the columns c00"),
    ({"inputs": "rows", "params": ENCODE}, "application/json", "inputs must be a list of rows, got a text"),
    ({"inputs": {"a": [1], "b": 2}, "params": ENCODE}, "application/json", "lists of equal length by column name"),
    ({"dataframe_records": [ROW | {"c03": "x"}], "params": ENCODE}, "application/json",
     "row 0, column 'c03': expected a finite number"),
    ({"dataframe_records": [{"c00": 1}], "params": ENCODE}, "application/json", "missing: c01, c02"),
    ({"dataframe_records": [1], "params": ENCODE}, "application/json", "dataframe_records must be a list of objects"),
    ({"dataframe_records": [ROW | {"c03": {"a": 1}}], "params": ENCODE}, "application/json",
     "column 'c03': expected a finite number"),
    ({"dataframe_split": {"columns": ["c00"], "data": [[1, 2]]}}, "application/json",
     "row 0 of dataframe_split has 2 cells, expected 1"),
    ({"dataframe_split": {"columns": ["c00", {"a": 1}], "data": [[1, 2]]}}, "application/json",
     "columns of dataframe_split must be texts or numbers"),
    ({"dataframe_split": {"columns": ["c00"], "index": [[1]], "data": [[1]]}}, "application/json",
     "index of dataframe_split must be texts or numbers"),
    ({"dataframe_split": [1]}, "application/json", "dataframe_split must be an object"),
    ({"dataframe_records": [ROW, ROW, ROW], "params": {"task": "interpolate"}}, "application/json", "pairs"),
    ({"inputs": [[1.0]], "params": {"task": "decode"}}, "application/json", "takes float codes [rows, 12]"),
    ({"inputs": [["a"] * 12], "params": {"task": "decode"}}, "application/json", "float codes"),
    (b"[1, 2]", "application/json", "must be a JSON object with one of dataframe_split"),
    (b"{", "application/json", "the request is not JSON"),
    (b'{"inputs": "\xff"}', "application/json", "not UTF-8: byte 0xff at 12"),
    ("{}".encode("utf-16"), "application/json; charset=utf-16", "charset=utf-8 only"),
    (b"a,b\n1,2\n", "text/csv", "1 rows were given without a task"),
    (b"", "text/csv", "not CSV with a header line"),
    (b"PAR1", "application/vnd.apache.parquet", "not a Parquet file"),
    (b"x", "text/plain", "Content-Type must be one of application/json"),
]  # fmt: skip
"""Requests (JSON if no bytes), their content type, and what the answer says."""


def post(port: int, body: Any, content_type: str) -> tuple[int, dict[str, Any]]:
    """Status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def check_refused(port: int, body: Any, content_type: str, sentence: str) -> None:
    status, answer = post(port, body, content_type)
    assert status == 400, answer
    assert sentence in answer["message"], answer
    assert "stack_trace" not in answer
    assert not {"Traceback", "/site-packages", "Failed to predict", "\n"} & {
        word for word in ("Traceback", "/site-packages", "Failed to predict", "\n") if word in answer["message"]
    }
    assert len(answer["message"]) < 1000


def test_every_mistake_is_answered_by_a_sentence(loaded: Load, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with over_http(table(loaded), "table", free_port):
        for body, content_type, sentence in WRONG:
            check_refused(free_port, body, content_type, sentence)
        monkeypatch.setenv("FIVEFOLD_MAX_REQUEST_BYTES", "50")
        check_refused(free_port, {"inputs": [[0] * 100]}, "application/json", "at most 50 are taken")
        monkeypatch.delenv("FIVEFOLD_MAX_REQUEST_BYTES")
        status, answer = post(free_port, {"params": {"n": 2, "label": ">50K"}}, "application/json")
        assert (status, [row["income"] for row in answer["predictions"]]) == (200, [">50K"] * 2)
        status, answer = post(
            free_port, {"dataframe_records": [ROW | {"c03": None}], "params": ENCODE}, "application/json"
        )
        assert status == 200, answer


PIXELS = np.full((2, 3, 4, 1), 7).tolist()
WRONG_IMAGES: list[tuple[Any, dict[str, Any], str]] = [
    (PIXELS, {}, "2 rows were given without a task"),
    (PIXELS, {"task": "anomaly"}, "no scores of held-out rows"),
    (PIXELS, {"task": "sample", "given": {"a": 1}}, "cannot draw exactly given"),
    (PIXELS, {"task": "translate", "label": "three"}, "label must be -1 (any) or 0 to 9, got 'three'"),
    (PIXELS[:1], {"task": "interpolate"}, "takes rows in pairs"),
    ([[[[256]] * 4] * 3], ENCODE, "row 0 has 256 at [0, 0, 0]: pixels are whole numbers from 0 to 255"),
    ([[[[0.5]] * 4] * 3], ENCODE, "scale them back"),
    ([[[[None]] * 4] * 3], ENCODE, "takes no missing cells (only 'impute' does)"),
    ([[[["7"]] * 4] * 3], ENCODE, "takes uint8 images [rows, 3, 4, 1]"),
    ([[[[7]] * 3] * 4], ENCODE, "got shape [1, 4, 3, 1]"),
    ([[[[7]] * 4] * 3, [7]], ENCODE, "rows of unequal or unknown form"),
    ({"a": [1]}, ENCODE, "expected a numpy array of uint8 images"),
]


def test_every_mistake_about_images_is_answered_by_a_sentence(loaded: Load, free_port: int) -> None:
    with over_http(loaded("image"), "image", free_port):
        for rows, params, sentence in WRONG_IMAGES:
            check_refused(free_port, {"inputs": rows, "params": params}, "application/json", sentence)
        gappy = [[[[None]] * 4] * 3]
        status, answer = post(free_port, {"inputs": gappy, "params": {"task": "impute"}}, "application/json")
        assert (status, np.shape(answer["predictions"])) == (200, (1, 3, 4, 1))


@pytest.mark.slow
def test_mlflow_models_serve_answers_in_sentences(loaded: Load, free_port: int) -> None:
    folder = table(loaded).folder
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(free_port),
        "--env-manager", "local",
    ]  # fmt: skip
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{free_port}/ping", timeout=2).close()
                break
            except OSError:
                continue
        asked = {"dataframe_records": [ROW], "params": {"task": "anomaly"}}
        status, answer = post(free_port, asked, "application/json")
        assert (status, answer["predictions"][0]["p_value"]) == (200, 0.02)
        for body, content_type, sentence in WRONG:
            check_refused(free_port, body, content_type, sentence)
    finally:
        server.terminate()
        server.wait(30)


# The page in the registry


def test_nothing_in_a_version_names_the_trainers_folders(loaded: Load) -> None:
    import mlflow

    model = table(loaded, job="anomaly")
    for path in model.folder.rglob("*"):
        if path.is_file() and path.suffix in ("", ".json", ".yaml", ".txt"):
            assert str(model.folder.parent) not in path.read_text(), path
    assert "/home" not in (model.folder / "MLmodel").read_text()
    rows, params = mlflow.models.Model.load(str(model.folder)).load_input_example(str(model.folder)), {}
    example = rows[0] if isinstance(rows, tuple) else rows
    assert len(model.predict(example, params=params)) == 1
    inputs = model.metadata.get_input_schema()
    assert inputs.input_names() == [*NAMES, "income"]
    images = loaded("image").metadata
    assert images.get_input_schema().inputs[0].shape == images.get_output_schema().inputs[0].shape == (-1, 3, 4, 1)


# The command line


def test_the_verb_sample_takes_a_classs_name(loaded: Load, store: Path) -> None:
    rows = pd.read_csv(sample.sample(str(table(loaded).folder), store / "rows.csv", n=4, label=">50K"))
    assert list(rows.columns) == [*NAMES, "income"]
    assert rows["income"].tolist() == [">50K"] * 4
