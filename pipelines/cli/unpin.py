"""The command `unpin`."""

from __future__ import annotations

from pipelines.cli.options import AliasName, model_and_job


def unpin(alias: AliasName) -> None:
    """Let a pinned alias move again: it stays where it is until the next register."""
    from pipelines.registry import aliases

    aliases.unpin(*model_and_job(alias))
