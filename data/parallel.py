"""Work shared among the cores of this machine, results in order, never more than a few items ahead."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
INLINE = 4


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in worker processes; a handful of items is not worth any.

    Arguments:
        function: Importable by name; so must items and results be picklable.
        items: Read lazily.
        workers: Processes; all cores when not given, the calling process alone when 0.
    Yields:
        The results, in the order of the items.
    """
    workers = cores() if workers is None else workers
    remaining = iter(items)
    head = list(itertools.islice(remaining, INLINE + 1))
    if workers < 1 or len(head) <= INLINE:
        yield from map(function, itertools.chain(head, remaining))
        return
    # Fresh processes: forking one that runs threads (Arrow's, torch's) can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: deque = deque()
        for item in itertools.chain(head, remaining):
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
