"""The rules of each kind of data; a kind without its own is taken for small images."""

from __future__ import annotations

from pipelines.defaults.base import KindRules
from pipelines.defaults.domains.image import ImageRules
from pipelines.defaults.domains.table import TableRules

RULES: dict[str, KindRules] = {"image": ImageRules(), "table": TableRules()}


def rules_of(kind: str) -> KindRules:
    """The rules of a kind of data."""
    return RULES.get(kind, RULES["image"])
