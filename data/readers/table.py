"""Tables as chunks: every cell checked against the card, or against what the whole table was seen to hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import LEARNED, NOT_LEARNED, SPLITS, Anomaly, Card, Column, Inspection, Source
from data.domains.table import row_hashes
from data.formats import Part, is_plain
from data.readers.base import SPLIT_NAMES, Chunk, IngestReport, Mapper, Reader, class_list, split_by_rows
from data.readers.columns import Cells, as_text, codes, is_text, not_utf8, numbers, read_cells, type_name
from data.readers.csv import check_kind, open_csv
from data.readers.database import tables
from data.readers.detect import ColumnScan
from data.readers.dialects import Dialect, sniff
from data.readers.encodings import detect
from data.readers.identifiers import IdentifiersSeen
from data.readers.parquet import open_parquet
from data.readers.raw_table import RawBatch, RawTable, table_files
from data.readers.suffixes import SUFFIXES
from data.readers.workbook import sheets
from data.schema import closest


def scan_table(raw: RawTable, card: Card) -> dict[str, ColumnScan]:
    """Look at every cell of a table and say what its columns hold.

    Raises:
        ValueError: If the table cannot be read.
    """
    quiet = IngestReport(on_bad="drop", max_bad=1.0)
    limit = max(card.max_categories, 1)
    scans = {
        name: ColumnScan(name=raw.titles.get(name, name), kind=raw.types[name], limit=limit, marks=card.marks)
        for name in raw.names
    }
    rows = 0
    for batch in raw.batches(quiet):
        rows += len(batch.rows)
        for name, scan in scans.items():
            scan.add(batch.columns[name], batch.rows)
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
        all: Those of the source by name.
        label: The column of classes, empty without one.
        classes: Names of the classes.
    """

    columns: tuple[Column, ...]
    all: dict[str, Column]
    label: str
    classes: list[str]


@dataclass(kw_only=True, slots=True)
class Sources:
    """The manifest's `table`, completed while the rows are read.

    Arguments:
        entries: The columns of the source; see `data.formats.SourceTable`.
        identifiers: What was seen of the columns of identifiers.
    """

    entries: list[dict[str, Any]]
    identifiers: dict[str, IdentifiersSeen]

    def finish(self, report: IngestReport) -> None:
        """Add what only the whole table tells: fresh identifiers, the mark of missing cells."""
        for entry in self.entries:
            marks = report.missing.get(entry["name"])
            if marks and entry["role"] != "skip":
                mark = marks.most_common(1)[0][0]
                entry["mark"] = "" if mark in ("null", "nan", "inf") else mark
            if entry["name"] in self.identifiers:
                seen = self.identifiers[entry["name"]]
                entry["identifier"] = seen.fresh()
                if entry.pop("open", False):
                    entry["dtype"] = "int64" if seen.whole else "string"


def open_table(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at a table and return its reader."""
    raw = open_raw(card, path)
    _check_names(card, raw)
    for note in raw.notes:
        report.warn(note)
    scans = scan_table(raw, card) if _needs_scan(card) else {}
    plan = _plan(card, raw, scans, report)
    domain, sources = described(card, plan, raw, scans)

    def chunks() -> Iterator[Chunk]:
        anomalies = 0
        for batch in raw.batches(report):
            chunk = _chunk(card, plan, batch, report)
            for name, seen in sources.identifiers.items():
                seen.add(as_text(batch.columns[name]))
            anomalies += int(chunk.anomaly.sum())
            yield chunk
        sources.finish(report)
        if card.anomaly and not anomalies:
            raise ValueError(
                f"{raw.name}: no row has {card.anomaly.column} = {card.anomaly.value!r}, which marks anomalies in the "
                "card. Fix anomaly in the card."
            )

    return Reader(
        event_shape=(len(domain),), dtype="float64", class_names=plan.classes, columns=domain, table=sources.entries,
        chunks=chunks,
    )  # fmt: skip


def described(
    card: Card, plan: Plan, raw: RawTable, scans: dict[str, ColumnScan]
) -> tuple[list[dict[str, Any]], Sources]:
    """The columns that a model learns, as the manifest's domain lists them, and those of the source."""
    domain: list[dict[str, Any]] = []
    sources = Sources(entries=[], identifiers={})
    learned = {column.name: column for column in plan.columns}
    taken = set(raw.names)
    for name in raw.names:
        column = plan.all[name]
        scan = scans.get(name)
        entry: dict[str, Any] = {"name": name, "title": raw.titles.get(name, name), "role": _role(card, column)}
        entry["dtype"] = scan.dtype if scan is not None else type_name(raw.types[name])
        if scan is None and pa.types.is_binary(raw.types[name]):
            plain = is_plain(column.format)
            entry["dtype"] = (
                {"integer": "int64", "continuous": "float64"}.get(column.type, "string") if plain else "string"
            )
        if name in learned:
            made = list(_learned(column, entry["dtype"], taken))
            entry["columns"] = [len(domain) + index for index in range(len(made))]
            domain += made
            entry["pattern"] = column.format
            if column.parts:
                entry["parts"] = list(column.parts)
        elif entry["role"] == "constant":
            entry["value"] = column.categories[0] if column.categories else ""
            entry["pattern"] = column.format
        elif entry["role"] == "identifier":
            if pa.types.is_binary(raw.types[name]):
                entry["open"] = True  # text files leave the type open
            sources.identifiers[name] = IdentifiersSeen(restart=column.type == "index")
        if column.why:
            entry["why"] = column.why
        sources.entries.append(entry)
    return domain, sources


def _role(card: Card, column: Column) -> str:
    if column.name == card.label:
        return "label"
    if column.name in (card.anomaly.column if card.anomaly else "", card.splits.column):
        return "skip"
    roles = {"continuous": "number", "integer": "number", "categorical": "category", "index": "identifier"}
    return roles.get(column.type, column.type)


def _learned(column: Column, dtype: str, taken: set[str]) -> Iterator[dict[str, Any]]:
    """What a model learns of a column: itself, or the parts of a date."""
    if not column.parts:
        as_stored = column.type == "categorical" or (is_plain(column.format) and "string" not in dtype)
        kind = dtype if as_stored else {"integer": "int64", "continuous": "float64"}[column.type]
        categories = list(column.categories) if column.type == "categorical" else []
        yield {"name": column.name, "type": column.type, "dtype": kind, "categories": categories}
        return
    for part in map(Part.parse, column.parts):
        if not part.learned:
            continue
        name = f"{column.name}.{part.name}"
        while name in taken:
            name += "_"
        taken.add(name)
        yield {
            "name": name, "type": "categorical" if part.values else "integer",
            "dtype": "string" if part.values else "int64", "categories": list(part.categories),
            "source": column.name, "part": part.name,
        }  # fmt: skip


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
    near = [match for name in absent if (match := closest(name, raw.names))]
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
    every: dict[str, Column] = {}
    for name in raw.names:
        if name in aside:
            every[name] = given.get(name) or Column(name=name, type="categorical")
            continue
        column = given.get(name)
        if column is None or (column.type == "categorical" and not column.categories):
            column, warnings = scans[name].column(as_category=column is not None)
            for doubt in warnings:
                report.warn(f"column {name!r}: {doubt}")
            column = replace(column, name=name)
            if name in given and column.type != "categorical":
                why = "; ".join([*warnings, column.why])
                raise ValueError(f"{raw.name}: column {name!r} cannot be categorical: {why}. Skip it.")
        every[name] = column
        if column.type in LEARNED:
            columns.append(column)
        elif column.why:
            report.warn(f"column {name!r} is not learned ({column.type}): {column.why}")
    if not columns:
        raise ValueError(f"{raw.name} has no column left to learn from. Fix columns in the card.")
    for column in columns:
        if len(column.categories) > card.max_categories:
            raise ValueError(
                f"column {column.name!r} has {len(column.categories)} categories, more than max_categories: "
                f"{card.max_categories}. Set its type to skip, or raise max_categories in the card."
            )
    return Plan(columns=tuple(columns), all=every, label=card.label, classes=_classes(card, given, scans, raw))


def _classes(card: Card, given: dict[str, Column], scans: dict[str, ColumnScan], raw: RawTable) -> list[str]:
    if not card.label:
        return []
    found = card.classes or (given[card.label].categories if card.label in given else ())
    if not found:
        column, warnings = scans[card.label].column(as_category=True)
        if column.type != "categorical":
            why = "; ".join([*warnings, column.why])
            raise ValueError(
                f"{raw.name}: column {card.label!r} cannot be the label: {why}. "
                "A label names the class of a row; choose another column, or none."
            )
        found = column.categories
    same = card.anomaly is not None and card.anomaly.column == card.label
    return class_list(card if same else replace(card, anomaly=None), found)


def _chunk(card: Card, plan: Plan, batch: RawBatch, report: IngestReport) -> Chunk:
    n = len(batch.rows)
    parts = [np.empty((n, 0))]
    bad = np.zeros(n, np.bool_)
    for column in plan.columns:
        array = batch.columns[column.name]
        cells = read_cells(array, column, card.marks)
        if cells.missing:
            report.missing.setdefault(column.name, Counter()).update(cells.missing)
        _note(batch, column.name, array, cells, bad, report)
        parts.append(cells.values.reshape(n, -1))
    x = np.concatenate(parts, axis=1)
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
    return same | (numbers(array, integer=False, tokens=card.marks).values == value)


def _labels(
    card: Card, plan: Plan, batch: RawBatch, anomaly: NDArray[np.bool_], bad: NDArray[np.bool_], report: IngestReport
) -> NDArray[np.int64]:
    if not plan.label:
        return np.full(len(batch.rows), -1, np.int64)
    array = batch.columns[plan.label]
    cells = codes(array, plan.classes, (*card.marks, *plan.all[plan.label].missing))
    wrong = cells.bad & ~anomaly
    for index in np.flatnonzero(wrong & ~bad):
        where = f"{batch.file}: row {batch.rows[index]}, column {plan.label!r}"
        value = array[index].as_py()
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        report.reject(where, "unknown label", f"expected {cells.expected}, got {shown!r}")
    bad |= wrong
    without = int((np.isnan(cells.values) & ~anomaly & ~bad).sum())
    if without:
        report.missing.setdefault(plan.label, Counter()).update(cells.missing)
        report.unlabelled += without
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
        if notes:
            inspection.column_warnings[name] = "; ".join(notes)
            inspection.warnings.append(f"column {name!r}: {'; '.join(notes)}")
        columns.append(column)
    aside = (card.label, card.anomaly.column if card.anomaly else "")
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        columns = [_anyway(column, scans[column.name], inspection) for column in columns]
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        raise ValueError(f"{path}: no column can be learned from: " + "; ".join(
            f"{column.name!r} is {column.type} ({column.why})" for column in columns[:8]
        ) + ". Give another table.")  # fmt: skip
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


def _anyway(column: Column, scan: ColumnScan, inspection: Inspection) -> Column:
    """A column that is learned because there is no other: numbers that vary by row or not at all."""
    if column.type not in ("identifier", "index", "constant") or not scan.exact or not 0 < scan.known == scan.numeric:
        return column
    inspection.warnings.append(f"column {column.name!r} is learned all the same: there is no other")
    return Column(name=column.name, type="integer" if scan.whole else "continuous")


def _source(card: Card, path: Path, inspection: Inspection) -> Source:
    """How the files of a table are to be read, found from their content."""
    source = card.source
    if source.format == "sql":
        if not source.query:
            known = ", ".join(tables(path)) or "none"
            raise ValueError(f"{path} is a database: give --query 'SELECT …' (its tables: {known}).")
        return source
    if source.format == "excel":
        found = sheets(path)
        if not source.sheet and len(found) > 1:
            inspection.warnings.append(f"read is sheet {found[0]!r}; there are others: {', '.join(found[1:6])}")
        return replace(source, sheet=source.sheet or next(iter(found), ""))
    if source.format not in ("csv", "jsonl"):
        return source
    files = table_files(path, SUFFIXES[source.format])
    encodings = [detect(file) for file in files]
    encoding, why = next((found for found in encodings if found[1]), encodings[0])
    if why:
        inspection.warnings.append(f"read as {encoding}: {why}; set source.encoding in the card if it is another")
    if source.format == "jsonl":
        return replace(source, encoding=encoding)
    check_kind(files[0])
    dialect = sniff(files[0], encoding)
    inspection.warnings += dialect.notes
    return replace(source, encoding=encoding, delimiter=dialect.delimiter, header=dialect.header, skip=dialect.skip)


def _check_value(anomaly: Anomaly, values: tuple[str, ...], path: Path) -> None:
    def number(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if number(anomaly.value) not in {number(value) for value in values}:
        shown = ", ".join(map(repr, values[:20]))
        raise ValueError(f"{path}: no row has {anomaly.column} = {anomaly.value!r}; the values are {shown}")


def open_raw(card: Card, path: Path) -> RawTable:
    """Look at the files of a table and make sure that they agree.

    Raises:
        ValueError: If a file is empty, damaged, or has other columns than the first.
    """
    from data.readers.arrow import open_arrow
    from data.readers.database import open_query
    from data.readers.jsonlines import open_json_lines
    from data.readers.workbook import open_workbook

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
        return open_parquet(path, files)
    source = card.source
    dialect = Dialect(encoding=source.encoding, delimiter=source.delimiter, header=source.header, skip=source.skip)
    return open_csv(path, files, dialect)
