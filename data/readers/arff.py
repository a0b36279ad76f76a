"""Weka's ARFF files as tables: attributes by name, rows of cells or of what is not zero."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.readers.base import IngestReport
from data.readers.dialects import column_names
from data.readers.encodings import Decoded
from data.readers.raw_table import RawBatch, RawTable, absent_notes, partial_columns, splits_of, united, with_columns
from data.sources.inflate import inflated

ROWS = 1 << 13
PIECE = 1 << 20
ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.*)""", re.IGNORECASE)
CELL = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,]*?))\s*(?:,|$)""")
ESCAPED = re.compile(r"\\(.)")


def open_arff(path: Path, files: list[Path], encoding: str) -> RawTable:
    """Look at the attributes of ARFF files; cells are texts, as those of CSV files are.

    Raises:
        ValueError: If a file has no attributes or no data, or they have different ones.
    """
    found = [_attributes(file, encoding) for file in files]
    listed = [[name for name, _ in attributes] for attributes in found]
    splits = splits_of(path, files)
    originals = united(listed, files, splits)
    names, renamed = column_names(originals)

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        offset = 0
        for file, attributes, split in zip(files, found, splits, strict=True):
            places = [names[originals.index(name)] for name, _ in attributes]
            for rows, cells in _parts(file, encoding, attributes, report):
                columns = dict(zip(places, (pa.array(column, pa.binary()) for column in cells), strict=True))
                positions = np.arange(offset, offset + len(rows))
                offset += len(rows)
                raw = RawBatch(file=file, rows=rows, positions=positions, split=split, columns=columns)
                yield with_columns(raw, names)

    return RawTable(
        name=str(path), names=names, types=dict.fromkeys(names, pa.binary()), batches=batches,
        titles={name: original for name, original in zip(names, originals, strict=True) if name != original},
        notes=renamed + absent_notes(listed, files, originals),
        partial=partial_columns(listed, originals, names),
    )  # fmt: skip


def _parts(
    file: Path, encoding: str, attributes: list[tuple[str, str]], report: IngestReport
) -> Iterator[tuple[NDArray[np.int64], list[list[bytes]]]]:
    """Some thousand rows at a time: their lines' numbers, and the cells of each attribute."""
    numbers: list[int] = []
    rows: list[list[str]] = []
    for number, line in _lines(file, encoding):
        cells = _sparse(line, attributes) if line.startswith("{") else _dense(line)
        if len(cells) != len(attributes):
            got = f"expected {len(attributes)}, got {len(cells)}: {line[:60]!r}"
            report.reject(f"{file}: row {number}", "wrong number of cells", got)
            continue
        numbers.append(number)
        rows.append(cells)
        if len(rows) == ROWS:
            yield np.array(numbers), [[cell.encode() for cell in column] for column in zip(*rows, strict=True)]
            numbers, rows = [], []
    if rows:
        yield np.array(numbers), [[cell.encode() for cell in column] for column in zip(*rows, strict=True)]


def _text(file: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without comments and blank ones."""
    with closing(inflated(file)) as stream:
        text, ready, number = Decoded(stream, encoding, file), b"", 0
        while piece := text.read(PIECE):
            *lines, ready = (ready + piece).split(b"\n")
            for line in lines:
                number += 1
                yield number, line.decode("utf-8", "replace").strip()
        if ready:
            yield number + 1, ready.decode("utf-8", "replace").strip()


def _attributes(file: Path, encoding: str) -> list[tuple[str, str]]:
    """Names of the attributes, and what a cell is that a sparse row leaves out.

    Raises:
        ValueError: If there are none, or no data follow.
    """
    found: list[tuple[str, str]] = []
    for number, line in _text(file, encoding):
        if line.lower().startswith("@data"):
            if found:
                return found
            break
        if not line.lower().startswith("@attribute"):
            continue
        parsed = ATTRIBUTE.fullmatch(line)
        if parsed is None:
            raise ValueError(f"{file}: row {number}: expected '@attribute NAME TYPE', got {line[:60]!r}. Fix the file.")
        name = next(group for group in parsed.groups()[:3] if group is not None)
        first = CELL.match(parsed[4].lstrip("{").rstrip("}")) if parsed[4].startswith("{") else None
        found.append((ESCAPED.sub(r"\1", name), _cell(first) if first else "0"))
    raise ValueError(f"{file}: expected lines '@attribute NAME TYPE' and then '@data'. Give another file.")


def _lines(file: Path, encoding: str) -> Iterator[tuple[int, str]]:
    data = False
    for number, line in _text(file, encoding):
        if data and line and not line.startswith("%"):
            yield number, line
        data |= line.lower().startswith("@data")


def _cell(found: re.Match[str]) -> str:
    single, double, bare = found.groups()
    if bare is not None:
        return "" if bare == "?" else bare
    return ESCAPED.sub(r"\1", single if single is not None else double)


def _dense(line: str) -> list[str]:
    found, at = [], 0
    while at <= len(line):
        cell = CELL.match(line, at)
        if cell is None:
            return []
        found.append(_cell(cell))
        if cell.end() == len(line) and not cell[0].endswith(","):
            return found
        at = cell.end()
    return found


def _sparse(line: str, attributes: list[tuple[str, str]]) -> list[str]:
    cells = [absent for _, absent in attributes]
    for part in _dense(re.sub(r"(\d+)\s+('|\")", r"\2\1 ", line.strip("{} "))):
        place, blank, value = part.partition(" ")
        if blank and place.isdigit() and int(place) < len(cells):
            cells[int(place)] = "" if value.strip() == "?" else value.strip()
        elif part:
            return []
    return cells
