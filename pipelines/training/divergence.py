"""Watching over a training: losses that are not finite or leap, partners that are lost, and its curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from models.contract import Objective
from pipelines.training.config import Policy

if TYPE_CHECKING:
    from pipelines.training.context import Place
    from pipelines.training.state import Progress


SETTLED = 50
"""Losses to see before a leap can be told from a beginning."""

MEMORY = 0.98
"""Part of the running mean and variance of a loss that one update keeps."""


class Watch:
    """Judges each update before it is made; all ranks agree.

    Arguments:
        place: Of this worker.
        policy: When a loss counts as diverged.
        stopping: Asked on rank 0 whether the training should stop.

    Attributes:
        leaving: Whether to stop after this update.
        notice_at: The update during which notice came that a node will go; None while all stay.
    """

    def __init__(self, place: Place, policy: Policy, stopping: Callable[[], bool]) -> None:
        self.place, self.policy, self.stopping = place, policy, stopping
        self.leaving = False
        self.notice_at: int | None = None

    def objection(self, progress: Progress, objective: Objective, loss: Tensor, norm: Tensor) -> str | None:
        """Why the update must not be made; None where it may."""
        mean, size = torch.stack([loss.detach().double(), norm.double()]).tolist()
        bad = not (math.isfinite(mean) and math.isfinite(size))
        asked, notice = (self.place.rank == 0 and question() for question in (self.stopping, self.place.notice))
        if self.place.world_size > 1:
            told = torch.tensor([bad, asked, notice, mean], dtype=torch.float64, device=self.place.device)
            dist.all_reduce(told)
            bad, asked, notice, mean = *map(bool, told[:3]), float(told[3]) / self.place.world_size
        self.leaving = self.leaving or asked
        if notice and self.notice_at is None:
            self.notice_at = progress.step
        if bad:
            return f"the {objective.name} loss or its gradient is not finite (loss {mean:g}, gradient norm {size:g})"
        center, variance, count = progress.spread.get(objective.name, (mean, 0.0, 0))
        allowed = center + self.policy.spike * math.sqrt(variance)
        if self.policy.spike and count >= SETTLED and mean > allowed:
            return f"the {objective.name} loss leapt to {mean:g} (it was {center:g} ± {math.sqrt(variance):g})"
        deviation = mean - center
        center += (1 - MEMORY) * deviation
        variance = MEMORY * (variance + (1 - MEMORY) * deviation**2)
        progress.spread[objective.name] = [center, variance, count + 1]
        return None
