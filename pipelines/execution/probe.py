"""A short training that is thrown away: how fast this machine is, and so how many examples fit into a budget."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from data.dataset import Dataset
from models import Batch, GenerativeModel, Streams, build
from pipelines.config import Family
from pipelines.execution.local import threads
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.context import WorkerContext
from pipelines.training.durations import parse_duration
from pipelines.training.worker import TrainingData

STARTING = 12.0
"""Seconds until a training's first update: imports, Ray, data."""

SETTLING = 2
"""Updates that are not measured: memory is taken and kernels are chosen in them."""

FINISHED, FINISHED_OF = 256, 1_024
"""Examples that finishing a model is measured on, and about how many it takes."""

DRAWN, DRAWN_OF = 16, 540
"""Samples that drawing is measured on, and how many a score and its picture take."""

SCORING = 0.25
"""Part of the budget that evaluations may take before there are fewer."""


class _Enough(Exception):
    """Thrown out of a training that has been measured."""


class TimedData(TrainingData):
    """Batches that note when they are asked for, and end the training after so many seconds."""

    def __init__(self, *arguments: Any, seconds: float) -> None:
        super().__init__(*arguments)
        self.seconds = seconds
        self.marks: list[float] = []

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        measured = len(self.marks) - 1 - SETTLING
        if measured >= 3 and self.marks[-1] - self.marks[0] > self.seconds:
            raise _Enough
        return super().batch(step, rank, world_size)

    @property
    def seconds_per_step(self) -> float:
        """Median of the updates measured: other work beside it delays a few."""
        steps = sorted(b - a for a, b in zip(self.marks[SETTLING:-1], self.marks[SETTLING + 1 :], strict=True))
        return steps[len(steps) // 2]


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """How fast a family trains here.

    Arguments:
        per_example: Wall-clock seconds per training example.
        per_evaluation: Wall-clock seconds to finish the averaged model, draw from it and score it.
    """

    per_example: float
    per_evaluation: float

    def fitting(self, budget: float, training: TrainingConfig, *, as_many: bool = False) -> tuple[int, int]:
        """Examples and evaluations that fit into a budget of seconds.

        Arguments:
            budget: Seconds.
            training: How it is trained.
            as_many: Whether there must be as many evaluations as these settings say.

        Raises:
            ValueError: If not even one update does.
        """
        affordable = int(SCORING * budget / max(self.per_evaluation, 1e-9))
        evaluations = training.evaluations if as_many else max(1, min(training.evaluations, affordable))
        left = budget - STARTING - evaluations * self.per_evaluation
        examples = int(left / self.per_example) // training.batch_size * training.batch_size
        if examples < training.batch_size:
            needed = STARTING + evaluations * self.per_evaluation + 100 * training.batch_size * self.per_example
            raise ValueError(
                f"budget {training.budget} is too short: starting, {evaluations} evaluations and 100 updates take "
                f"{needed:.0f} s here; set at least {math.ceil(needed / 60)}m"
            )
        return examples, evaluations


def probe(family: str, chosen: Family, dataset: Dataset, seed: int = 0, seconds: float = 8.0) -> Speed:
    """Train for some seconds on this machine, in this process, and measure.

    Arguments:
        family: Which.
        chosen: Its settings.
        dataset: What it trains on.
        seed: Of weights and order.
        seconds: Of updates, at least three whatever they take.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    endless = dataclasses.replace(chosen.training, total_examples=10**12, reports=1, evaluations=1, checkpoints=1)
    data = TimedData(dataset, endless, seed, device, seconds=seconds)
    with torch.random.fork_rng(), _threads(threads(dataset.domain)):
        torch.manual_seed(seed)
        spec = {"family": family, "config": dataclasses.asdict(chosen.model), "domain": dataset.domain}
        model: GenerativeModel = build({**spec, "classes": len(dataset.class_names)})
        with suppress(_Enough):
            loop.train(model, data, endless, seed=seed, report=lambda _: None, context=WorkerContext(device=device))
        return Speed(data.seconds_per_step / endless.batch_size, _per_evaluation(model, data.reference(), device))


def _per_evaluation(model: GenerativeModel, reference: Batch, device: str) -> float:
    part = Batch(reference.x[:FINISHED], None if reference.label is None else reference.label[:FINISHED]).to(device)
    model.eval()
    started = time.perf_counter()
    model.finalize(part, Streams.seeded(0, "probe", device=device))
    finished = time.perf_counter()
    model.sample(DRAWN, None, Streams.seeded(0, "probe", device=device))  # type: ignore[attr-defined]
    drawn = time.perf_counter()
    more = min(FINISHED_OF, len(reference)) / len(part)
    return (finished - started) * more + (drawn - finished) * DRAWN_OF / DRAWN


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads, 0 for as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measured(family: str, chosen: Family, prepared: Path, seed: int, *, as_many: bool = False) -> dict[str, Any]:
    """Examples and evaluations that fit into a family's budget on this machine, as plain data.

    Arguments:
        family: Which.
        chosen: Its settings.
        prepared: Folder of the prepared data.
        seed: Of weights and order.
        as_many: Whether there must be as many evaluations as the settings say.

    Raises:
        ValueError: If the budget is too short.
    """
    speed = probe(family, chosen, Dataset.open(prepared), seed)
    examples, evaluations = speed.fitting(parse_duration(chosen.training.budget), chosen.training, as_many=as_many)
    return {
        "total_examples": examples,
        "evaluations": evaluations,
        "examples_per_second": float(f"{1 / speed.per_example:.3g}"),
        "seconds_per_evaluation": float(f"{speed.per_evaluation:.2g}"),
    }
