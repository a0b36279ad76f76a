"""The command `register`."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.cli.options import DatasetName

log = logging.getLogger(__name__)


def register(dataset: DatasetName = None) -> None:
    """Put every family's model into the registry and give each job to the best."""
    from data.cards import find_card
    from pipelines import config
    from pipelines.stages.register import register

    settings = config.load(dataset=dataset)
    find_card(settings.dataset, Path())
    register(settings.dataset, settings.families, say=log.info)
    log.info("wrote runs/%s/registry.json", settings.dataset)
