"""A registered model takes and gives its table as the source has it: dates, percentages, identifiers, label and all.

The source is a Parquet file that is added and prepared as a user's; the model is a flow of its rows without training,
whose fillings put given cells back and whose draws are valid cells of every column.
"""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from test_served import over_http, pytestmark
from test_tracking import free_port

from data import formats
from data.dataset import Dataset
from data.formats import PLACEHOLDER
from models import Batch, Streams, build
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.cli.data import add, export
from pipelines.registry.model_card import model_card
from pipelines.registry.package import vendored_code
from pipelines.serving.domains import conversion
from pipelines.serving.domains.base import as_array
from pipelines.serving.domains.source_table import SourceTables
from pipelines.serving.params import checked, label_number
from pipelines.serving.rest import parse
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder
from pipelines.tracking.served_files import save_served

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
            "pulse": [f"{100 + i * 37 % 79}/{50 + i * 11 % 41}" for i in number],
            "note": [f"the {i}th of these notes, written in a hurry on a rainy day by somebody" for i in number],
            "unit": ["EUR"] * ROWS,
        }
    ).assign(opened=lambda frame: frame["opened"].dt.as_unit("ns"))


COLUMNS = list(source().columns)
LEARNED = ["day", "opened", "span", "share", "town", "visits", "pulse"]
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
        save_served(root / "served", model=root / "model", package=package, run_id="r", model_id="m", about=about)
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
    pd.testing.assert_frame_equal(filled[same], pd.concat([given[same]] * 2))
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
    assert list(drawn.columns) == COLUMNS
    for name, value in given.items():
        assert set(drawn[name].astype(type(value))) == {value}
    assert drawn["town"].nunique() > 1
    assert set(drawn["tier"]) == set(CLASSES)
    with pytest.raises(ValueError, match=r"given has no column 'ticket' of day, opened, span, share, town, visits"):
        registered.model.predict(None, params={"task": "sample", "given": {"ticket": "T-1"}})


@pytest.mark.parametrize(
    ("name", "listed", "lies"),
    [
        ("day", ["2021-02-01", "2021-04-10"], lambda cell: "2021-02-01" <= cell <= "2021-04-10"),
        ("opened", ["2022-01-01T00:00:00+01:00", None], lambda cell: cell >= pd.Timestamp("2021-12-31T23:00Z")),
        ("span", [None, "0 days 00:20:00"], lambda cell: cell <= pd.Timedelta(minutes=20)),
        ("share", ["10%", "25%"], lambda cell: 10 <= int(cell.rstrip("%")) <= 25),
        ("visits", [5, 7], lambda cell: 5 <= cell <= 7),
        ("town", ["Oslo", "Bari"], lambda cell: cell in ("Oslo", "Bari")),
    ],
)
def test_samples_given_a_range_and_a_class(registered: Registered, name: str, listed: list, lies: Any) -> None:
    def drawn(n: int, given: dict[str, Any], **more: Any) -> pd.DataFrame:
        return registered.model.predict(None, params={"task": "sample", "n": n, "given": json.dumps(given), **more})

    found = drawn(40, {name: listed, "tier": "gold"})
    assert found[name].map(lies).all()
    assert set(found["tier"]) == {"gold"}
    assert found[name].nunique() > 1
    assert not drawn(40, {"tier": "gold"})[name].map(lies).all()
    assert drawn(40, {name: listed})["tier"].nunique() == 2
    pd.testing.assert_frame_equal(drawn(5, {name: listed}, label="plain"), drawn(5, {name: listed, "tier": "plain"}))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"visits": [7, 5]}, r"column 'visits': expected a value, or a range \[least, most\] with null .*got \[7, 5\]"),
        ({"visits": [1, 2, 3]}, r"column 'visits': expected a value, or a range .*got \[1, 2, 3\]"),
        ({"visits": [None, None]}, r"column 'visits': expected a value, or a range .*got \[None, None\]"),
        ({"visits": [1000, 2000]}, r"3 of 3 rows do not lie in the ranges of `given` after \d+ draws.*Widen them"),
        ({"day": ["2021-02-30", None]}, r"column 'day': expected one written as .*got '2021-02-30'"),
        ({"town": []}, r"column 'town': expected a list of categories that may be"),
        ({"town": ["Paris"]}, r"column 'town': expected one of 'Bari', 'Oslo', 'Rome' .*got 'Paris'"),
        ({"tier": ["gold", "plain"]}, r"column 'tier' is the label: give one class"),
        ({"tier": "silver"}, r"column 'tier': expected one of 'gold', 'plain' .*got 'silver'"),
        ({"pulse": ["120/80", "130/90"]}, r"column 'pulse' holds several numbers: give one value"),
    ],
)
def test_wrong_ranges_are_refused(registered: Registered, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        registered.model.predict(None, params={"task": "sample", "n": 3, "given": json.dumps(given)})


def test_a_label_and_a_given_class_must_agree(registered: Registered) -> None:
    params = {"task": "sample", "n": 3, "given": {"tier": "gold"}}
    assert set(registered.model.predict(None, params=params | {"label": "gold"})["tier"]) == {"gold"}
    with pytest.raises(ValueError, match="`label` and `given` name different classes"):
        registered.model.predict(None, params=params | {"label": "plain"})


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
        "town": "category", "visits": "number", "pulse": "several",
        "note": "text", "unit": "constant",
    }  # fmt: skip
    assert sorted(columns["town"]["categories"]) == ["Bari", "Oslo", "Rome"]
    page = model_card("visits", registered.facts, {"metrics": {}}, {}, registered.about)
    assert f"a DataFrame with the columns {', '.join(LEARNED)}" in page
    assert "Take it that it tells all." in page
    assert "Trained without differential privacy" in page
    promised = {"epsilon": 7.9998, "delta": 1e-5, "noise": 0.75, "clip": 1.0, "rate": 0.05, "steps": 400}
    page = model_card("visits", registered.facts | {"privacy": promised}, {"metrics": {}}, {}, registered.about)
    assert "(ε, δ) = (8, 1e-05) private in each training example (400 steps" in page
    attack = {"value": 0.53, "low": 0.515, "high": 0.545, "unit": "area", "better": "lower", "floor": 0.5}
    for low, said in (
        (0.515, "No attack tried tells"),
        (0.525, "**It tells training examples from unseen ones**: memb"),
    ):
        figures = {"metrics": {"membership_density": attack | {"low": low}}}
        page = model_card("visits", registered.facts, figures, {}, registered.about)
        assert f"| membership_density | 0.530 | {low:.3f} … 0.545 | 0.5 |" in page
        assert said in page
    example = meta.load_input_example(str(Path(registered.model._model_impl.context.artifacts["model"]).parents[1]))
    assert len(registered.model.predict(example)) == 1


# Columns in the types of their source, without a model


def columns_of(role: str, dtype: str, learned: dict[str, Any], **entry: Any) -> SourceTables:
    """Rows of the column `c`, and of `v`, which is always 1."""
    number = {"type": "integer", "dtype": "int64", "categories": []}
    columns = [{"name": "v", **number}, *([{"name": "c", **number, **learned}] if learned else [])]
    source = [
        {"name": "v", "role": "number", "dtype": "int64", "pattern": "", "columns": [0]},
        {"name": "c", "role": role, "dtype": dtype, "pattern": "", "columns": [1] if learned else []} | entry,
    ]
    return SourceTables({"kind": "table", "columns": columns}, source, formats)


def category(dtype: str, *names: str) -> dict[str, Any]:
    return {"type": "categorical", "dtype": dtype, "categories": list(names)}


FLOAT32 = {"type": "continuous", "dtype": "float32"}
TRUTH = [1.0, math.nan, 0.0]
SHOUTED = columns_of("category", "string", category("string", "FALSE", "TRUE"))
BYTE = columns_of("number", "uint8", {"dtype": "uint8"})


@pytest.mark.parametrize(
    ("tables", "values", "expected", "csv"),
    [
        (columns_of("number", "int64", {"dtype": "int64"}), [3.0, math.nan, -2.0], ("Int64", [3, None, -2]), "3,,-2"),
        (BYTE, [3.0, math.nan, 255.0], ("UInt8", [3, None, 255]), "3,,255"),
        (columns_of("number", "float32", FLOAT32), [0.5, math.nan, 2.0], ("float32", [0.5, None, 2.0]), "0.5,,2.0"),
        (columns_of("category", "bool", category("bool", "false", "true")), TRUTH, ("boolean", [True, None, False]),
         "True,,False"),
        (SHOUTED, TRUTH, ("object", ["TRUE", None, "FALSE"]), "TRUE,,FALSE"),
        (columns_of("category", "int16", category("int16", "1", "20")), TRUTH, ("Int16", [20, None, 1]), "20,,1"),
    ],
)  # fmt: skip
def test_gaps_leave_a_column_its_type(
    tables: SourceTables, values: list[float], expected: tuple[str, list[Any]], csv: str
) -> None:
    """And what is written is read as the same again."""
    drawn = tables.write(torch.tensor([[1.0, value] for value in values], dtype=torch.float64))
    pd.testing.assert_series_equal(drawn["c"], pd.Series(expected[1], dtype=expected[0], name="c"))
    assert drawn[["c"]].T.to_csv(index=False, header=False) == csv + "\n"
    again = tables.read(drawn, "encode").x[:, 1]
    assert torch.equal(again.nan_to_num(-9), torch.tensor(values, dtype=torch.float64).nan_to_num(-9))


class Drawing:
    """A model that draws numbers of the column `c`, and notes of which class it was asked to."""

    def __init__(self, tables: SourceTables, values: list[float]) -> None:
        self.tables, self.values, self.labels = tables, values, []

    def predict(self, rows: Any, params: dict[str, Any]) -> Any:
        if params["task"] == "describe":
            return self.tables.described()
        self.labels.append(label_number(params["label"], ["-1", "1"], 2))
        return self.tables.write(torch.tensor([[1.0, value] for value in self.values], dtype=torch.float64))


@pytest.mark.parametrize("titled", [False, True])
@pytest.mark.parametrize(
    ("pattern", "mark", "cells"),
    [("", "=9", ["3.0", "=9", "-2.5"]), ("0.00", "n/a", ["3.00", "n/a", "-2.50"]), ("", "", ["3.0", "", "-2.5"])],
)
def test_samples_as_csv_are_written_like_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, mark: str, cells: list[str], titled: bool
) -> None:
    """With its header and decimals, its mark where a cell is missing, and no class unless one is asked for by name."""
    learned = {"type": "continuous", "dtype": "float64"}
    model = Drawing(columns_of("number", "float64", learned, pattern=pattern, mark=mark), [3.0, math.nan, -2.5])
    model.tables.table.written[1]["title"] = header = "c of this " * titled or "c"  # as its header has it
    monkeypatch.setattr(tracking, "load_served", lambda uri: model)
    monkeypatch.setattr("pipelines.cli.sample._check_registered", lambda uri: None)
    for label in ([], ["--label", "-1"], ["--label=1"]):
        assert main(["sample", "balance", "-o", str(tmp_path / "x.csv"), *label]) == 0
        written = (tmp_path / "x.csv").read_text().splitlines()
        assert written == [f"v,{header}", *(f"1,{cell}" for cell in cells)]
    assert model.labels == [-1, 0, 1]  # any, the class "-1", the class "1"
    assert main(["sample", "balance", "-o", str(tmp_path / "x.csv"), "--safe-csv"]) == 0
    assert (tmp_path / "x.csv").read_text().count("'") == (mark == "=9")  # the source's mark may be a formula, too


@pytest.mark.parametrize(
    ("dtype", "classes", "expected"),
    [
        ("bool", ["false", "true"], pd.Series([True, False])),
        ("string", ["FALSE", "TRUE"], pd.Series(["TRUE", "FALSE"], dtype=object)),
        ("int8", ["0", "1"], pd.Series([1, 0], dtype="int8")),
    ],
)
def test_labels_come_back_in_the_type_of_their_source(dtype: str, classes: list[str], expected: pd.Series) -> None:
    source = [
        {"name": "v", "role": "number", "dtype": "int64", "pattern": "", "columns": [0]},
        {"name": "y", "role": "label", "dtype": dtype},
    ]
    domain = {"kind": "table", "columns": [{"name": "v", "type": "integer", "dtype": "int64", "categories": []}]}
    tables = SourceTables({**domain, "label": {"name": "y", "classes": classes}}, source, formats)
    drawn = tables.labelled(tables.write(torch.ones(2, 1)), torch.tensor([1, 0]))
    pd.testing.assert_series_equal(drawn["y"], expected, check_names=False)
    assert tables.read(drawn, "encode").x.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("scanned", [True, False], ids=["scanned", "by its card"])
@pytest.mark.parametrize(("form", "kind"), [("csv", "boolean"), ("parquet", "string")])
def test_true_and_false_have_the_type_of_their_source(form: str, kind: str, scanned: bool, tmp_path: Path) -> None:
    """In CSV, which has no types, they are what pandas reads; in Parquet a text is a text. Whoever tells it agrees."""
    texts = pd.DataFrame({"flag": ["True", "False"] * 30, "y": ["False", "False", "True"] * 20}, dtype=object)
    texts.loc[[3, 7, 11], "flag"] = None
    rows = texts.assign(v=np.arange(60) / 7)
    path = tmp_path / f"rows.{form}"
    rows.to_csv(path, index=False) if form == "csv" else rows.to_parquet(path, index=False)
    add(str(path), "rows", root=tmp_path, quiet=True, label="y")
    if scanned:
        card = tmp_path / "data/catalog/rows.yaml"
        card.write_text(card.read_text().partition("\ncolumns:")[0] + "\n")
    prepare("rows", root=tmp_path)
    data = Dataset.open(tmp_path / "data/prepared/rows")
    facts = {"domain": data.domain, "class_names": data.class_names, "table": data.manifest["table"]}
    tables = conversion(facts, {}, formats)
    train = data.split("train").all()
    expected = rows.iloc[data.split("train").sources.numpy()].reset_index(drop=True)
    if form == "csv":
        truth = {"True": True, "False": False}
        expected = expected.assign(flag=expected["flag"].map(truth).astype("boolean"), y=expected["y"].map(truth))
    pd.testing.assert_frame_equal(tables.labelled(tables.write(train.x), train.label), expected)
    assert dict(tables.schema) == {"flag": kind, "y": kind, "v": "double"}
    assert tables.described()["columns"][0]["dtype"] == {"boolean": "bool"}.get(kind, kind)
    for name in ("parquet", "csv", "jsonl"):
        export("rows", tmp_path / name, name, root=tmp_path)
    exported = pd.read_parquet(tmp_path / "parquet/train.parquet").astype({"flag": object, "y": object})
    assert exported.equals(expected.astype({"flag": object, "y": object}).where(expected.notna(), None))
    lines = (tmp_path / "jsonl/train.jsonl").read_text().splitlines()
    assert [json.loads(line)["y"] for line in lines] == expected["y"].tolist()
    assert pd.read_csv(tmp_path / "csv/train.csv", dtype=str)["flag"].dropna().isin(["True", "False"]).all()


@pytest.mark.parametrize("cell", [True, "True", "true", "TRUE", np.True_])
@pytest.mark.parametrize("names", [("False", "True"), ("false", "true"), ("FALSE", "TRUE")])
def test_truth_is_read_in_any_case(cell: Any, names: tuple[str, str]) -> None:
    tables = columns_of("category", "string", category("string", *names))
    assert tables.read(pd.DataFrame({"v": [1], "c": [cell]}), "encode").x[0, 1] == 1


def last_days(dtype: str, pattern: str = "") -> SourceTables:
    """The last days of years, which are learned."""
    return columns_of("datetime", dtype, {"dtype": "int64"}, pattern=pattern, parts=["year", "month_end=12"])


FAR, NEAR = datetime.date(9999, 12, 31), datetime.date(2020, 12, 31)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("date32[day]", pd.Series([FAR, None, NEAR], dtype=object)),
        ("timestamp[us]", pd.Series([FAR, None, NEAR], dtype="datetime64[us]")),
        ("timestamp[s]", pd.Series([FAR, None, NEAR], dtype="datetime64[s]")),
        ("timestamp[us, tz=UTC]", pd.Series([FAR, None, NEAR], dtype="datetime64[us]").dt.tz_localize("UTC")),
    ],
)
def test_the_end_of_time_is_a_day_like_others(dtype: str, expected: pd.Series) -> None:
    """Years that 64 bits of nanoseconds do not reach, in the types in which pandas reads them from Parquet."""
    tables, years = last_days(dtype), torch.tensor([[1.0, 9999.0], [1.0, math.nan], [1.0, 2020.0]], dtype=torch.float64)
    drawn = tables.write(years)
    pd.testing.assert_series_equal(drawn["c"], expected, check_names=False)
    assert torch.equal(tables.read(drawn, "encode").x.nan_to_num(-9), years.nan_to_num(-9))


@pytest.mark.parametrize("year", [1960, 1969, 2020, 2068, 2071, 2400])
def test_dates_drawn_stay_inside_what_their_format_can_say(year: int) -> None:
    row = torch.tensor([[1.0, year]], dtype=torch.float64)
    (text,) = last_days("string", "%d.%m.%y").write(row)["c"]
    said = datetime.datetime.strptime(text, "%d.%m.%y").date()
    low, high = datetime.date(1969, 1, 1), datetime.date(2068, 12, 31)  # of two digits, as POSIX has it
    assert said == min(max(datetime.date(year, 12, 31), low), high)
    (moment,) = last_days("timestamp[ns]").write(row)["c"]
    assert moment == min(pd.Timestamp(year, 12, 31).as_unit("us"), pd.Timestamp.max)


RUNNING = {"start": 125, "step": 1, "prefix": "", "width": 0}
ONE_LEFT = {"alphabet": ["9"] * 9, "unused": ["9" * 9]}  # so that identifiers are lengthened
LONG = {"alphabet": ["9"] * 18, "unused": ["9" * 18]}


@pytest.mark.parametrize(
    ("dtype", "identifier", "expected"),
    [
        ("int8", {**RUNNING, "start": 12}, ("int8", [12, 13, 14, 15])),
        ("int8", RUNNING, ("int64", [125, 126, 127, 128])),
        ("uint8", RUNNING, ("uint8", [125, 126, 127, 128])),
        ("int32", ONE_LEFT, ("int64", [99999999900, 99999999901, 99999999902, 99999999903])),
        ("int64", LONG, ("object", [f"{'9' * 18}0{i}" for i in range(4)])),
    ],
)
def test_fresh_identifiers_are_held_by_a_type_wide_enough(
    dtype: str, identifier: dict[str, Any], expected: tuple[str, list[Any]]
) -> None:
    drawn = columns_of("identifier", dtype, {}, identifier=identifier).write(torch.ones(4, 1))
    pd.testing.assert_series_equal(drawn["c"], pd.Series(expected[1], dtype=expected[0], name="c"))


def test_a_missing_label_is_served_as_missing() -> None:
    facts = {
        "domain": {"kind": "table", "columns": [{"name": "v", "type": "integer", "dtype": "int64", "categories": []}]},
        "class_names": ["7", "8", "(missing)"],
        "table": [
            {"name": "y", "role": "label", "dtype": "int64", "blank": "(missing)"},
            {"name": "v", "role": "number", "dtype": "int64", "pattern": "", "columns": [0]},
        ],
    }
    rows = conversion(facts, {}, formats)
    drawn = rows.labelled(rows.write(torch.ones(3, 1)), torch.tensor([1, 2, 0]))
    pd.testing.assert_frame_equal(drawn, pd.DataFrame({"y": pd.array([8, None, 7], "Int64"), "v": [1, 1, 1]}))


@pytest.mark.parametrize("dtype", ["int64", "float64", "bool", "string"])
def test_free_text_has_its_place_whatever_its_source_holds(dtype: str) -> None:
    assert columns_of("text", dtype, {}).write(torch.ones(2, 1))["c"].tolist() == [PLACEHOLDER] * 2


@pytest.mark.parametrize("cell", [10**400, -(10**400)], ids=["huge", "-huge"])
def test_numbers_beyond_all_floats_are_refused(cell: int) -> None:
    tables = columns_of("number", "int64", {"dtype": "int64"})
    with pytest.raises(ValueError, match="row 0, column 'c': expected a finite number"):
        tables.read(pd.DataFrame({"v": [1], "c": pd.Series([cell], dtype=object)}), "encode")
    for name in ("sigma", "strength", "rate"):
        with pytest.raises(ValueError, match=f"{name} must be .*too large"):
            checked({name: cell}, [], 0)
    with pytest.raises(ValueError, match="expected a numpy array of uint8 images"):
        as_array([[cell]], "uint8 images")


def test_rows_as_csv_keep_codes_and_words_for_nothing() -> None:
    """A category may be `007`, `None` or `NA`; only an empty cell is missing."""
    rows, _ = parse("c,v\n007,1\nNone,2\nNA,3.5\n,\n", "text/csv", 1000)
    tables = columns_of("category", "string", category("string", "007", "7", "NA", "None"))
    read = tables.read(rows.assign(v=["1", "2", "3", None]), "encode").x
    assert read[:3].tolist() == [[1.0, 0.0], [2.0, 3.0], [3.0, 2.0]]
    assert read[3].isnan().all()
    assert rows["v"].tolist()[:3] == ["1", "2", "3.5"]
    numbers = columns_of("category", "int64", category("int64", "1", "7"))  # as pandas writes them beside a gap
    assert numbers.read(parse("c,v\n7.0,1\n,2\n", "text/csv", 1000)[0], "encode").x[0].tolist() == [1.0, 1.0]


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
