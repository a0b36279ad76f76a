"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

DASH = "–"
"""Stands for a number that is not there."""
MOST = 1e100
"""Nothing measured is larger, and what is would overflow an axis."""
THIN = "\u202f"
"""Narrow no-break space, between thousands and before units."""


def finite(value: Any) -> float | None:
    """The value as a float; `None` for whatever is no finite number, or beyond `MOST`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= MOST else None


def plain(value: float | None, decimals: int) -> str:
    """Fixed decimals, a true minus, thin spaces between thousands; a dash for nothing."""
    if value is None:
        return DASH
    if abs(value) >= 1e7:
        return signed(f"{value:.3g}")
    text = f"{value:,.{decimals}f}".replace(",", THIN)
    return signed(text.removeprefix("-") if float(f"{value:.{decimals}f}") == 0 else text)


def short(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return DASH
    if value and not 1e-3 <= abs(value) < 1e5:
        return signed(f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e"))
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = plain(value, max(0, min(digits, 5)))
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(text: str) -> str:
    """A hyphen before digits becomes a minus."""
    return text.replace("-", "\u2212")


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    number = finite(value)
    return DASH if number is None else plain(number, 0)


def tick(value: float) -> str:
    """A short label for an axis: 0.05, 12, 40 k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return signed(f"{value / size:.6g}{THIN}{suffix}")
    return signed(f"{value:.6g}" if abs(value) >= 1e-3 else f"{value:.3g}".replace("e-0", "e-"))


def duration(value: Any) -> str:
    """Seconds as s, min or h."""
    seconds = finite(value)
    if seconds is None:
        return DASH
    if seconds < 100:
        return f"{short(seconds)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def decimals_for(values: Iterable[float], widths: Iterable[float]) -> int:
    """Decimals that give narrow intervals two significant digits; at most three, four if all values are small.

    Arguments:
        values: The numbers to be shown.
        widths: Widths of their intervals.
    """
    most = 3 if max(map(abs, values), default=1.0) >= 0.1 else 4
    known = sorted(width for width in widths if width > 0)
    if not known:
        return 3
    return max(0, min(most, 1 - math.floor(math.log10(known[len(known) // 4]))))


def listed(items: Sequence[str], word: str) -> str:
    """`one, two and three`."""
    return f" {word} ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def setting(value: Any) -> str:
    """A value of a settings file as it could be written there."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return DASH if finite(value) is None else signed(f"{value:.6g}")
    if isinstance(value, int):
        return count(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value) or DASH
    return str(value)
