"""The verbs `pin`, `unpin` and `rollback`: what a person decides about an alias."""

from __future__ import annotations

from pipelines.registry import aliases


def pin(alias: str, version: int) -> None:
    """Give an alias, `digits@density`, to a version and keep it there."""
    aliases.pin(*named(alias), version)


def unpin(alias: str) -> None:
    """Let a pinned alias move again."""
    aliases.unpin(*named(alias))


def rollback(alias: str) -> None:
    """Give an alias back to the version that held it before."""
    aliases.rollback(*named(alias))


def named(alias: str) -> tuple[str, str]:
    """Registered model and alias of `digits@density`.

    Raises:
        ValueError: If it is not written like that.
    """
    name, _, job = alias.removeprefix("models:/").partition("@")
    if not name or not job:
        raise ValueError(f"alias must be written <model>@<job>, digits@density say, got {alias!r}.")
    return name, job
