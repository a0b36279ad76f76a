"""Points: what the page says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report.domains.base import Use


def use(domain: Mapping[str, Any]) -> Use:
    """Samples of points, whose number of axes the domain knows."""
    nothing = f"np.zeros((0, {len(domain['mean'])}))"
    return Use(library="numpy as np", nothing=nothing, file="points.npy")
