"""Sheets of Excel and OpenDocument workbooks as tables, by python-calamine (an extra)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.cards import Source
from data.readers.base import IngestReport
from data.readers.dialects import column_names, numbered
from data.readers.headings import header_of, rows_above, rows_below, units_below
from data.readers.raw_table import RawBatch, RawTable

ROWS = 1 << 13
FEW = 500
"""Rows by which the header is recognized."""


def sheets(path: Path) -> list[str]:
    """Names of the sheets of a workbook that hold something: tables first, and of those the ones that are shown."""
    book = _book(path)
    hidden = {sheet.name for sheet in book.sheets_metadata if str(sheet.visible) != "SheetVisibleEnum.Visible"}
    found = [(name, book.get_sheet_by_name(name)) for name in book.sheet_names]
    held = {name: min(sheet.height, 2) * min(sheet.width, 2) for name, sheet in found if sheet.total_height}
    return sorted(held, key=lambda name: (held[name] <= 2, name in hidden))


def layout(path: Path, source: Source) -> tuple[Source, list[str]]:
    """Where in a sheet its table is, and what to say of it."""
    rows = [[_text(_known(cell)) or "" for cell in row] for row in _rows(path, source.sheet)]
    skip = rows_above(rows[:ROWS])
    header, why = header_of(rows[skip : skip + FEW])
    below = units_below(rows[skip : skip + FEW]) if header == "first" else 0
    footer = rows_below(rows[skip + 1 :], max(map(len, rows), default=0))
    notes = []
    places = (skip, "before the table", 0), (below, "below the header", skip + 1), (footer, "after it", -footer)
    for count, where, at in places:
        shown = next((cell for row in rows[at:][:count] for cell in row if cell), "")
        notes += [f"{count} row(s) {where} are left out" + (f", beginning with {shown[:60]!r}" if shown else "")] * (
            count > 0
        )
    found = replace(source, skip=skip, header=header, below=below, footer=footer)
    return found, notes + ([why] if why else [])


def _rows(path: Path, name: str) -> list[list[Any]]:
    return _read_rows(path, name, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_rows(path: Path, name: str, changed: int) -> list[list[Any]]:
    """The cells of a sheet, once for all who look at them in turn."""
    return _book(path).get_sheet_by_name(name).to_python(skip_empty_area=False)


def open_workbook(path: Path, source: Source) -> RawTable:
    """Look at a sheet.

    Numbers, dates, times and booleans have the types of their cells; a column that mixes them becomes text.

    Raises:
        ImportError: If python-calamine is not installed.
        ValueError: If there is no such sheet, or it is empty.
    """
    book = _book(path)
    name = source.sheet or next(iter(sheets(path)), "")
    if not name:
        raise ValueError(f"{path} holds nothing: its sheets are empty. Give another workbook.")
    if name not in book.sheet_names:
        raise ValueError(f"{path} has no sheet {name!r}; it has {', '.join(map(repr, book.sheet_names))}.")
    rows = _rows(path, name)
    rows = rows[source.skip : len(rows) - source.footer]
    width = max((len(row) for row in rows), default=0)
    if not rows or not width:
        raise ValueError(f"{path}: sheet {name!r} is empty: expected a header row and data.")
    if source.header == "none":
        titles, names, notes, first = [], numbered(width), [], source.skip + 1
    else:
        titles = [_text(cell) or "" for cell in rows[0]]
        names, notes = column_names(titles)
        rows, first = rows[1 + source.below :], source.skip + source.below + 2
    cells = [[_known(row[i]) if i < len(row) else None for row in rows] for i in range(width)]
    filled = np.array([any(column[i] is not None for column in cells) for i in range(len(rows))], np.bool_)
    columns: dict[str, pa.Array] = {}
    for label, column in zip(names, cells, strict=True):
        columns[label], mixed = _column(column)
        notes += [f"column {label!r} holds cells of several types: taken as text"] if mixed else []

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        report.ignored.update({"blank rows": int((~filled).sum())} if not filled.all() else {})
        kept = np.flatnonzero(filled)
        for start in range(0, len(kept), ROWS):
            here = kept[start : start + ROWS]
            part = {label: column.take(pa.array(here)) for label, column in columns.items()}
            yield RawBatch(file=path, rows=here + first, positions=here, split=-1, columns=part)

    return RawTable(
        name=f"{path} ({name})", names=names, types={label: column.type for label, column in columns.items()},
        batches=batches, notes=notes,
        titles={label: title for label, title in zip(names, titles, strict=False) if label != title},
    )  # fmt: skip


def _book(path: Path) -> Any:
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise ImportError(
            f"{path} is a workbook: reading it takes python-calamine. Run `pip install 'fivefold[files]'`."
        ) from None
    try:
        return CalamineWorkbook.from_path(str(path))
    except Exception as error:  # calamine has an error type for each kind of workbook
        raise ValueError(f"{path} is not a workbook, or is damaged: {error}. Fetch it again.") from None


def _known(cell: Any) -> Any:
    return None if cell == "" or (isinstance(cell, float) and cell != cell) else cell


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell)


def _column(cells: list[Any]) -> tuple[pa.Array, bool]:
    """A column by the types of its cells, and whether they were mixed."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds and kinds <= {int, float}:
        whole = all(float(cell).is_integer() and abs(cell) < 2**53 for cell in cells if cell is not None)
        return pa.array([None if c is None else int(c) if whole else float(c) for c in cells]), False
    for kind, arrow in ((bool, pa.bool_()), (time, pa.time64("us")), (timedelta, pa.duration("us"))):
        if kinds == {kind}:
            return pa.array(cells, arrow), False
    if kinds and kinds <= {date, datetime}:
        if kinds == {date}:
            return pa.array(cells, pa.date32()), False
        midnight = [
            cell if cell is None or isinstance(cell, datetime) else datetime(cell.year, cell.month, cell.day)
            for cell in cells
        ]
        return pa.array(midnight, pa.timestamp("us")), False
    return pa.array([_text(cell) for cell in cells], pa.string()), bool(kinds - {str})
