"""The command `rollback`."""

from __future__ import annotations

from pipelines.cli.options import AliasName, model_and_job


def rollback(alias: AliasName) -> None:
    """Give an alias back to the version that held it before.

    The model rolled back from does not get it again, unless it is pinned; a newer one may.
    """
    from pipelines.registry import aliases

    aliases.rollback(*model_and_job(alias))
