"""How callers' inputs and outputs are converted, by kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from .base import Conversion
from .image import Images
from .source_table import SourceTables
from .table import Tables

CONVERSIONS: dict[str, Callable[[Mapping[str, Any]], Conversion]] = {"image": Images, "table": Tables}
"""How callers' inputs and outputs are converted, by the kind of the domain: the one place that knows."""


def conversion(facts: Mapping[str, Any], about: Mapping[str, Any], formats: ModuleType | None) -> Conversion:
    """Between what callers hold and what a model is given.

    Arguments:
        facts: Of `model.json`: `domain` and `class_names`; of tables also `table`, the columns of the source, and
            `constraints`, what every row obeys.
        about: What the version knows of itself; `label` is the name of the label's column.
        formats: The module that reads and writes cells, where it came along.
    """
    names = [str(name) for name in facts.get("class_names") or ()]
    label = {"name": str(about.get("label") or "label"), "classes": names} if names else {}
    domain = facts["domain"] | {"label": label}
    if facts.get("table") and formats is not None:
        return SourceTables(domain, facts["table"], formats, facts.get("constraints"))
    return CONVERSIONS[domain["kind"]](domain)
