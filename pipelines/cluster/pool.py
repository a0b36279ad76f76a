"""One piece of work on a node of the cluster, and a pool of workers that answer its calls; both outlive lost nodes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import ray.exceptions

from pipelines.cluster.workers import capacity, last_line

LOSSES = 3
"""Times that a call, or the work itself, is given to another node after its own was lost."""

Function = Callable[[Any], Any]


def run_on_node(work: Callable[[dict[str, Any]], None], config: dict[str, Any], *, gpu: bool = False) -> None:
    """Run a function on one core of a node, not where this process is; again on another if that node is lost.

    Arguments:
        work: What is run; it goes on where it was, if it is run again.
        config: Plain data, its argument.
        gpu: Give it a GPU, if the cluster has any.

    Raises:
        RuntimeError: If it failed, or its nodes were lost more than `LOSSES` times.
    """
    gpus = 1 if gpu and capacity("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LOSSES)(work)
    try:
        ray.get(task.remote(config))
    except ray.exceptions.RayError as error:
        raise RuntimeError(last_line(error)) from error


class _Worker:
    """Prepares once, then answers calls."""

    def __init__(self, prepare: Callable[[dict[str, Any]], Function], config: dict[str, Any]) -> None:
        self.function = prepare(config)

    def ready(self) -> None:
        """Answers once the worker is there."""

    def call(self, item: Any) -> Any:
        """One answer."""
        return self.function(item)


class Pool:
    """Workers all over the cluster, one per GPU, or per core where there is none; each takes the next call when free.

    A worker that the cluster has no room for joins when there is; a lost one's call goes to another.

    Arguments:
        prepare: Run once on each worker; returns what answers its calls.
        config: Plain data, its argument.
    """

    def __init__(self, prepare: Callable[[dict[str, Any]], Function], config: dict[str, Any]) -> None:
        gpus = capacity("GPU")
        self.on_gpu = gpus > 0
        self.most = max(1, gpus or capacity("CPU"))
        self.make: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_Worker)
        self.arguments = (prepare, config)
        self.free: list[Any] = []
        self.starting: dict[Any, Any] = {}
        """Workers by what tells that they are there."""

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """The answers with their items' numbers, as they come.

        Raises:
            ConnectionError: If the workers of one call were lost more than `LOSSES` times.
            Exception: What a call raised.
        """
        waiting = deque(range(len(items)))
        running: dict[Any, tuple[Any, int]] = {}
        losses: Counter[int] = Counter()
        while waiting or running:
            while waiting and self.free:
                worker, number = self.free.pop(), waiting.popleft()
                running[worker.call.remote(items[number])] = (worker, number)
            for _ in range(min(self.most - len(self.starting) - len(running), len(waiting))):
                worker = self.make.remote(*self.arguments)
                self.starting[worker.ready.remote()] = worker
            (done,), _ = ray.wait([*running, *self.starting], num_returns=1)
            number = running[done][1] if done in running else -1
            try:
                answer = ray.get(done)
            except ray.exceptions.RayActorError as error:
                self.starting.pop(done, None)
                losses[number] += 1
                if losses[number] > LOSSES:
                    text = f"{losses[number]} workers were lost over the same work: {last_line(error)}"
                    raise ConnectionError(text) from error
                if running.pop(done, None):
                    waiting.appendleft(number)
                continue
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            if done in self.starting:
                self.free.append(self.starting.pop(done))
                continue
            worker, _ = running.pop(done)
            self.free.append(worker)
            yield number, answer
