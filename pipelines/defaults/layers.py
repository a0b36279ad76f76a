"""Settings in layers: a later one goes before an earlier one, key by key, and what each key was is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place.

    Arguments:
        name: Of the place, as a person is told.
        content: Nested; a key without a value (None) is not set.
    """

    name: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, where it comes from and what it goes before.

    Arguments:
        value: The value.
        source: Name of the layer that set it.
        overrides: Layers and values that it goes before, the nearest first.
    """

    value: Any
    source: str
    overrides: tuple[tuple[str, Any], ...] = ()


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of everything that is set."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def stacked(layers: Sequence[Layer]) -> dict[str, Setting]:
    """The settings that hold, by dotted name, in the order in which the layers name them."""
    found: dict[str, Setting] = {}
    for layer in layers:
        for name, value in leaves(layer.content):
            before = found.get(name)
            overrides = ((before.source, before.value), *before.overrides) if before else ()
            found[name] = Setting(value, layer.name, overrides)
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over` in their places; what holds no value leaves the one below."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        elif below is None or any(leaves({key: value})):
            result[key] = value
    return result


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as mappings in mappings."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        *above, key = name.split(".")
        into = result
        for part in above:
            into = into.setdefault(part, {})
        into[key] = value
    return result
