"""Everything that changes during training, in one place: what a checkpoint holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from models.contract import Batch, GenerativeModel
from models.rng import Streams
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.fsdp import gather_to_rank0, local_shard, shard_like, shard_objectives

if TYPE_CHECKING:
    from pipelines.training.config import TrainingConfig
    from pipelines.training.context import WorkerContext
    from pipelines.training.privacy import PrivateGradients


def match_strides(named: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the strides of others of the same names, which fused AdamW takes for granted."""
    return {name: torch.empty_like(like[name]).copy_(t) if name in like else t for name, t in named.items()}


class TrainingState:
    """Weights, averages, optimizers, updates made, batches skipped, the best model so far.

    Attributes:
        step: Updates made.
        skipped: Batches passed over after a divergence; update `step` is made on batch `step + skipped`.
        rollbacks: Divergences so far.
        best: Score of the best model, lower is better; infinite while there is none.
        best_step: After which update it was found.
        pending_best: The best model itself, until a checkpoint is written.
        loss_stats: Running mean and variance of each objective's loss, with their count (see `DivergenceGuard`).
    """

    def __init__(
        self,
        model: GenerativeModel,
        settings: TrainingConfig,
        context: WorkerContext,
        private: PrivateGradients | None = None,
    ) -> None:
        if context.shard:  # FSDP takes no other layout
            model.to(memory_format=torch.contiguous_format)
        self.model, self.context, self.private = model, context, private
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.objectives = model.objectives()
        self.wrapped = self._joined()
        self.optimizers = [
            torch.optim.AdamW(
                [p for p in objective.parameters() if p.requires_grad],
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                weight_decay=settings.weight_decay,
                fused=True,
            )
            for objective in self.objectives
        ]
        self.averaged = list(zip(self.average.parameters(), model.parameters(), strict=True))
        self.step = self.skipped = self.rollbacks = self.best_step = 0
        self.best = math.inf
        self.pending_best: Checkpoint | None = None
        self.loss_stats: dict[str, list[float]] = {}

    def _joined(self) -> list[nn.Module]:
        """The objectives as they are trained together with other workers."""
        if self.context.world_size == 1:
            return list(self.objectives)
        if not self.context.shard:
            return [DistributedDataParallel(objective, broadcast_buffers=False) for objective in self.objectives]
        self.empty = copy.deepcopy(self.average).to("meta")
        mesh = init_device_mesh(self.context.device.split(":")[0], (self.context.world_size,))
        shard_objectives(self.average.objectives(), mesh)
        return list(shard_objectives(self.objectives, mesh))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name; of a state spread over the workers, all on rank 0 and none elsewhere."""
        named = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            for index, state in optimizer.state_dict()["state"].items():
                named |= {f"optimizer.{objective.name}.{index}.{k}": v for k, v in state.items()}
        return gather_to_rank0(named, keep=self.context.rank == 0) if self.context.shard else named

    def facts(self) -> dict[str, Any]:
        """The rest of the state."""
        return {
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "spread": {name: list(values) for name, values in self.loss_stats.items()},
            **({"secret": self.private.secret} if self.private else {}),
        }

    def restore(self, tensors: Mapping[str, Tensor], step: int, facts: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""

        def named(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for model, prefix in ((self.model, "model."), (self.average, "average.")):
            model.load_state_dict(shard_like(named(prefix), model.state_dict()))
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            parameters = optimizer.param_groups[0]["params"]
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in named(f"optimizer.{objective.name}.").items():
                index, key = name.split(".", 1)
                like = {key: parameters[int(index)]} if tensor.ndim else {}
                state.setdefault(int(index), {}).update(match_strides(shard_like({key: tensor}, like), like))
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step = step
        self.best = math.inf if facts["best"] is None else facts["best"]
        self.best_step, self.skipped, self.rollbacks = facts["best_step"], facts["skipped"], facts["rollbacks"]
        self.loss_stats = {name: list(values) for name, values in facts["spread"].items()}
        self.pending_best = None
        if self.private:
            self.private.secret = facts["secret"]

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the averaged weights towards the trained ones; take buffers as they are."""
        averages, weights = ([local_shard(p) for p in side] for side in zip(*self.averaged, strict=True))
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            average.copy_(buffer)

    def finalized(self, reference: Batch, seed: int) -> GenerativeModel | None:
        """A copy of the averaged model with everything fitted that is fitted after training; on rank 0 only.

        Arguments:
            reference: What it is fitted to; where training examples are private, samples take its place.
            seed: Of what fitting draws.
        """
        if self.context.shard and self.context.world_size > 1:
            tensors = gather_to_rank0(self.average.state_dict(), keep=self.context.rank == 0)
            model = copy.deepcopy(self.empty)
            if tensors:
                model.load_state_dict(tensors, assign=True)
        else:
            model = copy.deepcopy(self.average)
        if self.context.rank:
            return None
        model.eval()
        if self.private:
            reference = self.private.reference(model, seed)
        model.finalize(reference, Streams.seeded(seed, "finalize", device=reference.x.device))
        return model

    def keep_best(self, snapshot: GenerativeModel | None, score: float | None) -> None:
        """Remember a finalized model if its score is the best so far."""
        if snapshot is not None and score is not None and score < self.best:
            self.best, self.best_step = score, self.step
            self.pending_best = Checkpoint(self.step, snapshot.state_dict(), {"score": score})
