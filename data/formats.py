"""How the cells of a table are written: parsing and writing, each the inverse of the other.

Numbers, dates, times, durations and identifiers are read into what a model learns (numbers and
categories) and written again as the source has them. Pure Python and numpy, without an import from
this project, so that the file can travel with a registered model.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY = 86_400_000_000_000
UNITS = {"h": 3_600_000_000_000, "min": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds of each unit of time."""
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACEHOLDER = "[text]"
"""What stands in the place of free text, which is not learned."""


# Numbers


@dataclass(frozen=True)
class NumberFormat:
    """Numbers as a pattern writes them: `$#,##0.00`, `0.0%`, `#.##0,00 €`, `0.##` (up to two decimals).

    Arguments:
        pattern: Text before, digits, text after; after a `;` how negative numbers are written: `()` in
            parentheses, `p-` with the sign after the text before, else with the sign first.

    Example:
        >>> NumberFormat("$#,##0.00;()").read(["$1,234.50", "($7.00)"])[0].tolist()
        [[1234.5], [-7.0]]
        >>> NumberFormat("0,0#%").write(np.array([[12.5], [np.nan]]))
        ['12,5%', None]
    """

    pattern: str = ""
    CORE = re.compile(r"(?:#(?P<sep>[^#0])##)?0(?:(?P<dec>[.,])(?P<fixed>0*)(?P<free>#*))?")

    @cached_property
    def _parts(self) -> tuple[str, str, str, str, int, int, str]:
        pattern, _, negative = self.pattern.partition(";")
        core = self.CORE.search(pattern)
        if core is None or negative not in ("", "()", "p-"):
            raise ValueError(
                f"expected a pattern of a number such as '$#,##0.00' or '0.0%' (after ';' one of '()' and 'p-'), "
                f"got {self.pattern!r}"
            )
        fixed = len(core["fixed"] or "")
        return (
            pattern[: core.start()], core["sep"] or "", core["dec"] or ".", pattern[core.end() :],
            fixed, fixed + len(core["free"] or ""), negative,
        )  # fmt: skip

    @property
    def decimals(self) -> int:
        """The most decimals that are written."""
        return self._parts[5]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        before, sep, dec, after, _, _, _ = self._parts
        before, after = re.escape(before.strip()), re.escape(after.strip())
        digits = rf"\d{{1,3}}(?:{re.escape(sep)}\d{{3}})+|\d+" if sep else r"\d+"
        number = rf"(?P<number>(?:{digits})?(?:{re.escape(dec)}\d*)?(?:[eE][+-]?\d+)?)"
        return re.compile(
            rf"\s*(?P<open>\()?(?P<sign>[+\-−]?)\s*{before}\s*(?P<sign2>[+\-−]?){number}\s*{after}\s*(?P<close>\))?\s*"
        )

    def read_one(self, text: str) -> float | None:
        """The number that a text states; `None` if it states none."""
        _, sep, dec, _, _, _, _ = self._parts
        found = self._regex.fullmatch(text)
        if found is None or bool(found["open"]) != bool(found["close"]) or (found["sign"] and found["sign2"]):
            return None
        digits = found["number"]
        digits = (digits.replace(sep, "") if sep else digits).replace(dec, ".")
        try:
            value = float(digits)
        except ValueError:
            return None
        negative = found["open"] or (found["sign"] or found["sign2"]) in ("-", "−")
        value = -value if negative and value else value
        return value if math.isfinite(value) else None

    def read(self, texts: Iterable[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers `[n, 1]`, NaN for `None`, and which texts are none, `[n]`."""
        return _read(self.read_one, texts, 1)

    def write(self, values: NDArray[np.float64]) -> list[str | None]:
        """Numbers `[n, 1]` as texts; `None` for NaN."""
        before, sep, dec, after, fixed, most, negative = self._parts
        texts: list[str | None] = []
        for value in values[:, 0].tolist():
            if value != value:
                texts.append(None)
                continue
            digits = f"{abs(value):,.{most}f}" if sep else f"{abs(value):.{most}f}"
            whole, _, part = digits.partition(".")
            part = part[:fixed] + part[fixed:].rstrip("0")
            below = value < 0 and any(digit not in "0.," for digit in digits)
            body = whole.replace(",", sep) + (dec + part if part else "")
            if below and negative == "()":
                texts.append(f"({before}{body}{after})")
            elif below:
                texts.append(f"{before}-{body}{after}" if negative == "p-" else f"-{before}{body}{after}")
            else:
                texts.append(f"{before}{body}{after}")
        return texts


def _read(one: Any, texts: Iterable[str | None], width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Apply a reader of one text to many, repeated ones once."""
    known: dict[str, Any] = {}
    nothing = (math.nan,) * width
    rows, bad = [], []
    for text in texts:
        if text is None:
            rows.append(nothing)
            bad.append(False)
            continue
        if text not in known:
            if len(known) > 100_000:
                known.clear()
            found = one(text)
            known[text] = (found,) if isinstance(found, float) else found
        found = known[text]
        rows.append(nothing if found is None else found)
        bad.append(found is None)
    return np.array(rows, np.float64).reshape(-1, width), np.array(bad, np.bool_)


# Dates, times, durations

TOKEN = re.compile(r"%[-^~]?[YymbBdHIMSpaAq]|%:?z|%\d?f|%%")
FIELDS = {
    "Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{1,2}", "d": r"\d{1,2}", "H": r"\d{1,2}", "I": r"\d{1,2}", "M": r"\d{1,2}",
    "S": r"\d{1,2}", "p": r"[AaPp]\.?[Mm]\.?", "z": r"Z|[+-]\d{2}:?\d{2}|[+-]\d{2}", "q": "[1-4]",
    "b": "|".join(month[:3] for month in MONTHS), "B": "|".join(MONTHS),
    "a": "|".join(WEEKDAYS), "A": "|".join(LONG_DAYS), "f": r"\d{1,9}",
}  # fmt: skip


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


class _InstantFormat(ABC):
    """What formats of dates, times and durations share: texts to learned parts and back.

    A format gives `instant` (days, nanoseconds of the clock, minutes of the zone; `None` for another text) and `text`.
    """

    parts: tuple[Part, ...]
    span: tuple[int, int] = (-719162, 2932896)
    """The first and last day that can be written, since 1970: by default those of the years 1 to 9999."""

    @abstractmethod
    def instant(self, text: str) -> tuple[int, int, int] | None: ...

    @abstractmethod
    def text(self, days: int, clock: int, offset: int) -> str: ...

    def instants(self, texts: Iterable[str | None]) -> tuple[Instants, NDArray[np.bool_], NDArray[np.bool_]]:
        """Instants, which texts are missing, and which are no such date, each `[n]`."""
        texts = list(texts)
        values, bad = _read_whole(self.instant, texts)
        missing = np.array([text is None for text in texts], np.bool_)
        return Instants(values[:, 0], values[:, 1], values[:, 2]), missing, bad

    def read(self, texts: Iterable[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Learned parts `[n, learned]`, NaN for `None`, and which texts are no such date, `[n]`."""
        when, missing, bad = self.instants(texts)
        values, wrong = parts_of(when, self.parts)
        values[missing | bad | wrong] = np.nan
        return values, bad | (wrong & ~missing)

    def write(self, values: NDArray[np.float64]) -> list[str | None]:
        """Learned parts `[n, learned]` as texts; `None` where one is missing."""
        missing = np.isnan(values).any(1)
        when = instants_of(np.where(missing[:, None], 0.0, values), self.parts)
        days = np.clip(when.days, *self.span).tolist()
        rows = zip(days, when.clock.tolist(), when.offset.tolist(), missing.tolist(), strict=True)
        return [None if gap else self.text(day, clock, offset) for day, clock, offset, gap in rows]


@dataclass(frozen=True)
class DateTimeFormat(_InstantFormat):
    """Dates and times as a pattern of `strftime` writes them.

    After the percent sign `-` leaves out a leading zero, `^` writes capital and `~` small letters (`%^b`, `%~p`).

    Arguments:
        pattern: For example `%Y-%m-%d %H:%M:%S`, `%-d/%-m/%y`, `%I:%M %p`, `%d %b %Y`, `%Y-Q%q`,
            `%Y-%m-%dT%H:%M:%S%:z` (`%z` without the colon); `%3f` are milliseconds.
        parts: What is learned.

    Example:
        >>> form = DateTimeFormat("%d/%m/%Y", tuple(map(Part.parse, ["year", "week", "weekday"])))
        >>> form.write(form.read(["29/02/2024", "31/12/2023"])[0])
        ['29/02/2024', '31/12/2023']
    """

    pattern: str
    parts: tuple[Part, ...] = ()

    @cached_property
    def span(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first and last day that can be written: of two digits of a year those of 1969 to 2068."""
        letters = {token[-1] for token in TOKEN.findall(self.pattern)}
        return (-365, 36159) if "y" in letters and "Y" not in letters else _InstantFormat.span

    @property
    def dated(self) -> bool:
        """Whether it states a day (or month)."""
        return any(token[-1] in "Yy" for token in TOKEN.findall(self.pattern))

    @property
    def timed(self) -> bool:
        """Whether it states a time of day."""
        return any(token[-1] in "HI" for token in TOKEN.findall(self.pattern))

    @property
    def zoned(self) -> bool:
        """Whether it states a zone."""
        return "z" in {token[-1] for token in TOKEN.findall(self.pattern)}

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        at, regex, seen = 0, "", set()
        for token in TOKEN.finditer(self.pattern):
            regex += re.escape(self.pattern[at : token.start()]).replace(r"\ ", r"\s+")
            letter = token[0][-1]
            if letter == "%":
                regex += "%"
            elif letter in seen:
                raise ValueError(f"the pattern {self.pattern!r} states %{letter} twice. Fix it.")
            else:
                compact = "%Y%m%d" in self.pattern and letter in "md"
                regex += f"(?P<{letter}>{'[0-9]{2}' if compact else FIELDS[letter]})"
                seen.add(letter)
            at = token.end()
        regex += re.escape(self.pattern[at:]).replace(r"\ ", r"\s+")
        return re.compile(rf"\s*{regex}\s*", re.IGNORECASE)

    def instant(self, text: str) -> tuple[int, int, int] | None:
        """Days since 1970, nanoseconds since midnight and the zone's minutes; `None` if the text is no such date."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        got = found.groupdict()
        try:
            return self._day(got), self._clock(got), _minutes(got.get("z") or "")
        except ValueError:
            return None

    def spelled(self, text: str) -> tuple[str, str]:
        """The names of months and weekdays in a text of this format, and its AM or PM."""
        found = self._regex.fullmatch(text)
        got = found.groupdict() if found else {}
        return "".join(got.get(field) or "" for field in "aAbB"), got.get("p") or ""

    def _day(self, got: Mapping[str, str]) -> int:
        if "Y" not in got and "y" not in got:
            return 0
        year = int(got["Y"]) if "Y" in got else int(got["y"]) + (2000 if int(got["y"]) < 69 else 1900)
        month = int(got.get("m") or 1)
        if "b" in got or "B" in got:
            name = (got.get("b") or got.get("B") or "")[:3].title()
            month = [m[:3] for m in MONTHS].index(name) + 1
        if "q" in got:
            month = 3 * int(got["q"]) - 2
        return date(year, month, int(got.get("d") or 1)).toordinal() - 719163

    @staticmethod
    def _clock(got: Mapping[str, str]) -> int:
        hour, minute, second = int(got.get("H") or got.get("I") or 0), int(got.get("M") or 0), int(got.get("S") or 0)
        if "I" in got:
            if not 1 <= hour <= 12:
                raise ValueError
            hour = hour % 12 + (12 if (got.get("p") or "a")[0] in "pP" else 0)
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError
        return (3600 * hour + 60 * minute + second) * UNITS["s"] + int((got.get("f") or "0").ljust(9, "0"))

    def text(self, days: int, clock: int, offset: int) -> str:
        """One instant as the pattern writes it."""
        when = date.fromordinal(days + 719163)
        seconds, nanoseconds = divmod(clock, UNITS["s"])
        hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
        colon = ":" if "%:z" in self.pattern else ""
        values: dict[str, str] = {
            "Y": f"{when.year:04}", "y": f"{when.year % 100:02}", "m": f"{when.month:02}", "d": f"{when.day:02}",
            "b": MONTHS[when.month - 1][:3], "B": MONTHS[when.month - 1], "H": f"{hour:02}",
            "I": f"{(hour - 1) % 12 + 1:02}", "M": f"{minute:02}", "S": f"{second:02}",
            "p": "PM" if hour > 11 else "AM",
            "a": WEEKDAYS[when.weekday()], "A": LONG_DAYS[when.weekday()], "q": str((when.month + 2) // 3),
            "z": f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{colon}{abs(offset) % 60:02}", "%": "%",
        }  # fmt: skip

        def put(token: re.Match[str]) -> str:
            letter = token[0][-1]
            if letter == "f":
                return f"{nanoseconds:09}"[: int(token[0][1:-1] or 6)]
            text = values[letter]
            text = text.lstrip("0") or "0" if "-" in token[0] else text
            return text.upper() if "^" in token[0] else text.lower() if "~" in token[0] else text

        return TOKEN.sub(put, self.pattern)


def _minutes(zone: str) -> int:
    if not zone or zone in "Zz":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[3:].lstrip(":") or 0)
    return -minutes if zone[0] == "-" else minutes


def _read_whole(one: Any, texts: Sequence[str | None]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Apply a reader of one text into three whole numbers to many, repeated ones once."""
    known: dict[str, Any] = {}
    rows = []
    for text in texts:
        if text is None:
            rows.append((0, 0, 0))
            continue
        if text not in known:
            if len(known) > 100_000:
                known.clear()
            known[text] = one(text)
        rows.append(known[text])
    bad = np.array([row is None for row in rows], np.bool_)
    return np.array([row or (0, 0, 0) for row in rows], np.int64).reshape(-1, 3), bad


DURATIONS = {
    "H:MM:SS": re.compile(r"(?P<sign>-?)(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"),
    "D days HH:MM:SS": re.compile(
        r"(?P<sign>-?)(?P<d>\d+) days?,? (?P<h>\d{1,2}):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"
    ),
    "ISO": re.compile(
        r"(?P<sign>-?)P(?=.)(?:(?P<d>\d+)D)?(?:T(?=.)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)(?:\.(?P<f>\d{1,9}))?S)?)?"
    ),
}
"""How durations are written, by the name of the pattern."""


@dataclass(frozen=True)
class DurationFormat(_InstantFormat):
    """Durations as `H:MM:SS` (hours without end), `D days HH:MM:SS` or ISO 8601's `P1DT2H30M`.

    Arguments:
        pattern: A key of `DURATIONS`, with `.f` times the number of decimals of seconds appended (`H:MM:SS.fff`).
        parts: One `duration`.
    """

    pattern: str
    parts: tuple[Part, ...] = ()

    @cached_property
    def _base(self) -> tuple[str, int]:
        base, _, fraction = self.pattern.partition(".")
        if base not in DURATIONS or set(fraction) - {"f"}:
            raise ValueError(f"expected a pattern of durations ({', '.join(DURATIONS)}), got {self.pattern!r}")
        return base, len(fraction)

    def instant(self, text: str) -> tuple[int, int, int] | None:
        """0, nanoseconds and 0; `None` if the text is no such duration."""
        found = DURATIONS[self._base[0]].fullmatch(text.strip())
        if found is None:
            return None
        got = found.groupdict()
        hours = 24 * int(got.get("d") or 0) + int(got["h"] or 0)
        seconds = 3600 * hours + 60 * int(got["m"] or 0) + int(got["s"] or 0)
        total = seconds * UNITS["s"] + int((got["f"] or "0").ljust(9, "0"))
        return (0, -total if got["sign"] else total, 0) if total < 2**62 else None

    def text(self, days: int, clock: int, offset: int) -> str:
        base, digits = self._base
        sign = "-" if clock < 0 else ""
        seconds, nanoseconds = divmod(abs(clock), UNITS["s"])
        fraction = "." + f"{nanoseconds:09}"[:digits] if digits else ""
        hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
        if base == "H:MM:SS":
            return f"{sign}{hours}:{minutes:02}:{seconds:02}{fraction}"
        if base == "ISO":
            day = f"{hours // 24}D" if hours > 23 else ""
            rest = "".join(f"{n}{u}" for n, u in ((hours % 24, "H"), (minutes, "M")) if n)
            if seconds or nanoseconds or not (rest or day):
                rest += f"{seconds}{fraction}S"
            return f"{sign}P{day}" + (f"T{rest}" if rest else "")
        return f"{sign}{hours // 24} days {hours % 24:02}:{minutes:02}:{seconds:02}{fraction}"


# Identifiers


@dataclass(frozen=True)
class IdentifierFormat:
    """Identifiers: not learned; fresh ones are drawn from their pattern, none that occurred.

    Arguments:
        alphabet: The letters seen at each place of the longest ones.
        unused: Starts of identifiers that no real one has, each as long as the others.
        start, step: Of a running number: what comes after the last, and the difference; step 0 for none.
        prefix, width: What stands before a running number, and its digits with leading zeros.

    Example:
        >>> IdentifierFormat(start=120, step=1, prefix="c-", width=5).draw(2, np.random.default_rng(0))
        ['c-00120', 'c-00121']
    """

    alphabet: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    start: int = 0
    step: int = 0
    prefix: str = ""
    width: int = 0

    def draw(self, n: int, random: np.random.Generator) -> list[str]:
        """So many different identifiers that are none of the real ones."""
        if self.step:
            return [f"{self.prefix}{self.start + self.step * i:0{self.width}}" for i in range(n)]
        if not self.unused:
            return [f"{self.prefix}{self.start + i:0{self.width}}" for i in range(n)]
        rest = self.alphabet[len(self.unused[0]) :]
        room = len(self.unused) * math.prod(len(letters) for letters in rest)
        if n > room // 2:  # lengthen what is full
            longer = [head + str(index) for index, head in enumerate(self._filled(room, random, room))]
            return [f"{longer[i % room]}{i}" for i in range(n)]
        return self._filled(n, random, room)

    def _filled(self, n: int, random: np.random.Generator, room: int) -> list[str]:
        rest = self.alphabet[len(self.unused[0]) :]
        found: dict[str, None] = {}
        if room <= 2 * n:
            numbers: Iterable[int] = range(min(n, room))
            for number in numbers:
                number, tail = divmod(number, len(self.unused))
                text = self.unused[tail]
                for letters in rest:
                    number, digit = divmod(number, len(letters))
                    text += letters[digit]
                found[text] = None
            return list(found)
        while len(found) < n:
            heads = random.integers(len(self.unused), size=n)
            tails = [random.integers(len(letters), size=n) for letters in rest]
            for i in range(n):
                text = self.unused[heads[i]] + "".join(letters[t[i]] for letters, t in zip(rest, tails, strict=True))
                found[text] = None
                if len(found) == n:
                    break
        return list(found)


def whole_type(numbers: Sequence[int], dtype: str) -> str:
    """The type that holds some whole numbers: their source's, else `int64`, else none (`""`, they are text).

    Fresh identifiers may have more digits than any of the source.
    """
    low, high = min(numbers, default=0), max(numbers, default=0)
    fitting = (name for name in (dtype, "int64") if np.iinfo(name).min <= low and high <= np.iinfo(name).max)
    return next(fitting, "")


# Whole columns

Format = NumberFormat | DateTimeFormat | DurationFormat


@lru_cache(maxsize=512)
def format_of(role: str, pattern: str, parts: tuple[str, ...] = ()) -> Format:
    """The format of a column.

    Arguments:
        role: `number`, `datetime` or `duration`.
        pattern: As the card gives it.
        parts: What dates, times and durations are learned as.
    Raises:
        ValueError: If the pattern or a part is none.
    """
    if role == "number":
        return NumberFormat(pattern)
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
    """

    source: Sequence[Mapping[str, Any]]
    columns: Sequence[Mapping[str, Any]]
    class_names: Sequence[str] = ()

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
            return [self.class_names[code] if code >= 0 else None for code in codes.tolist()]
        if role == "constant":
            return [entry["value"] if entry["value"] != "" else None] * n
        if role == "text":
            return [PLACEHOLDER] * n
        if role == "identifier":
            return IdentifierFormat(
                **{key: tuple(v) if isinstance(v, list) else v for key, v in entry["identifier"].items()}
            ).draw(n, random)
        if role == "category":
            names = self.columns[entry["columns"][0]]["categories"]
            return [None if value != value else names[int(value)] for value in values[:, 0].tolist()]
        if role == "number" and is_plain(entry["pattern"]):
            whole = self.columns[entry["columns"][0]]["type"] == "integer" and "float" not in entry["dtype"]
            numbers = plain_numbers(values[:, 0], entry["pattern"], whole=whole)
            if "string" not in entry["dtype"]:
                return numbers
            return [None if text == "" else text for text in as_text(numbers, {**entry, "mark": ""})]
        form = format_of(role, entry["pattern"], tuple(entry.get("parts", ())))
        if not entry["pattern"]:  # native dates: nanoseconds since 1970, or of the day, or of the duration
            return _native(values, form, entry["dtype"])
        return list(form.write(values))


def _native(values: NDArray[np.float64], form: Any, dtype: str) -> list[int | None]:
    """Nanoseconds of native dates, times and durations, inside what their type can hold."""
    last = 2**63 - 1 if "[ns" in dtype else 2**70
    missing = np.isnan(values).any(1)
    when = instants_of(np.where(missing[:, None], 0.0, values), form.parts)
    rows = zip(when.days.tolist(), when.clock.tolist(), missing.tolist(), strict=True)
    return [None if gap else max(-last, min(last, day * DAY + clock)) for day, clock, gap in rows]


def is_plain(pattern: str) -> bool:
    """Whether a number's pattern is digits with a point and nothing else, at most with fewer decimals."""
    return re.fullmatch(r"(0(\.0*#*)?)?", pattern) is not None


def plain_numbers(values: NDArray[np.float64], pattern: str, *, whole: bool) -> list[float | int | None]:
    """Numbers with the decimals their column has; as `int` if they are whole."""
    if pattern and not whole:
        values = np.round(values, NumberFormat(pattern).decimals)
    return [None if v != v else int(v) if whole else v + 0.0 for v in values.tolist()]


def as_text(cells: Sequence[Any], entry: Mapping[str, Any]) -> list[str]:
    """Cells of a column as a text file holds them, the missing ones by the column's own mark."""
    mark, pattern = entry.get("mark", ""), entry.get("pattern", "")
    if entry["role"] == "number" and pattern:
        form = NumberFormat(pattern)
        known = np.array([math.nan if cell is None or isinstance(cell, str) else cell for cell in cells], np.float64)
        texts = form.write(known[:, None])
        return [
            mark if cell is None else cell if isinstance(cell, str) else text or ""
            for cell, text in zip(cells, texts, strict=True)
        ]
    return [mark if cell is None else str(cell) for cell in cells]
