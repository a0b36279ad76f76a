"""What commands print for people: tables, and colour where there is a terminal that wants it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

BOLD, RED, GREEN, YELLOW = "1", "1;31", "32", "33"
"""Codes of ECMA-48."""


def coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """Text in a style, where the stream shows it."""
    return f"\x1b[{style}m{text}\x1b[0m" if coloured(stream) else text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: by rich on a terminal, folded to its width; else plain columns for other programs.

    Arguments:
        columns: Their titles.
        rows: Cells by row.
    """
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in columns:
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(color_system="auto" if coloured(sys.stdout) else None).print(table)
        return
    lines = [columns, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_json(value: Any) -> None:
    """What a command found, for programs."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, a line each."""
    wide = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name.ljust(wide)}  {value}")
