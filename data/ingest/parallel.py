"""Work shared among the cores of this machine, results in order, never more than a few items ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WORTH_BYTES = 4 << 20


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], size: int, workers: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in worker processes, unless there is too little to do.

    Arguments:
        function: Importable by name; items and results must be picklable.
        items: Read lazily, once the workers have begun to start.
        size: Bytes behind all items, roughly.
        workers: Processes; all cores when not given.
    Yields:
        The results, in the order of the items.
    """
    workers = cores() if workers is None else workers
    if size < WORTH_BYTES or workers < 2:
        yield from map(function, items)
        return
    # Fresh processes: forking one that runs threads (Arrow's, torch's) can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in range(workers):
            pool.submit(_started, function)
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _started(function: Callable[[Item], Result]) -> None:
    """Nothing: unpickling its argument has imported what the worker needs."""
