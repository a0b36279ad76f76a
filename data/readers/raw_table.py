"""CSV and Parquet files as batches of raw columns, with the place of every row kept for messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.cards import SPLITS
from data.readers.base import SPLIT_NAMES, UNPUBLISHED, IngestReport
from data.sources.files import tree


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
        names: Names of the columns.
        types: Original types of the columns; `pa.binary()` where a CSV file leaves them open.
        batches: Reads it from the start, noting bad rows.
    """

    name: str
    names: list[str]
    types: dict[str, pa.DataType]
    batches: Callable[[IngestReport], Iterator[RawBatch]]


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


def check_names(path: Path, names: list[str]) -> None:
    """Make sure that every column has a name of its own.

    Raises:
        ValueError: If a name is missing, repeated or no text.
    """
    for position, name in enumerate(names, 1):
        kinds = {unicodedata.category(letter) for letter in name}
        if kinds & {"Cc", "Cs"}:
            wrong = "is not valid UTF-8 text" if "Cs" in kinds else "holds control characters"
            shown = f"{name[:60]}…" if len(name) > 60 else name
            raise ValueError(
                f"{path}: the name of column {position} {wrong}: {shown!r}. Save the file as UTF-8 text, and close "
                "every quotation mark in its first row."
            )
        if not name.strip():
            raise ValueError(f"{path}: column {position} of {len(names)} has no name in the header. Name every column.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: {', '.join(map(repr, repeated))} names more than one column. Rename the columns.")


def same_columns(file: Path, found: list[str], first: Path, expected: list[str]) -> None:
    """Refuse a file whose columns are not those of the first."""
    absent, extra = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if absent or extra:
        raise ValueError(
            f"{file} has other columns than {first.name}: "
            f"missing {', '.join(map(repr, absent)) or 'none'}, additional {', '.join(map(repr, extra)) or 'none'}. "
            "Give all files of the table the same columns."
        )
