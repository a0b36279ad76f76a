"""JSON lines (one object a line) and JSON lists of objects, as tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.readers.base import IngestReport
from data.readers.dialects import column_names
from data.readers.encodings import Decoded
from data.readers.json_rows import Keys, flat, rows_of, values_of
from data.readers.raw_table import RawBatch, RawTable, absent_notes, partial_columns, splits_of, united, with_columns
from data.sources.inflate import inflated

ROWS = 1 << 13
LINE_LIMIT = 16 << 20
LIST_LIMIT = 512 << 20


def open_json_lines(path: Path, files: list[Path], encoding: str) -> RawTable:
    """Look at all lines of JSON files, and find the type of every key.

    A key that is now a number and now a text becomes text; objects become keys of their own (`address.city`); lists
    stay what they are and are not learned.

    Raises:
        ValueError: If a file is empty, or a line is no JSON object.
    """
    seen: list[dict[str, Counter[str]]] = []
    whole: frozenset[str] = frozenset()
    for file in files:
        keys = Keys()
        for _, row in _rows(file, encoding, IngestReport(on_bad="drop", max_bad=1.0)):
            keys.add(row)
        if not keys.rows:
            raise ValueError(f"{file} is empty or holds no JSON objects, one a line. Give another file.")
        seen.append(keys.found)
        whole |= keys.whole
    splits = splits_of(path, files)
    listed = [list(found) for found in seen]
    originals = (
        united(listed, files, splits)
        if splits.count(-1) < len(splits)
        else list(dict.fromkeys(name for names in listed for name in names))
    )
    names, renamed = column_names(originals)
    kinds = {
        name: type_of(sum((found.get(original, Counter()) for found in seen), Counter()))
        for original, name in zip(originals, names, strict=True)
    }
    notes = renamed + absent_notes(listed, files, originals)
    mixed = [
        name
        for original, name in zip(originals, names, strict=True)
        if len({kind for found in seen for kind in found.get(original, ()) if kind != "null"} - {"integer"}) > 1
    ]
    notes += [f"key {name!r} holds values of several types: taken as text" for name in mixed]

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        offset = 0
        for file, split in zip(files, splits, strict=True):
            kept: list[tuple[int, dict[str, Any]]] = []
            last = 0
            for number, row in _rows(file, encoding, report):
                kept.append((number, flat(row, whole)))
                last = number
                if len(kept) == ROWS:
                    yield batch_of(file, split, kept, originals, names, kinds, offset)
                    kept = []
            if kept:
                yield batch_of(file, split, kept, originals, names, kinds, offset)
            offset += last

    return RawTable(
        name=str(path), names=names, types=kinds, batches=batches, notes=notes,
        titles={name: original for name, original in zip(names, originals, strict=True) if name != original},
        partial=partial_columns(listed, originals, names),
    )  # fmt: skip


def _rows(file: Path, encoding: str, report: IngestReport) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with the number of their line (of a list: of the item), from 1."""
    with closing(inflated(file)) as stream:
        text = Decoded(stream, encoding, file)
        head = text.read(1 << 16)
        if head.lstrip()[:1] == b"[" or _one_object(head):
            yield from enumerate(_items(file, head + text.read(LIST_LIMIT)), 1)
            return
        number, ready = 0, head
        while ready:
            *lines, ready = ready.split(b"\n")
            for line in lines:
                number += 1
                yield from _line(file, number, line, report)
            piece = text.read(1 << 20)
            if not piece:
                if ready:
                    yield from _line(file, number + 1, ready, report)
                return
            ready += piece
            if len(ready) > LINE_LIMIT and b"\n" not in ready:
                raise ValueError(f"{file}: line {number + 1} has more than {LINE_LIMIT >> 20} MiB. Is it JSON lines?")


def _line(file: Path, number: int, line: bytes, report: IngestReport) -> Iterator[tuple[int, dict[str, Any]]]:
    if not line.strip():
        return
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            yield number, row
            return
        got = f"a {type(row).__name__}"
    except (ValueError, RecursionError) as error:
        got = str(error)
    report.reject(f"{file}: row {number}", "not a JSON object", f'expected an object such as {{"a": 1}}, got {got}')


def _one_object(head: bytes) -> bool:
    """Whether a file that begins so holds one object: it has one line, or one that leaves off in its midst."""
    line, _, rest = head.lstrip().partition(b"\n")
    return line[:1] == b"{" and (not rest.strip() or re.search(rb"[{\[,]\s*$", line) is not None)


def _items(file: Path, body: bytes) -> list[dict[str, Any]]:
    """The rows of a file that is one JSON value."""
    if len(body) >= LIST_LIMIT:
        raise ValueError(
            f"{file} is a JSON value of more than {LIST_LIMIT >> 20} MiB: write it as JSON lines (.jsonl)."
        )
    try:
        values = values_of(body.decode("utf-8", "replace").strip())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no valid JSON: {error}. Fix the file.") from None
    rows = rows_of(values[0] if len(values) == 1 else values)
    for number, item in enumerate(rows, 1):
        if not isinstance(item, dict):
            raise ValueError(f"{file}: item {number} of the list is no object but a {type(item).__name__}.")
    return rows


def type_of(kinds: Counter[str]) -> pa.DataType:
    found = set(kinds) - {"null"}
    if not found:
        return pa.null()
    if found == {"boolean"}:
        return pa.bool_()
    if found == {"integer"}:
        return pa.int64()
    if found <= {"integer", "number"}:
        return pa.float64()
    return pa.list_(pa.null()) if found == {"nested"} else pa.string()


def batch_of(
    file: Path, split: int, kept: list[tuple[int, dict[str, Any]]], originals: list[str], names: list[str],
    kinds: dict[str, pa.DataType], offset: int,
) -> RawBatch:  # fmt: skip
    rows = np.array([number for number, _ in kept], np.int64)
    columns = {}
    for original, name in zip(originals, names, strict=True):
        kind = kinds[name]
        cells = [row.get(original) for _, row in kept]
        if pa.types.is_list(kind):
            columns[name] = pa.array([None if cell is None else [] for cell in cells], kind)
        elif pa.types.is_string(kind):
            columns[name] = pa.array([_text(cell) for cell in cells], pa.string())
        else:
            columns[name] = pa.array(cells, kind)
    raw = RawBatch(file=file, rows=rows, positions=rows - 1 + offset, split=split, columns=columns)
    return with_columns(raw, names, kinds)


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # lone surrogates are no text
