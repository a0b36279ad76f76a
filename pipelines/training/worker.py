"""What a worker of a training does: data, curves, scores, pictures; and how it fails."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data.batches import Batches
from data.dataset import Dataset
from data.files import write_atomically
from models import Batch, GenerativeModel, Streams, build
from models.anomaly import MANY
from pipelines.storage import model_folder
from pipelines.storage.mirror import local_copy, synced_state
from pipelines.training import loop
from pipelines.training.config import DivergencePolicy, TrainingConfig
from pipelines.training.context import TrainingReport, WorkerContext
from pipelines.training.errors import Diverged, Interrupted, LostWorker
from pipelines.training.job import FAILURE, STOP, TrainingJob, read_metrics, record_failure

FITTED_EXAMPLES = 65536
"""Training examples that are fitted after training, at most."""

FITTED_VALUES = 1 << 26
"""Their values, at most, where they are more than `MANY` examples."""


class TrainingData:
    """Batches of the training split, as the loop wants them."""

    def __init__(self, dataset: Dataset, settings: TrainingConfig, seed: int, device: str) -> None:
        self.split = dataset.split("train")
        self.labelled = bool(dataset.class_names)
        labels = self.split.labels if self.labelled else torch.zeros(0, dtype=torch.long)
        self.label_counts = torch.bincount(labels[labels >= 0].long(), minlength=len(dataset.class_names))
        self.batches = Batches(self.split, settings.batch_size, seed, device)
        affordable = int(0.3 * settings.total_examples / settings.evaluations)  # a tenth of the time of training
        values = math.prod(self.split.take(torch.arange(1)).x.shape)
        self.fitted = max(MANY, min(FITTED_EXAMPLES, affordable, FITTED_VALUES // values))

    def ids(self, step: int) -> Any:
        return self.batches.ids(step)

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        examples = self.batches.get(step, rank, world_size)
        return Batch(examples.x, examples.label if self.labelled else None)

    @property
    def examples(self) -> int:
        """Training examples."""
        return len(self.split)

    def take(self, ids: Sequence[int]) -> Batch:
        """The training examples of these numbers."""
        examples = self.split.take(ids)
        return Batch(examples.x, examples.label if self.labelled else None)

    def reference(self) -> Batch:
        """Examples at random: what initializes a model and is fitted after training, with the labels' counts in all."""
        chosen = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(0))[: self.fitted]
        examples = self.split.take(chosen)
        if not self.labelled:
            return Batch(examples.x)
        return Batch(examples.x, examples.label, label_counts=self.label_counts)


class Recorder:
    """Records a training on rank 0: metrics, sample pictures from fixed latents, selection scores.

    Arguments:
        job: The training.
        workers: How many train.
    """

    def __init__(self, job: TrainingJob, workers: int = 1) -> None:
        self.job, self.workers = job, workers
        self.state = Path(job.state)
        self.reference: Any = None
        self.earlier, self.started = 0.0, time.perf_counter()

    def on_start(self, examples: int) -> None:
        """Training begins after so many examples: what was recorded beyond is dropped and will come again."""
        earlier_points = [point for point in read_metrics(self.state) if point["examples"] <= examples]
        write_atomically(self.state / "metrics.jsonl", "".join(json.dumps(p) + "\n" for p in earlier_points))
        self.earlier = earlier_points[-1]["seconds"] if earlier_points else 0.0
        self.started = time.perf_counter()

    def __call__(self, report: TrainingReport) -> float | None:
        metrics, score = dict(report.metrics), None
        if report.model is not None:
            score = self.score(report.model)
            metrics["validation_frechet"] = score
            self.picture(report.model, report.examples)
        seconds = self.earlier + time.perf_counter() - self.started
        point = {"examples": report.examples, "seconds": seconds, "time": time.time(), "workers": self.workers}
        point["metrics"] = metrics
        with (self.state / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        return score

    def score(self, model: GenerativeModel) -> float:
        """Fréchet distance of samples to the validation split; lower is better."""
        from pipelines.evaluation.reference.reference import Reference
        from pipelines.evaluation.validation import validation_score

        if self.reference is None:
            self.reference = Reference.open(local_copy(self.job.yardstick))
        return validation_score(model, self.reference.spaces["classifier"], n=500, seed=self.job.seed)

    def picture(self, model: GenerativeModel, examples: int) -> None:
        """A grid of samples from the same latents each time, a column per class, where samples are pictures."""
        from pipelines.evaluation.domains import evaluation_domain

        png = evaluation_domain(self.job.spec["domain"]).preview()
        if png is None:
            return
        columns = min(model.classes, 10) or 8
        label = torch.arange(columns).repeat(4).to(model.label_frequencies.device) if model.classes else None
        device = next(model.parameters()).device
        drawn = model.sample(4 * columns, label, Streams.seeded(self.job.seed, "grid", device=device))  # type: ignore[attr-defined]
        write_atomically(self.state / "samples" / f"{examples:012d}.png", png(drawn.cpu(), columns))


def build_model(job: TrainingJob) -> GenerativeModel:
    """The untrained model, the same on every worker."""
    torch.manual_seed(job.seed)
    return build(job.spec)


def run_worker(config: dict[str, Any], context: WorkerContext) -> None:
    """What a worker does: train, and as rank 0 record and leave the finished model in the state folder.

    An error that would come again is left in `failure.json`, the first one only, and no worker trains
    while it is there: so a restart of all workers ends at once, with the error that caused it. What a
    restart can fix, a lost worker, is left to the one who restarts.
    """
    job = TrainingJob(**config)
    with synced_state(job.state) as state:
        if not (state / FAILURE).exists():
            _train(dataclasses.replace(job, state=str(state)), context)


def _train(job: TrainingJob, context: WorkerContext) -> None:
    state = Path(job.state)
    try:
        settings = TrainingConfig(**job.training)
        data = TrainingData(Dataset.open(local_copy(job.prepared)), settings, job.seed, context.device)
        recorder = Recorder(job, context.world_size)
        model = loop.train(
            build_model(job),
            data,
            settings,
            seed=job.seed,
            report=recorder,
            on_start=recorder.on_start,
            folder=job.checkpoints,
            context=dataclasses.replace(context, shard=job.shard),
            should_stop=(state / STOP).exists,
            policy=DivergencePolicy(**job.policy),
            identity=job.identity,
            extra={"run_id": job.run_id},
        )
        if context.rank == 0:
            model_folder.save(model, state / "model", job.spec)
    except (LostWorker, torch.AcceleratorError):
        if not (state / FAILURE).exists():
            raise
    except Exception as error:
        record_failure(state, error, context.rank)
        if context.world_size > 1 and not isinstance(error, (Diverged, Interrupted)):
            raise  # the others may be waiting for this one
