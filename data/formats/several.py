"""Several numbers in one cell, or a number and its unit, as a pattern writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .numbers import NumberFormat, _read

HOLE = re.compile(r"(\{[^{}]*\})")
NUMBER = re.compile(r"0(?:\.0*#*)?")


@dataclass(frozen=True)
class SeveralFormat:
    """Several numbers and the text around them, of which one part may be one of a few.

    Arguments:
        pattern: The text, with the pattern of a number in braces for each, or the texts that may stand there:
            `({0.0000}, {0.0000})`, `{0}/{0}`, `{0.0}{ kg| lbs}`.

    Example:
        >>> form = SeveralFormat("{0.0} [{0.0}-{0.0#}]{|*}")
        >>> form.write(form.read(["54.4 [45.9-69.35]*"])[0])
        ['54.4 [45.9-69.35]*']
    """

    pattern: str

    @cached_property
    def holes(self) -> list[NumberFormat | tuple[str, ...]]:
        """How each of the numbers is written, or which texts may stand there."""
        inner = [hole[1:-1] for hole in HOLE.split(self.pattern)[1::2]]
        found = [NumberFormat(core) if NUMBER.fullmatch(core) else tuple(core.split("|")) for core in inner]
        faulty = any(isinstance(hole, tuple) and len(hole) < 2 for hole in found)
        if len(found) < 2 or faulty or all(isinstance(hole, tuple) for hole in found):
            raise ValueError(
                f"expected a pattern such as '{{0}}/{{0}}' or '{{0.0}}{{ kg| lbs}}', with numbers and texts in braces, "
                f"got {self.pattern!r}"
            )
        return found

    @cached_property
    def texts(self) -> list[str]:
        """What stands before, between and after them."""
        return HOLE.split(self.pattern)[::2]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        groups = [_choice(hole) if isinstance(hole, tuple) else NUMERAL for hole in self.holes]
        between = map(_spaced, self.texts)
        return re.compile("".join(gap + group for gap, group in zip(between, [*groups, ""], strict=True)))

    def read_one(self, text: str) -> tuple[float, ...] | None:
        """The numbers that a text states, and the places of its texts among those that may stand there.

        `None` if it is not of this form.
        """
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        values = tuple(
            float([_plain(one) for one in hole].index(_plain(part))) if isinstance(hole, tuple) else float(part)
            for hole, part in zip(self.holes, found.groups(), strict=True)
        )
        return values if all(map(math.isfinite, values)) else None

    def read(self, texts: Iterable[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """What each text states, `[n, holes]`, NaN for `None`, and which texts are not of this form, `[n]`."""
        return _read(self.read_one, texts, len(self.holes))

    def write(self, values: NDArray[np.float64]) -> list[str | None]:
        """The same `[n, holes]` as texts; `None` where one is missing."""
        columns = [
            [None if v != v else hole[int(v)] for v in values[:, place].tolist()]
            if isinstance(hole, tuple)
            else hole.write(values[:, [place]])
            for place, hole in enumerate(self.holes)
        ]
        rows = zip(*columns, strict=True)
        return [None if None in row else self._joined([*map(str, row), ""]) for row in rows]

    def _joined(self, parts: list[str]) -> str:
        return "".join(text + part for text, part in zip(self.texts, parts, strict=True))


def with_numbers(
    source: Iterable[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """A table's entries, those of several numbers followed by one for each number, as rules name them (`bp.1`).

    Arguments:
        source: The manifest's `table`.
        columns: The full columns that `columns` of its entries are places among.
    """
    for entry in source:
        if entry["role"] != "several" or not entry.get("columns"):
            yield entry
            continue
        holes = dict(zip(entry["columns"], SeveralFormat(entry["pattern"]).holes, strict=True))
        yield {**entry, "columns": [place for place, hole in holes.items() if isinstance(hole, tuple)]}
        for place, hole in holes.items():
            if isinstance(hole, NumberFormat):
                column = columns[place]
                number = {"name": column["name"], "role": "number", "dtype": column["dtype"], "pattern": hole.pattern}
                yield {**number, "columns": [place], "of": entry["name"]}


NUMERAL = r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"


def _plain(text: str) -> str:
    return "".join(text.split())


def _spaced(text: str) -> str:
    """A regular expression of a text with any blanks around and within it; of blanks alone, with some."""
    if not text.strip():
        return r"\s+" if text else r"\s*"
    return r"\s*".join(["", *map(re.escape, text.split()), ""])


def _choice(texts: tuple[str, ...]) -> str:
    """A regular expression of one of some texts, the longest first."""
    return f"({'|'.join(_spaced(text) for text in sorted(texts, key=len, reverse=True))})"
