"""The command `settings`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import AsJson, DatasetName, known_families


def settings(
    family: Annotated[
        str,
        typer.Argument(metavar="FAMILY", help="Only this family's.", autocompletion=lambda: known_families()),
    ] = "",
    dataset: DatasetName = None,
    as_json: AsJson = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write them to runs/DATASET/settings.yaml, as the stage does.")
    ] = False,
) -> None:
    """Print every setting, where it comes from and what it goes before.

    A later one goes before an earlier: defaults, what suits the data, the dataset's recipe, params.yaml (or -S).
    """
    if write and (family or as_json):
        raise ValueError("--write writes those of all families to a file. Leave FAMILY and --json out.")
    if write:
        from pipelines.stages.settings import settings as write_settings

        print(f"wrote {write_settings(dataset=dataset)}")
        return
    from pipelines.cli.settings_table import show

    show(family, dataset=dataset, as_json=as_json)
