"""The command `lineage`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import DatasetName, model_and_job


def lineage(
    alias: Annotated[str, typer.Argument(metavar="JOB", help="A job, or digits@density, say.")] = "generation",
    dataset: DatasetName = None,
) -> None:
    """Check the chain from an alias back to the raw data."""
    from pipelines import config
    from pipelines.registry.lineage import verify

    if "@" in alias:
        verify(*model_and_job(alias))
    else:
        verify(config.load(dataset=dataset).dataset, alias)
