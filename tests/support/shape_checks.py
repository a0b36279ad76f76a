"""Whether shapes in annotations are checked: always, but in long trainings, whose first steps other tests check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import config


@contextmanager
def shape_checks(*, on: bool) -> Iterator[None]:
    """Run with the checks on or off; of a small network's step they take half the time."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", not on)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
