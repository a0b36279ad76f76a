"""Means of losses and gradient norms between two reports."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from models.contract import Losses, Objective

if TYPE_CHECKING:
    from pipelines.training.config import TrainingConfig
    from pipelines.training.context import WorkerContext


class MetricAccumulator:
    """Means of losses and norms since the last report, kept on the device until read."""

    def __init__(self, context: WorkerContext, seen: int) -> None:
        self.context = context
        self.restart(seen)

    def restart(self, seen: int) -> None:
        """Forget what was added; the clock starts now."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.seen = seen
        self.started = time.perf_counter()

    def add(self, objective: Objective, losses: Losses) -> None:
        """Add the losses of a (micro-)batch."""
        for name, value in {"loss": losses.total, **losses.terms}.items():
            self._add(f"{objective.name}/{name}", value)

    def add_norm(self, objective: Objective, norm: Tensor) -> None:
        """Add the norm of an update's gradient."""
        self._add(f"{objective.name}/gradient_norm", norm)

    def _add(self, key: str, value: Tensor) -> None:
        self.sums[key] = self.sums.get(key, 0) + value.detach().float().mean()
        self.counts[key] = self.counts.get(key, 0) + 1

    def read(self, seen: int, settings: TrainingConfig) -> dict[str, float]:
        """Means over the batches and, where several work, over the workers."""
        names = list(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names])
        if self.context.world_size > 1:
            dist.all_reduce(means)
            means /= self.context.world_size
        metrics = dict(zip(names, means.tolist(), strict=True))
        metrics["lr"] = settings.lr_at(seen - settings.batch_size)
        metrics["examples_per_second"] = (seen - self.seen) / (time.perf_counter() - self.started)
        return metrics
