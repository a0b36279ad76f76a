"""Whole columns, and the table as its source has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .constraints import Constraints, Values
from .durations import DurationFormat
from .identifiers import IdentifierFormat
from .instants import DateTimeFormat
from .numbers import NumberFormat, is_plain, plain_numbers
from .parts import DAY, Part, instants_of
from .several import SeveralFormat

PLACEHOLDER = "[text]"
"""What stands in the place of free text, which is not learned."""
NO_LABEL = "(missing)"
"""What the class of the rows without a label is called, where no class of the source is called so."""
BOUNDS = ("<", ">", "≤", "≥")
"""What a mark of a missing number begins with that states where the number lies (`<0.5`)."""
GOLDEN = (5**0.5 - 1) / 2
Format = NumberFormat | SeveralFormat | DateTimeFormat | DurationFormat


@lru_cache(maxsize=512)
def format_of(role: str, pattern: str, parts: tuple[str, ...] = ()) -> Format:
    """The format of a column.

    Arguments:
        role: `number`, `several` numbers, `datetime` or `duration`.
        pattern: As the card gives it.
        parts: What dates, times and durations are learned as.
    Raises:
        ValueError: If the pattern or a part is none.
    """
    if role == "number":
        return NumberFormat(pattern)
    if role == "several":
        return SeveralFormat(pattern)
    kind = DateTimeFormat if role == "datetime" else DurationFormat
    return kind(pattern, tuple(map(Part.parse, parts)))


@dataclass(frozen=True)
class SourceTable:
    """The table as its source has it, made of what a model draws.

    Arguments:
        source: The manifest's `table`: the columns of the source in their order, each with `name`, `role`, `dtype`,
            `columns` (its places among the model's columns), and what its role needs (`pattern`, `parts`, …).
        columns: The columns of the model's domain.
        class_names: Names of the classes of the label, if there is one.
        stated: The manifest's `constraints`: the `columns` before any were replaced, the `rules`, the combinations that
            are `occurring`. The places in `source` are then among these columns.
    """

    source: Sequence[Mapping[str, Any]]
    columns: Sequence[Mapping[str, Any]]
    class_names: Sequence[str] = ()
    stated: Mapping[str, Any] | None = None

    @cached_property
    def constraints(self) -> Constraints | None:
        """The rules that every row obeys, if there are any."""
        if not self.stated:
            return None
        known = {column["name"]: column for column in self.columns}
        found = Constraints(self.stated["rules"], self.source, self.full, self.stated["occurring"])
        for column in found.learned:
            column.update({k: v for k, v in known.get(column["name"], {}).items() if k not in column})
        return found

    @cached_property
    def full(self) -> list[Mapping[str, Any]]:
        """The columns that the source's are made of, with what is known of them."""
        if not self.stated:
            return list(self.columns)
        known = {column["name"]: column for column in self.columns}
        return [{**column, **known.get(column["name"], {})} for column in self.stated["columns"]]

    def rows(self, x: NDArray[np.float64], given: Values | None = None, seed: int = 0) -> NDArray[np.float64]:
        """What a model drew as rows of the full columns, `[n, full]`; see `Constraints.inverse`."""
        return x if self.constraints is None else self.constraints.inverse(x, given, seed)[0]

    @property
    def written(self) -> list[Mapping[str, Any]]:
        """The columns of the source that come back."""
        return [entry for entry in self.source if entry["role"] != "skip"]

    def cells(
        self, x: NDArray[np.float64], label: NDArray[np.int64] | None = None, seed: int = 0
    ) -> dict[str, list[Any]]:
        """The source's columns by name, cell by cell: text as it was written, numbers, booleans; `None` where missing.

        Arguments:
            x: Rows in data space, `[n, columns]`, NaN where missing.
            label: Codes of the classes, -1 where unknown, `[n]`.
            seed: Selects the identifiers.
        """
        return self.cells_of(self.rows(x), label, seed)

    def cells_of(
        self, x: NDArray[np.float64], label: NDArray[np.int64] | None = None, seed: int = 0
    ) -> dict[str, list[Any]]:
        """The same of rows of the full columns, `[n, full]`."""
        found: dict[str, list[Any]] = {}
        for place, entry in enumerate(self.written):
            values = x[:, list(entry.get("columns", ()))]
            found[entry["name"]] = self._column(entry, values, label, np.random.default_rng((seed, place)))
        return found

    def _column(
        self,
        entry: Mapping[str, Any],
        values: NDArray[np.float64],
        label: NDArray[np.int64] | None,
        random: np.random.Generator,
    ) -> list[Any]:
        n, role = len(values), entry["role"]
        if role == "label":
            codes = np.full(n, -1) if label is None else label
            names = [None if name == entry.get("blank") else name for name in self.class_names]
            return [names[code] if code >= 0 else None for code in codes.tolist()]
        if role == "constant":
            return [entry["value"] if entry["value"] != "" else None] * n
        if role in ("text", "identifier"):  # not learned: cells are missing as often as in the source, by chance
            form = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.get("identifier", {}).items()}
            found = IdentifierFormat(**form).draw(n, random) if role == "identifier" else [PLACEHOLDER] * n
            blank = random.random(n) < entry.get("missing", 0.0)
            return [None if gap else text for text, gap in zip(found, blank.tolist(), strict=True)]
        if role == "category":
            names = self.full[entry["columns"][0]]["categories"]
            return [None if value != value else names[int(value)] for value in values[:, 0].tolist()]
        if role == "number" and is_plain(entry["pattern"]):
            whole = self.full[entry["columns"][0]]["type"] == "integer" and "float" not in entry["dtype"]
            numbers = plain_numbers(values[:, 0], entry["pattern"], whole=whole)
            if "string" not in entry["dtype"]:
                return numbers
            return _with_bounds([text or None for text in as_text(numbers, {**entry, "mark": "", "marks": {}})], entry)
        form = format_of(role, entry["pattern"], tuple(entry.get("parts", ())))
        if not entry["pattern"]:  # native dates: nanoseconds since 1970, or of the day, or of the duration
            return _native(values, form, entry["dtype"])
        return _with_bounds(form.write(values), entry)


def _with_bounds(cells: list[str | None], entry: Mapping[str, Any]) -> list[str | None]:
    """Texts, of which those that are not known hold a bound (`<0.5`), or nothing, as often as in the source."""
    marks = _spread(entry, sum(cell is None for cell in cells))
    bounds = [mark if mark[:1] in BOUNDS else None for mark in marks]
    return [bounds.pop() if cell is None else cell for cell in cells]


def _spread(entry: Mapping[str, Any], count: int, *, bounds: bool = True) -> list[str]:
    """What so many missing cells hold: the column's marks, each as often as in the source and evenly spread.

    Arguments:
        entry: Of the source's table.
        count: How many.
        bounds: Whether marks that state a bound are among them, where there are others.
    """
    marks = entry.get("marks") or {entry.get("mark", ""): 1}
    marks = {mark: n for mark, n in marks.items() if bounds or mark[:1] not in BOUNDS} or marks
    names, ends = list(marks), np.cumsum(list(marks.values()))
    places = np.searchsorted(ends / ends[-1], np.arange(1, count + 1) * GOLDEN % 1, side="right")
    return [names[place] for place in places.tolist()]


def _native(values: NDArray[np.float64], form: Any, dtype: str) -> list[int | None]:
    """Nanoseconds of native dates, times and durations, inside what their type can hold."""
    last = 2**63 - 1 if "[ns" in dtype else 2**70
    missing = np.isnan(values).any(1)
    when = instants_of(np.where(missing[:, None], 0.0, values), form.parts)
    rows = zip(when.days.tolist(), when.clock.tolist(), missing.tolist(), strict=True)
    return [None if gap else max(-last, min(last, day * DAY + clock)) for day, clock, gap in rows]


def as_text(cells: Sequence[Any], entry: Mapping[str, Any]) -> list[str]:
    """Cells of a column as a text file holds them, the missing ones by the column's own marks.

    Bounds are among these marks, except where the cells are texts, which hold them already (`SourceTable.cells`).
    """
    numbers = entry["role"] == "number" and is_plain(entry.get("pattern") or "")
    bounds = numbers and "string" not in str(entry.get("dtype", ""))
    marks, pattern = _spread(entry, sum(cell is None for cell in cells), bounds=bounds), entry.get("pattern", "")
    if entry["role"] == "number" and pattern:
        form = NumberFormat(pattern)
        known = np.array([math.nan if cell is None or isinstance(cell, str) else cell for cell in cells], np.float64)
        texts = form.write(known[:, None])
        return [
            marks.pop() if cell is None else cell if isinstance(cell, str) else text or ""
            for cell, text in zip(cells, texts, strict=True)
        ]
    return [marks.pop() if cell is None else str(cell) for cell in cells]
