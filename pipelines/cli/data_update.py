"""The command `data update`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import CardName


def data_update(
    name: CardName,
    check: Annotated[
        bool, typer.Option("--check", help="Accept nothing: name what changed, with exit status 1 if anything did.")
    ] = False,
) -> None:
    """Accept a source that was edited: what changed is named, and the card takes its new checksum.

    The source is read as `prepare` will read it, so what `prepare` would refuse is refused here, and the card stays.
    `dvc repro` checks a source that was edited, and goes no further than that.
    """
    from pipelines.cli import data

    data.check(name) if check else data.update(name)
