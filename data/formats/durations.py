"""Durations as a pattern writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from .instants import InstantFormat
from .parts import UNITS, Part

DURATIONS = {
    "H:MM:SS": re.compile(r"(?P<sign>-?)(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"),
    "M:SS": re.compile(r"(?P<sign>-?)(?P<m>\d+):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"),
    "D days HH:MM:SS": re.compile(
        r"(?P<sign>-?)(?P<d>\d+) days?,? (?P<h>\d{1,2}):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<f>\d{1,9}))?"
    ),
    "ISO": re.compile(
        r"(?P<sign>-?)P(?=.)(?:(?P<d>\d+)D)?(?:T(?=.)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)(?:\.(?P<f>\d{1,9}))?S)?)?"
    ),
}
"""How durations are written, by the name of the pattern."""
WORDED = re.compile(r"%(-?)(0?)([DHMS])([^%]*)")
UNIT_SECONDS = {"D": 86_400, "H": 3_600, "M": 60, "S": 1}


@dataclass(frozen=True)
class DurationFormat(InstantFormat):
    """Durations as `H:MM:SS` (hours without end), `M:SS`, `D days HH:MM:SS`, ISO 8601's `P1DT2H30M`, or with units.

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
        got = dict.fromkeys("dhmsf") | found.groupdict()
        hours = 24 * int(got["d"] or 0) + int(got["h"] or 0)
        seconds = 3600 * hours + 60 * int(got["m"] or 0) + int(got["s"] or 0)
        total = seconds * UNITS["s"] + int((got["f"] or "0").ljust(9, "0"))
        return (0, -total if got["sign"] else total, 0) if total < 2**62 else None

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
        sign = "-" if clock < 0 else ""
        seconds, nanoseconds = divmod(abs(clock), UNITS["s"])
        fraction = "." + f"{nanoseconds:09}"[:digits] if digits else ""
        hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
        if base == "H:MM:SS":
            return f"{sign}{hours}:{minutes:02}:{seconds:02}{fraction}"
        if base == "M:SS":
            return f"{sign}{60 * hours + minutes}:{seconds:02}{fraction}"
        if base == "ISO":
            day = f"{hours // 24}D" if hours > 23 else ""
            rest = "".join(f"{n}{u}" for n, u in ((hours % 24, "H"), (minutes, "M")) if n)
            if seconds or nanoseconds or not (rest or day):
                rest += f"{seconds}{fraction}S"
            return f"{sign}P{day}" + (f"T{rest}" if rest else "")
        return f"{sign}{hours // 24} days {hours % 24:02}:{minutes:02}:{seconds:02}{fraction}"
