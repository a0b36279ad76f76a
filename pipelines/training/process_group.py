"""Failures of collective operations, turned into errors that name the lost workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import distributed as dist

from pipelines.training.errors import LostPartner

if TYPE_CHECKING:
    from pipelines.training.context import Place


ROLL_CALL = 5.0
"""Seconds in which partners must answer after a collective operation has failed."""


@contextmanager
def partners_named(place: Place) -> Iterator[None]:
    """Turn the failure of a collective operation into an error that names the ranks that did not answer.

    Raises:
        LostPartner: In its place.
    """
    try:
        yield
    except RuntimeError as error:
        if place.world_size == 1 or not _collective(error):
            raise
        silent = _silent(place)
        who = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}" if silent else "a worker"
        raise LostPartner(
            f"{who} of {place.world_size} did not answer: it hangs, or it or its node is gone ({_first_line(error)})"
        ) from error


def _collective(error: RuntimeError) -> bool:
    """Whether an error comes from the backend that joins the workers: gloo has no exception class of its own."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))


def _silent(place: Place) -> list[int]:
    """Ranks that do not sign a list which all that noticed the failure sign."""
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"fivefold/noticed/{place.rank}", "here")
        end = time.monotonic() + ROLL_CALL
        others = range(place.world_size)
        while time.monotonic() < end:
            others = [rank for rank in others if not store.check([f"fivefold/noticed/{rank}"])]
            if not others:
                break
            time.sleep(0.1)
        return list(others)
    except (RuntimeError, ValueError):  # the list itself is kept by rank 0
        return [0]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
