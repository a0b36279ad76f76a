"""Divergence: each update is checked before it is made, for losses and gradients not finite, and for spikes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from models.contract import Objective
from pipelines.training.config import DivergencePolicy

if TYPE_CHECKING:
    from pipelines.training.context import WorkerContext
    from pipelines.training.state import TrainingState


SPIKE_WARMUP_UPDATES = 50
"""Updates before spike detection starts."""

LOSS_EMA_DECAY = 0.98
"""Part of the running mean and variance of a loss that one update keeps."""


class DivergenceGuard:
    """Judges each update before it is made; all ranks agree.

    Arguments:
        context: Of this worker.
        policy: When a loss counts as diverged.
        should_stop: Asked on rank 0 whether the training should stop.

    Attributes:
        stop_requested: Whether to stop after this update.
        preempted_at: The update during which notice came that a node will go; None while all stay.
    """

    def __init__(self, context: WorkerContext, policy: DivergencePolicy, should_stop: Callable[[], bool]) -> None:
        self.context, self.policy, self.should_stop = context, policy, should_stop
        self.stop_requested = False
        self.preempted_at: int | None = None

    def rejection_reason(self, state: TrainingState, objective: Objective, loss: Tensor, norm: Tensor) -> str | None:
        """Why the update must not be made; None where it may."""
        mean, size = torch.stack([loss.detach().double(), norm.double()]).tolist()
        bad = not (math.isfinite(mean) and math.isfinite(size))
        stop, notice = (self.context.rank == 0 and question() for question in (self.should_stop, self.context.notice))
        if self.context.world_size > 1:
            signals = torch.tensor([bad, stop, notice, mean], dtype=torch.float64, device=self.context.device)
            dist.all_reduce(signals)
            bad, stop, notice, mean = *map(bool, signals[:3]), float(signals[3]) / self.context.world_size
        self.stop_requested = self.stop_requested or stop
        if notice and self.preempted_at is None:
            self.preempted_at = state.step
        if bad:
            return f"the {objective.name} loss or its gradient is not finite (loss {mean:g}, gradient norm {size:g})"
        center, variance, count = state.loss_stats.get(objective.name, (mean, 0.0, 0))
        allowed = center + self.policy.spike * math.sqrt(variance)
        if self.policy.spike and count >= SPIKE_WARMUP_UPDATES and mean > allowed:
            return f"the {objective.name} loss leapt to {mean:g} (it was {center:g} ± {math.sqrt(variance):g})"
        deviation = mean - center
        center += (1 - LOSS_EMA_DECAY) * deviation
        variance = LOSS_EMA_DECAY * (variance + (1 - LOSS_EMA_DECAY) * deviation**2)
        state.loss_stats[objective.name] = [center, variance, count + 1]
        return None
