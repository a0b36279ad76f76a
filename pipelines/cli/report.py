"""The command `report`."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.cli.options import DatasetName

log = logging.getLogger(__name__)


def report(dataset: DatasetName = None) -> None:
    """Write the report: one HTML page."""
    from data.cards import find_card
    from pipelines import config
    from pipelines.stages.report import report

    settings = config.load(dataset=dataset)
    find_card(settings.dataset, Path())
    log.info("wrote %s", report(settings.dataset, settings.families))
