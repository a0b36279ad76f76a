"""The training loop: one for all families, read from top to bottom.

It knows neither Ray nor MLflow. What it sees goes out through `report`; what it needs to go on lies
in its checkpoints. Progress is counted in examples seen, so that batch size and number of workers
do not change what a number means.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models.contract import Batch, GenerativeModel, Objective, Streams
from pipelines import checkpoint
from pipelines.artifact import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How long and how a family is trained.

    Arguments:
        total_examples: Examples to see; an epoch is one pass over the training split.
        batch_size: Examples per update, over all workers.
        lr: Peak learning rate.
        schedule: `cosine` decays to zero, `constant` does not.
        warmup_examples: Examples over which the learning rate rises from zero.
        beta1: Decay of AdamW's mean.
        beta2: Decay of AdamW's mean of squares.
        weight_decay: Decoupled weight decay.
        grad_clip: Largest norm of an objective's gradient; 0 for no limit.
        ema_half_life: Half-life, in examples, of the averaged weights that are kept as the model.
        ema_ramp: The half-life is at most this part of the examples seen so far.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 on GPUs that have it.
        reports: Points of each curve over the training.
        checkpoints: Checkpoints written over the training.
        evaluations: Times the averaged model is finalized, sampled and scored.
        virtual_ranks: Streams of randomness per global batch; the number of workers divides it.
    """

    total_examples: int = 100_000
    batch_size: int = 256
    lr: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_examples: int = 5_000
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_half_life: int = 10_000
    ema_ramp: float = 0.1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    reports: int = 100
    checkpoints: int = 20
    evaluations: int = 8
    virtual_ranks: int = 8

    def __post_init__(self) -> None:
        for name in ("total_examples", "batch_size", "reports", "checkpoints", "evaluations", "virtual_ranks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("warmup_examples", "weight_decay", "grad_clip", "ema_half_life"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not self.ema_ramp > 0:
            raise ValueError(f"ema_ramp must be positive, got {self.ema_ramp}")
        if self.batch_size % self.virtual_ranks:
            raise ValueError(
                f"batch_size must be a multiple of virtual_ranks ({self.virtual_ranks}), got {self.batch_size}"
            )

    @property
    def total_steps(self) -> int:
        """Updates in the whole training."""
        return math.ceil(self.total_examples / self.batch_size)

    def every(self, times: int) -> int:
        """Steps between two of `times` events; a multiple of the steps between reports."""
        report = max(1, self.total_steps // self.reports)
        return report * max(1, round(self.total_steps / times / report))

    def lr_at(self, seen: int) -> float:
        """Learning rate after `seen` examples."""
        rise = min(1.0, (seen + self.batch_size) / self.warmup_examples) if self.warmup_examples else 1.0
        done = min(1.0, seen / self.total_examples)
        return self.lr * rise * (0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1.0)

    def ema_decay(self, seen: int) -> float:
        """Part of the averaged weights that one update keeps."""
        half_life = min(self.ema_half_life, self.ema_ramp * seen)
        return 0.5 ** (self.batch_size / half_life) if half_life > 0 else 0.0


class Diverged(RuntimeError):
    """A loss or a gradient is not finite; the weights are those before the update."""


class Interrupted(RuntimeError):
    """Training was asked to stop; its checkpoint is written and the same command goes on."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the loop says of itself.

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


class Source(Protocol):
    """Where batches come from: pure functions of the step."""

    def ids(self, step: int) -> object:
        """Sample ids of the step's global batch."""
        ...

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        """A rank's part of the step's global batch."""
        ...

    def reference(self) -> Batch:
        """A fixed, large batch of training examples, the same on every rank."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands.

    Arguments:
        rank: Number of this worker.
        world_size: Number of workers.
        device: Its device.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    def virtual_ranks(self, total: int) -> range:
        """The virtual ranks this worker plays.

        Raises:
            ValueError: If the workers cannot share them evenly.
        """
        if total % self.world_size:
            valid = [n for n in range(1, total + 1) if total % n == 0]
            raise ValueError(
                f"{self.world_size} workers cannot share {total} virtual ranks evenly; use one of {valid} workers,"
                " or change virtual_ranks"
            )
        each = total // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)


class Progress:
    """Everything that changes during training: weights, averages, optimizers, steps done."""

    def __init__(self, model: GenerativeModel, settings: Settings, place: Place) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.objectives = model.objectives()
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
        distributed = place.world_size > 1
        self.wrapped: list[nn.Module] = [
            DistributedDataParallel(o, broadcast_buffers=False) if distributed else o for o in self.objectives
        ]
        self.step = 0
        self.best = math.inf

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name."""
        named = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            for index, state in optimizer.state_dict()["state"].items():
                named |= {f"optimizer.{objective.name}.{index}.{k}": v for k, v in state.items()}
        return named

    def restore(self, tensors: dict[str, Tensor], step: int, best: float) -> None:
        """Take over the state of a checkpoint."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in part(f"optimizer.{objective.name}.").items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step, self.best = step, best

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the averaged weights towards the trained ones; take buffers as they are."""
        averages, weights = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            average.copy_(buffer)


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """The autocast type: bfloat16, or float32 for none."""
    if precision == "auto":
        precision = "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def train(
    model: GenerativeModel,
    source: Source,
    settings: Settings,
    *,
    seed: int,
    report: Callable[[Report], float | None],
    folder: Path | None = None,
    place: Place | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> GenerativeModel:
    """Train a model, or go on where its newest checkpoint stands.

    Arguments:
        model: Freshly built, with the same weights on every rank.
        source: Batches as pure functions of the step.
        settings: How long and how.
        seed: Seed of all noise; the order of the data has its own in `source`.
        report: Called on rank 0 at every report; at evaluations it may return a score (lower is
            better), by which the best model is kept.
        folder: Where checkpoints go; `None` for none (nothing to resume either).
        place: Rank, number of workers, device.
        stopping: Asked on rank 0 at every report whether to stop here (a signal, a node that goes).

    Returns:
        The averaged and finalized model with the best score, or the last if none was scored.

    Raises:
        Diverged: If a loss or gradient is not finite; nothing was updated with it.
        Interrupted: If `stopping` said so; the checkpoint is written.
        ValueError: If the workers cannot share the batch evenly.
    """
    place = place or Place()
    ranks = place.virtual_ranks(settings.virtual_ranks)
    model.to(place.device)
    reference = source.reference().to(place.device)
    model.initialize(reference, Streams.seeded(seed, "initialize", device=place.device))
    progress = Progress(model, settings, place)
    saved = checkpoint.load_newest(folder) if folder else None
    if saved:
        tensors, facts = saved
        progress.restore(tensors, facts["step"], facts["best"])
    dtype = resolve_precision(settings.precision, place.device)
    steps_per_report = settings.every(settings.reports)
    meter = Meter(place, progress.step * settings.batch_size)

    while progress.step < settings.total_steps:
        step, seen = progress.step, progress.step * settings.batch_size
        batch = source.batch(step, place.rank, place.world_size).to(place.device)
        batch = Batch(batch.x, batch.label, batch.observed, seen)
        for objective, wrapped, optimizer in zip(
            progress.objectives, progress.wrapped, progress.optimizers, strict=True
        ):
            if step % objective.every:
                continue
            noise = Streams.seeded(seed, step, objective.name, ranks=ranks, device=place.device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(place.device.split(":")[0], dtype, enabled=dtype != torch.float32):
                losses = wrapped(batch, noise)
            loss = losses.total.mean()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(objective.parameters(), settings.grad_clip or math.inf)
            _require_finite(loss, norm, objective, progress, source, settings, place, folder)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(seen)
            optimizer.step()
            meter.add(objective, losses.total, losses.terms, norm)
        progress.step, seen = step + 1, seen + settings.batch_size
        progress.update_average(settings.ema_decay(seen))

        last = progress.step == settings.total_steps
        if progress.step % steps_per_report == 0 or last:
            metrics = meter.read(seen, settings)
            evaluating = last or progress.step % settings.every(settings.evaluations) == 0
            if place.rank == 0:
                snapshot = finalized(progress.average, reference, seed) if evaluating else None
                score = report(Report(min(seen, settings.total_examples), settings.total_examples, metrics, snapshot))
                _keep_best(progress, snapshot, score, folder)
            stop = not last and _agreed(stopping() if place.rank == 0 else False, place)
            due = stop or last or progress.step % settings.every(settings.checkpoints) == 0
            if folder and due and place.rank == 0:
                facts = {"best": progress.best, "examples": seen}
                checkpoint.save(folder, progress.step, progress.tensors(), facts)
            if stop:
                raise Interrupted(f"stopped after {seen} of {settings.total_examples} examples")
            meter.restart(seen)
    if place.world_size > 1:
        dist.barrier()
    final = finalized(progress.average, reference, seed)
    if folder and (folder / "best").exists():
        final.load_state_dict(checkpoint.read(folder / "best")[0])
    return final


def finalized(average: GenerativeModel, reference: Batch, seed: int) -> GenerativeModel:
    """A copy of the averaged model with everything fitted that is fitted after training."""
    model = copy.deepcopy(average).eval()
    model.finalize(reference, Streams.seeded(seed, "finalize", device=reference.x.device))
    return model


def _agreed(flag: bool, place: Place) -> bool:
    """Whether any rank raised the flag."""
    if place.world_size == 1:
        return flag
    shared = torch.tensor(float(flag), device=place.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def _keep_best(progress: Progress, snapshot: GenerativeModel | None, score: float | None, folder: Path | None) -> None:
    if snapshot is not None and score is not None and score < progress.best:
        progress.best = score
        if folder:
            checkpoint.write(folder / "best", snapshot.state_dict(), {"step": progress.step, "score": score})


def _require_finite(
    loss: Tensor,
    norm: Tensor,
    objective: Objective,
    progress: Progress,
    source: Source,
    settings: Settings,
    place: Place,
    folder: Path | None,
) -> None:
    """Stop all ranks before the update if any of them saw a loss or gradient that is not finite."""
    if not _agreed(not bool(torch.isfinite(loss) & torch.isfinite(norm)), place):
        return
    message = (
        f"the {objective.name} loss or its gradient is not finite after {progress.step * settings.batch_size} examples"
        f" (loss {loss.item():g}, gradient norm {norm.item():g}); the update was not made."
    )
    if folder and place.rank == 0:
        record = folder / "diverged.json"
        ids = [int(i) for i in source.ids(progress.step)]  # type: ignore[attr-defined]
        write_atomically(record, json.dumps({"step": progress.step, "message": message, "ids": ids}))
        message += f" The ids of its examples are in {record}."
    raise Diverged(f"{message} Lower lr or grad_clip, or set precision: fp32, in params.yaml.")


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

    def add(self, objective: Objective, total: Tensor, terms: dict[str, Tensor], norm: Tensor) -> None:
        """Add one update's losses."""
        values = {"loss": total, **terms, "gradient_norm": norm}
        for name, value in values.items():
            key = f"{objective.name}/{name}"
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
