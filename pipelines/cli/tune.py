"""The command `tune`."""

from __future__ import annotations

from pipelines.cli.options import DatasetName, FamilyName, Verbose


def tune(family: FamilyName, dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Search a family's settings by short trials."""
    from pipelines.stages.tune import tune

    tune(family, dataset=dataset, verbose=verbose)
