"""The stage `report`: one self-contained HTML page of everything the pipeline found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


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
    from data.files import write_atomically
    from pipelines.report.loading import read
    from pipelines.report.page import page

    path = Path(root) / "runs" / dataset / "report.html"
    write_atomically(path, page(read(dataset, families, Path(root))))
    return path
