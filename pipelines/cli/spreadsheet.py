"""Tables for spreadsheets, which run what looks like a formula."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""How a text begins that a spreadsheet may take for something to be run."""


def without_formulas(frame: Any) -> Any:
    """A DataFrame whose texts and names begin with an apostrophe where a spreadsheet would run them.

    Arguments:
        frame: A DataFrame; numbers and dates, and texts that are numbers, stay as they are.
    """
    safe = frame.copy()
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "iufcbmM":
            cells = frame.iloc[:, place].astype(object)
            safe.isetitem(place, cells.map(_safe))
    return safe.set_axis([_safe(name) for name in frame.columns], axis=1)


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False
