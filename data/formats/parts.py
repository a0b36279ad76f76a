"""Dates, times and durations as the numbers and categories that a model learns, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DAY = 86_400_000_000_000
UNITS = {"h": 3_600_000_000_000, "min": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds of each unit of time."""
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Part:
    """One of the numbers that a date, time or duration is learned as.

    Arguments:
        name: `year`, `week` (of the year, from 0), `weekday`, `month`, `quarter`, `month_end` (the month, whose last
            day is meant), `clock` (of the day), `duration`, `offset` (of the zone, in minutes).
        step: Nanoseconds that a `clock` or `duration` counts.
        values: What it may be; empty for any.
    """

    name: str
    step: int = 1
    values: tuple[int, ...] = ()

    @property
    def learned(self) -> bool:
        """Whether it varies."""
        return len(self.values) != 1

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of its values, if it is a category."""
        if self.name == "weekday":
            return tuple(WEEKDAYS[value] for value in self.values)
        return tuple(map(str, self.values))

    def __str__(self) -> str:
        if self.name in ("clock", "duration"):
            unit = next(unit for unit, size in UNITS.items() if self.step % size == 0)
            return f"{self.name}:{self.step // UNITS[unit]}{unit}" + (
                f"={self.values[0]}" if len(self.values) == 1 else ""
            )
        return self.name + ("=" + "|".join(self.categories) if self.values else "")

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part that a card's text means: `year`, `weekday=Mon|Tue`, `clock:15min`.

        Raises:
            ValueError: If it is none.
        """
        found = re.fullmatch(r"([a-z_]+)(?::(\d+)(h|min|s|ms|us|ns))?(?:=(.+))?", text)
        if found is None or found[1] not in PARTS or (found[1] in ("clock", "duration")) != bool(found[2]):
            raise ValueError(f"expected a part of a date or time ({', '.join(PARTS)}), got {text!r}")
        values = found[4].split("|") if found[4] else []
        try:
            codes = tuple(WEEKDAYS.index(v) if found[1] == "weekday" else int(v) for v in values)
        except ValueError:
            raise ValueError(f"expected whole numbers (weekdays: {', '.join(WEEKDAYS)}) in {text!r}") from None
        if found[1] in ("weekday", "month", "month_end", "quarter") and not codes:
            codes = tuple(range(*{"weekday": (0, 7), "quarter": (1, 5)}.get(found[1], (1, 13))))
        return cls(found[1], int(found[2]) * UNITS[found[3]] if found[2] else 1, codes)


PARTS = ("year", "week", "weekday", "month", "month_end", "quarter", "clock", "duration", "offset")


@dataclass(frozen=True)
class Instants:
    """Dates and times as whole numbers.

    Arguments:
        days: Since 1970-01-01, `[n]`.
        clock: Nanoseconds since midnight (or of a duration), `[n]`.
        offset: Of the zone, in minutes, `[n]`.
    """

    days: NDArray[np.int64]
    clock: NDArray[np.int64]
    offset: NDArray[np.int64]


def parts_of(when: Instants, parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What instants are learned as, `[n, learned parts]`, and which these parts cannot say, `[n]`."""
    day = when.days.astype("datetime64[D]")
    year = day.astype("datetime64[Y]")
    month = day.astype("datetime64[M]").astype(np.int64) % 12 + 1
    found = {
        "year": year.astype(np.int64) + 1970,
        "week": (day - year.astype("datetime64[D]")).astype(np.int64) // 7,
        "weekday": (when.days + 3) % 7,
        "month": month,
        "month_end": month,
        "quarter": (month - 1) // 3 + 1,
        "offset": when.offset,
    }
    full = [(when.clock // part.step if part.name in ("clock", "duration") else found[part.name]) for part in parts]
    numbers = np.stack(full, axis=1) if full else np.empty((len(day), 0), np.int64)
    wrong = np.zeros(len(day), np.bool_)
    for index, part in enumerate(parts):
        if part.values:
            wrong |= ~np.isin(numbers[:, index], part.values)
    learned = [index for index, part in enumerate(parts) if part.learned]
    values = numbers[:, learned].astype(np.float64)
    for place, index in enumerate(learned):
        if parts[index].values:  # a category: the place in its list
            values[:, place] = np.searchsorted(np.sort(parts[index].values), numbers[:, index])
    back = instants_of(np.where(wrong[:, None], 0.0, values), parts)
    names = {part.name for part in parts}
    if names & {"year", "week", "month", "month_end", "quarter"}:
        wrong |= back.days != when.days
    wrong |= back.clock != when.clock
    return values, wrong


def instants_of(values: NDArray[np.float64], parts: Sequence[Part]) -> Instants:
    """The instants that learned parts mean; always valid ones, `[n]`.

    Arguments:
        values: `[n, learned parts]`, none missing.
    """
    n, place = len(values), 0
    zero = np.zeros(n, np.int64)
    found: dict[str, NDArray[np.int64]] = {}
    step = 1
    for part in parts:
        if not part.learned:
            found[part.name] = zero + part.values[0]
        else:
            numbers = np.round(values[:, place]).astype(np.int64)
            if part.values:
                numbers = np.sort(np.array(part.values, np.int64))[np.clip(numbers, 0, len(part.values) - 1)]
            found[part.name] = numbers
            place += 1
        step = part.step if part.name in ("clock", "duration") else step
    if "duration" in found:
        return Instants(zero, found["duration"] * step, zero)
    clock = np.clip(found.get("clock", zero) * step, 0, DAY - 1)
    year = np.clip(found.get("year", zero + 1970), 1, 9999) - 1970
    start = year.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    if "week" in found:
        end = (year + 1).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
        days = start + 7 * np.clip(found["week"], 0, 52)
        days += (found.get("weekday", zero) - (days + 3) % 7) % 7 if "weekday" in found else 0
        days = np.where(days >= end, days - 7, days)
    else:
        late = "month_end" in found
        month = found.get("month_end", found.get("month", 3 * found.get("quarter", zero + 1) - 2))
        months = 12 * year + np.clip(month, 1, 12) - 1 + late
        days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - late
    return Instants(days if "year" in found else zero, clock, found.get("offset", zero))


def fitting_parts(seen: InstantsSeen, *, dated: bool, timed: bool, zoned: bool) -> tuple[Part, ...]:
    """The parts that suit what was seen: season and weekday each a number of its own."""
    parts: list[Part] = []
    if dated:
        year = Part("year", values=(seen.first_year,) if seen.first_year == seen.last_year else ())
        if seen.month_starts or seen.month_ends:
            months = tuple(sorted(seen.months))
            parts = [year, Part("month" if seen.month_starts else "month_end", values=months)]
        else:
            parts = [year, Part("week"), Part("weekday", values=tuple(sorted(seen.weekdays)))]
    if timed and (seen.step or not dated):
        step = math.gcd(seen.step, DAY) or DAY
        parts.append(Part("clock", step=step))
    if zoned:
        parts.append(Part("offset", values=tuple(sorted(seen.offsets))))
    if parts and not any(part.learned for part in parts):  # a single instant: learned as a constant
        parts[0] = Part(parts[0].name, parts[0].step)
    return tuple(parts)


@dataclass
class InstantsSeen:
    """What the instants of a column have in common."""

    first_year: int = 10_000
    last_year: int = -10_000
    weekdays: set[int] = field(default_factory=set)
    months: set[int] = field(default_factory=set)
    offsets: set[int] = field(default_factory=set)
    month_starts: bool = True
    month_ends: bool = True
    step: int = 0

    def add(self, when: Instants) -> None:
        """Note some more."""
        if not len(when.days):
            return
        day = when.days.astype("datetime64[D]")
        year = day.astype("datetime64[Y]").astype(np.int64) + 1970
        month = day.astype("datetime64[M]")
        self.first_year, self.last_year = min(self.first_year, int(year.min())), max(self.last_year, int(year.max()))
        self.weekdays |= set(np.unique((when.days + 3) % 7).tolist())
        self.months |= set(np.unique(month.astype(np.int64) % 12 + 1).tolist())
        self.offsets |= set(np.unique(when.offset).tolist()[:64])
        self.month_starts &= bool((month.astype("datetime64[D]") == day).all())
        self.month_ends &= bool(((month + 1).astype("datetime64[D]") - 1 == day).all())
        self.step = math.gcd(self.step, int(np.gcd.reduce(when.clock)))
