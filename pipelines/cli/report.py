"""The command `report`."""

from __future__ import annotations

import logging

from pipelines.cli.options import DatasetName

log = logging.getLogger(__name__)


def report(dataset: DatasetName = None) -> None:
    """Write the report: one HTML page."""
    from pipelines import config
    from pipelines.stages.report import report

    settings = config.load(dataset=dataset)
    log.info("wrote %s", report(settings.dataset, settings.families))
