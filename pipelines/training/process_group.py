"""Failures of collective operations, turned into errors that name the lost workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import distributed as dist

from pipelines.training.errors import LostWorker

if TYPE_CHECKING:
    from pipelines.training.context import WorkerContext


LIVENESS_TIMEOUT_S = 5.0
"""Seconds in which the other workers must answer after a collective operation has failed."""


@contextmanager
def naming_lost_workers(context: WorkerContext) -> Iterator[None]:
    """Turn the failure of a collective operation into an error that names the ranks that did not answer.

    Raises:
        LostWorker: In its place.
    """
    try:
        yield
    except RuntimeError as error:
        if context.world_size == 1 or not _is_collective_failure(error):
            raise
        silent = _unresponsive_ranks(context)
        who = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}" if silent else "a worker"
        raise LostWorker(
            f"{who} of {context.world_size} did not answer: it hangs, or it or its node is gone ({_first_line(error)})"
        ) from error


def _is_collective_failure(error: RuntimeError) -> bool:
    """Whether an error comes from the backend that joins the workers: gloo has no exception class of its own."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))


def _unresponsive_ranks(context: WorkerContext) -> list[int]:
    """Ranks that did not report alive in time."""
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"fivefold/noticed/{context.rank}", "here")
        end = time.monotonic() + LIVENESS_TIMEOUT_S
        others = range(context.world_size)
        while time.monotonic() < end:
            others = [rank for rank in others if not store.check([f"fivefold/noticed/{rank}"])]
            if not others:
                break
            time.sleep(0.1)
        return list(others)
    except (RuntimeError, ValueError):  # rank 0 keeps the store
        return [0]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
