"""Pictures for `dvc plots`: one per curve and family.

DVC draws tables with Vega, which its page loads from the network, and empty cells as zeros. A picture needs neither.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.report.family import curves
from pipelines.report.loading import Run
from pipelines.report.page import environment


def write_plots(run: Run, folder: Path) -> None:
    """Write `<family>/<curve>.svg` for everything that was recorded in training; points that are missing are left out.

    Arguments:
        run: What is on disk of a dataset's run.
        folder: An empty folder.
    """
    template = environment().get_template("plot.svg")
    for family in run.families:
        for name, curve in curves(family).items():
            path = folder / family.name / f"{name}.svg"
            path.parent.mkdir(exist_ok=True)
            drawn = template.render(c=curve, title=f"{family.name}: {curve.title}")
            path.write_text(drawn + "\n", encoding="utf-8")
