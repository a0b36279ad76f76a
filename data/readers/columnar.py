"""Files that state the types of their columns, as one table: the same for Parquet, Arrow and others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from data.readers.base import IngestReport
from data.readers.dialects import column_names
from data.readers.raw_table import RawBatch, RawTable, absent_notes, partial_columns, splits_of, united, with_columns


def columnar(
    path: Path,
    files: list[Path],
    schemas: list[pa.Schema],
    read: Callable[[Path, list[str]], Iterator[pa.RecordBatch]],
) -> RawTable:
    """A table of files that state the types of their columns.

    Arguments:
        path: The source.
        files: Its files.
        schemas: Theirs.
        read: Reads columns of a file.
    """
    splits = splits_of(path, files)
    noted = by_pandas(schemas[0])
    within = [list(schema.names) for schema in schemas]
    folders = partitions(path, files)
    schemas = [_of(folder, plain(schema.empty_table())).schema for schema, folder in zip(schemas, folders, strict=True)]
    listed = [list(schema.names) for schema in schemas]
    for file, found in zip(files, listed, strict=True):
        repeated = sorted({name for name in found if found.count(name) > 1})
        if repeated:
            raise ValueError(
                f"{file}: {', '.join(map(repr, repeated))} names more than one column. Rename the columns."
            )
    originals = united(listed, files, splits)
    names, renamed = column_names(originals)
    types: dict[str, pa.DataType] = {}
    for file, schema in zip(files, schemas, strict=True):
        for original, name in zip(originals, names, strict=True):
            if original in schema.names:
                types[name] = _common(types.get(name), schema.field(original).type, name, file, files[0])

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        offset = 0
        for file, found, folder, split in zip(files, within, folders, splits, strict=True):
            start = 0
            for batch in read(file, found):
                rows = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                part = _of(folder, plain(pa.Table.from_batches([batch]))).combine_chunks()
                held = {name: _chunk(part[name]) for name in part.schema.names}
                _check_texts(held, file)
                columns = {
                    name: held[original] if held[original].type == types[name] else held[original].cast(types[name])
                    for original, name in zip(originals, names, strict=True)
                    if original in held
                }
                raw = RawBatch(file=file, rows=rows + 1, positions=rows + offset, split=split, columns=columns)
                yield with_columns(raw, names, types)
            offset += start

    return RawTable(
        name=str(path), names=names, types=types, batches=batches,
        titles={name: original for name, original in zip(names, originals, strict=True) if name != original},
        notes=renamed + absent_notes(listed, files, originals),
        partial=partial_columns(listed, originals, names), pandas=noted,
    )  # fmt: skip


def by_pandas(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What pandas noted of its columns by name: their types (nullable ones, too), and which are the `index`."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        if len(noted.get("column_indexes") or ()) > 1:  # columns on several levels are called otherwise here
            return {}
        index = [name for name in noted.get("index_columns", ()) if isinstance(name, str)]
        columns = {str(column["field_name"]): column for column in noted.get("columns", ())}
        return {name: {**column, "index": name in index} for name, column in columns.items()}
    except (ValueError, KeyError, TypeError, AttributeError):  # a stranger's
        return {}


def _common(known: pa.DataType | None, found: pa.DataType, name: str, file: Path, first: Path) -> pa.DataType:
    """The type that holds the cells of both.

    Raises:
        ValueError: If they are of different kinds.
    """
    if known is None or known == found or pa.types.is_null(found):
        return known or found
    if pa.types.is_null(known):
        return found
    numeric = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (known, found)]
    if all(numeric):
        return pa.float64() if not (pa.types.is_integer(known) and pa.types.is_integer(found)) else pa.int64()
    raise ValueError(
        f"{file}: column {name!r} has type {found}, in {first.name} it has {known}. "
        "Write all files with the same types."
    )


def _check_texts(columns: dict[str, pa.Array], file: Path) -> None:
    """Make sure that what a file states to be text is.

    Raises:
        ValueError: If a column of text holds other bytes than UTF-8.
    """
    for name, column in columns.items():
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{file}: column {name!r} holds cells that are no {column.type}, so the file is damaged or was written "
                f"wrongly: {' '.join(str(error).split())}. Write it anew."
            ) from None


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def plain(table: pa.Table) -> pa.Table:
    """A table whose structs are columns of their own (`address.city`), UUIDs and the like texts or numbers.

    Views of texts, as polars writes them for categories, become texts, which Arrow decodes.
    """
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.UuidType):
            texts = [str(cell) if cell else None for cell in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
        elif isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name.startswith("arrow."):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.storage_type))
        elif pa.types.is_dictionary(field.type) and field.type.value_type == pa.string_view():
            texts = pa.dictionary(field.type.index_type, pa.string())
            chunks = [
                pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.string()))
                for chunk in table.column(place).chunks
            ]
            table = table.set_column(place, field.name, pa.chunked_array(chunks, texts))
    return table


def partitions(path: Path, files: list[Path]) -> list[dict[str, Any]]:
    """The cells that the folders of each file state for all of its rows (`year=2020/city=Lyon`), as Hive names them."""
    found = [
        {
            key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
            for key, equals, value in (part.partition("=") for part in file.relative_to(path).parts[:-1])
            if key and equals
        }
        if path.is_dir()
        else {}
        for file in files
    ]
    for name in dict.fromkeys(name for cells in found for name in cells):
        texts = [cells[name] for cells in found if cells.get(name) is not None]
        if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", text) for text in texts):
            for cells in found:
                cells[name] = int(cells[name]) if cells.get(name) is not None else None
    return found


def _of(folder: dict[str, Any], table: pa.Table) -> pa.Table:
    for name, cell in folder.items():
        if name not in table.schema.names:
            kind = pa.int64() if isinstance(cell, int) else pa.string() if isinstance(cell, str) else pa.null()
            table = table.append_column(name, pa.array([cell] * table.num_rows, kind))
    return table
