"""The command `data add`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def data_add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Path or URL of images or a table: archive, CSV, JSON lines, Parquet, Arrow, Excel, …",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the card (default: the source's, without endings)."),
    ] = None,
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Column of a table that holds the class.")] = "",
    anomaly: Annotated[
        str, typer.Option(metavar="COLUMN=VALUE", help="Rows kept out of training to measure detection.")
    ] = "",
    size: Annotated[str, typer.Option(metavar="WxH", help="Width and height that images are brought to.")] = "",
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        typer.Option(case_sensitive=False, help="How images of other sizes are brought to one."),
    ] = None,
    query: Annotated[str, typer.Option(metavar="SQL", help="What is asked of a database (SQLite, DuckDB).")] = "",
    sheet: Annotated[
        str, typer.Option(metavar="NAME", help="Sheet of a workbook (default: the first that holds something).")
    ] = "",
) -> None:
    """Inspect a source and write its card, and a recipe beside it."""
    from pipelines.cli.data import add, name_of

    name = name_of(source) if name is None else name
    add(source, name, label, anomaly, size=size, fit=fit or "", query=query, sheet=sheet)
