"""Tables as chunks: every cell checked against the card, or against what the whole table was seen to hold."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import SPLITS, Anomaly, Card, Column, Inspection
from data.domains.table import row_hashes
from data.readers.base import SPLIT_NAMES, Chunk, IngestReport, Mapper, Reader, class_list, split_by_rows
from data.readers.columns import NUMBER, Cells, ColumnScan, as_text, codes, described, is_text, not_utf8, numbers
from data.readers.csv import CSV_SUFFIXES, header_cells, open_csv
from data.readers.parquet import PARQUET_SUFFIXES, open_parquet
from data.readers.raw_table import RawBatch, RawTable, table_files
from data.sources.streams import inflated


def scan_table(raw: RawTable, card: Card) -> dict[str, ColumnScan]:
    """Look at every cell of a table and say what its columns hold.

    Raises:
        ValueError: If the table cannot be read.
    """
    quiet = IngestReport(on_bad="drop", max_bad=1.0)
    scans = {name: ColumnScan(name=name, kind=raw.types[name], limit=max(card.max_categories, 1)) for name in raw.names}
    rows = 0
    for batch in raw.batches(quiet):
        rows += len(batch.rows)
        for name, scan in scans.items():
            scan.add(batch.columns[name], batch.rows, card.missing)
    if not rows and quiet.dropped:
        first = quiet.bad_first[0]
        raise ValueError(
            f"{first['where']}: {first['reason']}: {first['detail']}, and so in every other row. "
            "Is row 1 the header, and is the delimiter right?"
        )
    if not rows:
        raise ValueError(f"{raw.name} has a header but no rows. Give a table with data in it.")
    return scans


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a table is read.

    Arguments:
        columns: Those that become part of an example.
        label: The column of classes, empty without one.
        classes: Names of the classes.
    """

    columns: tuple[Column, ...]
    label: str
    classes: list[str]


def open_table(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at a table and return its reader."""
    raw = open_raw(card, path)
    _check_names(card, raw)
    scans = scan_table(raw, card) if _needs_scan(card) else {}
    plan = _plan(card, raw, scans, report)
    kinds = {column.name: raw.types[column.name] for column in plan.columns}

    def chunks() -> Iterator[Chunk]:
        anomalies = 0
        for batch in raw.batches(report):
            chunk = _chunk(card, plan, batch, report)
            anomalies += int(chunk.anomaly.sum())
            yield chunk
        if card.anomaly and not anomalies:
            raise ValueError(
                f"{raw.name}: no row has {card.anomaly.column} = {card.anomaly.value!r}, which marks anomalies in the "
                "card. Fix anomaly in the card."
            )

    return Reader(
        event_shape=(len(plan.columns),),
        dtype="float64",
        class_names=plan.classes,
        columns=[described(column, scans.get(column.name), kinds[column.name]) for column in plan.columns],
        chunks=chunks,
    )


def _check_names(card: Card, raw: RawTable) -> None:
    """Make sure that the table has the columns that the card names, and no others.

    Raises:
        ValueError: If it does not.
    """
    roles = [card.label, card.anomaly.column if card.anomaly else "", card.splits.column]
    listed = [column.name for column in card.columns] or [name for name in roles if name]
    absent = [name for name in listed if name not in raw.names]
    extra = [name for name in raw.names if name not in listed] if card.columns else []
    if not absent and not extra:
        return
    near = [match for name in absent for match in difflib.get_close_matches(name, raw.names, 1)]
    raise ValueError(
        f"{raw.name} has other columns than the card {card.name!r}: missing {', '.join(map(repr, absent)) or 'none'}, "
        f"additional {', '.join(map(repr, extra)) or 'none'}"
        + (f" (did you mean {', '.join(map(repr, near))}?)" if near else "")
        + ". Fix columns, label, anomaly or splits in the card (`type: skip` leaves a column out)."
    )


def _needs_scan(card: Card) -> bool:
    """Whether the card leaves open what the table holds."""
    label = next((column for column in card.columns if column.name == card.label), None)
    open_label = bool(card.label) and not card.classes and not (label and label.categories)
    aside = {card.anomaly.column if card.anomaly else "", card.splits.column, card.label}
    open_columns = any(
        column.type == "categorical" and not column.categories and column.name not in aside for column in card.columns
    )
    return not card.columns or open_label or open_columns


def _plan(card: Card, raw: RawTable, scans: dict[str, ColumnScan], report: IngestReport) -> Plan:
    given = {column.name: column for column in card.columns}
    aside = {card.label, card.anomaly.column if card.anomaly else "", card.splits.column}
    columns = []
    for name in raw.names:
        if name in aside:
            continue
        column = given.get(name)
        if column is None or (column.type == "categorical" and not column.categories):
            column, warnings = scans[name].column(as_category=column is not None)
            for doubt in warnings:
                report.warn(f"column {name!r}: {doubt}")
            if name in given and column.type == "skip":
                raise ValueError(f"{raw.name}: column {name!r} cannot be categorical: {'; '.join(warnings)}. Skip it.")
        if column.type != "skip":
            columns.append(column)
    if not columns:
        raise ValueError(f"{raw.name} has no column left to learn from. Fix columns in the card.")
    for column in columns:
        if len(column.categories) > card.max_categories:
            raise ValueError(
                f"column {column.name!r} has {len(column.categories)} categories, more than max_categories: "
                f"{card.max_categories}. Set its type to skip, or raise max_categories in the card."
            )
    return Plan(columns=tuple(columns), label=card.label, classes=_classes(card, given, scans, raw))


def _classes(card: Card, given: dict[str, Column], scans: dict[str, ColumnScan], raw: RawTable) -> list[str]:
    if not card.label:
        return []
    found = card.classes or (given[card.label].categories if card.label in given else ())
    if not found:
        column, warnings = scans[card.label].column(as_category=True)
        if column.type == "skip":
            raise ValueError(
                f"{raw.name}: column {card.label!r} cannot be the label: {'; '.join(warnings)}. "
                "A label names the class of a row; choose another column, or none."
            )
        found = column.categories
    same = card.anomaly is not None and card.anomaly.column == card.label
    return class_list(card if same else replace(card, anomaly=None), found)


def _chunk(card: Card, plan: Plan, batch: RawBatch, report: IngestReport) -> Chunk:
    n = len(batch.rows)
    x = np.empty((n, len(plan.columns)))
    bad = np.zeros(n, np.bool_)
    for index, column in enumerate(plan.columns):
        array = batch.columns[column.name]
        if column.type == "categorical":
            cells = codes(array, list(column.categories), card.missing)
        else:
            cells = numbers(array, integer=column.type == "integer", tokens=card.missing)
        if cells.missing:
            report.missing.setdefault(column.name, Counter()).update(cells.missing)
        _note(batch, column.name, array, cells, bad, report)
        x[:, index] = cells.values
    anomaly = _anomalies(card, batch, report)
    label = _labels(card, plan, batch, anomaly, bad, report)
    split = _published(card, batch, bad, report)
    good = ~bad
    x = x[good]
    return Chunk(
        x=x, label=label[good], split=split[good], anomaly=anomaly[good],
        content=row_hashes(x), source=batch.positions[good],
    )  # fmt: skip


def _note(
    batch: RawBatch, name: str, array: pa.Array, cells: Cells, bad: NDArray[np.bool_], report: IngestReport
) -> None:
    """Note a column's bad cells; a row is bad once."""
    if not cells.bad.any():
        return
    broken = not_utf8(array)
    for index in np.flatnonzero(cells.bad & ~bad):
        where = f"{batch.file}: row {batch.rows[index]}, column {name!r}"
        value = array[index].as_py()
        if broken[index]:
            report.reject(where, "not valid UTF-8", f"expected UTF-8 text without NUL bytes, got {value!r}")
        else:
            shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            shown = f"{shown[:60]}…" if isinstance(shown, str) and len(shown) > 60 else shown
            report.reject(where, cells.reason, f"expected {cells.expected}, got {shown!r}")
        bad[index] = True


def _anomalies(card: Card, batch: RawBatch, report: IngestReport) -> NDArray[np.bool_]:
    if card.anomaly is None:
        return np.zeros(len(batch.rows), np.bool_)
    array = batch.columns[card.anomaly.column]
    unmarked = int(pc.sum(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(as_text(array)), ""), True)).as_py() or 0)
    if unmarked:
        report.missing.setdefault(card.anomaly.column, Counter())[""] += unmarked
        report.warn(f"rows without a value in {card.anomaly.column!r} are taken for normal ones")
    same = pc.fill_null(pc.equal(as_text(array), card.anomaly.value), False).to_numpy(zero_copy_only=False)
    try:
        value = float(card.anomaly.value)
    except ValueError:
        return same
    if not (is_text(array.type) or pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return same
    return same | (numbers(array, integer=False, tokens=card.missing).values == value)


def _labels(
    card: Card, plan: Plan, batch: RawBatch, anomaly: NDArray[np.bool_], bad: NDArray[np.bool_], report: IngestReport
) -> NDArray[np.int64]:
    if not plan.label:
        return np.full(len(batch.rows), -1, np.int64)
    array = batch.columns[plan.label]
    cells = codes(array, plan.classes, card.missing)
    unknown = np.isnan(cells.values) & ~anomaly
    for index in np.flatnonzero(unknown & ~bad):
        where = f"{batch.file}: row {batch.rows[index]}, column {plan.label!r}"
        if cells.bad[index]:
            value = array[index].as_py()
            shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            report.reject(where, "unknown label", f"expected {cells.expected}, got {shown!r}")
        else:
            report.reject(where, "no label", f"expected {cells.expected}, got an empty cell")
    bad |= unknown
    return np.where(np.isnan(cells.values), -1, cells.values).astype(np.int64)


def _published(card: Card, batch: RawBatch, bad: NDArray[np.bool_], report: IngestReport) -> NDArray[np.int8]:
    if card.splits.rows:
        return split_by_rows(card, batch.positions)
    split = np.full(len(batch.rows), batch.split, np.int8)
    if not card.splits.column:
        return split
    for index, name in enumerate(as_text(batch.columns[card.splits.column]).to_pylist()):
        if (name or "").strip().lower() in SPLIT_NAMES:
            split[index] = SPLITS.index(SPLIT_NAMES[name.strip().lower()])
        elif not bad[index]:
            where = f"{batch.file}: row {batch.rows[index]}, column {card.splits.column!r}"
            report.reject(where, "unknown split", f"expected train, val or test, got {name!r}")
            bad[index] = True
    return split


DELIMITERS = ",;\t|"


def inspect_table(card: Card, path: Path) -> Inspection:
    """The card that fits a table, once it has been scanned."""
    if card.source.format == "csv":
        first = table_files(path, CSV_SUFFIXES)[0]
        card = replace(card, source=replace(card.source, delimiter=_delimiter(first)))
    raw = open_raw(card, path)
    for role, name in (("label", card.label), ("anomaly", card.anomaly.column if card.anomaly else "")):
        if name and name not in raw.names:
            raise ValueError(f"{path}: {role} names no column: {name!r}; the columns are {', '.join(raw.names)}")
    scans = scan_table(raw, card)
    inspection = Inspection(card=card)
    columns: list[Column] = []
    for name, scan in scans.items():
        role = name in (card.label, card.anomaly.column if card.anomaly else "")
        column, warnings = scan.column(as_category=role)
        if role and column.type == "skip":
            raise ValueError(f"{path}: column {name!r} cannot be the label or the anomaly: {'; '.join(warnings)}")
        if warnings and not role:
            inspection.column_warnings[name] = "; ".join(warnings)
            inspection.warnings.append(f"column {name!r}: {'; '.join(warnings)}")
        columns.append(column)
    if card.anomaly and scans[card.anomaly.column].values is not None:
        _check_value(card.anomaly, scans[card.anomaly.column].categories, path)
    inspection.card = replace(card, columns=tuple(columns))
    if all(re.fullmatch(NUMBER, name.strip()) for name in raw.names):
        inspection.warnings.append(
            f"the first row, taken for the header, holds only numbers ({', '.join(raw.names[:4])})"
        )
    first_scan = next(iter(scans.values()))
    types = Counter(column.type for column in columns)
    inspection.found.append(
        f"{first_scan.cells} rows, {len(columns)} columns: " + ", ".join(f"{n} {kind}" for kind, n in types.items())
    )
    if not card.label and not card.anomaly:
        inspection.warnings.append("no label: give --label COLUMN if a column names the class of a row")
    return inspection


def _check_value(anomaly: Anomaly, values: tuple[str, ...], path: Path) -> None:
    def number(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if number(anomaly.value) not in {number(value) for value in values}:
        shown = ", ".join(map(repr, values[:20]))
        raise ValueError(f"{path}: no row has {anomaly.column} = {anomaly.value!r}; the values are {shown}")


def _delimiter(path: Path) -> str:
    """The delimiter that splits the header into the most cells."""
    best = "\t" if ".tsv" in path.name.lower() else ","
    with closing(inflated(path)) as stream:
        head = stream.read(1 << 20)
    return max(DELIMITERS, key=lambda delimiter: (len(header_cells(head, delimiter)), delimiter == best))


def open_raw(card: Card, path: Path) -> RawTable:
    """Look at the files of a table and make sure that they agree.

    Raises:
        ValueError: If a file is empty, damaged, or has other columns than the first.
    """
    suffixes = PARQUET_SUFFIXES if card.source.format == "parquet" else CSV_SUFFIXES
    files = table_files(path, suffixes)
    if card.source.format == "parquet":
        return open_parquet(path, files)
    return open_csv(path, files, card.source.delimiter)
