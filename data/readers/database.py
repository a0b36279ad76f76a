"""What a query asks of a database, as a table: SQLite by the standard library, DuckDB by an extra."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from data.readers.base import IngestReport
from data.readers.dialects import column_names
from data.readers.json_rows import kind_of
from data.readers.jsonlines import batch_of, type_of
from data.readers.raw_table import RawBatch, RawTable, one_line

ROWS = 1 << 15


def tables(path: Path) -> list[str]:
    """Names of the tables and views of a database."""
    if is_sqlite(path):
        with _sqlite(path) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
            return [name for (name,) in found]
    with _connected(path) as database:
        found = database.execute("SELECT table_name FROM information_schema.tables ORDER BY table_name").fetchall()
        return [name for (name,) in found]


def open_query(path: Path, query: str) -> RawTable:
    """Look at the result of a query; it is asked again whenever it is read, and streamed.

    Raises:
        ImportError: If duckdb is not installed.
        ValueError: If the query is refused.
    """
    if is_sqlite(path):
        return _open_sqlite(path, query)
    with _asked(path, f"SELECT * FROM ({query.strip().rstrip(';')}) LIMIT 0") as reader:
        schema = reader.schema
    names, notes = column_names(schema.names)
    types = dict(zip(names, schema.types, strict=True))

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        start = 0
        with _asked(path, query) as reader:
            for batch in reader:
                rows = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                columns = dict(zip(names, batch.columns, strict=True))
                yield RawBatch(file=path, rows=rows + 1, positions=rows, split=-1, columns=columns)

    return RawTable(
        name=f"{path} ({query})", names=names, types=types, batches=batches, notes=notes,
        titles={name: title for name, title in zip(names, schema.names, strict=True) if name != title},
    )  # fmt: skip


@contextmanager
def _connected(path: Path) -> Iterator[Any]:
    try:
        import duckdb
    except ImportError:
        raise ImportError(
            f"{path} is a database: reading it takes duckdb. Run `pip install 'fivefold[files]'`."
        ) from None
    try:
        with duckdb.connect(str(path), read_only=True) as database:
            yield database
    except duckdb.Error as error:
        raise ValueError(f"{path}: the database refuses: {one_line(error)}") from None


@contextmanager
def _asked(path: Path, query: str) -> Iterator[pa.RecordBatchReader]:
    with _connected(path) as database:
        yield database.sql(query).to_arrow_reader(ROWS)


def is_sqlite(path: Path) -> bool:
    """Whether a file is an SQLite database."""
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


@contextmanager
def _sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        yield database
    except sqlite3.Error as error:
        raise ValueError(f"{path}: the database refuses: {one_line(error)}") from None
    finally:
        database.close()


def _open_sqlite(path: Path, query: str) -> RawTable:
    """SQLite's cells have types of their own: those of a column are found by reading it once."""
    with _sqlite(path) as database:
        cursor = database.execute(query)
        originals = [item[0] for item in cursor.description]
        seen: list[Counter[str]] = [Counter() for _ in originals]
        while rows := cursor.fetchmany(ROWS):
            for counter, cells in zip(seen, zip(*rows, strict=True), strict=True):
                counter.update(map(kind_of, cells))
    names, notes = column_names(originals)
    kinds = {name: type_of(counter) for name, counter in zip(names, seen, strict=True)}

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        start = 0
        with _sqlite(path) as database:
            cursor = database.execute(query)
            while rows := cursor.fetchmany(ROWS):
                kept = [(start + i + 1, dict(zip(names, row, strict=True))) for i, row in enumerate(rows)]
                start += len(rows)
                yield batch_of(path, -1, kept, names, names, kinds, 0)

    return RawTable(name=f"{path} ({query})", names=names, types=kinds, batches=batches, notes=notes)
