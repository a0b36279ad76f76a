"""Checks of the families' settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoSampling:
    """Settings of sampling of a family that has none."""


def check_choices(config: Any) -> None:
    """Refuse a setting that is none of the values its `Literal` type lists.

    Raises:
        ValueError: Names the setting, its values, and what was given.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            raise ValueError(f"{name} must be one of {choices}, got {getattr(config, name)!r}")


def check_at_least_one(config: Any, *names: str) -> None:
    """Refuse settings below 1 by name."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


def check_not_negative(config: Any, *names: str) -> None:
    """Refuse settings below 0 by name."""
    for name in names:
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}")


def check_positive(config: Any, *names: str) -> None:
    """Refuse settings that are not above 0 by name."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def check_hide(hide: float) -> None:
    """Refuse a part of the training examples that is none."""
    if hide != -1 and not 0 <= hide <= 1:
        raise ValueError(f"hide must lie between 0 and 1, or be -1 to choose by domain, got {hide}")


def check_dropout(part: float) -> None:
    """Refuse a share of a network's values to be set to zero that leaves none."""
    if not 0 <= part < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {part}")


def check_label_dropout(part: float) -> None:
    """Refuse a part of the labels to be hidden that leaves none."""
    if not 0 <= part < 1:
        raise ValueError(f"label_dropout must be at least 0 and below 1, got {part}")


def with_values(config: Any, changes: Mapping[str, Any]) -> Any:
    """Settings with some of them replaced, each of its type and in range.

    Raises:
        ValueError: If there is no such setting, or a value is of another type or out of range.
    """
    kinds = get_type_hints(type(config))
    if unknown := sorted(changes.keys() - kinds.keys()):
        known = f"known: {', '.join(kinds)}" if kinds else "this family has none"
        raise ValueError(f"unknown settings of sampling: {', '.join(unknown)}; {known}")
    values = {name: _converted(name, value, kinds[name]) for name, value in changes.items()}
    return dataclasses.replace(config, **values)


def built(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Settings of their types and in range.

    Raises:
        ValueError: If a value is of another type or out of range.
        TypeError: If there is no such setting.
    """
    kinds = get_type_hints(kind)
    return kind(**{name: _converted(name, v, kinds[name]) if name in kinds else v for name, v in values.items()})


def _converted(name: str, value: Any, kind: Any) -> Any:
    """A value as its type has it: a whole number may come as 4.0, any number as what a library makes of it."""
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
        return value
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or (kind is int and not whole)
    ):
        raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number, got {value!r}")
    return kind(value)
