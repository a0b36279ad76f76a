"""Tables as chunks: every cell checked against the card, or against what the whole table was seen to hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import SPLITS, Card
from data.domains.table import row_hashes
from data.readers.base import SPLIT_NAMES, Chunk, IngestReport, Mapper, Reader, split_by_rows
from data.readers.columns import Cells, as_text, codes, is_text, not_utf8, numbers, read_cells
from data.readers.raw_table import RawBatch
from data.readers.rules import Rules
from data.readers.table_plan import Plan, check_names, described, needs_scan, open_raw, plan_of, scan_table


def open_table(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at a table and return its reader."""
    raw = open_raw(card, path)
    check_names(card, raw)
    for note in raw.notes:
        report.warn(note)
    scans = scan_table(raw, card) if needs_scan(card) else {}
    plan = plan_of(card, raw, scans, report)
    domain, sources = described(card, plan, raw, scans)
    rules = Rules(card, sources.entries, domain, raw.name) if card.constraints else None

    def chunks() -> Iterator[Chunk]:
        anomalies = 0
        for batch in raw.batches(report):
            chunk = _chunk(card, plan, batch, report, rules)
            sources.add(batch, lambda name: (*card.marks, *plan.all[name].missing), report)
            anomalies += int(chunk.anomaly.sum())
            yield chunk
        sources.finish(report)
        if rules:
            rules.finish(report)
        if card.anomaly and not anomalies:
            raise ValueError(
                f"{raw.name}: no row has {card.anomaly.column} = {card.anomaly.value!r}, which marks anomalies in the "
                "card. Fix anomaly in the card."
            )

    learned = rules.found.learned if rules else domain
    return Reader(
        event_shape=(len(learned),), dtype="float64", class_names=plan.classes, columns=learned, table=sources.entries,
        constraints=rules.stated if rules else {}, chunks=chunks,
    )  # fmt: skip


def _chunk(card: Card, plan: Plan, batch: RawBatch, report: IngestReport, rules: Rules | None) -> Chunk:
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
    if rules:
        rules.check(x, batch, bad, report)
    good = ~bad
    x = x[good]
    return Chunk(
        x=rules.found.forward(x) if rules else x, label=label[good], split=split[good], anomaly=anomaly[good],
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
    learned = bool(plan.blank)
    if without:
        report.missing.setdefault(plan.label, Counter()).update(cells.missing)
        report.unlabelled += 0 if learned else without
    absent = np.where(anomaly | (not learned), -1, len(plan.classes) - 1)
    return np.where(np.isnan(cells.values), absent, cells.values).astype(np.int64)


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
