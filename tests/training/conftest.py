"""Trainings here are about updates, checkpoints and workers: tests/models checks the shapes of what they run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shape_checks import shape_checks


@pytest.fixture(autouse=True, scope="module")
def unchecked_shapes() -> Iterator[None]:
    """Of a small network's step the checks take half the time."""
    with shape_checks(on=False):
        yield
