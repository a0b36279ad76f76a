"""Durations as people write them: `5m`, `1h30m`, `90s`."""

from __future__ import annotations

import re

UNITS = {"h": 3600, "m": 60, "s": 1}
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str) -> float:
    """Seconds of a duration.

    Example:
        >>> parse_duration("1h30m"), parse_duration("5m"), parse_duration("90")
        (5400.0, 300.0, 90.0)

    Raises:
        ValueError: If it is none, or not positive.
    """
    found = DURATION.fullmatch(text.replace(" ", ""))
    total = (
        sum(float(part) * unit for part, unit in zip(found.groups(default="0"), UNITS.values(), strict=True))
        if found
        else 0
    )
    if not total > 0:
        raise ValueError(f"must be a duration such as 5m, 1h30m or 90s, got {text!r}")
    return total


def format_duration(seconds: float) -> str:
    """A duration as a person says it, rounded.

    Example:
        >>> format_duration(42), format_duration(200), format_duration(5000)
        ('40 s', '3 min', '1 h 23 min')
    """
    if seconds < 60:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
