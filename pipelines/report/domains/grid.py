"""What the page says of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report.domains.base import Use


def use(domain: Mapping[str, Any]) -> Use:
    """Samples of images, whose size the domain knows."""
    sizes = [domain.get(name) for name in ("height", "width", "channels")]
    shape = ", ".join(str(size) for size in sizes) if all(sizes) else ""
    return Use(library="numpy as np", nothing=f"np.zeros((0, {shape}), np.uint8)", file="samples.png")
