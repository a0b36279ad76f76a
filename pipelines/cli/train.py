"""The command `train`."""

from __future__ import annotations

from pathlib import Path

from pipelines.cli.options import DatasetName, FamilyName, Verbose


def train(family: FamilyName, dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Train a family, or go on where training was interrupted."""
    if dataset is not None:
        from data.cards import find_card

        find_card(dataset, Path())
    from pipelines.stages.train import train

    train(family, dataset=dataset, verbose=verbose)
