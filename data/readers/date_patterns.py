"""How the dates, times and durations of a column are written, found from its texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.formats import DURATIONS, DateTimeFormat, DurationFormat, Instants, InstantsSeen
from data.readers.texts import EVIDENT, ODD_TEXTS

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%y/%m/%d",
    "%d %b %Y", "%d %B %Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y",
    "%d-%b-%y", "%d %b %y", "%d/%b/%Y", "%Y-%b-%d", "%a %d %b %Y", "%a, %d %b %Y", "%A, %B %d, %Y",
    "%A, %d %B %Y", "%a %b %d %Y", "%Y%m%d",
    "%Y-%m", "%m/%Y", "%Y/%m", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y-Q%q", "%YQ%q", "Q%q %Y", "%Y Q%q",
)  # fmt: skip
TIME = re.compile(
    r"(?P<H>\d{1,2}):(?P<M>\d{2})(?P<S>:\d{2})?(?P<f>\.\d{1,9})?(?P<p>\s?[AaPp][Mm])?(?P<z>\s?(?:[+-]\d{2}:?\d{2}|Z|UTC|GMT))?$"
)


@dataclass(kw_only=True, slots=True)
class Candidate:
    """A format that a column of dates, times or durations may have.

    Arguments:
        role: `datetime` or `duration`.
        pattern: Of the format.
    """

    role: str
    pattern: str
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seen: InstantsSeen = field(default_factory=InstantsSeen)
    short: bool = False
    short_hours: bool = False
    cases: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    hopeless: bool = False

    @property
    def form(self) -> DateTimeFormat | DurationFormat:
        """The format."""
        return (DateTimeFormat if self.role == "datetime" else DurationFormat)(self.pattern)

    @property
    def final(self) -> str:
        """The pattern, with fields that have no leading zeros marked as such, and names in capital or small letters."""
        if self.role == "duration":
            return self.pattern
        pattern = self.pattern
        if self.short and "%Y%m%d" not in pattern:
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
        if isinstance(form, DateTimeFormat):
            worded = re.search(r"%[bBaAp]", self.pattern) is not None
            for index in np.flatnonzero(good):
                text = texts[index]
                self.short |= bool(re.search(r"(?<![\d:.])[1-9](?=[/.\- ]\d|\. |[/\- ][A-Za-z]{3}|, )", text))
                self.short_hours |= bool(re.search(r"(?<!\d)\d:\d", text))
                for found, letters in zip(self.cases, form.spelled(text) if worded else ("", ""), strict=True):
                    if letters:
                        found.add("^" if letters.isupper() else "~" if letters.islower() else "")


def candidates(texts: Sequence[str]) -> list[Candidate]:
    """The formats of dates, times and durations that nearly all of some texts have."""
    known = [text for text in texts if text.casefold() not in EVIDENT]
    if not known or sum(any(c.isdigit() for c in text) for text in known) < 0.9 * len(known):
        return []
    patterns: dict[str, None] = {}
    for text in known[:3]:
        patterns.update(dict.fromkeys(_patterns(text)))
    found = [Candidate(role="datetime", pattern=pattern) for pattern in patterns]
    found += [
        Candidate(role="duration", pattern=pattern)
        for base in DURATIONS
        for pattern in dict.fromkeys(base + _fraction(text) for text in known[:3])
    ]
    kept = []
    for candidate in found:
        _, _, bad = candidate.form.instants(known)
        if bad.sum() <= max(0.1 * len(known), 0):
            kept.append(candidate)
    return kept


def _fraction(text: str) -> str:
    found = re.search(r"\.(\d{1,9})S?$", text)
    return "." + "f" * len(found[1]) if found else ""


def _patterns(text: str) -> list[str]:
    """The patterns of dates and times that one text may have."""
    time = TIME.search(text)
    clock, rest = "", text
    if time is not None:
        twelve = bool(time["p"])
        clock = ("%I" if twelve else "%H") + ":%M" + (":%S" if time["S"] else "")
        clock += f".%{len(time['f']) - 1}f" if time["f"] else ""
        clock += (time["p"][:-2] + "%p") if twelve else ""
        zone = time["z"] or ""
        clock += (
            zone
            if zone.strip() in ("Z", "UTC", "GMT")
            else zone[: len(zone) - len(zone.lstrip())] + (("%:z" if ":" in zone else "%z") if zone else "")
        )
        rest = text[: time.start()]
    if not rest.strip():
        return [clock]
    tail = re.search(r"[T, ]+$", rest) if clock else None
    if clock and tail is None:
        return []
    day, between = (rest[: tail.start()], tail[0]) if tail else (rest, "")
    found = []
    for pattern in DATES:
        when = DateTimeFormat(pattern).instant(day)
        if when is not None and when[0] + 719163 >= 1 and (pattern != "%Y%m%d" or -25567 <= when[0] < 47847):
            found.append(pattern + between + clock)
    return found
