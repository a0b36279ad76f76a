"""The command `lineage`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import DatasetName


def lineage(
    alias: Annotated[str, typer.Argument(metavar="JOB", help="A job.")] = "generation", dataset: DatasetName = None
) -> None:
    """Check the chain from an alias back to the raw data."""
    from pipelines import config
    from pipelines.registry.lineage import verify

    verify(config.load(dataset=dataset).dataset, alias)
