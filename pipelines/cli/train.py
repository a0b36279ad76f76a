"""The command `train`."""

from __future__ import annotations

from pipelines.cli.options import DatasetName, FamilyName, Verbose


def train(family: FamilyName, dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Train a family, or go on where training was interrupted."""
    from pipelines.stages.train import train

    train(family, dataset=dataset, verbose=verbose)
