"""The command `migrate`."""

from __future__ import annotations

from typing import Annotated

import typer


def migrate(
    to: Annotated[str, typer.Option(metavar="URI", help="The store to move to: http://host:5000, say.")],
    origin: Annotated[
        str, typer.Option("--from", metavar="URI", help="The store that there is (default: sqlite:///mlflow.db).")
    ] = "",
) -> None:
    """Copy all that an MLflow store knows into another: runs, figures, files, models, versions and aliases.

    Nothing is trained again, and nothing is taken away from the store that there is. Killed, the same command goes on.
    """
    from pipelines import tracking

    moved = tracking.migrate(origin or tracking.DEFAULT_URI, to)
    said = ", ".join(f"{count} {what}" for what, count in moved.items())
    print(f"{said} are in {to} now. Set MLFLOW_TRACKING_URI={to}; the next `dvc repro` goes on there.")
