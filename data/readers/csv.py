"""Raw columns of CSV files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from data.readers.base import REPEATED_HEADERS, IngestReport
from data.readers.bodies import Body, Padded
from data.readers.dialects import BLANKS, Dialect, Heading, heading
from data.readers.encodings import Decoded
from data.readers.line_forms import Rewritten
from data.readers.raw_table import (
    RawBatch,
    RawTable,
    absent_notes,
    partial_columns,
    splits_of,
    united,
    with_columns,
)
from data.sources.inflate import inflated
from data.sources.streams import Readable

BLOCK_BYTES = 1 << 19  # pyarrow reads up to 32 blocks ahead

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


def open_csv(path: Path, files: list[Path], dialect: Dialect) -> RawTable:
    """Delimited text files of one table as raw batches.

    Raises:
        ValueError: If the files have different columns.
    """
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

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        offset = 0
        for file, head, split in zip(files, heads, splits, strict=True):
            last = head.first_row - 1
            for batch in _csv_batches(file, head, split, dialect, report, offset):
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
        partial=partial_columns([head.names for head in heads], names, names),
    )


@dataclass(slots=True)
class _Ragged:
    """Rows that pyarrow skipped because they have another number of cells."""

    file: Path
    report: IngestReport
    first_row: int
    numbers: list[int] = field(default_factory=list)
    error: ValueError | None = None

    def __call__(self, row: Any) -> str:
        self.numbers.append(row.number)
        text = row.text if len(row.text) <= 60 else row.text[:60] + "…"
        try:
            self.report.reject(
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


@contextmanager
def _loud(file: Path) -> Iterator[None]:
    """An error where pyarrow would print one and go on: the text of a ragged row that it cannot decode.

    Raises:
        ValueError: Names the file.
    """
    lost: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda told: lost.append(told.exc_value)
    try:
        yield
    finally:
        sys.unraisablehook = before
    if lost:
        raise ValueError(
            f"{file}: a row has another number of cells and is no valid text ({lost[0]}). Look for a quotation mark "
            "that is never closed, or a delimiter inside a cell."
        )


def _batches_of(reader: Iterable[pa.RecordBatch], file: Path) -> Iterator[pa.RecordBatch]:
    batches = iter(reader)
    while True:
        with _loud(file):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _csv_batches(
    file: Path, head: Heading, split: int, dialect: Dialect, report: IngestReport, offset: int
) -> Iterator[RawBatch]:
    ragged = _Ragged(file, report, head.first_row)
    names, delimiter = head.names, dialect.mark
    emitted = 0
    ends_inside = False
    with closing(inflated(file)) as stream:
        watched = _Watched(_body(stream, file, head, dialect))
        try:
            with _loud(file):
                reader = pa.csv.open_csv(
                    watched,
                    read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
                    parse_options=pa.csv.ParseOptions(
                        delimiter=delimiter,
                        invalid_row_handler=ragged,
                        newlines_in_values=True,
                        ignore_empty_lines=False,
                    ),
                    convert_options=pa.csv.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
                    ),
                )
            for batch in _batches_of(reader, file):
                if not batch.num_rows:
                    continue
                rows = ragged.rows(np.arange(emitted, emitted + batch.num_rows))
                emitted += batch.num_rows
                ends_inside = any(b"\n" in (column[-1].as_py() or b"") for column in batch.columns)
                yield _without_blank(file, rows, offset - head.first_row, split, batch, head.titles, report)
        except pa.ArrowInvalid as error:
            raise ragged.error or _csv_error(file, error, emitted + head.first_row - 2) from None
        opened = re.search(rb"(^|\n|" + re.escape(delimiter.encode()) + rb')"[^"\n]*$', watched.end)
        if watched.quotes % 2 and (ends_inside or opened):
            last = int(ragged.rows(np.array([emitted - 1]))[0])
            raise ValueError(
                f"{file}: row {last}: a quotation mark is opened and never closed, so the rest of the file became one "
                "cell. Close it, or double it if it belongs to the text."
            )


def _body(stream: Readable, file: Path, head: Heading, dialect: Dialect) -> Body:
    text: Readable = Decoded(stream, dialect.encoding, file)
    if dialect.rewrite:
        text = Rewritten(text, dialect.rewrite)
    if dialect.pad:
        text = Padded(Body(text, head.lines), len(head.names), dialect.mark)
    skipped = 0 if dialect.pad else head.lines
    return Body(text, skipped, blanks=dialect.delimiter == BLANKS, footer=dialect.footer)


def _csv_error(file: Path, error: Exception, rows: int) -> ValueError:
    text = " ".join(str(error).split())
    if "Empty CSV file" in text:
        return ValueError(f"{file} has a header but no rows. Give a table with data in it.")
    if "straddling" in text:
        text = f"a row has more than {BLOCK_BYTES >> 10} KiB (a quotation mark that is never closed?)"
    return ValueError(f"{file}: after row {rows + 1}: {text}. Fix the file.")


def _without_blank(
    file: Path, rows: NDArray[np.int64], offset: int, split: int, batch: pa.RecordBatch, titles: list[str],
    report: IngestReport,
) -> RawBatch:  # fmt: skip
    """A batch without the rows that have no content at all, or repeat the header."""
    again = np.ones(batch.num_rows, np.bool_)
    for column, title in zip(batch.columns, titles, strict=False):
        if not again.any():
            break
        again &= pa.compute.equal(column, title.encode()).to_numpy(zero_copy_only=False)
    if titles and again.any():
        report.ignored[REPEATED_HEADERS] += int(again.sum())
        batch, rows = batch.filter(pa.array(~again)), rows[~again]
    blank = np.ones(batch.num_rows, np.bool_)
    for column in batch.columns:
        if not blank.any():
            break
        blank &= pa.compute.equal(pa.compute.binary_length(column), 0).to_numpy(zero_copy_only=False)
    if blank.any():
        report.ignored["blank rows"] += int(blank.sum())
        batch, rows = batch.filter(pa.array(~blank)), rows[~blank]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return RawBatch(file=file, rows=rows, positions=rows + offset, split=split, columns=columns)
