"""Dropout whose chance comes from a stream, so that a training goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..rng import Streams
from ..shapes import Float

Drop = Callable[[Tensor], Tensor]
"""Sets some of the values to zero, with random numbers of its own."""


def keep_all(h: Tensor) -> Tensor:
    """No dropout."""
    return h


def dropout(part: float, generator: Streams | None) -> Drop:
    """Dropout of this part of the values; none without a source of randomness."""
    return keep_all if generator is None or not part else partial(_dropped, part=part, generator=generator)


def _dropped(h: Float[Tensor, "batch *values"], part: float, generator: Streams) -> Float[Tensor, "batch *values"]:
    """Values of which this part is set to zero at random, the others larger for it."""
    kept = generator.uniform(*h.shape) >= part
    return h * kept.to(h.dtype) / (1 - part)
