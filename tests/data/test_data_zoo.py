"""A zoo of columns crossed with every container: what add accepts is prepared, and comes back as it was.

The expected types and cells are what the generator wrote, not what the readers say of them.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sqlite3
import uuid
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.dataset import Dataset
from data.formats import PLACEHOLDER
from data.readers.workbook import sheets
from pipelines.cli.data import add, export
from pipelines.stages.prepare import prepare

ROWS = 60
START = datetime(2019, 11, 3, 8, 15)


def days(i: int) -> date:
    return START.date() + timedelta(days=37 * i % 900)


def moment(i: int) -> datetime:
    return START + timedelta(days=37 * i % 900, minutes=15 * (i * i % 96))


def low(i: int) -> int:
    """The last digit of a day that is spoken as first, second or third; else 0."""
    day = days(i).day
    return day % 10 if day % 10 < 4 and day // 10 != 1 else 0


def grouped(value: float, mark: str, point: str, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace(",", "\0").replace(".", point).replace("\0", mark)


GERMAN = (
    "Januar", "Februar", "März", "April", "Mai", "Juni",
    "Juli", "August", "September", "Oktober", "November", "Dezember",
)  # fmt: skip


def number(i: int) -> float:
    return round((i * 7919 % 1000) * 12.37 - 900, 2)


TEXT: dict[str, tuple[str, Callable[[int], str]]] = {
    "int": ("integer", lambda i: str(i * i % 31 - 9)),
    "fixed": ("continuous", lambda i: f"{number(i):.2f}"),
    "free": ("continuous", lambda i: repr(number(i) / 8)),
    "tiny": ("continuous", lambda i: repr((i * i % 29 + 1) * 1.5e-7)),
    "percent": ("continuous", lambda i: f"{i * 7 % 100 / 2:.1f}%"),
    "dollars": ("continuous", lambda i: ("-" if number(i) < 0 else "") + f"${abs(number(i)):,.2f}"),
    "booked": ("continuous", lambda i: f"({-number(i):,.2f})" if number(i) < 0 else f"{number(i):,.2f}"),
    "euros": ("continuous", lambda i: grouped(number(i), ".", ",", 2) + " €"),
    "swiss": ("continuous", lambda i: grouped(abs(number(i)) + 900, "'", ".", 1)),
    "people": ("integer", lambda i: f"{1234 + 999983 * (i * 17 % 41):,}"),
    "comma": ("continuous", lambda i: f"{i * i % 97 / 4:.2f}".replace(".", ",")),
    "mass": ("integer", lambda i: f"{i * i % 53 + 40} kg"),
    "iso": ("datetime", lambda i: days(i).isoformat()),
    "american": ("datetime", lambda i: f"{days(i).month}/{days(i).day}/{days(i).year}"),
    "german": ("datetime", lambda i: days(i).strftime("%d.%m.%Y")),
    "word": ("datetime", lambda i: days(i).strftime("%d %b %Y")),
    "press": ("datetime", lambda i: f"{days(i):%B} {days(i).day}, {days(i).year}"),
    "diary": ("datetime", lambda i: days(i).strftime("%A, %d %B %Y")),
    "compact": ("datetime", lambda i: days(i).strftime("%Y%m%d")),
    "stamp": ("datetime", lambda i: moment(i).strftime("%Y-%m-%d %H:%M:%S")),
    "zulu": ("datetime", lambda i: moment(i).strftime("%Y-%m-%dT%H:%M:%SZ")),
    "zoned": ("datetime", lambda i: moment(i).strftime("%Y-%m-%dT%H:%M:%S") + ("+02:00", "+01:00")[i % 3 == 0]),
    "millis": ("datetime", lambda i: moment(i).strftime("%Y-%m-%d %H:%M:%S.") + f"{i * i % 1000:03}"),
    "month": ("datetime", lambda i: days(i).strftime("%Y-%m")),
    "quarter": ("datetime", lambda i: f"{days(i).year}-Q{(days(i).month + 2) // 3}"),
    "clock": ("datetime", lambda i: moment(i).strftime("%H:%M")),
    "noon": ("datetime", lambda i: moment(i).strftime("%I:%M %p")),
    "quiet": ("datetime", lambda i: moment(i).strftime("%a %d %b %Y %-I:%M %p").lower()),
    "loud": ("datetime", lambda i: moment(i).strftime("%-d-%b-%y").upper() + moment(i).strftime(" %I:%M%p").lower()),
    "sas": ("datetime", lambda i: moment(i).strftime("%d%b%Y:%H:%M:%S").upper()),
    "week": ("datetime", lambda i: f"{days(i).isocalendar().year}-W{days(i).isocalendar().week:02}"),
    "tight": ("datetime", lambda i: moment(i).strftime("%Y%m%d%H%M%S")),
    "months": ("datetime", lambda i: days(i).strftime("%Y%m")),
    "Tag": ("datetime", lambda i: f"{days(i).day}. {GERMAN[days(i).month - 1]} {days(i).year}"),
    "lap": ("duration", lambda i: f"{i % 70}:{i * 7 % 60:02}.{i * i % 1000:03}"),
    "trip": ("duration", lambda i: " ".join(f"{n}{u}" for n, u in ((i % 5 * 9, "h"), (i * 7 % 60 or 1, "m")) if n)),
    "sap": ("continuous", lambda i: f"{abs(number(i)):.2f}" + ("-" if number(i) < 0 else "")),
    "views": ("continuous", lambda i: f"{1 + i % 90}.{i * 7 % 10}" + "KM"[i % 3 == 0]),
    "lakhs": ("integer", lambda i: f"{i * 17 % 41 + 1},{i * i % 100:02},{i * 7 % 1000:03}"),
    "south": ("continuous", lambda i: f"{abs(number(i)) / 99:.2f}° {'NS'[i % 3 == 0]}"),
    "ledger": ("continuous", lambda i: f"{abs(number(i)):,.2f} {'CR' if number(i) > 0 else 'DR'}"),
    "born": ("datetime", lambda i: f"{days(i):%B} {days(i).day}{'tsnr'[low(i)]}{'htdd'[low(i)]}, {days(i).year}"),
    "pressure": ("several", lambda i: f"{100 + i * 37 % 79}/{50 + i * 11 % 41}"),
    "place": ("several", lambda i: f"({40 + i * i % 97 / 97:.4f}, {number(i) / 99 - 70:.3f})"),
    "load": ("several", lambda i: f"{40 + i * 37 % 79 / 2:.1f} {('kg', 'lbs')[i % 3 == 0]}"),
    "angle": ("several", lambda i: f"{10 + i * 37 % 79}°{i * 7 % 60}'{i * 11 % 60}\"{'NS'[i % 2]}"),
    "span": ("duration", lambda i: f"{20 + i * i % 47}:{i % 60:02}:30"),
    "pause": ("duration", lambda i: f"PT{i * i % 50 + 1}M"),
    "yes": ("categorical", lambda i: ("yes", "no")[i % 3 == 0]),
    "flag": ("categorical", lambda i: ("TRUE", "FALSE")[i % 5 == 0]),
    "zip": ("categorical", lambda i: f"{i % 12 * 37:05}"),
    "rare": ("categorical", lambda i: "Ünïque" if i == 7 else ("ash", "elm")[i % 2]),
    "dashes": ("integer", lambda i: "-" if i % 7 == 3 else str(i * i % 17)),
    "unknown": ("continuous", lambda i: "Unknown" if i % 11 == 3 else f"{i * 3 % 19 / 2:.1f}"),
    "lost": ("datetime", lambda i: "NA" if i % 9 == 4 else days(i).isoformat()),
    "bare": ("categorical", lambda i: "-" if i % 8 == 5 else ("ash", "elm")[i % 2]),
    "gaps": ("categorical", lambda i: "" if i % 4 == 1 else ("x", "y, z", 'a "b"')[i % 3]),
    "customer_id": ("identifier", lambda i: str(100000 + i)),
    "ticket": ("identifier", lambda i: f"T-{i * 7919 % 10007:05}"),
    "account": ("identifier", lambda i: f"{100_000 + i * 48_271 % 899_981}-{i % 7}"),
    "uuid": ("identifier", lambda i: str(uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4))),
    "note": ("text", lambda i: f"the {i}th of these notes, written in a hurry on a rainy day by somebody"),
    "same": ("constant", lambda i: "2.50"),
    "empty": ("constant", lambda i: ""),
}  # fmt: skip
"""By name: the type that the card must state, and the cell of a row."""
FRESH = ("identifier", "text")


def cells(names: list[str]) -> list[list[str]]:
    return [[TEXT[name][1](i) for name in names] for i in range(ROWS)]


def written(names: list[str], *, delimiter: str = ",", header: bool = True, end: str = "\n", tail: str = "") -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=tail + end)
    writer.writerows([names] * header + cells(names))
    return stream.getvalue()


def compressed(name: str, body: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(body)
    if name.endswith(".bz2"):
        return bz2.compress(body)
    if name.endswith(".xz"):
        return lzma.compress(body)
    if name.endswith(".zst"):
        return pa.compress(body, "zstd", asbytes=True)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inside.csv", body)
    return stream.getvalue()


NAMES = list(TEXT)
PLAIN = [name for name in NAMES if name not in ("gaps", "empty", "rare")]
FEW = ["int", "fixed", "iso", "rare", "gaps", "ticket"]
NO_BLANKS = [name for name in PLAIN if not any(" " in TEXT[name][1](i) for i in range(ROWS))]
WESTERN = written(NAMES)
TEXT_FILES: dict[str, tuple[str, Callable[[], bytes], list[str]]] = {
    "comma": ("t.csv", lambda: WESTERN.encode(), NAMES),
    "semicolon": ("t.csv", lambda: written(NAMES, delimiter=";", end="\r\n").encode(), NAMES),
    "tab": ("t.tsv", lambda: written(NAMES, delimiter="\t").encode(), NAMES),
    "pipe": ("t.txt", lambda: written(NAMES, delimiter="|").encode(), NAMES),
    "blanks": ("t.dat", lambda: written(NO_BLANKS, delimiter=" ").replace(" ", "   ").encode(), NO_BLANKS),
    "cp1252": ("t.csv", lambda: WESTERN.encode("cp1252"), NAMES),
    "utf-16": ("t.csv", lambda: WESTERN.encode("utf-16"), NAMES),
    "bom": ("t.csv", lambda: b"\xef\xbb\xbf" + WESTERN.encode(), NAMES),
    "title": ("t.csv", lambda: b"Trees of the town\n\n# counted in 2021\n" + WESTERN.encode(), NAMES),
    "headerless": ("t.csv", lambda: written(NAMES, header=False).encode(), NAMES),
    "trailing": ("t.csv", lambda: written(NAMES, tail=",").encode(), NAMES),
    **{end: (f"t.csv{end}", lambda end=end: compressed(end, written(FEW).encode()), FEW)
       for end in (".gz", ".bz2", ".xz", ".zst", ".zip")},
}  # fmt: skip


def prepared(root: Path, source: str, name: str = "d", **options: str) -> Dataset:
    add(source, name, root=root, quiet=True, **options)
    prepare(name, root=root)
    return Dataset.open(root / "data/prepared" / name)


def rows_of(path: Path, dataset: Dataset, delimiter: str, encoding: str) -> dict[int, list[str]]:
    """The exported rows by their place in the source."""
    found: dict[int, list[str]] = {}
    for split in dataset.splits:
        text = (path / f"{split}.csv").read_text(encoding=encoding)
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        places = dataset.split(split).sources.tolist()
        found.update(zip(places, table[len(table) - len(places) :], strict=True))
    return found


@pytest.mark.parametrize("container", TEXT_FILES)
def test_every_text_comes_back_as_it_was(tmp_path: Path, container: str) -> None:
    name, body, names = TEXT_FILES[container]
    (tmp_path / name).write_bytes(body())
    dataset = prepared(tmp_path, name)
    roles = {"integer": "number", "continuous": "number", "categorical": "category"}
    entries = dataset.manifest["table"][: len(names)]
    expected = [TEXT[column][0] for column in names]
    assert [entry["role"] for entry in entries] == [roles.get(kind, kind) for kind in expected]
    kinds = {column["name"]: column["type"] for column in dataset.domain["columns"]}
    if container != "headerless":
        assert {k: v for k, v in kinds.items() if k in TEXT} == {
            column: kind for column, kind in zip(names, expected, strict=True) if column in kinds
        }
        assert [entry["title"] for entry in entries] == names
    export("d", Path("out"), "csv", root=tmp_path)
    delimiter = {"semicolon": ";", "tab": "\t", "pipe": "|", "blanks": " "}.get(container, ",")
    found = rows_of(tmp_path / "out", dataset, delimiter, container if container in ("cp1252", "utf-16") else "utf-8")
    assert sorted(found) == list(range(ROWS))
    for place, column in enumerate(names):
        source = [TEXT[column][1](i) for i in range(ROWS)]
        drawn = [found[i][place] for i in range(ROWS)]
        if TEXT[column][0] == "identifier":
            assert len(set(drawn)) == ROWS
            assert not set(drawn) & set(source)
            assert {len(text) for text in drawn} == {len(text) for text in source}
            assert "0" not in {text[0] for text in drawn} - {text[0] for text in source}
        elif TEXT[column][0] == "text":
            assert set(drawn) == {PLACEHOLDER}
        elif column in ("free", "tiny"):
            assert list(map(float, drawn)) == list(map(float, source))
        else:
            assert drawn == source, column


def test_what_is_exported_is_read_as_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(WESTERN)
    first = prepared(tmp_path, "t.csv")
    for form in ("csv", "jsonl", "parquet"):
        export("d", Path(form), form, root=tmp_path)
        again = prepared(tmp_path, form, f"again-{form}")
        kept = [e["role"] for e in first.manifest["table"] if e["role"] != "text"]
        roles = [e["role"] for e in again.manifest["table"] if e["name"] != "note"]
        assert roles == kept, form
        for split in first.splits:
            order, other = (np.argsort(d.split(split).sources.numpy()) for d in (first, again))
            del order
            assert len(other) == len(first.split(split))
        values = [
            np.sort(np.concatenate([d.split(s).all().x[:, i].numpy() for s in d.splits]))
            for d in (first, again)
            for i, column in enumerate(d.domain["columns"])
            if column["type"] != "categorical" and column["name"] in TEXT
        ]
        half = len(values) // 2
        for mine, theirs in zip(values[:half], values[half:], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-12)


NATIVE: dict[str, tuple[str, pa.DataType, Callable[[int], object]]] = {
    "int32": ("number", pa.int32(), lambda i: None if i % 13 == 4 else i * i % 41),
    "uint8": ("number", pa.uint8(), lambda i: i * i % 41),
    "float32": ("number", pa.float32(), lambda i: i * i % 41 / 8),
    "float16": ("number", pa.float16(), lambda i: None if i % 13 == 4 else np.float16(i * i % 41 / 8)),
    "coded": ("category", pa.dictionary(pa.int32(), pa.string()), lambda i: ("u", "v w", "ü")[i % 3]),
    "float64": ("number", pa.float64(), lambda i: None if i % 13 == 4 else number(i) / 7),
    "rounded": ("number", pa.float64(), lambda i: number(i)),
    "decimal": ("number", pa.decimal128(12, 2), lambda i: round(number(i), 2)),
    "bool": ("category", pa.bool_(), lambda i: None if i % 13 == 4 else i % 3 == 0),
    "text": ("category", pa.string(), lambda i: None if i % 13 == 4 else ("u", "v w", "ü")[i % 3]),
    "date32": ("datetime", pa.date32(), lambda i: None if i % 13 == 4 else days(i)),
    "starts": ("datetime", pa.date32(), lambda i: days(i).replace(day=1)),
    "ends": ("datetime", pa.date32(), lambda i: days(i).replace(day=1) - timedelta(days=1)),
    "stamp_s": ("datetime", pa.timestamp("s"), lambda i: moment(i)),
    "stamp_ns": ("datetime", pa.timestamp("ns"), lambda i: moment(i) + timedelta(microseconds=i)),
    "utc": ("datetime", pa.timestamp("us", "UTC"), lambda i: moment(i).replace(tzinfo=UTC)),
    "time64": ("datetime", pa.time64("us"), lambda i: moment(i).time()),
    "time32": ("datetime", pa.time32("s"), lambda i: time(i % 24, i * 7 % 60)),
    "elapsed": ("duration", pa.duration("ms"), lambda i: timedelta(seconds=i * i % 977) if i % 13 - 4 else None),
    "key": ("identifier", pa.int64(), lambda i: 7_000_000 + i * i * 31),
    "fixed": ("constant", pa.float64(), lambda i: 2.5),
    "nothing": ("constant", pa.null(), lambda i: None),
    "nested": ("skip", pa.map_(pa.string(), pa.int64()), lambda i: [("a", i)]),
    "blob": ("skip", pa.binary(), lambda i: b"\xff\xfe\x00" + bytes([i])),
}  # fmt: skip


def native(names: list[str]) -> pa.Table:
    columns = {}
    for name in names:
        _, kind, cell = NATIVE[name]
        values = [cell(i) for i in range(ROWS)]
        columns[name] = (
            pa.array(values, pa.float64()).cast(kind) if pa.types.is_decimal(kind) else pa.array(values, kind)
        )
    return pa.table(columns)


@pytest.mark.parametrize("container", ["t.parquet", "t.feather", "t.arrow", "stream.arrow", "t.duckdb"])
def test_every_native_type_comes_back_as_it_was(tmp_path: Path, container: str) -> None:
    foreign = ("stamp_s", "time32", "nothing", "float16") if container == "t.duckdb" else ()
    table = native([name for name in NATIVE if name not in foreign])
    path = tmp_path / container
    options = {}
    if container == "t.parquet":
        pq.write_table(table, path, row_group_size=17)
    elif container == "t.feather":
        pyarrow.feather.write_feather(table, str(path))
    elif container == "t.duckdb":
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect(str(path)) as database:
            database.register("source", table)
            database.execute("CREATE TABLE kept AS SELECT * FROM source")
        options["query"] = "SELECT * FROM kept"
    else:
        make = pa.ipc.new_stream if container.startswith("stream") else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=13)
    dataset = prepared(tmp_path, container, **options)
    expected_roles = {name: NATIVE[name][0] for name in table.column_names}
    if container == "t.duckdb":
        expected_roles["elapsed"] = "skip"  # DuckDB's intervals may hold months, which have no length
    assert {entry["name"]: entry["role"] for entry in dataset.manifest["table"]} == expected_roles
    export("d", Path("out"), root=tmp_path)
    for split in dataset.splits:
        found = pq.read_table(tmp_path / f"out/{split}.parquet")
        expected = table.take(dataset.split(split).sources.numpy())
        for name in table.column_names:
            role, kind = expected_roles[name], NATIVE[name][1]
            if role == "skip":
                assert name not in found.column_names
            elif role == "identifier":
                assert found.schema.field(name).type == kind
                assert not set(found[name].to_pylist()) & set(table[name].to_pylist())
            else:
                assert found[name].to_pylist() == expected[name].to_pylist(), name
                if container != "t.duckdb" and name not in ("nothing", "stamp_s", "time32"):  # Parquet's own
                    assert found.schema.field(name).type == kind


def json_cell(name: str, i: int) -> object:
    text = TEXT[name][1](i)
    if text == "":
        return None
    return json.loads(text) if name in ("int", "fixed", "free", "tiny", "customer_id", "same") else text


@pytest.mark.parametrize("container", ["t.jsonl", "t.json", "t.ndjson.gz", "t.sqlite", "t.xlsx"])
def test_rows_of_values(tmp_path: Path, container: str) -> None:
    """JSON, SQLite and workbooks: cells with types of their own, text formats within."""
    names = [name for name in NAMES if name != "empty"]
    rows = [{name: json_cell(name, i) for name in names} for i in range(ROWS)]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    options = {}
    if container == "t.json":
        (tmp_path / container).write_text(json.dumps(rows))
    elif container == "t.sqlite":
        database = sqlite3.connect(tmp_path / container)
        database.execute(f"CREATE TABLE t ({', '.join(names)})")
        database.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(names))})", [tuple(r.values()) for r in rows])
        database.commit()
        database.close()
        options["query"] = "SELECT * FROM t"
    elif container == "t.xlsx":
        pytest.importorskip("python_calamine")
        (tmp_path / container).write_bytes(workbook([names, *[list(row.values()) for row in rows]]))
    else:
        body = lines.encode()
        (tmp_path / container).write_bytes(gzip.compress(body) if container.endswith(".gz") else body)
    dataset = prepared(tmp_path, container, **options)
    roles = {"integer": "number", "continuous": "number", "categorical": "category"}
    found = {entry["name"]: entry["role"] for entry in dataset.manifest["table"]}
    assert found == {name: roles.get(TEXT[name][0], TEXT[name][0]) for name in names}
    export("d", Path("out"), "jsonl", root=tmp_path)
    for split in dataset.splits:
        drawn = [json.loads(line) for line in (tmp_path / f"out/{split}.jsonl").read_text().splitlines()]
        for row, place in zip(drawn, dataset.split(split).sources.tolist(), strict=True):
            marks = ("-", "Unknown", "NA")
            expected = {k: None if v in marks else v for k, v in rows[place].items() if TEXT[k][0] not in FRESH}
            assert {k: v for k, v in row.items() if TEXT[k][0] not in FRESH} == expected


def workbook(*sheets: list[list[object]]) -> bytes:
    """A minimal .xlsx file of sheets `trees0`, `trees1`, …"""
    from xml.sax.saxutils import escape

    def cell(value: object) -> str:
        if value is None:
            return "<c/>"
        if isinstance(value, (int, float)):
            return f"<c><v>{value!r}</v></c>"
        return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'

    space = "http://schemas.openxmlformats.org"
    listed = "".join(f'<sheet name="trees{i}" sheetId="{i + 1}" r:id="r{i}"/>' for i in range(len(sheets)))
    relation = f'<Relationship Id="r0" Type="{space}/officeDocument/2006/relationships'
    related = "".join(
        f'{relation.replace("r0", f"r{i}")}/worksheet" Target="worksheets/sheet{i}.xml"/>' for i in range(len(sheets))
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{space}/package/2006/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{space}/package/2006/relationships">{relation}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{space}/spreadsheetml/2006/main" '
        f'xmlns:r="{space}/officeDocument/2006/relationships"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{space}/package/2006/relationships">{related}'
        "</Relationships>",
    }
    for i, rows in enumerate(sheets):
        cells = "".join("<row>" + "".join(map(cell, row)) + "</row>" for row in rows)
        files[f"xl/worksheets/sheet{i}.xml"] = (
            f'<worksheet xmlns="{space}/spreadsheetml/2006/main"><sheetData>{cells}</sheetData></worksheet>'
        )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return stream.getvalue()


def added(root: Path, column: str, texts: list[str]) -> str:
    """The line of a card for a column of these texts, beside one of numbers."""
    rows = [["size", column], *([str(number(i)), text] for i, text in enumerate(texts))]
    body = io.StringIO()
    csv.writer(body).writerows(rows)
    (root / "t.csv").write_text(body.getvalue(), encoding="utf-8")
    add("t.csv", "d", root=root, quiet=True)
    return next(
        line for line in (root / "data/catalog/d.yaml").read_text().splitlines() if f'name: "{column}", type' in line
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda i: days(i).strftime(("%Y-%m-%d", "%m/%d/%Y")[i % 3 == 0]), 'format: "%Y-%m-%d|%m/%d/%Y"'),
        (lambda i: days(i).isoformat() + " 10:30" * (i % 3 == 0), 'format: "%Y-%m-%d %H:%M|%Y-%m-%d"'),
        (lambda i: days(i).strftime(("%d/%m/%Y", "%m/%d/%Y")[i % 3 == 0]), "type: "),  # either order: no date
        (lambda i: "0000-00-00" if i % 4 == 1 else days(i).isoformat(), "taken as missing: 50 × '0000-00-00'"),
        (lambda i: " $ -   " if i % 4 == 1 else f" $ {1000 + 7 * i % 90:,} ", "taken as missing: 50 × '$ -'"),
        (lambda i: "123456" if i == 7 else f"{26 + i * 7 % 50},{i * 13 % 1000:03}", 'type: integer, format: "#,##0"'),
        (lambda i: f"0,{i * 13 % 1000:03}", 'type: continuous, format: "0,000"'),
        (lambda i: "Not Available" if i % 4 == 1 else f"{i * i % 97 / 4:.2f}", 'format: "0.00", missing: ["Not Ava'),
        (lambda i: "<0.01" if i % 8 == 1 else f"{i * i % 97 / 40:.3f}", "taken as missing: 25 × '<0.01'"),
        (lambda i: "Trace" if i % 4 == 1 else f"{i * i % 97 / 40:.2f}", "taken as missing: 50 × 'Trace'"),
        (lambda i: "many" if i % 4 == 1 else str(i % 5), "type: categorical"),
        (lambda i: ".a" if i % 9 == 1 else str(i * i % 31), 'type: integer, missing: [".a"]'),
        (lambda i: f"{1 + i % 9}.5E+0{i % 5 + 1}", "type: continuous}"),
        (lambda i: days(i).strftime("%a %b %d %H:%M:%S +0000 %Y"), 'format: "%a %b %d %H:%M:%S %z %Y"'),
        (lambda i: f"{days(i).year}年{days(i).month}月{days(i).day}日", 'format: "%Y年%-m月%-d日"'),
        (lambda i: f"{i * i % 97 / 4 - 9:.2f}".replace("-", "\u2212"), 'type: continuous, format: "0.00;\u2212"'),
        (lambda i: f"{123457 * (i * 7 % 200):,}".replace(",", "\u2009"), r'type: integer, format: "#\u2009##0"'),
        (lambda i: f"{1 + i % 4}Q{10 + i % 13}", 'format: "%qQ%y"'),
        (lambda i: moment(i).strftime("[%d/%b/%Y:%H:%M:%S +0000]"), 'format: "[%d/%b/%Y:%H:%M:%S %z]"'),
        (lambda i: moment(i).strftime("%B %d, %Y at %I:%M %p"), 'format: "%B %d, %Y at %I:%M %p"'),
        (lambda i: days(i).strftime("%y%m%d"), 'format: "%y%m%d"'),
        (lambda i: f"{i * 37 % 24:02}{i % 60:02}", 'format: "%H%M"'),
        (lambda i: f"{i % 40 + 1:04}", "type: categorical"),  # numbers of places, no times
        (lambda i: str(2000 + i % 24), "type: integer"),  # years, no times
        (lambda i: moment(i).strftime("%m/%d/%Y %I:%M %p ET"), 'format: "%m/%d/%Y %I:%M %p ET"'),
        (lambda i: str(300000 + 137 * (i * i % 997)), "type: integer}"),  # six digits that are no months
    ],
)
def test_what_a_column_is_taken_for(tmp_path: Path, one: Callable[[int], str], said: str) -> None:
    line = added(tmp_path, "c", [one(i) for i in range(200)])
    assert said in line
    assert ("datetime" in line) == ("%" in said or "0000" in said)


def size(i: int) -> str:
    return f"{i * i % 97 / 4:.2f}"


def askew(i: int) -> list[str]:
    return [size(i), str(i * 17 % 41), ("ash", "elm", "oak")[i % 3]]


ASKEW = [askew(i) for i in range(ROWS)]
PLAIN_ROWS = "".join(",".join(row) + "\n" for row in ASKEW)
OBJECTS = [{"size": float(a), "n": int(b), "kind": c} for a, b, c in ASKEW]
AROUND: dict[str, tuple[str, bytes, str]] = {
    "title and notes": (
        "t.csv", f"Table 5: trees\nSource: town\n\nsize,n,kind\n{PLAIN_ROWS}\nTotal,1234,\n\"Note: a\"\n".encode(),
        "2 line(s) after the table are left out, beginning with 'Total,1234,'",
    ),
    "total": ("t.csv", f"size,n,kind\n{PLAIN_ROWS}Total,99999,\n".encode(), "1 line(s) after the table are left out"),
    "units": ("t.csv", f"size,n,kind\nm,pieces,\n{PLAIN_ROWS}".encode(), "1 line(s) below the header are left out"),
    "two headers": (
        "t.csv", f"size,n,kind\nmean,max,\n,,\n{PLAIN_ROWS}".encode(), "1 line(s) below the header are left out",
    ),
    "header again": (
        "t.csv", f"size,n,kind\n{PLAIN_ROWS}size,n,kind\n".encode(),
        "1 row(s) that repeat the header are left out",
    ),
    "short preamble": (
        "t.csv", ('"Data Source","Indicators",\n\n"Last Updated","2023-07-25",\n\n'
        + "size,n,kind,a,b,c,d,e\n" + "".join(",".join([*row, *"12345"]) + "\n" for row in ASKEW)).encode(),
        "4 line(s) before the table are skipped",
    ),
    "R": (
        "t.txt", ('"size" "n" "kind"\n' + "".join(f'"{i}" {" ".join(row)}\n' for i, row in enumerate(ASKEW))).encode(),
        "its rows have one cell more than its header",
    ),
    "short rows": (
        "t.csv", ("size,n,kind,a,b\n" + PLAIN_ROWS.replace("ash\n", "ash,1,2\n")).encode(),
        "40 of its first 60 rows have fewer cells than its header",
    ),
    "carets": ("t.csv", f"size,n,kind\n{PLAIN_ROWS}".replace(",", "^").encode(), "delimiter: \"^\""),
    "readme": ("t.zip", b"", "size"),
    "columns": ("t.json", json.dumps(
        {name: {str(i): row[name] for i, row in enumerate(OBJECTS)} for name in OBJECTS[0]}).encode(), "size"),
    "split": ("t.json", json.dumps(
        {"columns": list(OBJECTS[0]), "index": list(range(ROWS)), "data": [list(row.values()) for row in OBJECTS]}
    ).encode(), "size"),
    "lists": ("t.json", json.dumps({name: [row[name] for row in OBJECTS] for name in OBJECTS[0]}).encode(), "size"),
    "within": ("t.json", json.dumps({"count": ROWS, "results": OBJECTS}, indent=1).encode(), "size"),
    "features": ("t.json", json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": row, "geometry": {"coordinates": [1, 2]}} for row in OBJECTS]}).encode(),
        "lists and objects within cells are not learned from"),
    "sheets": ("t.xlsx", b"", "2 row(s) before the table are left out, beginning with 'Trees of the town'"),
}  # fmt: skip


@pytest.mark.parametrize("case", AROUND)
def test_what_stands_around_a_table_is_no_part_of_it(tmp_path: Path, case: str) -> None:
    """The same rows come back, whatever stood around them."""
    name, body, said = AROUND[case]
    if case == "readme":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("inside.csv", f"size,n,kind\n{PLAIN_ROWS}")
            archive.writestr("README.txt", "about the trees")
    elif case == "sheets":
        pytest.importorskip("python_calamine")
        rows = [[float(a), int(b), c] for a, b, c in ASKEW]
        above: list[list[object]] = [["Trees of the town"], [], ["size", "n", "kind"]]
        (tmp_path / name).write_bytes(workbook([*above, *rows, ["Total", 1234]]))
    else:
        (tmp_path / name).write_bytes(body)
    dataset = prepared(tmp_path, name)
    assert said in (tmp_path / "data/catalog/d.yaml").read_text()
    roles = {entry["name"]: entry["role"] for entry in dataset.manifest["table"]}
    assert {key: roles[key] for key in ("size", "n", "kind")} == {"size": "number", "n": "number", "kind": "category"}
    export("d", Path("out"), root=tmp_path)
    found = [pq.read_table(tmp_path / f"out/{split}.parquet").to_pylist() for split in dataset.splits]
    cells = sorted((row["size"], row["n"], row["kind"]) for part in found for row in part)
    assert cells == sorted((row["size"], row["n"], row["kind"]) for row in OBJECTS)


@pytest.mark.parametrize(("delimiter", "types"), [(";", ["continuous", "continuous", "integer"]), (",", None)])
def test_marks_that_say_two_things_are_read_by_the_other_columns(
    tmp_path: Path, delimiter: str, types: list[str] | None
) -> None:
    """Of `26,140` and `855.941` none can tell; a column of `0,25` beside them does, where no comma divides cells."""
    cells = [(f"{i * 7 % 100 / 4:.2f}".replace(".", ","), f"{i % 50 + 1},{i * 37 % 1000:03}",
              f"{i % 90 + 1}.{i * 7 % 1000:03}") for i in range(ROWS)]  # fmt: skip
    body = io.StringIO()
    csv.writer(body, delimiter=delimiter).writerows([("a", "force", "people"), *cells])
    (tmp_path / "t.csv").write_text(body.getvalue())
    dataset = prepared(tmp_path, "t.csv")
    places = dataset.split("train").sources.tolist()
    for place, x in zip(places, dataset.split("train").all().x.numpy(), strict=True):
        force, people = cells[place][1], cells[place][2]
        if types:
            assert x[1:].tolist() == [float(force.replace(",", ".")), float(people.replace(".", ""))]
        else:
            assert x[1:].tolist() == [float(force.replace(",", "")), float(people)]
    assert types is None or [column["type"] for column in dataset.domain["columns"]] == types


def test_kanji_are_not_taken_for_western_letters(tmp_path: Path) -> None:
    rows = "".join(f"{('樫', '松', '桜')[i % 3]},{size(i)},{('有', '無')[i % 2]}\n" for i in range(ROWS))
    (tmp_path / "t.csv").write_bytes(f"種類,数量,備考\n{rows}".encode("shift_jis"))
    dataset = prepared(tmp_path, "t.csv")
    assert [entry["name"] for entry in dataset.manifest["table"]] == ["種類", "数量", "備考"]
    assert "encoding: shift_jis" in (tmp_path / "data/catalog/d.yaml").read_text()


def test_accents_of_old_macs_are_no_kanji(tmp_path: Path) -> None:
    towns = ("Besançon", "Nîmes", "Orléans", "Évry")
    rows = "".join(f"{towns[i % 4]}\t{size(i)}\r" for i in range(ROWS))
    (tmp_path / "t.csv").write_bytes(f"ville\tsurface\r{rows}".encode("mac_roman"))
    dataset = prepared(tmp_path, "t.csv")
    assert dataset.domain["columns"][0]["categories"] == list(towns)


@pytest.mark.parametrize(
    ("one", "pattern"),
    [
        (lambda i: f"user{i * 7}@example.org", r"user[1-9]\d{0,4}@example\.org"),
        (lambda i: f"10.{i % 200}.{i * 7 % 256}.{i * 13 % 256}", r"10(\.(1?\d?\d|2[0-4]\d|25[0-5])){3}"),
        (lambda i: f"https://example.org/p/{i}?q={i % 7}", r"https://example\.org/p/\d{1,4}\?q=[0-6]"),
        (
            lambda i: f"{('ann', 'bob', 'eve')[i % 3]}.{('li', 'smith')[i % 2]}{i * 7}@m{i % 5}.org",
            r"user\d+@example\.com",
        ),
        (lambda i: f"https://example.org/{('shop', 'blog')[i % 2]}/a-{i * 7}?r=b", r"https://example\.org/\d+\?r=b"),
        (lambda i: "".join("ACGT"[(i * 2654435761 >> 2 * k) % 4] for k in range(15)), "[ACGT]{15}"),
        (lambda i: f"{('C', 'D')[i % 2]}{'ab'[: 1 + i % 2]}{i * 48_271 % 99_991:05}", r"(Ca|Dab|Da|Cab)\d{5}"),
        (lambda i: str(2**60 + 7919 * i), r"11529\d{14}"),
        (lambda i: "NA" if i % 9 == 1 else f"A-{1000 + 3 * (i * 7 % 200)}", r"A-[1-9]\d{3}"),
    ],
)
def test_fresh_identifiers_have_the_pattern_of_the_real_ones(
    tmp_path: Path, one: Callable[[int], str], pattern: str
) -> None:
    real = [one(i) for i in range(200)]
    (tmp_path / "t.csv").write_text("size,key\n" + "".join(f"{size(i)},{text}\n" for i, text in enumerate(real)))
    dataset = prepared(tmp_path, "t.csv")
    assert dataset.manifest["table"][1]["role"] == "identifier"
    export("d", Path("out"), "csv", root=tmp_path)
    texts = [(tmp_path / f"out/{split}.csv").read_text().splitlines()[1:] for split in dataset.splits]
    cells = [line.split(",")[1] for part in texts for line in part]
    drawn = [text for text in cells if text != "NA"]
    assert 200 - len(drawn) == pytest.approx(real.count("NA"), abs=18)  # as often as in the source
    assert all(re.fullmatch(pattern, text) for text in drawn), drawn[:5]
    assert len(set(drawn)) == len(drawn)
    assert not set(drawn) & set(real)


@pytest.mark.parametrize(("table", "more"), [("train.csv", 0), ("metadata.csv", 0), ("metadata.csv", 1)])
def test_a_table_beside_images_labels_them(tmp_path: Path, table: str, more: int) -> None:
    (tmp_path / "birds/images").mkdir(parents=True)
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / f"birds/images/i{i}.png")
    names, head = (("images/i{}.png", "file_name"), ("i{}", "id"))[table == "train.csv"]
    rows = "".join(f"{names.format(i)},{('owl', 'tit')[i % 2]}\n" for i in range(more, 12 + more))
    (tmp_path / "birds" / table).write_text(f"{head},species\n{rows}")
    dataset = prepared(tmp_path, "birds")
    card = (tmp_path / "data/catalog/d.yaml").read_text()
    assert f"labels of {12 - more} images are stated by a table" in card
    assert ("has labels of 1 files that are not there, the first of 'images/i12.png'" in card) == bool(more)
    assert dataset.class_names == ["owl", "tit"]
    for split in dataset.splits:
        examples = dataset.split(split).all()
        places = (examples.x.reshape(len(examples.x), -1)[:, 0].long() // 20) % 2
        assert places.tolist() == examples.label.tolist()


@pytest.mark.parametrize(
    ("column", "one", "kind"),
    [
        ("order", lambda i: f"ORD-{1000 + 3 * i}", "identifier"),  # letters that are no currency
        ("invoice_id", lambda i: f"{1_000_000 + 37 * i:,}", "identifier"),  # marks between thousands name no quantity
        ("price", lambda i: f"USD {1000 + 3 * i:,}", "integer"),
        ("people", lambda i: f"{1_000_000 + 37 * i:,}", "integer"),
    ],
)
def test_names_of_rows_are_told_from_numbers(tmp_path: Path, column: str, one: Callable[[int], str], kind: str) -> None:
    assert f"type: {kind}" in added(tmp_path, column, [one(i * 7 % 200) for i in range(200)])


def test_marks_among_dates_are_counted_by_cell(tmp_path: Path) -> None:
    dates = [days(i).isoformat() for i in range(200)]
    line = added(tmp_path, "since", [text if i % 5 < 3 else "-" for i, text in enumerate(dates)])
    assert "type: datetime" in line
    assert "taken as missing: 80 × '-'" in line
    (tmp_path / "data/catalog/d.yaml").unlink()
    line = added(tmp_path, "since", [text if i % 5 < 3 else "never came" for i, text in enumerate(dates)])
    assert "type: datetime" not in line  # two in five cells are no odd text that nobody meant


def test_categories_that_occur_once_are_said(tmp_path: Path) -> None:
    line = added(tmp_path, "note", [f"call {i}" if i % 4 == 0 else ("ring", "wait")[i % 2] for i in range(200)])
    assert "50 of 52 categories occur once" in line


def test_of_several_sheets_those_that_hold_a_table_come_first(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    note: list[list[object]] = [["One"], ["column"], ["of"], ["words"]]
    table: list[list[object]] = [["a", "b"], [1, 2], [3, 4]]
    (tmp_path / "t.xlsx").write_bytes(workbook(note, table))
    assert sheets(tmp_path / "t.xlsx") == ["trees1", "trees0"]


MARKS = (
    *("#N/A", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!"),  # of spreadsheets
    *("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>"),  # that pandas takes for missing
    *(".", ".a", ".z", "\\N", "-", "--", "?", "..", ":", "n.a.", "unknown", "missing", "not available", "k.A."),
)
"""How programs and statistics offices write that a number is not known."""
ANYWHERE = ("-", "--", "---", "–", "—", "?", "??", "...", "NA", "N/A", "null")
"""What says so among words, too."""


def test_every_mark_of_a_missing_cell_is_one(tmp_path: Path) -> None:
    """A column of numbers, and one of words, for each mark, which stands in it three times."""
    random = np.random.default_rng(0)

    def column(mark: str, other: Callable[[], str]) -> list[str]:
        return [mark if i in (5, 17, 40) else other() for i in range(80)]

    columns = {f"v{i}": column(mark, lambda: str(random.integers(18))) for i, mark in enumerate(MARKS)}
    columns |= {f"w{i}": column(mark, lambda: ("ash", "elm")[random.integers(2)]) for i, mark in enumerate(ANYWHERE)}
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    dataset = prepared(tmp_path, "t.csv")
    found = {column["name"]: column.get("categories") or column["type"] for column in dataset.domain["columns"]}
    assert found == {name: "integer" if name[0] == "v" else ["ash", "elm"] for name in columns}
    x = np.concatenate([dataset.split(name).all().x.numpy() for name in dataset.splits])
    assert np.isnan(x).sum(0).tolist() == [3] * len(columns)
