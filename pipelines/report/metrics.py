"""Metrics as the leaderboard shows them, and which family is best by each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.evaluation.metrics import describe, descriptions
from pipelines.evaluation.metrics.base import GROUPS
from pipelines.report.numbers import decimals_for, finite, plain

Mark = Literal["best", "tied", ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number in the leaderboard.

    Arguments:
        value: As shown.
        interval: As shown; empty for none.
        mark: Whether it is the best of the families, or cannot be told from it.
        number: What it is sorted by; `None` for nothing.
    """

    value: str
    interval: str = ""
    mark: Mark = ""
    number: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A metric in the leaderboard.

    Arguments:
        name: Its key in the results.
        title: What people call it.
        line: What it says.
        unit: What it is measured in.
        better: `lower`, `higher` or empty.
        floor: What real training examples score.
        baseline: What the classical baseline scores.
        cells: A cell per family.
    """

    name: str
    title: str
    line: str
    unit: str
    better: str
    floor: Cell
    baseline: Cell
    cells: list[Cell]


def explained(name: str) -> tuple[str, str]:
    """Title and one line of a metric; an unknown one is called by its name."""
    found = describe(name)
    if found is None:
        return name.replace("_", " "), ""
    return found.title.format(name.removeprefix(found.name)), found.sentence


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that occur, by group, unknown ones last."""
    found: dict[str, list[str]] = {title: [] for title in GROUPS}
    known = {name: description for name in sorted(set(names)) if (description := describe(name))}
    for description in descriptions():
        found[description.group] += [name for name, its in known.items() if its == description]
    other = [name for name in dict.fromkeys(names) if name not in known]
    return {title: group for title, group in found.items() if group} | ({"Other": other} if other else {})


def row(
    name: str,
    entries: Sequence[Mapping[str, Any]],
    floor: Mapping[str, Any],
    baseline: Mapping[str, Any],
) -> Row:
    """A metric of every family beside its floor and baseline.

    Arguments:
        name: Of the metric.
        entries: By family, what was measured; empty for a family that lacks it.
        floor: What the yardstick says of real training examples.
        baseline: What it says of the classical baseline.
    """
    floor, baseline = _beside("floor", floor, entries), _beside("baseline", baseline, entries)
    everyone = [*entries, floor, baseline]
    decimals = decimals_of(everyone)
    facts = next((entry for entry in everyone if entry.get("unit") or entry.get("better")), {})
    better = str(facts.get("better") or "")
    marks = marked(entries, better)
    title, line = explained(name)
    return Row(
        name=name,
        title=title,
        line=line,
        unit=str(facts.get("unit") or ""),
        better=better if better in ("lower", "higher") else "",
        floor=cell(floor, decimals),
        baseline=cell(baseline, decimals),
        cells=[cell(entry, decimals, mark) for entry, mark in zip(entries, marks, strict=True)],
    )


def _beside(part: str, known: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The yardstick's entry, unless the results were compared with another number."""
    said = next((value for entry in entries if (value := finite(entry.get(part))) is not None), None)
    if said is None or said == finite(known.get("value")):
        return known
    return {"value": said}


def decimals_of(entries: Iterable[Mapping[str, Any]]) -> int:
    """Decimals with which metrics are shown beside each other."""
    entries = list(entries)
    values = [value for entry in entries if (value := finite(entry.get("value"))) is not None]
    ends = [(finite(entry.get("low")), finite(entry.get("high"))) for entry in entries]
    return decimals_for(values, [high - low for low, high in ends if low is not None and high is not None])


def cell(entry: Mapping[str, Any], decimals: int, mark: Mark = "") -> Cell:
    """A metric as shown."""
    value = finite(entry.get("value"))
    return Cell(value=plain(value, decimals), interval=interval(entry, decimals), mark=mark, number=value)


def interval(entry: Mapping[str, Any], decimals: int) -> str:
    """A metric's interval as shown; empty for none."""
    low, high = finite(entry.get("low")), finite(entry.get("high"))
    return "" if low is None or high is None else f"[{plain(low, decimals)}, {plain(high, decimals)}]"


def marked(entries: Sequence[Mapping[str, Any]], better: str) -> list[Mark]:
    """Which entries are best, and which have the best value within their interval.

    Nothing is marked where fewer than two families can be compared or all are equal.
    """
    values = [finite(entry.get("value")) for entry in entries]
    known = [value for value in values if value is not None]
    if better not in ("lower", "higher") or len(known) < 2 or len(set(known)) < 2:
        return [""] * len(values)
    top = min(known) if better == "lower" else max(known)

    def mark(entry: Mapping[str, Any], value: float | None) -> Mark:
        if value is None:
            return ""
        if value == top:
            return "best"
        low, high = finite(entry.get("low")), finite(entry.get("high"))
        return "tied" if low is not None and high is not None and low <= top <= high else ""

    return [mark(entry, value) for entry, value in zip(entries, values, strict=True)]


def comparison_text(entry: Mapping[str, Any], others: Mapping[str, float | None]) -> str:
    """How a metric stands to other numbers, by its interval, as sentences; empty if there is nothing to say.

    Arguments:
        entry: The metric.
        others: By what it is, a number to compare with.
    """
    said = [f"{against(entry, other)} {what}" for what, other in others.items() if against(entry, other)]
    return ". ".join(text[0].upper() + text[1:] for text in said) + "." if said else ""


def against(entry: Mapping[str, Any], other: float | None) -> str:
    """`better than`, `worse than` …; empty where they cannot be compared."""
    value, better = finite(entry.get("value")), entry.get("better")
    if value is None or other is None or better not in ("lower", "higher"):
        return ""
    low, high = finite(entry.get("low")), finite(entry.get("high"))
    if value == other:
        return "equal to"
    if low is not None and high is not None and low <= other <= high:
        return "not to be told from"
    return "better than" if (value < other) == (better == "lower") else "worse than"
