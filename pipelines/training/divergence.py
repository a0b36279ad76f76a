"""Watching over a training: losses that are not finite or leap, partners that are lost, and its curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from models.contract import Losses, Objective

if TYPE_CHECKING:
    from pipelines.loop import Place, Settings
    from pipelines.state import Progress

SETTLED = 50
"""Losses to see before a leap can be told from a beginning."""

MEMORY = 0.98
"""Part of the running mean and variance of a loss that one update keeps."""

ROLL_CALL = 5.0
"""Seconds in which partners must answer after a collective operation has failed."""


class Diverged(RuntimeError):
    """A loss or a gradient is not finite, or leapt; the weights are those before the update."""


class LostPartner(RuntimeError):
    """Another worker is gone or hangs; a restart from the newest checkpoint may help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What to do when a training diverges.

    Arguments:
        rollback: Go back to the newest checkpoint and pass over the batches since, instead of stopping.
        most: Rollbacks in one training, at most; then it stops.
        spike: A loss this many standard deviations above its running mean counts as diverged; 0 for never.
    """

    rollback: bool = False
    most: int = 3
    spike: float = 0.0


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


class Meter:
    """Means of losses and norms since the last report, kept on the device until read."""

    def __init__(self, place: Place, seen: int) -> None:
        self.place = place
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

    def read(self, seen: int, settings: Settings) -> dict[str, float]:
        """Means over the batches and, where several work, over the workers."""
        names = list(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names])
        if self.place.world_size > 1:
            dist.all_reduce(means)
            means /= self.place.world_size
        metrics = dict(zip(names, means.tolist(), strict=True))
        metrics["lr"] = settings.lr_at(seen - settings.batch_size)
        metrics["examples_per_second"] = (seen - self.seen) / (time.perf_counter() - self.started)
        return metrics


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
