"""The command `features`."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.cli.options import DatasetName

log = logging.getLogger(__name__)


def features(dataset: DatasetName = None) -> None:
    """Make the yardstick: frozen classifiers, floors and the classical baseline."""
    from data.cards import find_card
    from pipelines import config
    from pipelines.stages.features import features

    settings = config.load(dataset=dataset)
    find_card(settings.dataset, Path())
    features(settings.dataset, seed=settings.seed, settings=settings.features)
    log.info("wrote runs/%s/yardstick", settings.dataset)
