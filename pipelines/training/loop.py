"""The training loop: one for all families, read from top to bottom.

It knows neither Ray nor MLflow. What it sees goes out through `report`; what it needs to go on lies
in its checkpoints. Progress is counted in examples seen, so that batch size and number of workers
do not change what a number means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models.contract import Batch, GenerativeModel, Streams
from pipelines.resume import Checkpoints
from pipelines.sharding import Sharded, whole
from pipelines.state import Progress
from pipelines.watch import Diverged, LostPartner, Meter, Policy, Watch, partners_named

__all__ = ["Diverged", "Interrupted", "LostPartner", "Place", "Policy", "Report", "Settings", "Source", "train"]


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
        virtual_ranks: Streams of randomness per global batch; workers times `accumulate` divide it.
        accumulate: Parts in which a worker's share of a batch is seen, one after the other, to save
            memory; the update is the same up to the order of summation.
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
    accumulate: int = 1

    def __post_init__(self) -> None:
        counts = (
            "total_examples",
            "batch_size",
            "reports",
            "checkpoints",
            "evaluations",
            "virtual_ranks",
            "accumulate",
        )
        for name in counts:
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
        if self.virtual_ranks % self.accumulate:
            raise ValueError(f"accumulate must divide virtual_ranks ({self.virtual_ranks}), got {self.accumulate}")

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
class Place:
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
    folder: str | Path | None = None,
    place: Place | None = None,
    stopping: Callable[[], bool] = lambda: False,
    begins: Callable[[int], None] = lambda seen: None,
    policy: Policy | None = None,
    identity: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> GenerativeModel:
    """Train a model, or go on where its newest checkpoint stands.

    Arguments:
        model: Freshly built, with the same weights on every rank.
        source: Batches as pure functions of the step.
        settings: How long and how.
        seed: Seed of all noise; the order of the data has its own in `source`.
        report: Called on rank 0 at every report; at evaluations it may return a score (lower is
            better), by which the best model is kept.
        folder: Where checkpoints go, a path or `s3://bucket/prefix`; `None` for none (nothing to
            resume either).
        place: Rank, number of workers, device.
        stopping: Asked on rank 0 at every update whether to stop here.
        begins: Told on rank 0 how many examples were seen where training begins, or begins again
            after a rollback.
        policy: What to do about divergence; by default to stop.
        identity: What makes this training this one; checkpoints of another are refused.
        notes: Whatever else the checkpoints shall say.

    Returns:
        On rank 0 the averaged and finalized model with the best score, or the last if none was
        scored; on the others the model as the last update left it.

    Raises:
        Diverged: If a loss or gradient is not finite; nothing was updated with it.
        Interrupted: If `stopping` said so; the checkpoint is written.
        LostPartner: If another worker is gone or hangs.
        ValueError: If the workers cannot share the batch evenly, or a checkpoint is of another training.
        CorruptCheckpoint: If there are checkpoints and all are damaged.
        OSError: If a checkpoint could not be written.
        RuntimeError: If the device has too little memory, with what to set.
    """
    place, policy = place or Place(), policy or Policy()
    ranks = place.virtual_ranks(settings.virtual_ranks, settings.accumulate)
    model.to(place.device)
    reference = source.reference().to(place.device)
    model.initialize(reference, Streams.seeded(seed, "initialize", device=place.device))
    with partners_named(place), memory_explained(settings):
        progress = Progress(model, settings, place)
    dtype = resolve_precision(settings.precision, place.device)
    steps_per_report = settings.every(settings.reports)
    snapshot, evaluating = None, False
    watch = Watch(place, policy, stopping)
    said = {"identity": dict(identity or {}), **(notes or {})}
    with partners_named(place), memory_explained(settings), Checkpoints(folder, place, progress, said) as checkpoints:
        checkpoints.go_on()
        if policy.rollback and progress.step == 0:
            checkpoints.save(0)  # so that there is always somewhere to go back to
        meter = Meter(place, progress.step * settings.batch_size)
        if place.rank == 0:
            begins(meter.seen)
        while progress.step < settings.total_steps:
            checkpoints.check()
            step, seen = progress.step, progress.step * settings.batch_size
            number = step + progress.skipped
            batch = source.batch(number, place.rank, place.world_size).to(place.device)
            batch = Batch(batch.x, batch.label, batch.observed, seen)
            objection = None
            for objective, wrapped, optimizer in zip(
                progress.objectives, progress.wrapped, progress.optimizers, strict=True
            ):
                if step % objective.every:
                    continue
                optimizer.zero_grad(set_to_none=True)
                loss = torch.zeros((), device=place.device)
                for part, played, synchronized in micro_batches(batch, ranks, settings.accumulate, wrapped):
                    noise = Streams.seeded(seed, number, objective.name, ranks=played, device=place.device)
                    with synchronized:
                        with torch.autocast(place.device.split(":")[0], dtype, enabled=dtype != torch.float32):
                            losses = wrapped(part, noise)
                        share = losses.total.mean() / settings.accumulate
                        share.backward()
                    loss = loss + share.detach()
                    meter.add(objective, losses)
                norm = clipped(optimizer.param_groups[0]["params"], settings.grad_clip)
                objection = watch.objection(progress, objective, loss, norm)
                if objection:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr_at(seen)
                optimizer.step()
                meter.add_norm(objective, norm)
            if objection:
                checkpoints.roll_back(objection, source, settings, policy)
                meter.restart(progress.step * settings.batch_size)
                if place.rank == 0:
                    begins(meter.seen)
                continue
            progress.step, seen = step + 1, seen + settings.batch_size
            progress.update_average(settings.ema_decay(seen))

            last = progress.step == settings.total_steps
            reporting = progress.step % steps_per_report == 0 or last
            if reporting:
                metrics = meter.read(seen, settings)
                evaluating = last or progress.step % settings.every(settings.evaluations) == 0
                snapshot = progress.finalized(reference, seed) if evaluating else None
                if place.rank == 0:
                    done = min(seen, settings.total_examples)
                    progress.keep_best(snapshot, report(Report(done, settings.total_examples, metrics, snapshot)))
                meter.restart(seen)
            stop = watch.leaving and not last
            pressing = watch.notice_at == step or (watch.notice_at is not None and reporting)
            if stop or last or pressing or progress.step % settings.every(settings.checkpoints) == 0:
                checkpoints.save(seen)
            if stop:
                checkpoints.wait()
                raise Interrupted(f"stopped after {seen} of {settings.total_examples} examples")
        checkpoints.wait()
        if place.world_size > 1:
            dist.barrier()
        if not evaluating:  # there was nothing left to do
            snapshot = progress.finalized(reference, seed)
        return checkpoints.best(snapshot) if snapshot else progress.model


def clipped(parameters: list[Tensor], limit: float) -> Tensor:
    """Norm of the gradient, which is then shortened to `limit`; 0 for no limit."""
    if limit:
        return whole(nn.utils.clip_grad_norm_(parameters, limit))
    return whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def micro_batches(
    batch: Batch, ranks: range, parts: int, wrapped: nn.Module
) -> Iterator[tuple[Batch, range, AbstractContextManager[None]]]:
    """A worker's batch in equal parts, each with the virtual ranks that play it; gradients are shared at the last."""
    size, each = len(batch) // parts, len(ranks) // parts
    for index in range(parts):
        here, last = slice(index * size, (index + 1) * size), index == parts - 1
        label = None if batch.label is None else batch.label[here]
        observed = None if batch.observed is None else batch.observed[here]
        context: AbstractContextManager[None] = nullcontext()
        if isinstance(wrapped, Sharded):
            context = wrapped.gathered(share=last)
        elif isinstance(wrapped, DistributedDataParallel) and not last:
            context = wrapped.no_sync()
        yield Batch(batch.x[here], label, observed, batch.seen), ranks[index * each : (index + 1) * each], context


@contextmanager
def memory_explained(settings: Settings) -> Iterator[None]:
    """Say what to set when the device has too little memory; trying again would fail again."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        parts = 2 * settings.accumulate
        smaller = max(
            settings.virtual_ranks, settings.batch_size // 2 // settings.virtual_ranks * settings.virtual_ranks
        )
        mend = (
            f"training.accumulate: {parts} (the same updates in {parts} parts), or "
            if settings.virtual_ranks % parts == 0
            else ""
        )
        raise RuntimeError(
            f"the device has too little memory for batch_size {settings.batch_size}; set {mend}"
            f"training.batch_size: {smaller}, in params.yaml ({str(error).split('. ')[0]})"
        ) from error
