"""The stage `report`: one self-contained HTML page of everything the pipeline found, and pictures for `dvc plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def report(dataset: str, families: Sequence[str], *, root: str | Path = ".") -> Path:
    """Write `runs/<dataset>/report.html`, and the curves of all families as pictures in `plots/` beside it.

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
    from data.files import whole_folder, write_atomically
    from pipelines.report.loading import read
    from pipelines.report.page import page
    from pipelines.report.plots import write_plots

    folder = Path(root) / "runs" / dataset
    run = read(dataset, families, Path(root))
    with whole_folder(folder / "plots") as plots:
        write_plots(run, plots)
    write_atomically(folder / "report.html", page(run))
    return folder / "report.html"
