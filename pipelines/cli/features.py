"""The command `features`."""

from __future__ import annotations

from pipelines.cli.options import DatasetName


def features(dataset: DatasetName = None) -> None:
    """Make the yardstick: frozen classifiers, floors and the classical baseline."""
    from pipelines import config
    from pipelines.stages.features import features

    settings = config.load(dataset=dataset)
    features(settings.dataset, seed=settings.seed, settings=settings.features)
