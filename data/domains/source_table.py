"""Cells of prepared tables as their source had them, for exports: types, formats, gaps, what is not learned."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data.cards import Source
from data.domains.base import Parts
from data.formats import DAY, UNITS, DurationFormat, Part, SourceTable, as_text, is_plain, whole_type

PLAIN = {
    "bool": pa.bool_(), "float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64(),
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
    "uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(),
}  # fmt: skip
"""Types by the names that `data.readers.columns.type_name` gives them."""
UNUSED = "\x1f"
"""A character that no text of a table holds."""


def source_table(manifest: Mapping[str, Any]) -> SourceTable:
    """The table as its source has it."""
    columns = manifest["domain"]["columns"]
    return SourceTable(
        source=manifest["table"], columns=columns, class_names=manifest["class_names"],
        stated=manifest.get("constraints"),
    )  # fmt: skip


def entry_type(entry: Mapping[str, Any]) -> pa.DataType:
    """The type a column had in its source, or the nearest that holds its values exactly.

    Arguments:
        entry: Of the manifest's `table`.
    """
    dtype, role = entry["dtype"], entry["role"]
    if role == "text":
        return pa.string()
    if not (role == "number" and not is_plain(entry["pattern"])):
        known = named_type(dtype)
        if known is not None:
            return pa.dictionary(pa.int32(), known) if entry.get("dictionary") and role == "category" else known
    return pa.dictionary(pa.int32(), pa.string()) if entry.get("dictionary") else pa.string()


def named_type(dtype: str) -> pa.DataType | None:
    """A type by the name that `data.readers.columns.type_name` gives it; `None` for text."""
    if dtype in PLAIN:
        return PLAIN[dtype]
    found = re.fullmatch(r"(timestamp|time32|time64|duration)\[(s|ms|us|ns)(?:, tz=(.+))?\]", dtype)
    if found is not None:
        make = getattr(pa, found[1])
        return make(found[2], found[3]) if found[3] else make(found[2])
    found = re.fullmatch(r"(decimal\d+)\((\d+), (-?\d+)\)", dtype)
    if found is not None:
        return getattr(pa, found[1])(int(found[2]), int(found[3]))
    return {"date32[day]": pa.date32(), "date64[ms]": pa.date64()}.get(dtype)


def fields(manifest: Mapping[str, Any]) -> list[pa.Field]:
    """The source's columns as they are exported."""
    kinds = {entry["name"]: entry_type(entry) for entry in source_table(manifest).written}
    wholes = [name for name, kind in kinds.items() if pa.types.is_integer(kind)]
    for name, texts in _identifiers(manifest, wholes).items():  # fresh ones may be longer than those of the source
        kinds[name] = named_type(whole_type([int(text) for text in texts if text], str(kinds[name]))) or pa.string()
    return [pa.field(name, kind) for name, kind in kinds.items()]


def pandas_notes(manifest: Mapping[str, Any], columns: Sequence[pa.Field]) -> dict[bytes, bytes]:
    """What pandas noted in the source of the columns that come back in their type, for it to read them as they were."""
    kinds = {column.name: column.type for column in columns}
    noted = [
        entry["pandas"] for entry in manifest.get("table", ())
        if "pandas" in entry and kinds.get(entry["name"], pa.null()) == entry_type(entry)
    ]  # fmt: skip
    index = [column["field_name"] for column in noted if column["index"]]
    rest = [{key: value for key, value in column.items() if key != "index"} for column in noted]
    notes = {"index_columns": index, "column_indexes": [], "columns": rest, "pandas_version": "3.0.0"}
    return {b"pandas": json.dumps(notes).encode()} if noted else {}


def _identifiers(manifest: Mapping[str, Any], among: Sequence[str] | None = None) -> dict[str, list[str | None]]:
    """Fresh identifiers by column, drawn for all splits together, so that none comes twice."""
    table = source_table(manifest)
    source = [entry for entry in table.written if entry["role"] == "identifier"]
    chosen = [entry["name"] for entry in source if among is None or entry["name"] in among]
    if not chosen:
        return {}
    count = sum(entry["count"] for entry in manifest["splits"].values())
    drawn = SourceTable(source=source, columns=table.columns).cells(np.full((count, len(table.columns)), np.nan))
    return {name: drawn[name] for name in chosen}


def table_cells(manifest: Mapping[str, Any], split: str, parts: Parts) -> Iterator[dict[str, list[Any]]]:
    """The source's columns, a part of the split at a time."""
    table = source_table(manifest)
    counts = {name: entry["count"] for name, entry in manifest["splits"].items()}
    start = sum(list(counts.values())[: list(counts).index(split)])
    fresh = _identifiers(manifest)
    for x, label in parts:
        cells = table.cells(x, label)
        cells.update({name: texts[start : start + len(x)] for name, texts in fresh.items()})
        start += len(x)
        yield cells


def as_array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Cells of `SourceTable` as a column of a type."""
    if pa.types.is_dictionary(kind):
        return pa.array(cells, pa.string()).cast(kind.value_type).dictionary_encode()
    if pa.types.is_string(kind):
        return pa.array([None if cell is None else str(cell) for cell in cells], kind)
    if cells and any(isinstance(cell, str) for cell in cells):  # a constant, an identifier, a category of numbers
        texts = pa.array(cells, pa.string())
        return texts.cast(kind)
    if pa.types.is_decimal(kind):
        return pa.array(cells, pa.float64()).cast(kind)
    if pa.types.is_temporal(kind):
        if pa.types.is_date(kind):
            days = pa.array([None if cell is None else cell // DAY for cell in cells], pa.int32()).cast(pa.date32())
            return days.cast(kind)
        unit = UNITS[kind.unit]  # pyright: ignore[reportAttributeAccessIssue]
        counts = [None if cell is None else cell // unit for cell in cells]
        return pa.array(counts, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    if pa.types.is_float16(kind):
        halves = np.array([np.nan if cell is None else cell for cell in cells], np.float16)
        return pa.array(halves, mask=np.array([cell is None for cell in cells], np.bool_))
    return pa.array(cells, kind)


def write_text(manifest: Mapping[str, Any], split: str, parts: Parts, path: Path, form: str, source: Source) -> None:
    """Write a split as text, each cell as the source has it.

    Arguments:
        manifest: Of the dataset.
        split: Its name.
        parts: Its examples.
        path: The file.
        form: `csv` or `jsonl`.
        source: Of the card: delimiter, encoding and header, if it is delimited text.
    """
    text = source if source.format == "csv" else Source(encoding="utf-8")
    entries = source_table(manifest).written
    encoding = text.encoding if form == "csv" else "utf-8"
    with path.open("w", encoding=encoding, newline="") as file:
        double = len(text.delimiter) > 1
        writer = csv.writer(
            _Between(file, text.delimiter) if double else file,
            delimiter=UNUSED if double else text.delimiter,
            lineterminator="\n",
        )
        if form == "csv" and text.header == "first":
            writer.writerow([entry["title"] for entry in entries])
        for cells in table_cells(manifest, split, parts):
            columns = [cells[entry["name"]] for entry in entries]
            if form == "csv":
                written = [_texts(column, entry) for column, entry in zip(columns, entries, strict=True)]
                writer.writerows(zip(*written, strict=True))
                continue
            titles = [entry["title"] for entry in entries]
            written = [_values(column, entry) for column, entry in zip(columns, entries, strict=True)]
            for row in zip(*written, strict=True):
                file.write(json.dumps(dict(zip(titles, row, strict=True)), ensure_ascii=False) + "\n")


class _Between:
    """A file in which more than one character stands between cells: they come with one that no text holds."""

    def __init__(self, file: IO[str], delimiter: str) -> None:
        self._file, self._delimiter = file, delimiter

    def write(self, text: str) -> int:
        """Write a row."""
        return self._file.write(text.replace(UNUSED, self._delimiter))


def _texts(cells: Sequence[Any], entry: Mapping[str, Any]) -> list[str]:
    kind = named_type(entry["dtype"])
    if kind is None or not pa.types.is_temporal(kind) or entry["role"] == "text":
        return as_text(cells, entry)
    return as_text(_moment_texts(cells, entry, kind), entry)


def _moment_texts(cells: Sequence[Any], entry: Mapping[str, Any], kind: pa.DataType) -> list[str | None]:
    """Native dates, times and durations as texts: `2021-02-10`, `1 days 02:30:00`."""
    if any(isinstance(cell, str) for cell in cells):  # a constant, as it was written
        return list(cells)
    if not pa.types.is_duration(kind):
        return as_array(cells, kind).cast(pa.string()).to_pylist()
    step = Part.parse(entry["parts"][0]).step
    digits = next(digits for digits in (0, 3, 6, 9) if step * 10**digits % UNITS["s"] == 0)
    form = DurationFormat("D days HH:MM:SS" + ("." + "f" * digits if digits else ""))
    return [None if cell is None else form.text(0, cell, 0) for cell in cells]


def _values(cells: Sequence[Any], entry: Mapping[str, Any]) -> Sequence[Any]:
    """Cells as JSON has them: booleans and numbers of their own type, dates, times and durations as texts."""
    kind = named_type(entry["dtype"])
    if kind is None or entry["role"] == "text":
        return cells
    if pa.types.is_temporal(kind):
        return _moment_texts(cells, entry, kind)
    if pa.types.is_boolean(kind):
        return [cell.lower() == "true" if isinstance(cell, str) else cell for cell in cells]
    number = int if pa.types.is_integer(kind) else float
    return [number(cell) if isinstance(cell, str) else cell for cell in cells]
