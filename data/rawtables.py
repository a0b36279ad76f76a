"""Files of tables as batches of raw columns, with the place of every row kept for messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.cards import SPLITS, Card
from data.dialects import BLANKS, Body, Dialect, Heading, column_names, heading
from data.encodings import Decoded
from data.fetching import tree
from data.findings import Findings
from data.reading import SPLIT_NAMES, UNPUBLISHED
from data.streams import Readable, inflated

BLOCK_BYTES = 1 << 19  # pyarrow reads up to 32 blocks ahead
PARQUET_ROWS = 1 << 15
FOREIGN = {
    b"PK\3\4": "a zip archive or an Excel workbook: name it .zip or .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: name it .xls",
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"\x1f\x8b": "compressed with gzip: name it .csv.gz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: name it .csv.zst",
    b"SQLite format 3": "an SQLite database: name it .sqlite, and give a query",
    b"%PDF": "a PDF document: export the table as CSV",
    b"<!doctype": "a web page: fetch the file itself",
    b"<html": "a web page: fetch the file itself",
}
"""How files begin that are named like CSV and are something else."""
COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst", ".zip")
CSV_SUFFIXES = tuple(name + end for name in (".csv", ".tsv", ".txt", ".tab", ".data", ".dat") for end in COMPRESSED)
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBatch:
    """Some rows of a table as its files hold them.

    Arguments:
        file: Where they come from.
        rows: Row numbers for people: in CSV the header is row 1, in Parquet the first row is 1, `[n]`.
        positions: Positions in the whole source, from 0, `[n]`.
        split: Index into `SPLITS` of the file's published split, -1 where none is.
        columns: The columns by name; those of CSV files are text.
    """

    file: Path
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    split: int
    columns: dict[str, pa.Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class RawTable:
    """A table that has been looked at.

    Arguments:
        name: What messages call it.
        names: Names of the columns, each its own.
        types: Original types of the columns; `pa.binary()` where a text file leaves them open.
        batches: Reads it from the start, noting bad rows.
        titles: Names as the source has them, where they are others.
        notes: What was found that a person should know.
    """

    name: str
    names: list[str]
    types: dict[str, pa.DataType]
    batches: Callable[[Findings], Iterator[RawBatch]]
    titles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_raw(card: Card, path: Path) -> RawTable:
    """Look at the files of a table and make sure that they agree.

    Raises:
        ValueError: If a file is empty, damaged, or has other columns than the first.
    """
    from data.arrowfiles import open_arrow
    from data.databases import open_query
    from data.jsonlines import open_json_lines
    from data.workbooks import open_workbook

    form = card.source.format
    if form == "sql":
        return open_query(path, card.source.query)
    if form == "excel":
        return open_workbook(path, card.source)
    files = table_files(path, SUFFIXES[form])
    if form == "jsonl":
        return open_json_lines(path, files, card.source.encoding)
    if form == "arrow":
        return open_arrow(path, files)
    if form == "parquet":
        return _parquet(path, files)
    source = card.source
    dialect = Dialect(encoding=source.encoding, delimiter=source.delimiter, header=source.header, skip=source.skip)
    return _csv(path, files, dialect)


JSON_SUFFIXES = tuple(name + end for name in (".jsonl", ".ndjson", ".json") for end in COMPRESSED)
ARROW_SUFFIXES = (".feather", ".arrow", ".ipc", ".ftr")
EXCEL_SUFFIXES = (".xlsx", ".xls", ".xlsb", ".xlsm", ".ods")
SQL_SUFFIXES = (".duckdb", ".db", ".sqlite", ".sqlite3", ".ddb")
SUFFIXES = {
    "csv": CSV_SUFFIXES, "jsonl": JSON_SUFFIXES, "parquet": PARQUET_SUFFIXES, "arrow": ARROW_SUFFIXES,
    "excel": EXCEL_SUFFIXES, "sql": SQL_SUFFIXES,
}  # fmt: skip
"""How the files of each format are named."""


def table_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a table, in the order of their names.

    Raises:
        ValueError: If there are none.
    """
    if path.is_file():
        return [path]
    files = [file for _, file in tree(path) if file.name.lower().endswith(suffixes) and not file.name.startswith("_")]
    if not files:
        raise ValueError(f"{path} holds no files named {', '.join('*' + suffix for suffix in suffixes)}.")
    return files


def splits_of(path: Path, files: list[Path]) -> list[int]:
    """The published split of each file by the words of its name or folder; all or none have one."""
    found = []
    for file in files:
        inside = file.relative_to(path) if path.is_dir() else Path(file.name)
        words = (
            inside.as_posix().lower().replace("-", " ").replace("_", " ").replace("/", " ").replace(".", " ").split()
        )
        named = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
        found.append(SPLITS.index(named[0]) if named else UNPUBLISHED)
    if UNPUBLISHED in found or len(set(found)) < 2:
        return [UNPUBLISHED] * len(files)
    return found


class _Watched:
    """A stream that counts the quotation marks passing through it and keeps its end."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.quotes = 0
        self.end = b""
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self.quotes += piece.count(b'"')
        self.end = (self.end + piece)[-4096:] if piece else self.end
        return piece

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def check_kind(path: Path) -> None:
    """Make sure that a file named like a text file is one.

    Raises:
        ValueError: If it is something else, or empty.
    """
    with closing(inflated(path)) as stream:
        head = stream.read(1 << 12)
    for start, what in FOREIGN.items():
        if head.lstrip()[: len(start)].lower() == start.lower():
            raise ValueError(f"{path} is not a CSV file but {what}.")


def _csv(path: Path, files: list[Path], dialect: Dialect) -> RawTable:
    for file in files:
        check_kind(file)
    heads = [heading(file, dialect) for file in files]
    splits = splits_of(path, files)
    names = united([head.names for head in heads], files, splits)
    notes = list(dict.fromkeys(note for head in heads for note in head.notes))
    notes += absent_notes([head.names for head in heads], files, names)
    titles = {
        name: title
        for head in heads
        for name, title in zip(head.names, head.titles, strict=False)
        if name != title or not head.titles
    }

    def batches(findings: Findings) -> Iterator[RawBatch]:
        offset = 0
        for file, head, split in zip(files, heads, splits, strict=True):
            last = head.first_row - 1
            for batch in _csv_batches(file, head, split, dialect, findings, offset):
                last = int(batch.rows[-1]) if len(batch.rows) else last
                yield with_columns(batch, names)
            offset += last - head.first_row + 1

    return RawTable(
        name=str(path),
        names=names,
        types=dict.fromkeys(names, pa.binary()),
        batches=batches,
        titles=titles,
        notes=notes,
    )


def united(listed: list[list[str]], files: list[Path], splits: list[int]) -> list[str]:
    """The columns of a table of several files; only published splits may lack some.

    Raises:
        ValueError: If files of one split have different columns.
    """
    longest = max(listed, key=len)
    order = list(dict.fromkeys([*longest, *(name for names in listed for name in names)]))
    for file, names in zip(files, listed, strict=True):
        absent = [name for name in order if name not in names]
        if absent and (UNPUBLISHED in splits or len(absent) > len(names)):
            first = next(other for other, found in zip(files, listed, strict=True) if absent[0] in found)
            raise ValueError(
                f"{file} has other columns than {first.name}: missing {', '.join(map(repr, absent))}, additional "
                f"{', '.join(repr(n) for n in names if n not in listed[files.index(first)]) or 'none'}. "
                "Give all files of the table the same columns."
            )
    return order


def absent_notes(listed: list[list[str]], files: list[Path], names: list[str]) -> list[str]:
    """What to say of columns that are not in every file."""
    return [
        f"{file.name} has no column {', '.join(repr(name) for name in names if name not in found)}: "
        "its cells are missing"
        for file, found in zip(files, listed, strict=True)
        if len(set(found)) < len(names)
    ]


def with_columns(batch: RawBatch, names: list[str], types: dict[str, pa.DataType] | None = None) -> RawBatch:
    """A batch with all of the table's columns, those that its file lacks being empty."""
    n = len(batch.rows)
    columns = {
        name: batch.columns[name] if name in batch.columns
        else pa.nulls(n, (types or {}).get(name, pa.binary()))
        for name in names
    }  # fmt: skip
    return replace(batch, columns=columns)


@dataclass(slots=True)
class _Ragged:
    """Rows that pyarrow skipped because they have another number of cells."""

    file: Path
    findings: Findings
    first_row: int
    numbers: list[int] = field(default_factory=list)
    error: ValueError | None = None

    def __call__(self, row: Any) -> str:
        self.numbers.append(row.number)
        text = row.text if len(row.text) <= 60 else row.text[:60] + "…"
        try:
            self.findings.reject(
                f"{self.file}: row {row.number + self.first_row - 1}",
                "wrong number of cells",
                f"expected {row.expected_columns}, got {row.actual_columns}: {text!r} "
                "(a delimiter inside a cell needs quotation marks; a quotation mark that is never closed joins rows)",
            )
        except ValueError as error:
            self.error = error
            return "error"
        return "skip"

    def rows(self, emitted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers for people of rows counted from 0 without the skipped ones."""
        gaps = np.array(self.numbers, np.int64) - 1 - np.arange(len(self.numbers))
        return emitted + self.first_row + np.searchsorted(gaps, emitted, side="right")


def _csv_batches(
    file: Path, head: Heading, split: int, dialect: Dialect, findings: Findings, offset: int
) -> Iterator[RawBatch]:
    ragged = _Ragged(file, findings, head.first_row)
    names, delimiter = head.names, dialect.delimiter
    emitted = 0
    ends_inside = False
    with closing(inflated(file)) as stream:
        watched = _Watched(Body(Decoded(stream, dialect.encoding, file), head.lines, blanks=delimiter == BLANKS))
        try:
            reader = pa.csv.open_csv(
                watched,
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter, invalid_row_handler=ragged, newlines_in_values=True, ignore_empty_lines=False
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
                ),
            )
            for batch in reader:
                if not batch.num_rows:
                    continue
                rows = ragged.rows(np.arange(emitted, emitted + batch.num_rows))
                emitted += batch.num_rows
                ends_inside = any(b"\n" in (column[-1].as_py() or b"") for column in batch.columns)
                yield _without_blank(file, rows, offset - head.first_row, split, batch, findings)
        except pa.ArrowInvalid as error:
            raise ragged.error or _csv_error(file, error, emitted + head.first_row - 2) from None
        opened = re.search(rb"(^|\n|" + re.escape(delimiter.encode()) + rb')"[^"\n]*$', watched.end)
        if watched.quotes % 2 and (ends_inside or opened):
            last = int(ragged.rows(np.array([emitted - 1]))[0])
            raise ValueError(
                f"{file}: row {last}: a quotation mark is opened and never closed, so the rest of the file became one "
                "cell. Close it, or double it if it belongs to the text."
            )


def _csv_error(file: Path, error: Exception, rows: int) -> ValueError:
    text = " ".join(str(error).split())
    if "Empty CSV file" in text:
        return ValueError(f"{file} has a header but no rows. Give a table with data in it.")
    if "straddling" in text:
        text = f"a row has more than {BLOCK_BYTES >> 10} KiB (a quotation mark that is never closed?)"
    return ValueError(f"{file}: after row {rows + 1}: {text}. Mend the file.")


def _without_blank(
    file: Path, rows: NDArray[np.int64], offset: int, split: int, batch: pa.RecordBatch, findings: Findings
) -> RawBatch:
    """A batch without the rows that have no content at all."""
    blank = np.ones(batch.num_rows, np.bool_)
    for column in batch.columns:
        if not blank.any():
            break
        blank &= pa.compute.equal(pa.compute.binary_length(column), 0).to_numpy(zero_copy_only=False)
    if blank.any():
        findings.ignored["blank rows"] += int(blank.sum())
        batch, rows = batch.filter(pa.array(~blank)), rows[~blank]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return RawBatch(file=file, rows=rows, positions=rows + offset, split=split, columns=columns)


def _parquet(path: Path, files: list[Path]) -> RawTable:
    return columnar(path, files, [_parquet_schema(file) for file in files], _parquet_batches)


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

    def batches(findings: Findings) -> Iterator[RawBatch]:
        offset = 0
        for file, found, split in zip(files, listed, splits, strict=True):
            start = 0
            for batch in read(file, found):
                rows = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                held = dict(zip(batch.schema.names, batch.columns, strict=True))
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
    )  # fmt: skip


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


def _parquet_schema(file: Path) -> pa.Schema:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file, or is truncated or damaged: {one_line(error)}") from None


def _parquet_batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True, memory_map=False, pre_buffer=False) as opened:
            yield from opened.iter_batches(PARQUET_ROWS, columns=names, use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"{file} is damaged: {one_line(error)} Fetch it again.") from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
