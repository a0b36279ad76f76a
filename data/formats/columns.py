"""Columns of a source as one number per cell, as rules compare and compute them, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .instants import DateTimeFormat
from .numbers import NumberFormat
from .parts import DAY, Instants, Part, instants_of, parts_of
from .several import with_numbers

Values = dict[str, NDArray[np.float64]]
"""Columns of the source by name, `[n]`: numbers, codes of categories, microseconds; NaN where missing."""
MICRO = 1_000
SPANS = {"days": DAY // MICRO, "hours": 3_600_000_000, "minutes": 60_000_000, "seconds": 1_000_000}
"""Microseconds of the units in which a number may count the time between two dates."""


class SourceColumns:
    """The columns that a table has, as values: numbers, codes of categories, microseconds.

    Arguments:
        source: The manifest's `table`; `columns` of its entries are places among the full columns.
        columns: The full columns: `name`, `type`, `dtype`, `categories`.
    """

    def __init__(self, source: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]) -> None:
        self.columns = [dict(column) for column in columns]
        self.source = {str(entry["name"]): entry for entry in with_numbers(source, self.columns)}

    def role(self, name: str) -> str:
        """`number`, `category`, `datetime` or `duration`; empty for a column that is not learned."""
        entry = self.source[name]
        return str(entry["role"]) if entry.get("columns") and entry["role"] != "several" else ""

    def parts(self, name: str) -> tuple[Part, ...]:
        """What a date or duration is made of; none of a number or category."""
        return tuple(map(Part.parse, self.source[name].get("parts", ())))

    def column(self, name: str) -> dict[str, Any]:
        """The first of the full columns that it became."""
        return self.columns[self.source[name]["columns"][0]]

    def values(self, full: NDArray[np.float64], names: Iterable[str]) -> Values:
        """Columns of the source by name.

        Arguments:
            full: Rows of the full columns, `[n, full]`.
            names: Which.
        """
        return {name: self._value(name, full) for name in names}

    def _value(self, name: str, full: NDArray[np.float64]) -> NDArray[np.float64]:
        cells = full[:, list(self.source[name]["columns"])]
        if self.role(name) not in ("datetime", "duration"):
            return cells[:, 0].copy()
        missing = np.isnan(cells).any(1)
        when = instants_of(np.where(missing[:, None], 0.0, cells), self.parts(name))
        count = when.days * float(SPANS["days"]) + when.clock // MICRO - when.offset * float(SPANS["minutes"])
        return np.where(missing, math.nan, count)

    def write(self, name: str, value: NDArray[np.float64], full: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Put a column of the source into the full columns; which rows its format cannot say, `[n]`."""
        places = list(self.source[name]["columns"])
        if self.role(name) not in ("datetime", "duration"):
            full[:, places[0]] = value
            return np.zeros(len(full), np.bool_)
        missing = np.isnan(value)
        count = np.where(missing, 0.0, value)
        entry, parts = self.source[name], self.parts(name)
        zone = np.zeros(len(full), np.int64)
        if self.role(name) == "duration":
            when = Instants(zone, np.round(count).astype(np.int64) * MICRO, zone)
        else:
            offset = next((part.values[0] for part in parts if part.name == "offset" and not part.learned), 0)
            count = count + offset * float(SPANS["minutes"])
            days = np.floor(count / SPANS["days"])
            clock = (count - days * SPANS["days"]).astype(np.int64) * MICRO
            if any(part.name == "month_end" for part in parts):
                days = (month_starts(months_of(count) + 1) / SPANS["days"]) - 1
            first, last = DateTimeFormat(entry.get("pattern", ""), parts).span
            when = Instants(np.clip(days, first, last).astype(np.int64), clock, zone + offset)
        cells, wrong = parts_of(when, parts)
        cells[missing] = math.nan
        full[:, places] = cells
        return wrong & ~missing

    def decimals(self, name: str) -> int | None:
        """The decimals that a number is written with; `None` for all it has."""
        column, pattern = self.column(name), str(self.source[name].get("pattern") or "")
        if column["type"] == "integer":
            return 0
        return NumberFormat(pattern).decimals if pattern else None

    def settled(self, name: str, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers as they will be written, `[n]`."""
        if self.role(name) != "number":
            return value
        decimals = self.decimals(name)
        return value if decimals is None else np.round(value, decimals) + 0.0


def month_starts(months: NDArray[np.float64]) -> NDArray[np.float64]:
    """Microseconds of the first days of months since 1970, `[n]`."""
    days = months.astype(np.int64).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return days.astype(np.float64) * SPANS["days"]


def months_of(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Months since 1970 of microseconds, `[n]`."""
    missing = np.isnan(value)
    days = np.floor(np.where(missing, 0.0, value) / SPANS["days"]).astype(np.int64).astype("datetime64[D]")
    return np.where(missing, math.nan, days.astype("datetime64[M]").astype(np.int64).astype(np.float64))
