"""The same rows in the forms that people keep them in: whichever it is, these rows and no others are read."""

from __future__ import annotations

import gzip
import io
import json
import re
import sqlite3
import tarfile
import uuid
import warnings
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_zoo import ASKEW, OBJECTS, PLAIN_ROWS, ROWS, added, prepared, workbook

from data.readers.columnar import by_pandas
from data.readers.line_forms import Rewritten
from pipelines.cli.data import add, export

LISTS = [list(row.values()) for row in OBJECTS]
TABLE = pa.Table.from_pylist(OBJECTS)
NAMES = list(OBJECTS[0])


def json_at(value: object) -> Callable[[Path], str]:
    def write(root: Path) -> str:
        (root / "t.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return "t.json"

    return write


def text_at(name: str, text: str) -> Callable[[Path], str]:
    def write(root: Path) -> str:
        (root / name).write_text(text)
        return name

    return write


def stata(root: Path) -> str:
    frame = pd.DataFrame(OBJECTS).astype({"kind": "category"})
    frame.to_stata(root / "t.dta", write_index=False)
    return "t.dta"


def old_feather(root: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pa.feather.write_feather(TABLE, root / "t.feather", version=1)
    return "t.feather"


def orc(root: Path) -> str:
    pa.orc.write_table(TABLE, root / "t.orc")
    return "t.orc"


def database(root: Path) -> str:
    opened = sqlite3.connect(root / "t.sqlite")
    opened.execute("CREATE TABLE trees (size, n, kind)")
    opened.executemany("INSERT INTO trees VALUES (?, ?, ?)", LISTS)
    opened.commit()
    opened.close()
    return "t.sqlite"


def folders(root: Path) -> str:
    """Hive's: what the folders are named by stands in no file."""
    pq.write_to_dataset(TABLE, root / "t", partition_cols=["kind", "n"])
    return "t"


def structs(root: Path) -> str:
    rows = [{"size": Decimal(str(row["size"])), "at": {"n": row["n"], "as": {"kind": row["kind"]}}} for row in OBJECTS]
    schema = {"size": pa.decimal128(9, 2), "at": pa.struct({"n": pa.int64(), "as": pa.struct({"kind": pa.string()})})}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(schema)), root / "t.parquet")
    return "t.parquet"


def archive(names: dict[str, str], end: str = ".zip") -> Callable[[Path], str]:
    def write(root: Path) -> str:
        if end == ".zip":
            with zipfile.ZipFile(root / "t.zip", "w") as opened:
                for name, body in names.items():
                    opened.writestr(name, body)
        else:
            with tarfile.open(root / f"t{end}", "w:gz") as opened:
                for name, body in names.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(body.encode())
                    opened.addfile(entry, io.BytesIO(body.encode()))
        return f"t{end}"

    return write


def competition(root: Path) -> str:
    """A folder of a competition: its rows in two files, what they mean and what to hand in beside them."""
    (root / "t").mkdir()
    lines = PLAIN_ROWS.splitlines(keepends=True)
    (root / "t/train.csv").write_text("size,n,kind\n" + "".join(lines[:40]))
    (root / "t/test.csv").write_text("size,n,kind\n" + "".join(lines[40:]))
    (root / "t/sample_submission.csv").write_text("n,kind\n1,ash\n")
    (root / "t/data_description.txt").write_text("size: in metres\n\n  n: how many\n")
    return "t"


WHOLE = f"size,n,kind\n{PLAIN_ROWS}"
ARFF = "% trees\n@RELATION t\n@attribute size real\n@ATTRIBUTE 'n' INTEGER\n@attribute kind {ash, elm, oak}\n@data\n"
SPARSE = "".join(f"{{0 {a}, 1 {b}{', 2 ' + c if c != 'ash' else ''}}}\n" for a, b, c in ASKEW)
QUOTED = "".join(f'{a}, {b}, "{c}",   "{("thin", "old, tall")[i % 2]}"\n' for i, (a, b, c) in enumerate(ASKEW))
INCHES = "".join(f"{('', chr(34), 'a ')[i % 3]}tree{i}\t{a}\t{b}\t{c}\n" for i, (a, b, c) in enumerate(ASKEW))
WORDS = {"ash": "ash", "elm": "wych elm", "oak": "oak"}
ALIGNED = "size     n  kind        age\n" + "".join(f"{a:<8}{b:>2}  {WORDS[c]:<10}{60:>5}\n" for a, b, c in ASKEW)
TURNED = "".join(f"{c},{b},{a}\n" for a, b, c in ASKEW)
NESTED = [{"size": row["size"], "at": {"n": row["n"], "as": {"kind": row["kind"]}}} for row in OBJECTS]
META = {"view": {"columns": [{"name": name} for name in NAMES]}}
FORMS: dict[str, Callable[[Path], str]] = {
    "lists": json_at(LISTS),
    "lists below names": json_at("".join(json.dumps(row) + "\n" for row in [NAMES, *LISTS])),
    "records by name": json_at({f"tree {i}": row for i, row in enumerate(OBJECTS)}),
    "objects within": json_at(NESTED),
    "one after another": json_at("".join(json.dumps(row, indent=1) + "\n" for row in OBJECTS)),
    "facts and rows": json_at([{"page": 1, "total": ROWS}, OBJECTS]),
    "names elsewhere": json_at({"meta": META, "data": LISTS}),
    "ARFF": text_at("t.arff", ARFF + PLAIN_ROWS.replace("oak", "'oak'")),
    "sparse ARFF": text_at("t.arff", ARFF + SPARSE),
    "Stata": stata,
    "old Feather": old_feather,
    "ORC": orc,
    "one table of a database": database,
    "folders that state cells": folders,
    "structs": structs,
    "a table among others": archive({"b.csv": "x,y\n1,2\n", "a.csv": WHOLE, "__MACOSX/._a.csv": "z" * 9999}),
    "what is trained on": archive({"a/test.csv": "n,kind\n" + "1,ash\n" * 999, "in/train.csv": WHOLE}),
    "named as pandas names it": archive({"t": WHOLE}),
    "tar": archive({"t/README.txt": "trees", "t/trees.csv": WHOLE}, ".tar.gz"),
    "competition": competition,
    "double colons": text_at("t.dat", WHOLE.replace(",", "::")),
    "colons": text_at("t.txt", WHOLE.replace(",", ":")),
    "blanks before quotes": text_at("t.csv", '"size", "n",  "kind", "note"\n' + QUOTED),
    "quotes that quote nothing": text_at("t.tsv", "name\tsize\tn\tkind\n" + INCHES),
    "aligned": text_at("t.txt", ALIGNED),
    "delimiters at some ends": text_at("t.csv", WHOLE.replace("ash\n", "ash,\n")),
    "text for Excel": text_at("t.xls", WHOLE.replace(",", "\t")),
    "ruled": text_at("t.md", "|size|n|kind|\n|---:|---:|:---|\n" + "".join(f"|{'|'.join(row)}|\n" for row in ASKEW)),
    "pandas' two headers": text_at("t.csv", "Price,Close,High\nTicker,x,AAPL\nDate,,\n" + TURNED),
}  # fmt: skip
OTHER_NAMES = {"lists": ["column_1", "column_2", "column_3"], "pandas' two headers": ["High", "Close", "Price"]}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_in_every_form(tmp_path: Path, form: str) -> None:
    prepared(tmp_path, FORMS[form](tmp_path))
    export("d", Path("out"), root=tmp_path)
    found = [row for part in (tmp_path / "out").iterdir() for row in pq.read_table(part).to_pylist()]
    rows = [
        {name.rpartition(".")[2]: {"wych elm": "elm"}.get(cell, cell) for name, cell in row.items()} for row in found
    ]
    names = OTHER_NAMES.get(form, NAMES)
    cells = sorted((float(row[names[0]]), row[names[1]], row[names[2]]) for row in rows)
    assert cells == sorted((row["size"], row["n"], row["kind"]) for row in OBJECTS)


def test_decimals_are_learned_as_the_nearest_numbers(tmp_path: Path) -> None:
    texts = [f"{i * 37 % 1000 / 100 - 3:.2f}" for i in range(ROWS)]
    column = pa.array([Decimal(text) for text in texts], pa.decimal128(9, 2))
    pq.write_table(pa.table({"size": column}), tmp_path / "t.parquet")
    dataset = prepared(tmp_path, "t.parquet")
    learned = [x for split in dataset.splits for x in dataset.split(split).all().x[:, 0].tolist()]
    assert sorted(learned) == sorted(map(float, texts))


def test_objects_named_by_what_they_count_are_no_columns(tmp_path: Path) -> None:
    rows = [{"size": a, "votes": {f"u{i}": 1, f"v{i}": 2}} for i, (a, _, _) in enumerate(LISTS)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = prepared(tmp_path, "t.jsonl")
    assert [(entry["name"], entry["role"]) for entry in dataset.manifest["table"]] == [
        ("size", "number"), ("votes", "skip"),
    ]  # fmt: skip


def test_uuids_are_drawn_as_uuids(tmp_path: Path) -> None:
    keys = [uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4) for i in range(ROWS)]
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes for key in keys], pa.binary(16)))
    pq.write_table(TABLE.append_column("key", column), tmp_path / "t.parquet")
    prepared(tmp_path, "t.parquet")
    export("d", Path("out"), root=tmp_path)
    drawn = [text for part in (tmp_path / "out").iterdir() for text in pq.read_table(part)["key"].to_pylist()]
    assert len({uuid.UUID(text) for text in drawn} - set(keys)) == ROWS
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) for text in drawn)


def moment(i: int) -> datetime:
    return datetime(2020, 11, 3, 8, 15, 9) + timedelta(days=37 * i % 900, seconds=i * i * 61, microseconds=i * 12_350)


def interval(i: int) -> str:
    """As PostgreSQL writes it."""
    day = i * i % 4
    return f"{day} day{'s' * (day > 1)} " * (day > 0) + f"{i * 7 % 24:02}:{i * 11 % 60:02}:{i * 13 % 60:02}"


BY_PROGRAMS: dict[str, tuple[str, Callable[[int], str]]] = {
    "PostgreSQL": ("datetime", lambda i: f"{moment(i):%F %T.%f}".rstrip("0").rstrip(".") + "+02"),
    "isoformat": ("datetime", lambda i: (moment(i).replace(microsecond=0) if i % 3 else moment(i)).isoformat()),
    "interval": ("duration", interval),
    "Python": ("duration", lambda i: str(timedelta(minutes=i * 997 % 5000 - 900))),
    "pandas": ("duration", lambda i: str(pd.Timedelta(seconds=i * 997 % 5000 - 900))),
    "shift": ("duration", lambda i: f"{i % 30:02}:{i * 7 % 60:02}:00"),  # beyond midnight
    "lap": ("duration", lambda i: f"{i % 30:02}:{i * 7 % 60:02}.{i * i % 1000:03}"),
    "Oracle": ("datetime", lambda i: f"{moment(i):%d-%b-%y %I.%M.%S.%f}000 {moment(i):%p}".upper()),
    "Google": ("datetime", lambda i: f"{moment(i):%Y/%m/%d %-I:%M:%S %p} GMT+{1 + (3 < moment(i).month < 11)}"),
    "Uhr": ("datetime", lambda i: f"{moment(i):%d.%m.%Y, %H:%M} Uhr"),
    "change": ("number", lambda i: f"{i * 37 % 100 / 10 - 4.95:+.2f}%"),
    "Avogadro": ("number", lambda i: f"{1 + i * 37 % 97}.5e+18"),
    "strand": ("category", lambda i: "+-"[i % 3 == 0]),
    "narrow": ("datetime", lambda i: "########" if i % 5 == 0 else f"{moment(i):%d/%m/%Y}"),  # a column of Excel's
    "dump": ("category", lambda i: "\\N" if i % 5 == 0 else ("ash", "elm")[i % 2]),
    "bounds": ("number", lambda i: "<0.5" if i % 5 == 0 else ">90" if i % 15 == 1 else f"{i * 37 % 89 + 0.5}"),
    "laboratory": ("number", lambda i: ("NA", "<2.0", "")[i % 3] if i % 4 == 0 else f"{i * 37 % 89 + 2.5}"),
    "telephone": ("identifier", lambda i: f"({200 + i * 7 % 90}) {100 + i * 13}-{i * 7919 % 9000 + 1000}"),
}  # fmt: skip
"""Cells as programs write them, by name: what their column is, and the cell of a row."""


def test_what_programs_write_comes_back_as_they_write_it(tmp_path: Path) -> None:
    cells = {name: [one(i) for i in range(ROWS)] for name, (_, one) in BY_PROGRAMS.items()}
    pd.DataFrame(cells).to_csv(tmp_path / "t.csv", index=False)
    dataset = prepared(tmp_path, "t.csv")
    assert {entry["name"]: entry["role"] for entry in dataset.manifest["table"]} == {
        name: role for name, (role, _) in BY_PROGRAMS.items()
    }
    export("d", Path("out"), "csv", root=tmp_path)
    found, places = [], []
    for split in dataset.splits:
        found.append(pd.read_csv(tmp_path / f"out/{split}.csv", dtype=str, keep_default_na=False))
        places += dataset.split(split).sources.tolist()
    back = pd.concat(found).set_axis(places).sort_index()
    assert back["strand"].tolist() == cells["strand"]
    assert (
        np.isnan(dataset.split("train").all().x.numpy()).any(0).sum() == 6
    )  # narrow: three parts; dump, bounds, laboratory
    for name in cells.keys() - {"telephone", "bounds", "laboratory", "Avogadro"}:
        assert back[name].tolist() == cells[name], name
    assert back["Avogadro"].astype(float).tolist() == [float(cell) for cell in cells["Avogadro"]]
    assert back["telephone"].str.fullmatch(r"\(\d{3}\) \d{3}-\d{4}").all()
    missing = pd.Series(cells["bounds"]).str.contains("[<>]")
    assert (back["bounds"].str.contains("[<>]") == missing).all()
    assert back["bounds"][missing].value_counts().to_dict() == pytest.approx({"<0.5": 12, ">90": 4}, abs=2)
    missing = pd.Series(cells["laboratory"]).isin(["NA", "<2.0", ""])
    assert back["laboratory"][~missing].tolist() == pd.Series(cells["laboratory"])[~missing].tolist()
    expected = pd.Series(cells["laboratory"])[missing].value_counts().to_dict()
    assert back["laboratory"][missing].value_counts().to_dict() == pytest.approx(expected, abs=2)


def test_pandas_reads_its_own_types_and_index_again(tmp_path: Path) -> None:
    """Nullable numbers, booleans and texts; an index of two levels; an identifier that outgrows its eight bits."""
    gaps = [i % 7 == 0 for i in range(120)]
    frame = pd.DataFrame(
        {
            "n": pd.array([None if gap else i * i % 50 for i, gap in enumerate(gaps)], "Int64"),
            "b": pd.array([None if gap else i % 3 == 0 for i, gap in enumerate(gaps)], "boolean"),
            "f": pd.array([None if gap else i * 37 % 100 / 8 for i, gap in enumerate(gaps)], "Float32"),
            "id": pd.array([i * 7 % 120 for i in range(120)], "UInt8"),
        },
        index=pd.MultiIndex.from_arrays([[f"s{i // 10}" for i in range(120)], pd.date_range("2020", periods=120)]),
    )
    frame.to_parquet(tmp_path / "t.parquet")
    dataset = prepared(tmp_path, "t.parquet")
    export("d", Path("out"), root=tmp_path)
    for split in dataset.splits:
        found, places = pd.read_parquet(tmp_path / f"out/{split}.parquet"), dataset.split(split).sources.tolist()
        expected = frame.iloc[places].drop(columns="id")
        pd.testing.assert_frame_equal(found.drop(columns="id"), expected, check_index_type=True)


@pytest.mark.parametrize("notes", [b"\xff{", b"[1]", b'{"columns": [1]}', b'{"columns": [{}], "index_columns": 3}'])
def test_what_is_no_note_of_pandas_is_ignored(notes: bytes) -> None:
    assert by_pandas(pa.schema({"n": pa.int64()}, metadata={b"pandas": notes})) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sep=;\n" + f"size,n,kind\n{PLAIN_ROWS}".replace(",", ";"), "beginning with 'sep=;'"),  # for Excel
        ("##version=4\n#size\tn\tkind\n" + PLAIN_ROWS.replace(",", "\t").replace("a", "a;b"), 'delimiter: "\\t"'),
        ("size,n,kind\n" + PLAIN_ROWS.replace("\n", "|0\n"), 'delimiter: ","'),
        ("size,n,kind\n" + PLAIN_ROWS.replace("\n", ";b;c\n"), 'delimiter: ","'),  # several answers
        (
            'size,n,kind\n"How\nlarge?",How many?,What?\n'
            + ",".join(['"{""ImportId"":""Q1""}"'] * 3)
            + f"\n{PLAIN_ROWS}",
            "2 line(s) below the header are left out",  # Qualtrics
        ),
    ],
)
def test_marks_within_cells_and_lines_for_programs(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    dataset = prepared(tmp_path, "t.csv")
    assert said in (tmp_path / "data/catalog/d.yaml").read_text()
    assert [entry["role"] for entry in dataset.manifest["table"]] == ["number", "number", "category"]
    learned = [row[:2] for split in dataset.splits for row in dataset.split(split).all().x.tolist()]
    assert sorted(learned) == sorted([row["size"], row["n"]] for row in OBJECTS)


def test_categories_are_what_a_file_states_to_be_some(tmp_path: Path) -> None:
    """Of numbers, as pandas has them; in views of texts, as polars writes them."""
    codes = pa.array([i % 4 for i in range(ROWS)]).dictionary_encode()
    views = pa.array(["ash", "elm", "oak"], pa.string_view())
    kinds = pa.DictionaryArray.from_arrays(pa.array([i % 3 for i in range(ROWS)], pa.uint32()), views)
    table = pa.table({"code": codes, "kind": kinds, "large": [1.5e18 * (i * 37 % 97 + 1) for i in range(ROWS)]})
    pa.feather.write_feather(table, tmp_path / "t.feather", compression="uncompressed")
    dataset = prepared(tmp_path, "t.feather")
    assert [entry["role"] for entry in dataset.manifest["table"]] == ["category", "category", "number"]
    export("d", Path("out"), root=tmp_path)
    for split in dataset.splits:
        found = pq.read_table(tmp_path / f"out/{split}.parquet")
        places = dataset.split(split).sources.tolist()
        assert [row["code"] for row in found.to_pylist()] == [i % 4 for i in places]
        assert found["large"].to_pylist() == [1.5e18 * (i * 37 % 97 + 1) for i in places]
        assert found["kind"].to_pylist() == [("ash", "elm", "oak")[i % 3] for i in places]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda i: ".." if i % 8 else f"{i * 37 % 1000 / 7:.3f}", 'format: "0.000", missing: [".."]'),  # World Bank
        (lambda i: "(D)" if i % 3 else str(i * 37 % 1000), 'type: integer, missing: ["(D)"]'),
        (
            lambda i: (": ", ": c", f"{i * 37 % 997 / 10} ", f"{i * 17 % 997 / 10} p")[i % 4],  # Eurostat
            'type: continuous, format: "0.0{ p}", missing: [":", ": c"]',
        ),
        (lambda i: f"{i * 37 % 997}" + ("", "", "[1]", "[2]")[i % 4], 'type: integer, format: "0{[1]|[2]}"'),
        (lambda i: f"{i * 37 % 41}" + (" kg", " lbs")[i % 2], "type: categorical"),  # what counts is kept
        (lambda i: "none" if i % 8 else str(i % 3), "type: categorical"),
        (lambda i: "-999" if i % 9 == 1 else str(18 + i * 37 % 71), 'type: integer, missing: ["-999"]'),
        (lambda i: "9999.0" if i % 9 == 1 else f"{i * 37 % 71 / 10}", 'format: "0.0", missing: ["9999.0"]'),
        (lambda i: "99" if i % 9 == 1 else str(i * 37 % 71), "type: integer}"),  # not far from 70
        (lambda i: "9999" if i == 7 else str(i * 37 % 71), "type: integer}"),  # once: a value
        (lambda i: "-" if i == 3 else str(7919 * i % 100_003), 'type: integer, missing: ["-"]'),  # each its own
    ],
)
def test_marks_of_missing_numbers(tmp_path: Path, one: Callable[[int], str], said: str) -> None:
    assert said in added(tmp_path, "people", [one(i) for i in range(200)])


def test_words_of_a_single_column_are_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"{row[2]}\n" for row in ASKEW))
    dataset = prepared(tmp_path, "t.txt")
    assert sum(map(len, map(dataset.split, dataset.splits))) == ROWS


def test_a_cell_longer_than_other_readers_take(tmp_path: Path) -> None:
    rows = "".join(f"{a},{'z' * (200_000 if i == 7 else 5)}\n" for i, (a, _, _) in enumerate(ASKEW))
    (tmp_path / "t.csv").write_text(f"size,note\n{rows}")
    dataset = prepared(tmp_path, "t.csv")
    assert sum(map(len, map(dataset.split, dataset.splits))) == ROWS


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("t.sav", b"$FL2@(#) SPSS", "a file of SPSS, which is not read here. In Python: pandas.read_spss"),
        ("t.por", b"0" * 40 + b"ASCII SPSS PORT FILE" + b"\nABC" * 20, "a file of SPSS, which is not read here"),
        ("t/a.heic", b"", "but 1 × .heic; links to folders are not followed. Convert other images"),
        ("t.rds", gzip.compress(b"X\n\0\0\0\2"), "holds objects of R. In R: write.csv"),
        ("t.pkl", b"\x80\4\x95", "a pickle, which may run code when it is read"),
        ("t.xls", b"<html><table><tr><td>1</td></tr></table></html>", "a web page"),
    ],
)
def test_files_that_are_not_read_say_what_to_do(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ValueError, match=re.escape(said)):
        add(name.partition("/")[0], "d", root=tmp_path, quiet=True)


def test_tables_that_are_not_one_are_told_apart(tmp_path: Path) -> None:
    """Parts of one table within an archive, and tables of a kind that is not read there: the reader has the choice."""
    archive({"part1.csv": WHOLE, "part2.csv": WHOLE})(tmp_path)
    with pytest.raises(ValueError, match="2 tables with the same header"):
        add("t.zip", "d", root=tmp_path, quiet=True)
    (tmp_path / "t.zip").unlink()
    archive({"train.xlsx": "PK"})(tmp_path)
    with pytest.raises(ValueError, match=re.escape("holds train.xlsx, not read within an archive. Unpack it")):
        add("t.zip", "d", root=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("scale", "kind"), [(1 / 255, np.float32), (1.0, np.float32), (257.0, np.float32), (257, np.int32)]
)
def test_images_of_32_bits_are_brought_to_8_by_their_range(tmp_path: Path, scale: float, kind: type) -> None:
    (tmp_path / "t").mkdir()
    pixels = np.stack([np.linspace(0, 255, 64).reshape(8, 8).round() for _ in range(12)])
    for i, image in enumerate(pixels):
        image[0, 0] = 5 * i
        Image.fromarray((image * scale).astype(kind)).save(tmp_path / f"t/{'owl' if i % 2 else 'tit'}.{i}.tif")
    dataset = prepared(tmp_path, "t")
    assert dataset.class_names == ["owl", "tit"]  # as the names say
    for split in dataset.splits:
        examples = dataset.split(split).all()
        x = examples.x.numpy().reshape(-1, 64)
        assert ((x[:, 0] % 10 == 5) == (examples.label.numpy() == 0)).all()
        assert np.array_equal(x[:, 1:], pixels[: len(x)].reshape(-1, 64)[:, 1:])


def test_images_of_32_bits_without_a_range_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8), -1.0 - i, np.float32)).save(tmp_path / f"t/DSC_{i:04}.tif")
    with pytest.raises(ValueError, match=r"expected values from 0 to 1, 255 or 65535 .* got -1 to -1"):
        add("t", "d", root=tmp_path, quiet=True)


def test_bytes_that_a_file_calls_text_are_refused(tmp_path: Path) -> None:
    words = pa.array([b"ash", b"elm", b"o\xffk"] * 20, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"kind": words, "size": [i / 7 for i in range(60)]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: column 'kind' holds cells that are no string"):
        prepared(tmp_path, "t.parquet")


def test_a_hidden_sheet_is_not_the_table(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    body = workbook([["old", *NAMES[1:]], *LISTS], [NAMES, *LISTS])
    with zipfile.ZipFile(io.BytesIO(body)) as shown, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as made:
        for name in shown.namelist():
            made.writestr(name, shown.read(name).replace(b'name="trees0"', b'name="trees0" state="hidden"'))
    dataset = prepared(tmp_path, "t.xlsx")
    assert [entry["name"] for entry in dataset.manifest["table"]] == NAMES


def test_lines_are_rewritten_whole_however_they_come() -> None:
    class Trickle:
        """A stream that gives three bytes at a time."""

        def __init__(self, body: bytes) -> None:
            self.body = body

        def read(self, size: int = -1, /) -> bytes:
            piece, self.body = self.body[:3], self.body[3:]
            return piece

    text = "".join(f"{a}::{b}::{c} é\r\n" for a, b, c in ASKEW) + "1::2::3"
    stream, pieces = Rewritten(Trickle(text.encode()), lambda line: line.replace("::", ",")), []
    while piece := stream.read(7):
        pieces.append(piece)
    assert b"".join(pieces).decode() == text.replace("::", ",")
    assert {len(piece) for piece in pieces[:-1]} == {7}


@pytest.mark.parametrize(
    "text",
    [
        "wt\n" + "".join(f"{40 + int(b)} kg\n" for _, b, _ in ASKEW),  # one column, no second of a fixed width
        "wt,host\n" + "".join(f"{b},fe80::{b}\n" for _, b, _ in ASKEW),  # an address has two colons
        "wt,a\n--,--\n" + "".join(f"{b},{a}\n" for a, b, _ in ASKEW[1:]),  # a row of gaps is no line drawn
    ],
)
def test_ordinary_lines_are_not_rewritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    dataset = prepared(tmp_path, "t.csv")
    assert [entry["name"] for entry in dataset.manifest["table"]] == text.partition("\n")[0].split(",")
    assert sum(map(len, map(dataset.split, dataset.splits))) == ROWS


def test_whole_numbers_written_with_a_zero_after_the_point_are_whole(tmp_path: Path) -> None:
    """As pandas writes them where one is missing; a single half among them makes them numbers of any size."""
    weeks = ["" if i % 17 == 0 else f"{i * 7 % 400}.0" for i in range(ROWS)]
    height = [f"{i * 7 % 400}.{5 if i == 40 else 0}" for i in range(ROWS)]
    pd.DataFrame({"weeks": weeks, "height": height}).to_csv(tmp_path / "t.csv", index=False)
    dataset = prepared(tmp_path, "t.csv")
    card = (tmp_path / "data/catalog/d.yaml").read_text()
    assert '{name: "weeks", type: integer, format: "0.0"' in card
    assert '{name: "height", type: continuous, format: "0.0"' in card
    export("d", Path("out"), "csv", root=tmp_path)
    found = [pd.read_csv(tmp_path / f"out/{name}.csv", dtype=str, keep_default_na=False) for name in dataset.splits]
    places = [place for name in dataset.splits for place in dataset.split(name).sources.tolist()]
    back = pd.concat(found).set_axis(places).sort_index()
    assert (back["weeks"].tolist(), back["height"].tolist()) == (weeks, height)
