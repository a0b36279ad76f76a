"""Prepared data as files that other tools read, one per split.

Images are PNG bytes, so that every reader can show them and the file stays small; the cells of tables
have their original names, types, formats, categories and gaps. Both are exact; what is not learned
(identifiers, free text) has its place.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from data.cards import Source
from data.dataset import Dataset
from data.domains.table import PLAIN, category_array
from data.files import whole_folder
from data.formats import DAY, UNITS, SourceTable, as_text, is_plain
from data.image_grid import png

ROWS = 4096


def export_parquet(dataset: Dataset, out: Path, label: str = "label") -> dict[str, int]:
    """Write every split as `<split>.parquet`.

    Arguments:
        dataset: Prepared data.
        out: The folder to write; whole or untouched.
        label: Name of the column of classes of images.
    Returns:
        Rows of each split.
    Raises:
        FileExistsError: If `out` holds something else than an earlier export.
        ValueError: If the dataset is damaged.
    """
    _check_out(out, ".parquet")
    schema = _schema(dataset, label)
    with whole_folder(out) as folder:
        for name in dataset.splits:
            with pq.ParquetWriter(folder / f"{name}.parquet", schema, write_page_checksum=True) as writer:
                for batch in _batches(dataset, name, schema):
                    writer.write_batch(batch)
    return {name: len(dataset.split(name)) for name in dataset.splits}


def _schema(dataset: Dataset, label: str) -> pa.Schema:
    if dataset.kind == "table":
        table = source_table(dataset)
        return pa.schema([pa.field(entry["name"], entry_type(entry)) for entry in table.written])
    fields = [pa.field("image", pa.binary())]
    if dataset.class_names:
        fields.append(pa.field(label, pa.dictionary(pa.int32(), pa.string())))
    return pa.schema(fields)


def source_table(dataset: Dataset) -> SourceTable:
    """The table as its source has it."""
    columns = dataset.domain["columns"]
    return SourceTable(source=dataset.manifest["table"], columns=columns, class_names=dataset.class_names)


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
            return known
    return pa.dictionary(pa.int32(), pa.string()) if role in ("category", "label") else pa.string()


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


def _batches(dataset: Dataset, split: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    examples = dataset.split(split)
    if dataset.kind == "table":
        for start, cells in table_cells(dataset, split):
            del start
            arrays = [as_array(cells[field.name], field.type) for field in schema]
            yield pa.record_batch(arrays, schema=schema)
        return
    for start in range(0, len(examples), ROWS):
        part = examples.slice(start, start + ROWS)
        arrays = [pa.array([png(image, smallest=False) for image in part.x.numpy()], pa.binary())]
        if dataset.class_names:
            arrays.append(category_array(part.label.numpy(), dataset.class_names))
        yield pa.record_batch(arrays, schema=schema)


def table_cells(dataset: Dataset, split: str) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """The source's columns, some thousand rows at a time, with the row each starts at."""
    table, examples = source_table(dataset), dataset.split(split)
    whole = {entry["name"] for entry in table.written if entry["role"] == "identifier"}
    fresh = {}
    if whole:  # identifiers are drawn for all splits together, so that none comes twice
        counts = [len(dataset.split(name)) for name in dataset.splits]
        before = sum(counts[: dataset.splits.index(split)])
        only = SourceTable(source=[e for e in table.source if e["name"] in whole], columns=table.columns)
        drawn = only.cells(np.full((sum(counts), len(table.columns)), np.nan))
        fresh = {name: texts[before : before + len(examples)] for name, texts in drawn.items()}
    for start in range(0, len(examples), ROWS):
        part = examples.slice(start, start + ROWS)
        cells = table.cells(part.x.numpy(), part.label.numpy())
        cells.update({name: texts[start : start + ROWS] for name, texts in fresh.items()})
        yield start, cells


def as_array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Cells of `SourceTable` as a column of a type."""
    if pa.types.is_dictionary(kind):
        return pa.array(cells, pa.string()).dictionary_encode()
    if pa.types.is_string(kind):
        return pa.array([None if cell is None else str(cell) for cell in cells], kind)
    if cells and any(isinstance(cell, str) for cell in cells):  # a constant, an identifier, a category of numbers
        texts = pa.array(cells, pa.string())
        return texts.cast(kind) if not pa.types.is_boolean(kind) else pa.compute.equal(texts, "true")
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
        return pa.array(
            np.array([np.nan if c is None else c for c in cells], np.float16), mask=[c is None for c in cells]
        )
    return pa.array(cells, kind)


def export_text(dataset: Dataset, out: Path, form: str, source: Source) -> dict[str, int]:
    """Write every split of a table as text, each cell as the source has it: `<split>.csv` or `<split>.jsonl`.

    Arguments:
        dataset: Prepared data.
        out: The folder to write; whole or untouched.
        form: `csv` or `jsonl`.
        source: Of the card: delimiter, encoding and header, if it is delimited text.
    Returns:
        Rows of each split.
    Raises:
        FileExistsError: If `out` holds something else than an earlier export.
        ValueError: If the dataset holds no table.
    """
    if dataset.kind != "table":
        raise ValueError(f"{dataset.name} holds images: they are exported as Parquet only.")
    _check_out(out, f".{form}")
    text = source if source.format == "csv" else Source(encoding="utf-8")
    entries = source_table(dataset).written
    with whole_folder(out) as folder:
        for name in dataset.splits:
            encoding = text.encoding if form == "csv" else "utf-8"
            with (folder / f"{name}.{form}").open("w", encoding=encoding, newline="") as file:
                writer = csv.writer(file, delimiter=text.delimiter, lineterminator="\n")
                if form == "csv" and text.header == "first":
                    writer.writerow([entry["title"] for entry in entries])
                for _, cells in table_cells(dataset, name):
                    columns = [cells[entry["name"]] for entry in entries]
                    if form == "csv":
                        written = [_texts(column, entry) for column, entry in zip(columns, entries, strict=True)]
                        writer.writerows(zip(*written, strict=True))
                        continue
                    for row in zip(*columns, strict=True):
                        pairs = zip(entries, row, strict=True)
                        file.write(json.dumps({e["title"]: _json(c, e) for e, c in pairs}, ensure_ascii=False) + "\n")
    return {name: len(dataset.split(name)) for name in dataset.splits}


def _texts(cells: Sequence[Any], entry: Mapping[str, Any]) -> list[str]:
    kind = named_type(entry["dtype"])
    if kind is not None and pa.types.is_temporal(kind):
        mark = entry.get("mark", "")
        cells = as_array(cells, kind).cast(pa.string()).to_pylist() if not pa.types.is_duration(kind) else cells
        return [mark if cell is None else str(cell) for cell in cells]
    return as_text(cells, entry)


def _json(cell: Any, entry: Mapping[str, Any]) -> Any:
    """A cell as JSON has it: booleans and numbers of their own type."""
    if not isinstance(cell, str):
        return cell
    if entry["dtype"] == "bool":
        return cell == "true"
    if entry["role"] != "text" and str(entry["dtype"]).startswith(("int", "float")):
        return float(cell) if str(entry["dtype"]).startswith("float") else int(cell)
    return cell


def _check_out(out: Path, suffix: str) -> None:
    foreign = sorted(path.name for path in out.iterdir() if path.suffix != suffix) if out.is_dir() else []
    if foreign or (out.exists() and not out.is_dir()):
        raise FileExistsError(f"{out} holds other things ({', '.join(foreign[:3])}). Export to a folder of its own.")
