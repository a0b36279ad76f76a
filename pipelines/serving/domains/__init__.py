"""How callers' inputs and outputs are converted, by kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .base import Conversion
from .image import Images
from .table import Tables

CONVERSIONS: dict[str, Callable[[Mapping[str, Any]], Conversion]] = {"image": Images, "table": Tables}
"""How callers' inputs and outputs are converted, by the kind of the domain: the one place that knows."""
