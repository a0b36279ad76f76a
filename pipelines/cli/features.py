"""The command `features`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from pipelines.cli.options import DatasetName, Verbose

log = logging.getLogger(__name__)


def features(dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Make the yardstick: frozen classifiers, floors and the classical baseline."""
    from data.cards import find_card
    from pipelines import config
    from pipelines.execution.measuring import run_features
    from pipelines.stages.features import features

    settings = config.load(dataset=dataset)
    find_card(settings.dataset, Path())
    features(
        settings.dataset,
        seed=settings.seed,
        settings=settings.features,
        run=partial(run_features, where=settings.cluster, verbose=verbose),
    )
    log.info("wrote runs/%s/yardstick", settings.dataset)
