"""What the loop is given and gives: the worker it runs on, the source of batches, progress reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from models.contract import Batch, GenerativeModel


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """One progress report, made on rank 0.

    Arguments:
        examples: Examples seen.
        total: Examples to see.
        metrics: Means since the last report: losses, gradient norms, learning rate, speed.
        model: The averaged and finalized model, at evaluations only.
    """

    examples: int
    total: int
    metrics: dict[str, float]
    model: GenerativeModel | None = None


class BatchSource(Protocol):
    """Where batches come from: pure functions of the step."""

    def ids(self, step: int) -> Iterable[Any]:
        """Sample ids of the step's global batch."""
        ...

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        """A rank's part of the step's global batch."""
        ...

    def reference(self) -> Batch:
        """A fixed, large batch of training examples, the same on every rank."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Where a worker stands.

    Arguments:
        rank: Number of this worker.
        world_size: Number of workers.
        device: Its device.
        shard: Whether the workers share the model and its state between them, instead of each having all.
        notice: Asked on rank 0 at every update whether the node of a worker is about to go.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    shard: bool = False
    notice: Callable[[], bool] = lambda: False

    def virtual_ranks(self, total: int, accumulate: int = 1) -> range:
        """The virtual ranks this worker plays.

        Raises:
            ValueError: If the workers, each in so many parts, cannot share them evenly.
        """
        if total % (self.world_size * accumulate):
            valid = [n for n in range(1, total + 1) if total % (n * accumulate) == 0]
            parts = f" in {accumulate} parts each" if accumulate > 1 else ""
            raise ValueError(
                f"{self.world_size} workers cannot share {total} virtual ranks{parts} evenly; use one of {valid}"
                " workers, or change virtual_ranks"
            )
        each = total // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)
