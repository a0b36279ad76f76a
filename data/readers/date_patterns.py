"""How the dates, times and durations of a column are written, found from its texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.formats import DURATIONS, LANGUAGES, DateTimeFormat, DurationFormat, Instants, InstantsSeen, format_of
from data.readers.texts import EVIDENT, ODD_TEXTS

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%y/%m/%d",
    "%d %b %Y", "%d %B %Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y",
    "%d-%b-%y", "%d %b %y", "%d/%b/%Y", "%Y-%b-%d", "%a %d %b %Y", "%a, %d %b %Y", "%A, %B %d, %Y",
    "%A, %d %B %Y", "%a %b %d %Y", "%Y%m%d",
    "%Y-%m", "%m/%Y", "%Y/%m", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y-Q%q", "%YQ%q", "Q%q %Y", "%Y Q%q",
    "%Y/Q%q", "Q%q-%Y", "Q%q/%Y", "Q%q-%y", "Q%q'%y", "%qQ%Y", "%qQ%y", "%YM%m", "%Y %b", "%Y %B", "%Y-%B", "%B-%Y",
    "%b '%y", "%Y %b %d", "%d-%B-%Y", "%d %B, %Y", "%d %b, %Y",
    "%B %o, %Y", "%b %o, %Y", "%B %o %Y", "%b %o %Y", "%o %B %Y", "%o %b %Y", "%o of %B %Y", "%A, %B %o, %Y",
    "%G-W%V", "%GW%V", "%G-W%V-%u", "%Y年%m月%d日", "%Y年%m月", "%Y년 %m월 %d일",
)  # fmt: skip
NAMED = (
    "%d %B %Y", "%d. %B %Y", "%d de %B de %Y", "%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %y",
    "%B %Y", "%b %Y", "%b-%Y", "%b-%y", "%b %y", "%B de %Y",
)  # fmt: skip
"""Dates with the names of months, in languages other than English."""
FOREIGN = tuple(f"{language}:{named}" for language in LANGUAGES if language != "en" for named in NAMED)
WHOLE = (
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S UTC %Y", "%d/%b/%Y:%H:%M:%S %z",
    "%d%b%Y", "%d%b%y", "%d%b%Y:%H:%M:%S", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m",
    "%Y-%m-%d %H", "[%d/%b/%Y:%H:%M:%S %z]", "%a %b %d %Y %H:%M:%S GMT%z", "%Hh%M", "%H:%M Uhr",
    "%d.%m.%Y %H.%M", "%y%m%d", "%H%M",
)  # fmt: skip
"""Dates with times in their midst, or without a mark between their fields: C's, web servers', SAS's, compact ones."""
DIGITS = ("%Y%m", "%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%y%m%d", "%H%M")
"""Those that are digits alone, as other whole numbers are."""
FEWEST = {"%Y%m": 20, "%y%m%d": 20, "%H%M": 20}
"""Cells by which the shorter of them (202003, 210228, 0830) are told from other numbers."""
TIME = re.compile(
    r"(?P<H>\d{1,2})(?P<c>:|(?<=\s\d)\.|(?<=\s\d\d)\.)(?P<M>\d{2})"
    r"(?P<S>(?P=c)\d{2}(?P<f>\.\d{1,9})?)?(?P<p>\s?[AaPp][Mm])?"
    r"(?P<z>\s?(?:(?:GMT|UTC)[+-]\d{1,2}(?::?\d{2})?|[+-]\d{2}(?::?\d{2})?|Z|UTC|GMT|[A-Z]{1,4}T|Uhr|h|hrs))?$"
)
MIXED = 3
"""Ways in which the dates of one column may be written."""
DURATION_UNITS = {
    "D": ("d", "day", "days"),
    "H": ("h", "hr", "hrs", "hour", "hours", "std"),
    "M": ("m", "min", "mins", "minute", "minutes"),
    "S": ("s", "sec", "secs", "second", "seconds"),
}
SHORT = re.compile(r"(?<![\d:.])[1-9](?=[/.\- ]\d|[월일月日]|\. |[/\- ][^\W\d_]{3}|, | de )")
"""A day or month without a leading zero."""
WORDED_TEXT = re.compile(r"(\d+)\s*([A-Za-z]+)[.,]?\s*")


@dataclass(kw_only=True, slots=True)
class Candidate:
    """A format that a column of dates, times or durations may have.

    Arguments:
        role: `datetime` or `duration`.
        pattern: Of the format.
        short, short_hours, long_hours: Whether a day or month, or an hour, has no leading zero; an hour has one.
        late: Whether a day ends at 24:00.
        fractions: Of seconds, the numbers of decimals.
    """

    role: str
    pattern: str
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seen: InstantsSeen = field(default_factory=InstantsSeen)
    short: bool = False
    short_hours: bool = False
    long_hours: bool = False
    late: bool = False
    fractions: set[int] = field(default_factory=set)
    cases: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    hopeless: bool = False

    @property
    def form(self) -> DateTimeFormat | DurationFormat:
        """The format."""
        return (DateTimeFormat if self.role == "datetime" else DurationFormat)(self.pattern)

    @property
    def final(self) -> str:
        """The pattern, with fields that have no leading zeros marked as such, and names in capital or small letters."""
        if "|" in self.pattern:
            return self.pattern
        pattern, digits = self.pattern, max(self.fractions, default=0)
        if self.role == "duration":
            base = pattern.partition(".")[0]
            padded = base in ("H:MM:SS", "M:SS") and self.long_hours and not self.short_hours
            return (base[0] * padded) + (base if "%" in base else base + "." * bool(digits) + "f" * digits)
        if digits:
            flag = "" if len(self.fractions) == 1 else "~" if self.fractions == {0, digits} else "-"
            pattern = re.sub(r"\.%\d?f", f".%{flag}{digits}f", pattern)
        if self.short and "%Y%m" not in pattern:
            pattern = re.sub(r"%([md])", r"%-\1", pattern)
        if self.short_hours:
            pattern = re.sub(r"%([HI])", r"%-\1", pattern)
        names, noon = (next(iter(found)) if len(found) == 1 else "" for found in self.cases)
        pattern = re.sub(r"%([bBaA])", rf"%{names}\1", pattern)
        return pattern.replace("%p", "%~p") if noon == "~" else pattern

    def add(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Try the format on some texts, each given once with the number of cells that hold it."""
        form = self.form
        when, _, bad = form.instants(texts)
        good = ~bad
        self.right += int(good.sum())
        for index in np.flatnonzero(bad):
            self.wrong[texts[index]] += counts[index]
        if len(self.wrong) > 4 * ODD_TEXTS:
            self.hopeless = True
        self.seen.add(Instants(when.days[good], when.clock[good], when.offset[good]))
        for index in np.flatnonzero(good):
            text = texts[index]
            self.fractions.add(form.decimals(text))
            time = TIME.search(text)
            self.short_hours |= len(time["H"]) == 1 if time else re.search(r"(?<!\d)\d:\d", text) is not None
            self.long_hours |= re.match(r"-?0\d", text) is not None
            self.late |= time is not None and time["H"] == "24"
        if isinstance(form, DateTimeFormat):
            worded = re.search(r"%[bBaAp]", self.pattern) is not None
            for index in np.flatnonzero(good):
                text = texts[index]
                self.short |= bool(SHORT.search(TIME.sub("", text)))
                for found, letters in zip(self.cases, form.spelled(text) if worded else ("", ""), strict=True):
                    if letters:
                        found.add("^" if letters.isupper() else "~" if letters.islower() else "")


def candidates(texts: Sequence[str]) -> list[Candidate]:
    """The formats of dates, times and durations that nearly all of some texts have."""
    known = [text for text in texts if text.casefold() not in EVIDENT]
    if not known or sum(any(c.isdigit() for c in text) for text in known) < 0.9 * len(known):
        return []
    patterns: dict[str, None] = {}
    for text in (*known[:3], max(known, key=len)):  # the longest may alone state fractions of seconds
        patterns.update(dict.fromkeys(_patterns(text)))
    found = [Candidate(role="datetime", pattern=pattern) for pattern in patterns]
    found += [Candidate(role="duration", pattern=base) for base in DURATIONS if base not in ("HH:MM:SS", "MM:SS")]
    found += [Candidate(role="duration", pattern=pattern) for pattern in _worded(known)]
    wrong = {candidate.pattern: candidate.form.instants(known)[2] for candidate in found}
    kept = [candidate for candidate in found if wrong[candidate.pattern].sum() <= 0.1 * len(known)]
    return kept if kept or not patterns else _mixed(known)


def _mixed(known: Sequence[str]) -> list[Candidate]:
    """Dates that are written in two or three ways: the pattern that most have, then those of the others."""
    patterns = dict.fromkeys(pattern for text in known[:40] for pattern in _patterns(text) if pattern not in DIGITS)
    wrong = {pattern: DateTimeFormat(pattern).instants(known)[2] for pattern in patterns}
    left, chosen = np.ones(len(known), np.bool_), []
    while wrong and left.mean() > 0.01 and len(chosen) < MIXED:
        best = min(wrong, key=lambda pattern: int((left & wrong[pattern]).sum()))
        if any(sorted(best) == sorted(other) for other in chosen):  # months and days in either order
            return []
        chosen.append(best)
        left &= wrong.pop(best)
    chosen.sort(key=lambda pattern: not DateTimeFormat(pattern).timed)  # what is written says all
    return [Candidate(role="datetime", pattern="|".join(chosen))] if len(chosen) > 1 and left.mean() <= 0.1 else []


def _worded(known: Sequence[str]) -> list[str]:
    """The pattern of durations with their units (`2h 5m`), by the one of the first texts that states most."""
    found = [WORDED_TEXT.findall(text) for text in known[:40] if WORDED_TEXT.sub("", text).strip() in ("", "-")]
    most = max(found, key=len, default=[])
    letters = [next((key for key, units in DURATION_UNITS.items() if unit.casefold() in units), "") for _, unit in most]
    if len(most) < 2 or "" in letters or sorted(letters, key="DHMS".index) != letters or len(set(letters)) < len(most):
        return []
    pattern = ""
    text = next(text for text in known if WORDED_TEXT.findall(text) == most)
    for place, (letter, item) in enumerate(zip(letters, WORDED_TEXT.finditer(text), strict=True)):
        unit = text[item.end(1) : item.end()]
        padded = place and any(
            number[0] == "0" and len(number) == 2 for row in found for number, word in row if word == most[place][1]
        )
        left_out = any(len(row) < len(most) and most[place][1] not in (word for _, word in row) for row in found)
        pattern += f"%{'-' * left_out}{'0' * bool(padded)}{letter}{unit}"
    return [pattern.rstrip()]


def _patterns(text: str) -> list[str]:
    """The patterns of dates and times that one text may have."""
    time = TIME.search(text)
    clock, rest = "", text
    if time is not None:
        twelve = bool(time["p"])
        clock = ("%I" if twelve else "%H") + f"{time['c']}%M" + (f"{time['c']}%S" if time["S"] else "")
        clock += f".%{len(time['f']) - 1}f" if time["f"] else ""
        clock += (time["p"][:-2] + "%p") if twelve else ""
        zone = time["z"] or ""
        clock += (
            zone
            if zone.strip().isalpha() or not zone
            else zone[:-1].rstrip("0123456789:+-")
            + (
                "%-z"
                if re.search(r"[TC][+-]\d{1,2}$|[+-]\d:", zone)
                else "%:z"
                if ":" in zone
                else "%#z"
                if len(zone.strip()) == 3
                else "%z"
            )
        )
        rest = text[: time.start()]
    if not rest.strip():
        return [clock]
    tail = re.search(r"(?: at | - |[T, ]+)$", rest) if clock else None
    if clock and tail is None:
        return [pattern for pattern in WHOLE if _dates(pattern, text)]
    day, between = (rest[: tail.start()], tail[0]) if tail else (rest, "")
    others = FOREIGN if re.search(r"[^\W\d_]{3}", day) else ()
    found = [pattern + between + clock for pattern in (*DATES, *others) if _dates(pattern, day)]
    return [*found, *(pattern for pattern in WHOLE if _dates(pattern, text))]


def _dates(pattern: str, text: str) -> bool:
    """Whether a text is such a date; of digits alone, whether it is one of the years from 1900 to 2100."""
    when = format_of("datetime", pattern).instant(text)  # pyright: ignore[reportAttributeAccessIssue]
    return when is not None and (pattern not in DIGITS or -25567 <= when[0] < 47847)
