"""The command `register`."""

from __future__ import annotations

from pipelines.cli.options import DatasetName


def register(dataset: DatasetName = None) -> None:
    """Put every family's model into the registry and give each job to the best."""
    from pipelines import config
    from pipelines.stages.register import register

    settings = config.load(dataset=dataset)
    register(settings.dataset, settings.families)
