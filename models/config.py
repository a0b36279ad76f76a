"""Checks of the families' settings."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choices(config: Any) -> None:
    """Refuse a setting that is none of the values its `Literal` type lists.

    Raises:
        ValueError: Names the setting, its values, and what was given.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            raise ValueError(f"{name} must be one of {choices}, got {getattr(config, name)!r}")
