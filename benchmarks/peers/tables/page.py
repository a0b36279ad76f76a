"""docs/benchmarks-tables.md from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from tables import TABLES

PAGE = """# Tables, beside the specialists

Written by `make benchmark-tables` (`benchmarks/peers/tables`), {minutes} on {threads} a side, the examples of our
defaults where they need less. The specialists, with their defaults and nothing edited: TabularARGN (mostlyai-engine
2.7.3), CTGAN, TVAE and the Gaussian copula (SDV 2.0.0). Four fifths of each table are learned, one fifth is held out;
medians where there are several runs.

`quality` is SDMetrics' mean of `shapes` (columns) and `trends` (pairs of columns) against the held-out rows, `valid`
its diagnostic score; `utility` the area under the ROC curve by which trees that learned from the drawn rows tell the
held-out rows' label; `impossible` the share of drawn rows that hold a pair of values that no training row has although
independence would give it twenty times. `seconds` are the processor's, drawing included.

{tables}
"""

FIGURES = ("quality", "shapes", "trends", "valid", "utility", "impossible")


def page(results: Sequence[dict[str, Any]]) -> str:
    """The page as Markdown."""
    text = []
    for name, table in TABLES.items():
        rows = [result for result in results if result["table"] == name]
        if rows:
            text += [f"## {name}: {table.what}\n", f"`{table.source}`, label `{table.label}`.\n", _table(rows), ""]
    minutes = sorted({f"{result['minutes']:g} minutes of the processor" for result in results})
    threads = sorted({f"{result['threads']} thread{'s' * (result['threads'] > 1)}" for result in results})
    return PAGE.format(minutes=" or ".join(minutes), threads=" or ".join(threads), tables="\n".join(text).rstrip())


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| | " + " | ".join(FIGURES) + " | seconds | runs |", "| --- " * (len(FIGURES) + 3) + "|"]
    for who in dict.fromkeys(row["who"] for row in rows):
        runs = [row for row in rows if row["who"] == who]
        good = [row for row in runs if "quality" in row]
        if not good:
            lines.append(f"| {who} | " + f"failed: {runs[-1].get('error', '')} " + "| " * (len(FIGURES) + 2))
            continue
        cells = [_cell([row[figure] for row in good]) for figure in FIGURES]
        seconds = f"{median(row['seconds'] for row in good):.0f}" if "seconds" in good[0] else ""
        lines.append(f"| {who} | " + " | ".join([*cells, seconds, str(len(good))]) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    return f"{median(found):.3f}" if found else "–"
