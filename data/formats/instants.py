"""Dates and times as a pattern writes them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .month_names import month_names
from .parts import UNITS, WEEKDAYS, Instants, Part, instants_of, parts_of

LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TOKEN = re.compile(r"%[-^~]?[YymbBdoHIMSpaAqGVu]|%[-:#]?z|\.%[-~]?\d?f|%\d?f|%%")
LANGUAGE = re.compile(r"([a-z]{2}):(?=.*%)")
COMPACT = re.compile(r"%[Yy]%m|%H%M")
"""Patterns whose fields follow one another without a mark between them: each has its full number of digits."""
FIELDS = {
    "Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{1,2}", "d": r"\d{1,2}", "H": r"\d{1,2}", "I": r"\d{1,2}", "M": r"\d{1,2}",
    "S": r"\d{1,2}", "p": r"[AaPp]\.?[Mm]\.?", "z": r"Z|[+-]\d{2}:?\d{2}|[+-]\d{1,2}(?::\d{2})?", "q": "[1-4]",
    "G": r"\d{4}", "V": r"\d{2}", "u": "[1-7]", "a": "|".join(WEEKDAYS), "A": "|".join(LONG_DAYS), "f": r"\d{1,9}",
    "o": r"\d{1,2}(?:st|nd|rd|th)",
}  # fmt: skip


class InstantFormat(ABC):
    """What formats of dates, times and durations share: texts to learned parts and back.

    A format gives `instant` (days, nanoseconds of the clock, minutes of the zone; `None` for another text) and `text`.
    """

    parts: tuple[Part, ...]
    span: tuple[int, int] = (-719162, 2932896)
    """The first and last day that can be written, since 1970: by default those of the years 1 to 9999."""

    @abstractmethod
    def instant(self, text: str) -> tuple[int, int, int] | None: ...

    @abstractmethod
    def decimals(self, text: str) -> int:
        """The decimals of the seconds in a text of this format."""

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
class DateTimeFormat(InstantFormat):
    """Dates and times as a pattern of `strftime` writes them.

    After the percent sign `-` leaves out a leading zero, `^` writes capital and `~` small letters (`%^b`, `%~p`).
    Months have English names, or those of the language that stands first (`de:%d. %B %Y`). Several patterns with a `|`
    between them are all read, and the first is written.

    Arguments:
        pattern: For example `%Y-%m-%d %H:%M:%S`, `%-d/%-m/%y`, `%I:%M %p`, `%d %b %Y`, `%Y-Q%q`, `%G-W%V`,
            `%Y-%m-%dT%H:%M:%S%:z` (`%z` without the colon, `%#z` whole hours, `%-z` as short as can be: `+1`);
            `%3f` are milliseconds (`.%-3f` without zeros at the end, `.%~3f` none where all are 0), `%o` is a day as
            `3rd`.
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
        return (-365, 36159) if "y" in self._letters and "Y" not in self._letters else InstantFormat.span

    @cached_property
    def _letters(self) -> set[str]:
        return {token[-1] for token in TOKEN.findall(self.pattern)}

    @property
    def dated(self) -> bool:
        """Whether it states a day (or month)."""
        return bool(self._letters & set("YyG"))

    @property
    def timed(self) -> bool:
        """Whether it states a time of day."""
        return bool(self._letters & set("HI"))

    @property
    def zoned(self) -> bool:
        """Whether it states a zone."""
        return "z" in self._letters

    @cached_property
    def _others(self) -> tuple[DateTimeFormat, ...]:
        """The further patterns that are read."""
        return tuple(DateTimeFormat(pattern) for pattern in self.pattern.split("|")[1:])

    @cached_property
    def _written(self) -> tuple[str, list[str], list[str]]:
        """The pattern that is written, without its language, and the long and short names of its months."""
        first = self.pattern.partition("|")[0]
        found = LANGUAGE.match(first)
        return (first[found.end() :] if found else first, *month_names(found[1] if found else "en"))

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        at, regex, seen = 0, "", set()
        pattern, long, short = self._written
        compact = COMPACT.search(pattern) is not None
        fields = FIELDS | {"B": "|".join(map(re.escape, long)), "b": "|".join(map(re.escape, short))}
        for token in TOKEN.finditer(pattern):
            regex += re.escape(pattern[at : token.start()]).replace(r"\ ", r"\s+")
            letter = token[0][-1]
            if letter == "%":
                regex += "%"
            elif token[0][0] == ".":
                regex += rf"(?:\.(?P<f>{fields['f']}))?"
            elif letter in seen:
                raise ValueError(f"the pattern {self.pattern!r} states %{letter} twice. Fix it.")
            else:
                regex += f"(?P<{letter}>{'[0-9]{2}' if compact and letter in 'mdHMS' else fields[letter]})"
                seen.add(letter)
            at = token.end()
        regex += re.escape(pattern[at:]).replace(r"\ ", r"\s+")
        return re.compile(rf"\s*{regex}\s*", re.IGNORECASE)

    def instant(self, text: str) -> tuple[int, int, int] | None:
        """Days since 1970, nanoseconds since midnight and the zone's minutes; `None` if the text is no such date."""
        found = self._regex.fullmatch(text)
        if found is not None:
            got = found.groupdict()
            late = self.dated and got.get("H") == "24"  # midnight, as the end of a day
            try:
                clock = self._clock({**got, "H": "0"} if late else got)
                if not (late and clock):
                    return self._day(got) + late, clock, _minutes(got.get("z") or "")
            except ValueError:
                pass
        return next((when for other in self._others if (when := other.instant(text)) is not None), None)

    def decimals(self, text: str) -> int:
        found = self._regex.fullmatch(text)
        return len((found.groupdict() if found else {}).get("f") or "")

    def spelled(self, text: str) -> tuple[str, str]:
        """The names of months and weekdays in a text of this format, and its AM or PM."""
        found = self._regex.fullmatch(text)
        got = found.groupdict() if found else {}
        return "".join(got.get(field) or "" for field in "aAbB"), got.get("p") or ""

    def _day(self, got: Mapping[str, str]) -> int:
        if "G" in got:
            return date.fromisocalendar(int(got["G"]), int(got["V"]), int(got.get("u") or 1)).toordinal() - 719163
        if "Y" not in got and "y" not in got:
            return 0
        year = int(got["Y"]) if "Y" in got else int(got["y"]) + (2000 if int(got["y"]) < 69 else 1900)
        month = int(got.get("m") or 1)
        for field, names in zip("Bb", self._written[1:], strict=True):
            if got.get(field):
                month = [name.casefold() for name in names].index(got[field].casefold()) + 1
        if "q" in got:
            month = 3 * int(got["q"]) - 2
        return date(year, month, int(got.get("d") or (got.get("o") or "1st")[:-2])).toordinal() - 719163

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
        pattern, long, short = self._written
        colon = ":" if "%:z" in pattern else ""
        week = when.isocalendar()
        values: dict[str, str] = {
            "Y": f"{when.year:04}", "y": f"{when.year % 100:02}", "m": f"{when.month:02}", "d": f"{when.day:02}",
            "o": _ordinal(when.day), "b": short[when.month - 1], "B": long[when.month - 1], "H": f"{hour:02}",
            "I": f"{(hour - 1) % 12 + 1:02}", "M": f"{minute:02}", "S": f"{second:02}",
            "p": "PM" if hour > 11 else "AM",
            "a": WEEKDAYS[when.weekday()], "A": LONG_DAYS[when.weekday()], "q": str((when.month + 2) // 3),
            "G": f"{week.year:04}", "V": f"{week.week:02}", "u": str(week.weekday),
            "z": f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{colon}{abs(offset) % 60:02}", "%": "%",
        }  # fmt: skip

        def put(token: re.Match[str]) -> str:
            letter = token[0][-1]
            if letter == "f":
                point, _, form = token[0].partition("%")
                digits = f"{nanoseconds:09}"[: int(form[:-1].lstrip("-~") or 6)]
                if form[0] == "~" and not digits.strip("0"):
                    return ""
                return point + digits if form[0] != "-" else (point + digits.rstrip("0")).rstrip(".")
            text = values[letter][:3] if token[0] == "%#z" else values[letter]
            if token[0] == "%-z":
                return f"{'-' if offset < 0 else '+'}{abs(offset) // 60}" + (f":{text[-2:]}" if offset % 60 else "")
            text = text.lstrip("0") or "0" if "-" in token[0] else text
            return text.upper() if "^" in token[0] else text.lower() if "~" in token[0] else text

        return TOKEN.sub(put, pattern)


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def _minutes(zone: str) -> int:
    if not zone or zone in "Zz":
        return 0
    hours, minutes = re.fullmatch(r"[+-](\d{1,2}):?(\d{2})?", zone).groups("0")  # pyright: ignore[reportOptionalMemberAccess]
    return (int(hours) * 60 + int(minutes)) * (-1 if zone[0] == "-" else 1)


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
