"""Files of tables as batches of raw columns, with the place of every row kept for messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.cards import SPLITS
from data.readers.base import SPLIT_NAMES, UNPUBLISHED, IngestReport
from data.readers.suffixes import COMPRESSED
from data.sources.files import tree
from data.sources.inflate import ABOUT


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
        names: Names of the columns, each its own.
        types: Original types of the columns; `pa.binary()` where a text file leaves them open.
        batches: Reads it from the start, noting bad rows.
        titles: Names as the source has them, where they are others.
        notes: What was found that a person should know.
        partial: Columns that are not in every file.
        pandas: What pandas noted of columns, where it wrote the file.
    """

    name: str
    names: list[str]
    types: dict[str, pa.DataType]
    batches: Callable[[IngestReport], Iterator[RawBatch]]
    titles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    partial: frozenset[str] = frozenset()
    pandas: dict[str, dict[str, Any]] = field(default_factory=dict)


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
    endings = Counter(_ending(file) for file in files)
    tables = [file for file in files if _ending(file) == endings.most_common(1)[0][0] and not ABOUT.search(file.name)]
    return tables or files


def _ending(file: Path) -> str:
    """`.csv` of `part.1.csv.gz`."""
    name = file.name.lower()
    packed = next((end for end in COMPRESSED[1:] if name.endswith(end)), "")
    return Path(name.removesuffix(packed)).suffix


def beside(path: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of files in a folder that are not read as parts of its table."""
    if path.is_file():
        return []
    read = set(table_files(path, suffixes))
    return [inside for inside, file in tree(path) if file.name.lower().endswith(suffixes) and file not in read]


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


def united(listed: list[list[str]], files: list[Path], splits: list[int]) -> list[str]:
    """The columns of a table of several files; only published splits may lack some.

    Raises:
        ValueError: If files of one split have different columns.
    """
    longest = max(listed, key=len)
    order = list(dict.fromkeys([*longest, *(name for names in listed for name in names)]))
    for file, names in zip(files, listed, strict=True):
        absent = [name for name in order if name not in names]
        if absent and (UNPUBLISHED in splits or len(absent) > len(names)):
            first = next(other for other, found in zip(files, listed, strict=True) if absent[0] in found)
            raise ValueError(
                f"{file} has other columns than {first.name}: missing {', '.join(map(repr, absent))}, additional "
                f"{', '.join(repr(n) for n in names if n not in listed[files.index(first)]) or 'none'}. "
                "Give all files of the table the same columns, or give one of the files."
            )
    return order


def absent_notes(listed: list[list[str]], files: list[Path], names: list[str]) -> list[str]:
    """What to say of columns that are not in every file."""
    return [
        f"{file.name} has no column {', '.join(repr(name) for name in names if name not in found)}: "
        "its cells are missing"
        for file, found in zip(files, listed, strict=True)
        if len(set(found)) < len(names)
    ]


def partial_columns(listed: list[list[str]], originals: list[str], names: list[str]) -> frozenset[str]:
    """Names of the columns that are not in every file, which list them by their original names."""
    every = set[str].intersection(*map(set, listed)) if listed else set()
    return frozenset(name for original, name in zip(originals, names, strict=True) if original not in every)


def with_columns(batch: RawBatch, names: list[str], types: dict[str, pa.DataType] | None = None) -> RawBatch:
    """A batch with all of the table's columns, those that its file lacks being empty."""
    n = len(batch.rows)
    columns = {
        name: batch.columns[name] if name in batch.columns
        else pa.nulls(n, (types or {}).get(name, pa.binary()))
        for name in names
    }  # fmt: skip
    return replace(batch, columns=columns)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
