"""Durations as people write them: `5m`, `1h30m`, `90s`."""

from __future__ import annotations

import re

UNITS = {"h": 3600, "m": 60, "s": 1}
WRITTEN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds_of(text: str) -> float:
    """Seconds of a duration.

    Example:
        >>> seconds_of("1h30m"), seconds_of("5m"), seconds_of("90")
        (5400.0, 300.0, 90.0)

    Raises:
        ValueError: If it is none, or not positive.
    """
    found = WRITTEN.fullmatch(text.replace(" ", ""))
    total = (
        sum(float(part) * unit for part, unit in zip(found.groups(default="0"), UNITS.values(), strict=True))
        if found
        else 0
    )
    if not total > 0:
        raise ValueError(f"must be a duration such as 5m, 1h30m or 90s, got {text!r}")
    return total


def in_words(seconds: float) -> str:
    """A duration as a person says it, rounded.

    Example:
        >>> in_words(42), in_words(200), in_words(5000)
        ('40 s', '3 min', '1 h 23 min')
    """
    if seconds < 60:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
