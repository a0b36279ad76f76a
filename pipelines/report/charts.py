"""Geometry of the page's drawings. `charts.html` turns it into SVG, text escaped there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.numbers import count, finite, short, tick

Points = Sequence[tuple[float, float]]

LOG_FROM = 20
"""Ratio of the largest to the smallest positive value beyond which an axis is logarithmic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A scale from values to pixels.

    Arguments:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel of `low`.
        end: Pixel of `high`.
        log: Whether it is logarithmic.
        ticks: Values that are labelled.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool = False, most: int = 5) -> Axis:
        """An axis that holds all values, ending at round numbers where it is linear."""
        low, high = min(values), max(values)
        if log:
            return cls(low=low / 1.15, high=high * 1.15, start=start, end=end, log=True, ticks=log_ticks(low, high))
        if low == high:
            pad = abs(low) * 0.1 or 1.0
            low, high = low - pad, high + pad
        ticks = linear_ticks(low, high, most)
        low, high = min(low, ticks[0]), max(high, ticks[-1])
        return cls(low=low, high=high, start=start, end=end, log=False, ticks=ticks)

    def at(self, value: float) -> float:
        """Pixel of a value, kept on the axis."""
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(part, 0.0), 1.0) * (self.end - self.start), 1)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick."""
        return [(self.at(value), tick(value)) for value in self.ticks]


def linear_ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """At most `most` round numbers that cover the interval from within."""
    rough = (high - low) / max(most - 1, 1)
    size = 10.0 ** math.floor(math.log10(rough))

    def ticks(step: float) -> tuple[float, ...]:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return tuple(float(f"{i * step:.10g}") + 0.0 for i in range(first, last + 1))

    tried = [ticks(size * factor) for factor in (1, 2, 2.5, 5, 10)]
    return next(found for found in tried if len(found) <= most) or (low,)


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**d for d in decades for f in factors if low / 1.15 <= f * 10.0**d <= high * 1.15]
        if len(found) <= 5:
            break
    else:
        found = found[:: math.ceil(len(found) / 5)]
    return tuple(found) or (low,)


# Curves


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A small line chart over examples seen.

    Arguments:
        title: What is drawn.
        note: Said beneath the title: the last value, say.
        alt: The chart in words.
        path: The line, as SVG path data.
        others: Lines in the background.
        dots: Where points are marked.
        best: Where the best point is; `None` when there is no best.
        x: Horizontal axis.
        y: Vertical axis.
    """

    title: str
    note: str
    alt: str
    path: str
    others: list[str]
    dots: list[tuple[float, float]]
    best: tuple[float, float] | None
    x: Axis
    y: Axis


def curve(
    title: str,
    points: Points,
    *,
    others: Sequence[Points] = (),
    better: str = "",
    log: bool = True,
    frame: tuple[float, float, float, float] = (46, 312, 10, 138),
) -> Curve:
    """A chart of one line.

    A first stretch far above the rest would flatten everything after it: it runs off the top and
    the note says where it came from. Positive values over decades get a logarithmic axis.

    Arguments:
        title: What is drawn.
        points: Examples seen and value, in order.
        others: Further lines, for comparison.
        better: Mark the best point: `lower` or `higher`.
        log: Whether the axis may be logarithmic.
        frame: Left, right, top and bottom of the plot in pixels.
    """
    left, right, top, bottom = frame
    shown = [y for line in (points, *others) for _, y in line]
    log = log and min(shown) > 0 and max(shown) / min(shown) > LOG_FROM
    inside = shown if log or others else settled([y for _, y in points])
    y = Axis.over(inside, bottom, top, log=log, most=4)
    x = Axis.over([0.0, *(at for line in (points, *others) for at, _ in line)], left, right, most=4)
    last = points[-1][1]
    note = f"last {short(last)}"
    if better and len(points) > 1:
        chosen = (min if better == "lower" else max)(points, key=lambda point: point[1])
        note = f"best {short(chosen[1])} at {count(chosen[0])}, last {short(last)}"
    else:
        chosen = None
    if max(inside) < max(shown):
        note += f"; begins at {short(points[0][1])}"
    note += "; log scale" if log else ""
    few = len(points) <= 20
    return Curve(
        title=title,
        note=note,
        alt=f"{title} over examples seen, {len(points)} points from {short(points[0][1])} to {short(last)}",
        path=line_path(points, x, y),
        others=[line_path(line, x, y) for line in others],
        dots=[(x.at(a), y.at(b)) for a, b in points] if few else [],
        best=(x.at(chosen[0]), y.at(chosen[1])) if chosen else None,
        x=x,
        y=y,
    )


def settled(values: Sequence[float]) -> list[float]:
    """The values without a short first stretch that is far larger than all the rest."""
    rest = list(values[max(1, len(values) // 20) :])
    if len(rest) < 40 or max(values) - min(values) < 3 * (max(rest) - min(rest)) or max(rest) == min(rest):
        return list(values)
    return rest


def line_path(points: Points, x: Axis, y: Axis) -> str:
    """A line as SVG path data; points off the axis lie on its edge."""
    return "M" + "L".join(f"{x.at(a):g} {y.at(b):g}" for a, b in points)


# Intervals


@dataclass(frozen=True, kw_only=True, slots=True)
class Whisker:
    """A value and its interval.

    Arguments:
        label: Whose it is.
        text: The value as shown.
        y: Its line.
        at: Where the value is.
        low: Where the interval begins.
        high: Where it ends.
        chosen: Whether it is the one the drawing is about.
    """

    label: str
    text: str
    y: float
    at: float
    low: float
    high: float
    chosen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """Values and intervals one under the other, with lines to compare them with.

    Arguments:
        alt: The drawing in words.
        height: In pixels.
        rows: The values.
        floor: Where the floor is; `None` if there is none.
        baseline: Where the baseline is; `None` if there is none.
        x: The axis.
    """

    alt: str
    height: float
    rows: list[Whisker]
    floor: float | None
    baseline: float | None
    x: Axis


def forest(
    title: str,
    entries: Mapping[str, Mapping[str, Any]],
    *,
    chosen: str,
    better: str,
    floor: float | None,
    baseline: float | None,
    texts: Mapping[str, str],
    frame: tuple[float, float] = (132, 366),
) -> Forest | None:
    """The drawing of a job's deciding metric; `None` if nobody has a value.

    Arguments:
        title: What is measured.
        entries: By label, the metric.
        chosen: Label of the holder.
        better: `lower` or `higher`.
        floor: What real training examples score.
        baseline: What the classical baseline scores.
        texts: By label, the value as shown.
        frame: Left and right of the plot in pixels.
    """
    values = {label: value for label, entry in entries.items() if (value := finite(entry.get("value"))) is not None}
    if not values:
        return None
    points = [*values.values(), *(value for value in (floor, baseline) if value is not None)]
    positive = min(points) > 0
    log = positive and max(points) / min(points) > LOG_FROM
    ends = {label: _ends(entries[label], values[label]) for label in values}
    reach = points if log else [*points, *(end for pair in ends.values() for end in pair)]
    x = Axis.over(reach, *frame, log=log)
    order = sorted(values, key=lambda label: values[label] if better == "lower" else -values[label])
    rows = [
        Whisker(
            label=label,
            text=texts[label],
            y=16 + 24 * i,
            at=x.at(values[label]),
            low=x.at(ends[label][0]),
            high=x.at(ends[label][1]),
            chosen=label == chosen,
        )
        for i, label in enumerate(order)
    ]
    said = [f"{label} {texts[label]}" for label in order]
    said += [
        f"{what} {short(value)}" for what, value in (("floor", floor), ("baseline", baseline)) if value is not None
    ]
    return Forest(
        alt=f"{title}, {better or 'no'} is better: {', '.join(said)}",
        height=16 + 24 * len(rows) + 28,
        rows=rows,
        floor=None if floor is None else x.at(floor),
        baseline=None if baseline is None else x.at(baseline),
        x=x,
    )


def _ends(entry: Mapping[str, Any], value: float) -> tuple[float, float]:
    low, high = finite(entry.get("low")), finite(entry.get("high"))
    return (value if low is None else low, value if high is None else high)
