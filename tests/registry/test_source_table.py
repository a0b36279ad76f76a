"""A registered model takes and gives its table as the source has it: dates, percentages, identifiers, label and all.

The source is a Parquet file that is added and prepared as a user's; the model is a flow of its rows without training,
whose fillings put given cells back and whose draws are valid cells of every column.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from test_served import over_http, pytestmark
from test_tracking import free_port

from data.dataset import Dataset
from data.formats import PLACEHOLDER
from models import Batch, Streams, build
from pipelines.cli.data import add
from pipelines.registry.model_card import model_card
from pipelines.registry.package import vendored_code
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder
from pipelines.tracking import model_registry

__all__ = ["free_port", "pytestmark"]

ROWS = 120
DAY = datetime.date(2021, 1, 4)
CLASSES = ("gold", "plain")


def source() -> pd.DataFrame:
    """The label stands between other columns; a day's cell is several columns to the model. No day is of a weekend."""
    number = np.arange(ROWS)
    return pd.DataFrame(
        {
            "ticket": [f"T-{i * 7919 % 10007:05}" for i in number],
            "day": [
                (DAY + datetime.timedelta(days=int(i * 37 % 180 // 5 * 7 + i * 37 % 5))).isoformat() for i in number
            ],
            "opened": pd.to_datetime("2021-01-04T09:00Z").tz_convert("Europe/Oslo") + pd.to_timedelta(number * 37, "D"),
            "span": pd.to_timedelta(number * number % 50 + 1, "min").as_unit("ns"),
            "share": [f"{i * i % 97}%" for i in number],
            "tier": [CLASSES[int(i % 3 != 0)] for i in number],
            "town": [("Oslo", "Rome", "Bari")[int(i * 5 % 7 % 3)] for i in number],
            "visits": [int(i * i % 23) for i in number],
            "note": [f"the {i}th of these notes, written in a hurry on a rainy day by somebody" for i in number],
            "unit": ["EUR"] * ROWS,
        }
    ).assign(opened=lambda frame: frame["opened"].dt.as_unit("ns"))


COLUMNS = list(source().columns)
LEARNED = ["day", "opened", "span", "share", "town", "visits"]
TEXTS = [name for name in COLUMNS if name not in ("opened", "span", "visits")]


class Registered(NamedTuple):
    """A model as MLflow loads it, its facts, and what the version knows of itself."""

    model: Any
    facts: dict[str, Any]
    about: dict[str, Any]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    import mlflow

    root = tmp_path_factory.mktemp("source")
    source().to_parquet(root / "visits.parquet", index=False)
    add(str(root / "visits.parquet"), "visits", root=root, quiet=True, label="tier")
    prepare("visits", root=root)
    data = Dataset.open(root / "data/prepared/visits")
    spec = {"family": "flow", "config": {"width": 16, "parts": 16}, "domain": data.domain, "classes": 2}
    torch.manual_seed(0)
    model, examples = build(spec), data.split("train").take(np.arange(64))
    batch = Batch(examples.x, examples.label)
    model.initialize(batch, Streams.seeded(0))
    model.eval().finalize(batch, Streams.seeded(0))
    facts = {
        **spec, "dataset": "visits", "class_names": data.class_names, "table": data.manifest["table"],
        "data_digest": data.digest, "run_id": "r",
    }  # fmt: skip
    model_folder.save(model, root / "model", facts)
    about = {"job": "imputation", "label": "tier", "held_out_scores": [0.0, 1.0, 2.0], "exact": True, "latent": 6}
    with vendored_code() as package:
        model_registry.save_served(
            root / "served", model=root / "model", package=package, run_id="r", model_id="m", about=about
        )
    return Registered(mlflow.pyfunc.load_model(str(root / "served")), facts, about)


def rows() -> pd.DataFrame:
    """Six rows of the source, with an index of their own, texts as Python's."""
    return source().iloc[:6].set_index(pd.Index(list("uvwxyz"), name="key")).astype(dict.fromkeys(TEXTS, object))


def test_known_cells_come_back_as_they_were_written(registered: Registered) -> None:
    given = rows().assign(remark=np.array(list("abcdef"), object))
    shuffled = given[[*COLUMNS[::-1], "remark"]]
    whole = registered.model.predict(shuffled)
    pd.testing.assert_frame_equal(whole, given)
    gappy = given.assign(day=None, share=[None, *given["share"][1:]], tier=[None, *given["tier"][1:]])
    filled = registered.model.predict(gappy, params={"draws": 2})
    assert list(filled.columns) == ["draw", *COLUMNS, "remark"]
    assert filled["draw"].tolist() == [0] * 6 + [1] * 6
    same = ["ticket", "town", "visits", "note", "unit", "remark"]
    pd.testing.assert_frame_equal(filled.loc[6:, same].reset_index(drop=True), given[same].reset_index(drop=True))
    assert all(datetime.date.fromisoformat(day).isoformat() == day for day in filled["day"])
    assert filled["share"].str.fullmatch(r"-?\d+%").all()
    assert filled["share"][1:6].tolist() == given["share"][1:].tolist()
    assert filled["tier"].tolist() == gappy["tier"].tolist() * 2  # of rows, a label that is not given is not made up
    dates = registered.model.predict(given.assign(day=pd.to_datetime(given["day"])))
    pd.testing.assert_frame_equal(dates, given)  # as its source writes it
    bare = registered.model.predict(given[LEARNED])
    pd.testing.assert_frame_equal(bare, given[LEARNED])  # nor is an identifier
    scored = registered.model.predict(given, params={"task": "anomaly", "rate": 0.5})
    assert list(scored.columns) == ["score", "p_value", "flag", "ticket", "tier", "note", "unit", "remark"]
    assert scored.index.equals(given.index)


def test_draws_are_rows_of_the_source(registered: Registered) -> None:
    drawn = registered.model.predict(None, params={"task": "sample", "n": 40, "label": "gold", "seed": 5})
    assert list(drawn.columns) == COLUMNS
    assert set(drawn["tier"]) == {"gold"}
    assert drawn["ticket"].is_unique
    assert drawn["ticket"].str.fullmatch(r"T-\d{5}").all()
    assert not set(drawn["ticket"]) & set(source()["ticket"])
    assert set(drawn["note"]) == {PLACEHOLDER}
    assert set(drawn["unit"]) == {"EUR"}
    assert set(drawn["town"]) <= {"Oslo", "Rome", "Bari"}
    assert pd.api.types.is_integer_dtype(drawn["visits"])
    again = registered.model.predict(drawn)  # what is given can be taken
    pd.testing.assert_frame_equal(again, drawn)
    both = registered.model.predict(None, params={"task": "sample", "n": 200})
    assert set(both["tier"]) == set(CLASSES)
    moved = registered.model.predict(rows(), params={"task": "translate", "label": "gold"})
    assert (list(moved.columns), set(moved["tier"])) == (COLUMNS, {"gold"})
    assert moved["ticket"].tolist() == rows()["ticket"].tolist()


def test_samples_given_a_date(registered: Registered) -> None:
    """The family's fillings are exact draws; the day is one column to the caller."""
    given = {"day": "2021-02-10", "span": "0 days 00:07:00", "share": "12%", "visits": 3}
    drawn = registered.model.predict(None, params={"task": "sample", "n": 30, "given": given})
    assert list(drawn.columns) == [name for name in COLUMNS if name != "tier"]
    for name, value in given.items():
        assert set(drawn[name].astype(type(value))) == {value}
    assert drawn["town"].nunique() > 1
    with pytest.raises(ValueError, match=r"given has no column 'ticket' of day, opened, span, share, town, visits"):
        registered.model.predict(None, params={"task": "sample", "given": {"ticket": "T-1"}})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"day": "2021-02-30"}, r"row 0, column 'day': expected one written as .*got '2021-02-30'"),
        ({"day": "2021-02-13"}, r"row 0, column 'day': expected one like those of .*weekday=Mon.*got '2021-02-13'"),
        ({"opened": "soon"}, r"row 0, column 'opened': expected one written as timestamp.*got 'soon'"),
        ({"span": "long"}, r"row 0, column 'span': expected one written as duration.*got 'long'"),
        ({"share": "much"}, r"row 0, column 'share': expected one written as 0%.*got 'much'"),
        ({"share": np.inf}, r"row 0, column 'share': expected one written as 0%.*got .*inf"),
        ({"town": "Paris"}, r"row 0, column 'town': expected one of .*got 'Paris'"),
        ({"tier": "silver"}, r"row 0, column 'tier': expected one of 'gold', 'plain'.*got 'silver'"),
    ],
)
def test_cells_that_the_source_does_not_write_are_refused(
    registered: Registered, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        registered.model.predict(rows().assign(**change))


def test_an_unknown_category_may_be_missing(registered: Registered) -> None:
    given = rows().assign(town="Paris", tier="silver", day=["2021-02-13", *rows()["day"][1:]])
    filled = registered.model.predict(given, params={"on_unknown": "missing"})
    assert datetime.date.fromisoformat(filled["day"].iloc[0]).weekday() < 5
    assert set(filled["town"]) <= {"Oslo", "Rome", "Bari"}
    assert set(filled["tier"]) == {"silver"}  # the model does not see it
    pd.testing.assert_frame_equal(filled[["day", "share"]][1:], rows()[["day", "share"]][1:])


def test_the_registry_names_the_columns_of_the_source(registered: Registered) -> None:
    meta = registered.model.metadata
    kinds = {"visits": "long"}
    for schema in (meta.get_input_schema(), meta.get_output_schema()):
        assert schema.input_names() == COLUMNS
        assert [str(column.type) for column in schema.inputs] == [
            f"DataType.{kinds.get(name, 'string')}" for name in COLUMNS
        ]
    said = registered.model.predict(None, params={"task": "describe"})
    assert json.loads(json.dumps(said)) == said
    assert said["label"] == "tier"
    columns = {column["name"]: column for column in said["columns"]}
    assert list(columns) == [name for name in COLUMNS if name != "tier"]
    assert {name: column["type"] for name, column in columns.items()} == {
        "ticket": "identifier", "day": "datetime", "opened": "datetime", "span": "duration", "share": "number",
        "town": "category", "visits": "number",
        "note": "text", "unit": "constant",
    }  # fmt: skip
    assert sorted(columns["town"]["categories"]) == ["Bari", "Oslo", "Rome"]
    page = model_card("visits", registered.facts, {"metrics": {}}, {}, registered.about)
    assert f"a DataFrame with the columns {', '.join(LEARNED)}" in page
    example = meta.load_input_example(str(Path(registered.model._model_impl.context.artifacts["model"]).parents[1]))
    assert len(registered.model.predict(example)) == 1


def test_rows_of_the_source_over_http(registered: Registered, free_port: int) -> None:
    import urllib.request

    body = {
        "dataframe_records": json.loads(rows().assign(day=None).to_json(orient="records", date_format="iso")),
        "params": {"seed": 3},
    }
    with over_http(registered.model, "table", free_port):
        request = urllib.request.Request(
            f"http://127.0.0.1:{free_port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            told = pd.DataFrame(json.load(response)["predictions"])
    expected = registered.model.predict(rows().assign(day=None), params={"seed": 3})
    pd.testing.assert_frame_equal(told.astype(str), expected.reset_index(drop=True).astype(str))
