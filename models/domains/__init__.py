"""The kinds of data there are: a family is written once against `Domain`."""

from __future__ import annotations

from typing import Any

from .base import Domain
from .grid import Grid, Image, Sound, Volume
from .table import Table

__all__ = ["DOMAINS", "Domain", "Grid", "Image", "Sound", "Table", "Volume", "domain"]


DOMAINS: dict[str, type[Domain]] = {"image": Image, "table": Table}
"""By the name in a dataset's card; a kind of data adds itself here (`Sound` and `Volume`: no reader yet)."""


def domain(spec: dict[str, Any]) -> Domain:
    """Build a domain from its spec.

    Raises:
        ValueError: If its kind is unknown.
    """
    options = dict(spec)
    kind = options.pop("kind", None)
    if kind not in DOMAINS:
        raise ValueError(f"unknown kind of data {kind!r}; known: {', '.join(DOMAINS)}")
    return DOMAINS[kind](**options)
