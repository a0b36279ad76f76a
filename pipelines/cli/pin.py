"""The command `pin`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import AliasName, model_and_job, whole_number


def pin(
    alias: AliasName,
    version: Annotated[int, typer.Argument(metavar="VERSION", parser=whole_number, help="Number of the version.")],
) -> None:
    """Give an alias to a version and keep it there, whatever register finds, until unpin or another pin."""
    from pipelines.registry import aliases

    aliases.pin(*model_and_job(alias), version)
