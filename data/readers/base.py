"""Sources as streams of chunks: the one form in which every format reaches the shards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card, Inspection

Item = TypeVar("Item")
Result = TypeVar("Result")
Mapper = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[Any]]
"""Applies a function to items, anywhere, and yields the results in the order of the items.

Its third argument is about how many bytes there are behind all items: too few are not worth sharing.
"""


def here(function: Callable[[Any], Any], items: Iterable[Any], size: int) -> Iterator[Any]:
    """A `Mapper` that works in this process."""
    return map(function, items)


UNPUBLISHED = -1
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "t10k": "test",
}  # fmt: skip
"""What published splits are called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A few thousand examples of a source, in its order.

    Arguments:
        x: `[n, *event]`, uint8 or float64.
        label: Class of each example, -1 where unknown, `[n]`.
        split: Index into `SPLITS` of each example's published split, -1 where none is, `[n]`.
        anomaly: Which examples are anomalies, `[n]`.
        content: A 64-bit hash of each example's content, `[n]`.
        source: Position of each example in the source, `[n]`.
    """

    x: NDArray[Any]
    label: NDArray[np.int64]
    split: NDArray[np.int8]
    anomaly: NDArray[np.bool_]
    content: NDArray[np.uint64]
    source: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A source that has been looked at and can be read.

    Arguments:
        event_shape: Shape of an example.
        dtype: `uint8` or `float64`.
        class_names: Names of the classes, empty when there are no labels; complete once all chunks were read.
        columns: Of a table: name, type, categories and original dtype of each column that is learned.
        table: Of a table: the columns of the source, as `data.formats.SourceTable` takes them; complete once all
            chunks were read.
        constraints: Of a table: what every row obeys, as `data.formats.SourceTable` takes it, likewise complete.
        chunks: Reads the source from the start.
    """

    event_shape: tuple[int, ...]
    dtype: str
    class_names: list[str]
    chunks: Callable[[], Iterator[Chunk]]
    columns: list[dict[str, Any]] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    constraints: dict[str, Any] = field(default_factory=dict)


def check_no_label(card: Card, path: Path) -> None:
    """Refuse a label column where there are no columns.

    Raises:
        ValueError: If the card names one.
    """
    if card.label:
        raise ValueError(f"label names a column of a table; {path} holds images, whose class is their folder's name")


class Inspector(Protocol):
    """Looks at a source and returns the card that fits it, with what was found and what is doubtful.

    Images are brought to `size` (`WIDTHxHEIGHT`, or one number) as `fit` says (`crop`, `pad`, `stretch`).
    """

    def __call__(self, card: Card, path: Path, size: str, fit: str) -> Inspection: ...


class Opener(Protocol):
    """Looks at a source and returns its reader."""

    def __call__(self, card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader: ...


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key under which `2` comes before `10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Distinct names in natural order."""
    return sorted(set(names), key=lambda name: (natural(name), name))


def split_by_rows(card: Card, positions: NDArray[np.int64]) -> NDArray[np.int8]:
    """The published split of each row, where the card gives ranges of rows."""
    split = np.full(len(positions), UNPUBLISHED, np.int8)
    for name, (first, end) in card.splits.rows.items():
        split[(positions >= first) & (positions < end)] = SPLITS.index(name)
    return split


def class_list(card: Card, found: Iterable[str]) -> list[str]:
    """The classes of labelled data in the order of their codes: the card's, or those found, the anomalous one aside."""
    anomalous = card.anomaly.value if card.anomaly else None
    return [name for name in card.classes or natural_sorted(found) if name != anomalous]


def class_codes(card: Card, found: list[str], classes: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Code of each class of the source (-1 for the anomalous one), and which is anomalous."""
    code = {name: index for index, name in enumerate(classes)}
    anomalous = card.anomaly.value if card.anomaly else None
    codes = np.array([code.get(name, -1) for name in found], np.int64)
    return codes, np.array([name == anomalous for name in found], np.bool_)


def check_anomaly(card: Card, found: Iterable[str], what: str) -> None:
    """Make sure that the card's anomalies exist.

    Raises:
        ValueError: If no example has the value that marks anomalies.
    """
    names = natural_sorted(found)
    if card.anomaly and card.anomaly.value not in names:
        raise ValueError(
            f"{what}: no example has {card.anomaly.column} = {card.anomaly.value!r}, which marks anomalies in the "
            f"card; found {', '.join(map(repr, names[:20])) or 'no classes'}. Fix anomaly in the card."
        )


FIRST = 20
REPEATED_HEADERS = "rows that repeat the header"


@dataclass(kw_only=True, slots=True)
class IngestReport:
    """A running account of a source.

    Arguments:
        on_bad: `fail` raises at the first bad example, `drop` counts it.
        max_bad: The share of bad examples above which `drop` raises, too.
    """

    on_bad: str = "fail"
    max_bad: float = 0.01
    read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    bad_first: list[dict[str, str]] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    converted_first: dict[str, list[str]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    missing: dict[str, Counter[str]] = field(default_factory=dict)
    unlabelled: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Number of examples left out because they are bad."""
        return sum(self.bad.values())

    def reject(self, where: str, reason: str, detail: str) -> None:
        """Note a bad example.

        Arguments:
            where: File, row, column: what a person needs to find it.
            reason: A few words that are the same for every example with this fault.
            detail: Expected and got.
        Raises:
            ValueError: If bad examples are not to be dropped.
        """
        if self.on_bad == "fail":
            raise ValueError(
                f"{where}: {reason}: {detail.rstrip('.')}. Fix the source, or set `on_bad: drop` in the card "
                f"to leave such examples out (up to a share of `max_bad: {self.max_bad:g}`)."
            )
        self.bad[reason] += 1
        if len(self.bad_first) < FIRST:
            self.bad_first.append({"where": where, "reason": reason, "detail": detail})

    def convert(self, what: str, where: str, count: int = 1) -> None:
        """Note a defined conversion of an example."""
        self.converted[what] += count
        first = self.converted_first.setdefault(what, [])
        if len(first) < 3:
            first.append(where)

    def warn(self, text: str) -> None:
        """Note something a person should look at, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def close(self, source: str) -> None:
        """Check the account once the source has been read.

        Raises:
            ValueError: If too large a share of the examples was bad, or none was good.
        """
        total = self.read + self.dropped
        if self.dropped > self.max_bad * total:
            causes = ", ".join(f"{count} × {reason}" for reason, count in self.bad.most_common())
            first = self.bad_first[0]
            raise ValueError(
                f"{source}: {self.dropped} of {total} examples are bad, more than `max_bad: {self.max_bad:g}` allows: "
                f"{causes}; the first is {first['where']}: {first['detail']}. Fix the source, or raise max_bad."
            )
        if not self.read:
            raise ValueError(f"{source} holds no examples. Give a source with data in it.")

    def as_dict(self) -> dict[str, Any]:
        """The account as JSON holds it."""
        return {
            "read": self.read,
            "dropped": self.dropped,
            "dropped_by_reason": dict(sorted(self.bad.items())),
            "dropped_first": self.bad_first,
            "converted": dict(sorted(self.converted.items())),
            "converted_first": dict(sorted(self.converted_first.items())),
            "ignored_files": dict(sorted(self.ignored.items())),
            "without_label": self.unlabelled,
            "missing_cells": {name: dict(sorted(counts.items())) for name, counts in self.missing.items()},
            "warnings": self.warnings,
        }
