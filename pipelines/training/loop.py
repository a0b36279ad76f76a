"""The training loop: one for all families, read from top to bottom.

It knows neither Ray nor MLflow. What it sees goes out through `report`; what it needs to go on lies
in its checkpoints. Progress is counted in examples seen, so that batch size and number of workers
do not change what a number means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models.contract import Batch, GenerativeModel
from models.rng import Streams
from pipelines.training.checkpoint_manager import CheckpointManager
from pipelines.training.config import NOT_AUGMENTABLE, DivergencePolicy, TrainingConfig
from pipelines.training.context import BatchSource, TrainingReport, WorkerContext
from pipelines.training.divergence import DivergenceGuard
from pipelines.training.errors import Interrupted
from pipelines.training.fsdp import Sharded, full_tensor
from pipelines.training.metrics import MetricAccumulator
from pipelines.training.privacy import PrivateGradients
from pipelines.training.process_group import naming_lost_workers
from pipelines.training.state import TrainingState

__all__ = [
    "BatchSource",
    "DivergencePolicy",
    "Interrupted",
    "TrainingConfig",
    "TrainingReport",
    "WorkerContext",
    "train",
]


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """The autocast type: bfloat16, or float32 for none."""
    if precision == "auto":
        precision = "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def train(
    model: GenerativeModel,
    source: BatchSource,
    settings: TrainingConfig,
    *,
    seed: int,
    report: Callable[[TrainingReport], float | None],
    folder: str | Path | None = None,
    context: WorkerContext | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_start: Callable[[int], None] = lambda seen: None,
    policy: DivergencePolicy | None = None,
    identity: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
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
        context: Rank, number of workers, device.
        should_stop: Asked on rank 0 at every update whether to stop here.
        on_start: Told on rank 0 how many examples were seen where training begins, or begins again
            after a rollback.
        policy: What to do about divergence; by default to stop.
        identity: What makes this training this one; checkpoints of another are refused.
        extra: Whatever else the checkpoints shall say.

    Returns:
        On rank 0 the averaged and finalized model with the best score, or the last if none was
        scored; on the others the model as the last update left it.

    Raises:
        Diverged: If a loss or gradient is not finite; nothing was updated with it.
        Interrupted: If `should_stop` said so; the checkpoint is written.
        LostWorker: If another worker is gone or hangs.
        ValueError: If the workers cannot share the batch evenly, or a checkpoint is of another training.
        CorruptCheckpoint: If there are checkpoints and all are damaged.
        OSError: If a checkpoint could not be written.
        RuntimeError: If the device has too little memory, with what to set.
    """
    # --- Set up: model, state, schedule ---
    context, policy = context or WorkerContext(), policy or DivergencePolicy()
    if settings.augment.active and not model.domain.augmentable:
        raise ValueError(f"training.augment: {NOT_AUGMENTABLE.format(kind=model.domain.kind)}")
    private = PrivateGradients(model, source, settings, context, policy) if settings.privacy.epsilon else None
    ranks = context.virtual_ranks(settings.virtual_ranks, settings.accumulate)
    model.to(context.device)
    reference = source.reference().to(context.device)
    if settings.augment.flip:  # what is fitted before and after the training has seen mirrored ones, too
        chance = Streams.seeded(seed, "augment", device=context.device)
        reference = replace(reference, x=model.domain.augmented(reference.x, chance, flip=True))
    model.initialize(reference, Streams.seeded(seed, "initialize", device=context.device))
    with naming_lost_workers(context), explaining_out_of_memory(settings):
        state = TrainingState(model, settings, context, private)
    dtype = resolve_precision(settings.precision, context.device)
    steps_per_report = settings.every(settings.reports)
    snapshot, evaluating = None, False
    guard = DivergenceGuard(context, policy, should_stop)
    metadata = {"identity": dict(identity or {}), **(extra or {})}
    with (
        naming_lost_workers(context),
        explaining_out_of_memory(settings),
        CheckpointManager(folder, context, state, metadata) as checkpoints,
    ):
        # --- Resume ---
        checkpoints.restore_latest()
        if policy.rollback and state.step == 0:
            checkpoints.save(0)  # so that there is always somewhere to go back to
        accumulator = MetricAccumulator(context, state.step * settings.batch_size)
        if context.rank == 0:
            on_start(accumulator.seen)
        while state.step < settings.total_steps:
            # --- Next batch ---
            checkpoints.check()
            step, seen = state.step, state.step * settings.batch_size
            number = step + state.skipped
            if private:
                batch = private.batch(number)
            else:
                batch = source.batch(number, context.rank, context.world_size).to(context.device)
            x = batch.x
            if settings.augment.active:
                moved = settings.augment.shift_at(seen / settings.total_examples)
                chance = Streams.seeded(seed, number, "augment", ranks=ranks, device=context.device)
                x = model.domain.augmented(x, chance, flip=settings.augment.flip, shift=moved)
            batch = Batch(x, batch.label, batch.observed, seen)

            # --- One update of each objective ---
            rejection_reason = None
            for objective, wrapped, optimizer in zip(state.objectives, state.wrapped, state.optimizers, strict=True):
                if step % objective.every or step < objective.begins * settings.total_steps:
                    continue
                optimizer.zero_grad(set_to_none=True)
                loss = torch.zeros((), device=context.device)
                if private:
                    losses = private.accumulate(objective, batch, number)
                    loss = losses.total.mean()
                    accumulator.add(objective, losses)
                parts = () if private else micro_batches(batch, ranks, settings.accumulate, wrapped)
                for part, played, synchronized in parts:
                    noise = Streams.seeded(seed, number, objective.name, ranks=played, device=context.device)
                    with synchronized:
                        with torch.autocast(context.device.split(":")[0], dtype, enabled=dtype != torch.float32):
                            losses = wrapped(part, noise)
                        share = losses.total.mean() / settings.accumulate
                        share.backward()
                    loss = loss + share.detach()
                    accumulator.add(objective, losses)

                # --- Check, then step ---
                norm = clip_gradient(optimizer.param_groups[0]["params"], settings.grad_clip)
                rejection_reason = guard.rejection_reason(state, objective, loss, norm)
                if rejection_reason:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = objective.speed * settings.lr_at(seen)
                optimizer.step()
                accumulator.add_norm(objective, norm)

            # --- Diverged: roll back or stop ---
            if rejection_reason:
                checkpoints.roll_back(rejection_reason, source, settings, policy)
                accumulator.restart(state.step * settings.batch_size)
                if context.rank == 0:
                    on_start(accumulator.seen)
                continue

            # --- Average the weights ---
            state.step, seen = step + 1, seen + settings.batch_size
            state.update_average(settings.ema_decay(seen))

            # --- Evaluate and report ---
            last = state.step == settings.total_steps
            evaluating = last or state.step % settings.steps_per_evaluation == 0
            reporting = evaluating or state.step % steps_per_report == 0
            if reporting:
                metrics = accumulator.read(seen, settings)
                snapshot = state.finalized(reference, seed) if evaluating else None
                if context.rank == 0:
                    done = min(seen, settings.total_examples)
                    state.keep_best(snapshot, report(TrainingReport(done, settings.total_examples, metrics, snapshot)))
                accumulator.restart(seen)

            # --- Save, and stop if asked ---
            stop = guard.stop_requested and not last
            pressing = guard.preempted_at == step or (guard.preempted_at is not None and reporting)
            if stop or last or pressing or state.step % settings.every(settings.checkpoints) == 0:
                checkpoints.save(seen)
            if stop:
                checkpoints.wait()
                raise Interrupted(f"stopped after {seen} of {settings.total_examples} examples")

        # --- Finish: the best model ---
        checkpoints.wait()
        if context.world_size > 1:
            dist.barrier()
        if not evaluating:  # there was nothing left to do
            snapshot = state.finalized(reference, seed)
        return checkpoints.best(snapshot) if snapshot else state.model


def clip_gradient(parameters: list[Tensor], limit: float) -> Tensor:
    """Shorten the gradient to a norm of at most `limit`, 0 for no limit; returns the norm it had."""
    if limit:
        return full_tensor(nn.utils.clip_grad_norm_(parameters, limit))
    return full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def micro_batches(
    batch: Batch, ranks: range, parts: int, wrapped: nn.Module
) -> Iterator[tuple[Batch, range, AbstractContextManager[None]]]:
    """A worker's batch in equal parts, each with the virtual ranks whose noise it sees; the last reduces gradients."""
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
def explaining_out_of_memory(settings: TrainingConfig) -> Iterator[None]:
    """Say what to set when the device has too little memory; trying again would fail again."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        parts = 2 * settings.accumulate
        smaller = max(
            settings.virtual_ranks, settings.batch_size // 2 // settings.virtual_ranks * settings.virtual_ranks
        )
        fix = (
            f"training.accumulate: {parts} (the same updates in {parts} parts), or "
            if settings.virtual_ranks % parts == 0
            else ""
        )
        raise RuntimeError(
            f"the device has too little memory for batch_size {settings.batch_size}; set {fix}"
            f"training.batch_size: {smaller}, in params.yaml ({str(error).split('. ')[0]})"
        ) from error
