"""The command `tune`."""

from __future__ import annotations

from pathlib import Path

from pipelines.cli.options import DatasetName, FamilyName, Verbose


def tune(family: FamilyName, dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Search a family's settings by short trials."""
    if dataset is not None:
        from data.cards import find_card

        find_card(dataset, Path())
    from pipelines.stages.tune import tune

    tune(family, dataset=dataset, verbose=verbose)
