"""The command `report`."""

from __future__ import annotations

from pipelines.cli.options import DatasetName


def report(dataset: DatasetName = None) -> None:
    """Write the report: one HTML page."""
    from pipelines import config
    from pipelines.stages.report import report

    settings = config.load(dataset=dataset)
    report(settings.dataset, settings.families)
