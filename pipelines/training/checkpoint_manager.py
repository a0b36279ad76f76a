"""Going on from a checkpoint, and back to one after a divergence: written by rank 0, read by all, the same on all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import distributed as dist

from pipelines.storage import stores
from pipelines.training import checkpoint
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.config import DivergencePolicy
from pipelines.training.errors import Diverged

if TYPE_CHECKING:
    from models.contract import GenerativeModel
    from pipelines.training.config import TrainingConfig
    from pipelines.training.context import BatchSource, WorkerContext
    from pipelines.training.state import TrainingState


class CheckpointManager:
    """The checkpoints of one training.

    Arguments:
        folder: Where they lie; `None` for none.
        context: Of this worker.
        state: What they hold.
        facts: What they say besides; one whose `identity` differs is refused.
    """

    def __init__(
        self, folder: str | Path | None, context: WorkerContext, state: TrainingState, facts: Mapping[str, Any]
    ) -> None:
        self.context, self.state, self.facts = context, state, facts
        self.storage = None if folder is None else stores.open_store(folder)
        self.writer = checkpoint.AsyncCheckpointWriter(self.storage) if self.storage and context.rank == 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.writer:
            self.writer.__exit__(*error)

    def check(self) -> None:
        """Raise what went wrong in writing, if anything has; wait for nothing."""
        if self.writer:
            self.writer.check()

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        if self.writer:
            self.writer.wait()

    def save(self, seen: int) -> None:
        """Write a checkpoint in the background, with the best model if there is a new one."""
        if self.storage is None:
            return
        tensors = self.state.tensors()  # all ranks: it may be spread over them
        if self.writer:
            facts = {"examples": seen, **self.state.facts(), **self.facts}
            self.writer.save(Checkpoint(self.state.step, tensors, facts), self.state.pending_best)
            self.state.pending_best = None

    def restore_latest(self) -> None:
        """Take over the newest valid checkpoint, if there is one.

        Raises:
            ValueError: If it is of another training or schema.
            CorruptCheckpoint: If there are checkpoints and all are damaged.
        """
        if self.storage and self.context.rank == 0:
            self.storage.remove_partial()
        newest = self._newest()
        if newest is None:
            return
        self._restore(newest)
        if self._best() is None:
            self.state.best = math.inf

    def roll_back(self, reason: str, source: BatchSource, settings: TrainingConfig, policy: DivergencePolicy) -> None:
        """Go back to the newest checkpoint and pass over the batches since; write down their sample ids.

        Raises:
            Diverged: If the policy is to stop, or it was done too often.
        """
        state = self.state
        number, rollbacks = state.step + state.skipped, state.rollbacks
        message = f"{reason} after {state.step * settings.batch_size} examples; the update was not made."
        self.wait()
        newest = self._newest() if policy.rollback and rollbacks < policy.most else None
        first = number if newest is None else newest.step + newest.facts["skipped"]
        ids = {batch: [int(i) for i in source.ids(batch)] for batch in range(first, number + 1)}
        record = {"step": state.step, "message": message, "rollbacks": rollbacks, "ids": ids}
        if self.storage and self.context.rank == 0:
            name = "diverged.json" if newest is None else f"diverged-{number:010d}.json"
            message += f" The ids of its examples are in {self.storage.note(name, json.dumps(record))}."
        if newest is None:
            tried = f" It was rolled back {rollbacks} times before." if rollbacks else ""
            raise Diverged(
                f"{message}{tried} Lower training.lr or training.grad_clip, set training.precision: fp32, or"
                " train.on_divergence: rollback, in params.yaml."
            )
        self._restore(newest)
        state.skipped += number + 1 - first
        state.rollbacks = rollbacks + 1

    def best(self, last: GenerativeModel) -> GenerativeModel:
        """The best model, in the place of the last, where there is one."""
        found = self._best()
        if found is not None:
            last.load_state_dict(found.tensors)
        return last

    def _best(self) -> Checkpoint | None:
        if self.writer and self.storage and math.isfinite(self.state.best):
            return checkpoint.load_best(self.storage, self.state.best_step)
        return None

    def _newest(self) -> Checkpoint | None:
        """The newest valid checkpoint, chosen by rank 0 for all."""
        if self.storage is None:
            return None
        found = checkpoint.load_newest(self.storage) if self.context.rank == 0 else None
        if self.context.world_size > 1:
            newest_step = torch.tensor([-1 if found is None else found.step], device=self.context.device)
            dist.broadcast(newest_step, 0)
            if found is None and newest_step.item() >= 0:
                found = checkpoint.read(self.storage, f"{checkpoint.STEP}{int(newest_step.item()):010d}")
        return found

    def _restore(self, newest: Checkpoint) -> None:
        checkpoint.require_same(newest.facts["identity"], self.facts["identity"], str(self.storage))
        self.state.restore(newest.tensors, newest.step, newest.facts)
