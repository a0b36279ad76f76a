"""A table looked at for the first time: the card that suits it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from data.cards import LEARNED, NOT_LEARNED, Anomaly, Card, Column, Inspection, Source
from data.readers.csv import check_kind
from data.readers.database import tables
from data.readers.detect import ColumnScan
from data.readers.dialects import sniff
from data.readers.encodings import detect
from data.readers.raw_table import beside, table_files
from data.readers.suffixes import SUFFIXES
from data.readers.table_plan import blank_class, open_raw, scan_table
from data.readers.workbook import layout, sheets
from data.sources.archive import is_archive
from data.sources.inflate import archived_table

GAPS = 10
"""Rows without a label from which on, if they are one in a hundred at least, they are a class of their own."""


def inspect_table(card: Card, path: Path, size: str, fit: str) -> Inspection:
    """The card that fits a table, once it has been scanned."""
    inspection = Inspection(card=card)
    card = replace(card, source=_source(card, path, inspection))
    raw = open_raw(card, path)
    inspection.warnings += raw.notes
    for role, name in (("label", card.label), ("anomaly", card.anomaly.column if card.anomaly else "")):
        if name and name not in raw.names:
            raise ValueError(f"{path}: {role} names no column: {name!r}; the columns are {', '.join(raw.names)}")
    scans = scan_table(raw, card)
    comma = card.source.delimiter != "," and any(scan.has_comma for scan in scans.values())
    for scan in scans.values():
        scan.comma = comma
    columns: list[Column] = []
    for name, scan in scans.items():
        role = name in (card.label, card.anomaly.column if card.anomaly else "")
        column, notes = scan.column(as_category=role)
        column = replace(column, name=name)
        if role and column.type != "categorical":
            why = "; ".join([*notes, column.why])
            raise ValueError(f"{path}: column {name!r} cannot be the label or the anomaly: {why}")
        if column.type in NOT_LEARNED:
            place = "left out" if column.type == "skip" else "not learned, its place is kept"
            inspection.warnings.append(f"column {name!r}: {column.type}, {place}: {column.why}")
        missing = sum(scan.missing.values())
        if missing and column.type in LEARNED:
            shown = ", ".join(f"{count} × {mark!r}" for mark, count in scan.missing.most_common(4))
            inspection.found.append(f"column {name!r}: {missing / scan.cells:.1%} of its cells are missing ({shown})")
        if name == card.label and name not in raw.partial and _learned_gaps(card, column, missing, scan.cells):
            blank = blank_class(column.categories)
            column = replace(column, categories=(*column.categories, ""))
            inspection.found.append(
                f"column {name!r}: rows without a label are a class of their own, {blank!r}, drawn as often as they "
                'occur; where their label is only not known, take "" out of its categories: they are then kept without'
            )
        if notes:
            inspection.column_warnings[name] = "; ".join(notes)
            inspection.warnings.append(f"column {name!r}: {'; '.join(notes)}")
        columns.append(column)
    aside = (card.label, card.anomaly.column if card.anomaly else "")
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        columns = [_anyway(column, scans[column.name], inspection) for column in columns]
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        why = "; ".join(f"{column.name!r} is {column.type} ({column.why})" for column in columns[:8])
        raise ValueError(f"{path}: no column can be learned from: {why or 'it has none'}. Give another table.")
    if card.anomaly and scans[card.anomaly.column].values is not None:
        _check_value(card.anomaly, scans[card.anomaly.column].categories, path)
    inspection.card = replace(card, columns=tuple(columns))
    first_scan = next(iter(scans.values()))
    types = Counter(column.type for column in columns)
    inspection.found.insert(0,
        f"{first_scan.cells} rows, {len(columns)} columns: " + ", ".join(f"{n} {kind}" for kind, n in types.items())
    )  # fmt: skip
    if not card.label and not card.anomaly:
        inspection.warnings.append("no label: give --label COLUMN if a column names the class of a row")
    return inspection


def _learned_gaps(card: Card, label: Column, missing: int, cells: int) -> bool:
    """Whether that a label is missing is learned: not of a handful of rows, nor where the missing are filled in."""
    aside = card.anomaly is not None and card.anomaly.column == card.label
    return card.missing == "model" and not aside and bool(label.categories) and missing >= max(GAPS, cells / 100)


def _anyway(column: Column, scan: ColumnScan, inspection: Inspection) -> Column:
    """A column that is learned because there is no other: numbers that vary by row or not at all."""
    if column.type not in ("identifier", "index", "constant") or not scan.exact or not 0 < scan.known == scan.numeric:
        return column
    inspection.warnings.append(f"column {column.name!r} is learned all the same: there is no other")
    return replace(scan.as_number(), name=column.name)


def _source(card: Card, path: Path, inspection: Inspection) -> Source:
    """How the files of a table are to be read, found from their content."""
    source = card.source
    if source.format == "sql":
        if not source.query:
            known = tables(path)
            if len(known) != 1:
                shown = ", ".join(known) or "none"
                raise ValueError(f"{path} is a database: give --query 'SELECT …' (its tables: {shown}).")
            inspection.warnings.append(f"read is its one table, {known[0]!r}")
            source = replace(source, query='SELECT * FROM "{}"'.format(known[0].replace('"', '""')))
        return source
    if source.format == "excel":
        found = sheets(path)
        if not source.sheet and len(found) > 1:
            inspection.warnings.append(f"read is sheet {found[0]!r}; there are others: {', '.join(found[1:6])}")
        source = replace(source, sheet=source.sheet or next(iter(found), ""))
        if source.sheet in found:
            source, notes = layout(path, source)
            inspection.warnings += notes
        return source
    if left := beside(path, SUFFIXES[source.format]):
        inspection.warnings.append(f"not read, as no part of the table: {', '.join(left[:5])}")
    if source.format not in ("csv", "jsonl", "arff"):
        return source
    if is_archive(path) and (others := archived_table(path).others):
        name = archived_table(path).name
        inspection.warnings.append(f"read is {name!r}; it holds other tables, to be unpacked: {', '.join(others[:5])}")
    files = table_files(path, SUFFIXES[source.format])
    encodings = [detect(file) for file in files]
    encoding, why = next((found for found in encodings if found[1]), encodings[0])
    if why:
        inspection.warnings.append(f"read as {encoding}: {why}; set source.encoding in the card if it is another")
    if source.format in ("jsonl", "arff"):
        return replace(source, encoding=encoding)
    check_kind(files[0])
    dialect = sniff(files[0], encoding)
    inspection.warnings += dialect.notes
    return replace(
        source, encoding=encoding, delimiter=dialect.delimiter, header=dialect.header, skip=dialect.skip,
        below=dialect.below, footer=dialect.footer if len(files) == 1 else 0, pad=dialect.pad, trim=dialect.trim,
        literal=dialect.literal,
        widths=dialect.widths,
    )  # fmt: skip


def _check_value(anomaly: Anomaly, values: tuple[str, ...], path: Path) -> None:
    def number(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if number(anomaly.value) not in {number(value) for value in values}:
        shown = ", ".join(map(repr, values[:20]))
        raise ValueError(f"{path}: no row has {anomaly.column} = {anomaly.value!r}; the values are {shown}")
