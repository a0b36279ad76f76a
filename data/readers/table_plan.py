"""What a table is read as: which of its columns are learned, and how, by its card and a look at all of its cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.cards import LEARNED, Card, Column
from data.formats import NO_LABEL, Part, SeveralFormat, is_plain
from data.readers.base import IngestReport, class_list
from data.readers.columns import TRUTH, as_text, type_name
from data.readers.csv import open_csv
from data.readers.detect import ColumnScan
from data.readers.dialects import Dialect
from data.readers.identifiers import IdentifiersSeen
from data.readers.parquet import open_parquet
from data.readers.raw_table import RawBatch, RawTable, table_files
from data.readers.suffixes import SUFFIXES
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
        blank: The class of the rows without a label, the last; empty where they have none.
    """

    columns: tuple[Column, ...]
    all: dict[str, Column]
    label: str
    classes: list[str]
    blank: str = ""


@dataclass(kw_only=True, slots=True)
class Sources:
    """The manifest's `table`, completed while the rows are read.

    Arguments:
        entries: The columns of the source; see `data.formats.SourceTable`.
        identifiers: What was seen of the columns of identifiers.
        rows: How many rows there are.
    """

    entries: list[dict[str, Any]]
    identifiers: dict[str, IdentifiersSeen] = field(default_factory=dict)
    rows: int = 0

    def add(self, batch: RawBatch, marks: Callable[[str], Sequence[str]], report: IngestReport) -> None:
        """Note a batch's cells of columns that are not learned but have a place; `marks` are texts that mean none."""
        self.rows += len(batch.rows)
        for entry in self.entries:
            name = entry["name"]
            if entry["role"] not in ("identifier", "text"):
                continue
            texts = as_text(batch.columns[name])
            cells = pc.fill_null(pc.utf8_trim_whitespace(texts), "")
            absent = pc.is_in(cells, value_set=pa.array(["", *marks(name)], pa.string()))
            if pc.any(absent).as_py():
                counts = pc.value_counts(cells.filter(absent)).to_pylist()
                found = {entry["values"]: entry["counts"] for entry in counts}
                report.missing.setdefault(name, Counter()).update(found)
            if name in self.identifiers:
                self.identifiers[name].add(texts.filter(pc.invert(absent)))

    def finish(self, report: IngestReport) -> None:
        """Add what only the whole table tells: fresh identifiers, the mark of missing cells."""
        for entry in self.entries:
            marks = report.missing.get(entry["name"])
            if marks and entry["role"] != "skip":
                known = Counter[str]()
                for mark, count in marks.items():
                    known["" if mark in ("null", "nan", "inf") else mark] += count
                entry["mark"] = known.most_common(1)[0][0]
                if len(known) > 1:
                    entry["marks"] = dict(known.most_common())
                if entry["role"] in ("identifier", "text"):
                    entry["missing"] = marks.total() / self.rows
            if entry["name"] in self.identifiers:
                seen = self.identifiers[entry["name"]]
                entry["identifier"] = seen.fresh()
                if entry.pop("open", False):
                    entry["dtype"] = "int64" if seen.whole else "string"


def described(
    card: Card, plan: Plan, raw: RawTable, scans: dict[str, ColumnScan]
) -> tuple[list[dict[str, Any]], Sources]:
    """The columns that a model learns, as the manifest's domain lists them, and those of the source."""
    domain: list[dict[str, Any]] = []
    sources = Sources(entries=[])
    learned = {column.name: column for column in plan.columns}
    taken = set(raw.names)
    for name in raw.names:
        column = plan.all[name]
        scan = scans.get(name)
        entry: dict[str, Any] = {"name": name, "title": raw.titles.get(name, name), "role": _role(card, column)}
        entry["dtype"] = type_name(raw.types[name])
        if pa.types.is_dictionary(raw.types[name]):
            entry["dictionary"] = True
        if pa.types.is_binary(raw.types[name]):
            entry["dtype"] = _open_type(column, plan.classes if name == plan.label else column.categories, scan)
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
        elif entry["role"] == "label" and plan.blank:
            entry["blank"] = plan.blank
        if column.why:
            entry["why"] = column.why
        if name in raw.pandas:
            entry["pandas"] = raw.pandas[name]
        sources.entries.append(entry)
    return domain, sources


def _open_type(column: Column, values: Sequence[str], scan: ColumnScan | None) -> str:
    """The type of a column of a text file, which leaves it open, by its categories and what else is known of it."""
    if column.type == "categorical" and values and TRUTH.issuperset(values):
        return "bool"
    if scan is not None:
        return scan.dtype
    plain = is_plain(column.format)
    return {"integer": "int64", "continuous": "float64"}.get(column.type, "string") if plain else "string"


def _role(card: Card, column: Column) -> str:
    if column.name == card.label:
        return "label"
    if column.name in (card.anomaly.column if card.anomaly else "", card.splits.column):
        return "skip"
    roles = {"continuous": "number", "integer": "number", "categorical": "category", "index": "identifier"}
    return roles.get(column.type, column.type)


def _learned(column: Column, dtype: str, taken: set[str]) -> Iterator[dict[str, Any]]:
    """What a model learns of a column: itself, the parts of a date, or each of several numbers and units."""
    if column.type == "several":
        for place, hole in enumerate(SeveralFormat(column.format).holes, 1):
            units = [text.strip() for text in hole] if isinstance(hole, tuple) else []
            kind = "categorical" if units else "continuous" if hole.decimals else "integer"  # pyright: ignore[reportAttributeAccessIssue]
            stored = {"categorical": "string", "continuous": "float64", "integer": "int64"}[kind]
            yield {"name": _free(f"{column.name}.{place}", taken), "type": kind, "dtype": stored, "categories": units}
        return
    if not column.parts:
        as_stored = column.type == "categorical" or (is_plain(column.format) and "string" not in dtype)
        kind = dtype if as_stored else {"integer": "int64", "continuous": "float64"}[column.type]
        categories = list(column.categories) if column.type == "categorical" else []
        yield {"name": column.name, "type": column.type, "dtype": kind, "categories": categories}
        return
    for part in map(Part.parse, column.parts):
        if not part.learned:
            continue
        yield {
            "name": _free(f"{column.name}.{part.name}", taken), "type": "categorical" if part.values else "integer",
            "dtype": "string" if part.values else "int64", "categories": list(part.categories),
            "source": column.name, "part": part.name,
        }  # fmt: skip


def blank_class(classes: Iterable[str]) -> str:
    """What the class of the rows without a label is called beside these."""
    return _free(NO_LABEL, set(classes))


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken, and is now."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def check_names(card: Card, raw: RawTable) -> None:
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


def needs_scan(card: Card) -> bool:
    """Whether the card leaves open what the table holds."""
    label = next((column for column in card.columns if column.name == card.label), None)
    open_label = bool(card.label) and not card.classes and not (label and label.categories)
    aside = {card.anomaly.column if card.anomaly else "", card.splits.column, card.label}
    open_columns = any(
        column.type == "categorical" and not column.categories and column.name not in aside for column in card.columns
    )
    return not card.columns or open_label or open_columns


def plan_of(card: Card, raw: RawTable, scans: dict[str, ColumnScan], report: IngestReport) -> Plan:
    """What a table is read as, by its card and, where this leaves something open, by what its cells are."""
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
    undivided = len(every) == 1 and bool(columns) and re.search(r"\}[,;]\{", columns[0].format)
    if not columns or undivided:
        found = f"{len(every)} column{'s' if len(every) != 1 else ''} ({', '.join(map(repr, list(every)[:8]))})"
        delimiter = f", or source.delimiter, which is {card.source.delimiter!r}" if len(every) == 1 else ""
        raise ValueError(
            f"{raw.name} has no column left to learn from among its {found}. Fix columns in the card{delimiter}."
        )
    for column in columns:
        if len(column.categories) > card.max_categories:
            raise ValueError(
                f"column {column.name!r} has {len(column.categories)} categories, more than max_categories: "
                f"{card.max_categories}. Set its type to skip, or raise max_categories in the card."
            )
    names = _classes(card, given, scans, raw)
    classes, blank = [name for name in names if name], ""
    if len(classes) < len(names) and card.missing == "model":
        blank = blank_class(classes)
        classes.append(blank)
    return Plan(columns=tuple(columns), all=every, label=card.label, classes=classes, blank=blank)


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


def open_raw(card: Card, path: Path) -> RawTable:
    """Look at the files of a table and make sure that they agree.

    Raises:
        ValueError: If a file is empty, damaged, or has other columns than the first.
    """
    from data.readers.arff import open_arff
    from data.readers.arrow import open_arrow
    from data.readers.database import open_query
    from data.readers.jsonlines import open_json_lines
    from data.readers.statistical import open_statistical
    from data.readers.workbook import open_workbook

    form = card.source.format
    if form == "sql":
        return open_query(path, card.source.query)
    if form == "excel":
        return open_workbook(path, card.source)
    files = table_files(path, SUFFIXES[form])
    if form == "jsonl":
        return open_json_lines(path, files, card.source.encoding)
    if form == "arff":
        return open_arff(path, files, card.source.encoding)
    if form in ("stata", "sas", "orc"):
        return open_statistical(path, files, form)
    if form == "arrow":
        return open_arrow(path, files)
    if form == "parquet":
        return open_parquet(path, files)
    source = card.source
    dialect = Dialect(
        encoding=source.encoding, delimiter=source.delimiter, header=source.header, skip=source.skip,
        below=source.below, footer=source.footer, pad=source.pad, trim=source.trim,
        literal=source.literal, widths=source.widths,
    )  # fmt: skip
    return open_csv(path, files, dialect)
