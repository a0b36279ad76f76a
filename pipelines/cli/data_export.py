"""The command `data export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import CardName


def data_export(
    name: CardName,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to write.")],
    form: Annotated[
        Literal["parquet", "csv", "jsonl"],
        typer.Option("--format", help="Of the files; csv and jsonl of tables only, every cell as its source has it."),
    ] = "parquet",
) -> None:
    """Write prepared data as files, one per split."""
    from pipelines.cli.data import export

    export(name, to, form)
