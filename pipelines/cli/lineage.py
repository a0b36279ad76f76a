"""The command `lineage`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from pipelines.cli.options import AsJson, DatasetName


def lineage(
    alias: Annotated[str, typer.Argument(metavar="JOB", help="A job.")] = "generation",
    dataset: DatasetName = None,
    as_json: AsJson = False,
) -> None:
    """Check the chain from an alias back to the raw data."""
    from pipelines import config, tracking
    from pipelines.cli.tables import print_json
    from pipelines.registry.lineage import verify

    name = config.load(dataset=dataset).dataset
    if not tracking.store_exists():
        raise ValueError(
            f"models:/{name}@{alias} does not exist: no model is registered here yet. Run `dvc repro` first."
        )
    if as_json:
        print_json([dataclasses.asdict(link) for link in verify(name, alias, say=lambda _: None)])
    else:
        verify(name, alias)
