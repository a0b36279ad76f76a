"""What the page needs to know of each kind of data, by its name in the dataset's domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.report.domains import grid, table
from pipelines.report.domains.base import Use

USES: dict[str, Callable[[Mapping[str, Any]], Use]] = {"image": grid.use, "table": table.use}


def use(domain: Mapping[str, Any]) -> Use:
    """How a model of this data is asked for samples; of images where the kind is unknown."""
    return USES.get(str(domain.get("kind")), grid.use)(domain)
