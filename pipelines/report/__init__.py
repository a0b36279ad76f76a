"""The stage `report`: one self-contained HTML page of everything the pipeline found.

| file | what |
| --- | --- |
| `reading.py` | the files of a run tree, read so that a missing or broken one becomes a remark |
| `metrics.py` | what each metric says, in one line; marks of the best |
| `sections.py` | what the page shows: verdicts, leaderboard, families, lineage |
| `tables.py` | rows, histograms and associations of a table |
| `charts.py` | geometry of the drawings; `charts.html` draws them as SVG |
| `numbers.py` | numbers as people read them |
| `page.html`, `page.css` | the page |

The page is a pure function of the files: no clock, no network, no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["report"]


def report(dataset: str, families: Sequence[str], *, root: str | Path = ".") -> Path:
    """Write `runs/<dataset>/report.html`.

    What is missing or cannot be read is said on the page, with the command that makes it.

    Arguments:
        dataset: Name of the dataset.
        families: The families to show, in this order.
        root: The project's root.
    Returns:
        Path of the page.
    Raises:
        OSError: If it cannot be written; an older page stays as it was.
    """
    from pipelines.artifact import write_atomically
    from pipelines.report.reading import read
    from pipelines.report.sections import page

    path = Path(root) / "runs" / dataset / "report.html"
    write_atomically(path, page(read(dataset, families, Path(root))))
    return path
