"""Durations as a pattern writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from .instants import InstantFormat
from .parts import DAY, UNITS, Part

CLOCK = r"(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"
DURATIONS = {
    "H:MM:SS": re.compile(rf"(?P<sign>-?){CLOCK}"),
    "HH:MM:SS": re.compile(rf"(?P<sign>-?){CLOCK}"),
    "M:SS": re.compile(r"(?P<sign>-?)(?P<m>\d+):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"),
    "MM:SS": re.compile(r"(?P<sign>-?)(?P<m>\d+):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"),
    "D days HH:MM:SS": re.compile(rf"(?P<sign>-?)(?P<d>\d+) days (?P<part>\+?){CLOCK}"),
    "[D days] HH:MM:SS": re.compile(rf"(?:(?P<sign>-?)(?P<d>\d+) days? )?(?P<part>-?){CLOCK}"),
    "[D days,] H:MM:SS": re.compile(rf"(?:(?P<sign>-?)(?P<d>\d+) days?, )?(?P<part>-?){CLOCK}"),
    "ISO": re.compile(
        r"(?P<sign>-?)P(?=.)(?:(?P<d>\d+)D)?(?:T(?=.)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)(?:\.(?P<f>\d{1,9}))?S)?)?"
    ),
}
"""How durations are written, by the name of the pattern.

Those with days are pandas', PostgreSQL's and Python's. Below zero, pandas and Python count up from a whole day
(`-1 days +23:00:00`, `-1 day, 23:00:00`), PostgreSQL does not (`-01:00:00`); the latter two leave out 0 days.
"""
WORDED = re.compile(r"%(-?)(0?)([DHMS])([^%]*)")
UNIT_SECONDS = {"D": 86_400, "H": 3_600, "M": 60, "S": 1}


@dataclass(frozen=True)
class DurationFormat(InstantFormat):
    """Durations as `H:MM:SS` (hours without end), `M:SS` (either with two digits first: `HH:MM:SS`), `D days HH:MM:SS`,
    ISO 8601's `P1DT2H30M`, or with units.

    Arguments:
        pattern: A key of `DURATIONS`, with `.f` times the number of decimals of seconds appended (`H:MM:SS.fff`); or
            numbers with their units (`%Hh %Mm`): the first is without end, `%0M` has two digits, `%-H` and its unit are
            left out where it is 0.
        parts: One `duration`.

    Example:
        >>> form = DurationFormat("%-Hh %-Mm", (Part.parse("duration:1min"),))
        >>> form.write(form.read(["26h 5m", "45m"])[0])
        ['26h 5m', '45m']
    """

    pattern: str
    parts: tuple[Part, ...] = ()

    @cached_property
    def _base(self) -> tuple[str, int]:
        base, _, fraction = self.pattern.partition(".")
        if base not in DURATIONS or set(fraction) - {"f"}:
            raise ValueError(f"expected a pattern of durations ({', '.join(DURATIONS)}), got {self.pattern!r}")
        return base, len(fraction)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        if not self.pattern.startswith("%"):
            return DURATIONS[self._base[0]]
        regex = ""
        for place, (drop, _, letter, unit) in enumerate(WORDED.findall(self.pattern)):
            digits = r"\d+" if place == 0 else {"H": r"[01]?\d|2[0-3]"}.get(letter, r"[0-5]?\d")
            one = rf"(?P<{letter.lower()}>{digits})\s*{re.escape(unit.strip())}\s*"
            regex += f"(?:{one})?" if drop else one
        return re.compile(rf"(?P<sign>-?)(?=\d){regex}")

    def instant(self, text: str) -> tuple[int, int, int] | None:
        """0, nanoseconds and 0; `None` if the text is no such duration."""
        found = self._regex.fullmatch(text.strip())
        if found is None:
            return None
        got = dict.fromkeys("dhmsf") | {"part": "", "sign": ""} | found.groupdict()
        seconds = 3600 * int(got["h"] or 0) + 60 * int(got["m"] or 0) + int(got["s"] or 0)
        days, clock = int(got["d"] or 0) * DAY, seconds * UNITS["s"] + int((got["f"] or "0").ljust(9, "0"))
        if days + clock >= 2**62:
            return None
        up = got["part"] == "+" or self.pattern.startswith("[D days,]")  # counted up from a whole day
        if got["sign"] and (up or got["part"] == "-"):
            return 0, -days + (-clock if got["part"] == "-" else clock), 0
        return 0, -days - clock if got["sign"] or got["part"] == "-" else days + clock, 0

    def decimals(self, text: str) -> int:
        found = self._regex.fullmatch(text.strip())
        return len((found.groupdict() if found else {}).get("f") or "")

    def _worded(self, seconds: int) -> str:
        texts, units = [], WORDED.findall(self.pattern)
        for place, (drop, pad, letter, unit) in enumerate(units):
            count, seconds = divmod(seconds, UNIT_SECONDS[letter])
            if count or not drop or (place + 1 == len(units) and not texts):
                texts.append(f"{count:0{2 if pad else 1}}{unit}")
        return "".join(texts).strip()

    def text(self, days: int, clock: int, offset: int) -> str:
        if self.pattern.startswith("%"):
            return ("-" if clock < 0 else "") + self._worded(abs(clock) // UNITS["s"])
        base, digits = self._base
        days = 0
        if base in ("D days HH:MM:SS", "[D days,] H:MM:SS"):
            days, clock = divmod(clock, DAY)
        sign = "-" if clock < 0 else ""
        seconds, nanoseconds = divmod(abs(clock), UNITS["s"])
        fraction = "." + f"{nanoseconds:09}"[:digits] if digits else ""
        hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
        rest = f":{minutes:02}:{seconds:02}{fraction}"
        if base in ("H:MM:SS", "HH:MM:SS"):
            return f"{sign}{hours:0{len(base) - 6}}{rest}"
        if base in ("M:SS", "MM:SS"):
            return f"{sign}{60 * hours + minutes:0{len(base) - 3}}:{seconds:02}{fraction}"
        if base == "ISO":
            day = f"{hours // 24}D" if hours > 23 else ""
            rest = "".join(f"{n}{u}" for n, u in ((hours % 24, "H"), (minutes, "M")) if n)
            if seconds or nanoseconds or not (rest or day):
                rest += f"{seconds}{fraction}S"
            return f"{sign}P{day}" + (f"T{rest}" if rest else "")
        if base == "D days HH:MM:SS":
            return f"{days} days {'+' if days < 0 else ''}{hours:02}{rest}"
        if base == "[D days,] H:MM:SS":
            return (f"{days} day{'' if abs(days) == 1 else 's'}, " if days else "") + f"{hours}{rest}"
        days, hours = divmod(hours, 24)
        named = f"{sign}{days} day{'s' if sign or days > 1 else ''} " if days else ""
        return f"{named}{sign}{hours:02}{rest}"
