"""The command `lineage`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from pipelines.cli.options import AsJson, DatasetName, model_and_job


def lineage(
    alias: Annotated[str, typer.Argument(metavar="JOB", help="A job, or digits@density, say.")] = "generation",
    dataset: DatasetName = None,
    as_json: AsJson = False,
) -> None:
    """Check the chain from an alias back to the raw data."""
    from pipelines import config, tracking
    from pipelines.cli.tables import print_json
    from pipelines.registry.lineage import verify

    name, job = model_and_job(alias) if "@" in alias else (config.load(dataset=dataset).dataset, alias)
    if not tracking.store_exists():
        raise ValueError(
            f"models:/{name}@{job} does not exist: no model is registered here yet. Run `dvc repro` first."
        )
    if as_json:
        print_json([dataclasses.asdict(link) for link in verify(name, job, say=lambda _: None)])
    else:
        verify(name, job)
