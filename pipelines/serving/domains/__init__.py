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


def conversion(facts: Mapping[str, Any], formats: ModuleType | None) -> Conversion:
    """The conversion for a model.

    Arguments:
        facts: Of the model: `domain`; of tables also `table` (the columns of the source) and `class_names`.
        formats: The module that reads and writes cells, where it came along.
    """
    if facts.get("table") and formats is not None:
        return SourceTables(facts["domain"], facts["table"], facts.get("class_names") or (), formats)
    return CONVERSIONS[facts["domain"]["kind"]](facts["domain"])
