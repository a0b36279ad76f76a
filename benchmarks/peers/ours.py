"""Our side: a family's recipe, trained by our loop for as long as the clock allows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from clock import Clock

from data.dataset import Dataset
from models import GenerativeModel, Streams, build
from pipelines import config
from pipelines.config import Family
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.context import TrainingReport
from pipelines.training.worker import TrainingData

ROOT = Path(__file__).resolve().parents[2]


def recipe(family: str) -> Family:
    """The settings of `params.yaml` under `recipes/mnist-10k.yaml`, for columns `recipes/mnist-10k-rows.yaml`."""
    if family == "columns":
        return config.load(ROOT / "params.yaml", dataset="mnist-10k-rows").family["flow"]
    return config.load(ROOT / "params.yaml", dataset="mnist-10k").family[family]


def train(family: str, chosen: Family, data: Dataset, clock: Clock, seed: int) -> GenerativeModel:
    """The finished model; the clock says how long it took.

    The schedule must know its end: a few steps, not counted, tell how many examples fit into the budget. The recipe's
    own number is not exceeded.
    """
    probe = dataclasses.replace(
        chosen.training, total_examples=60 * chosen.training.batch_size, reports=3, evaluations=1
    )
    _, marks = run(family, chosen, probe, data, clock, seed)
    (first, begun), (last, ended), (_, fitted) = marks  # between the last two the fitting after training, too
    stepping = ended - begun
    budget = clock.seconds - (fitted - ended - stepping)
    examples = max(int(0.9 * budget * (last - first) / stepping), chosen.training.batch_size)
    examples = min(examples, chosen.training.total_examples)
    looks = 10 if family == "columns" else 1
    settings = dataclasses.replace(chosen.training, total_examples=examples, reports=40, evaluations=looks)
    clock.restart()
    model, _ = run(family, chosen, settings, data, clock, seed)
    clock.stop(examples)
    return model


def run(
    family: str, chosen: Family, settings: TrainingConfig, data: Dataset, clock: Clock, seed: int
) -> tuple[GenerativeModel, list[tuple[int, float]]]:
    """A whole training, and (examples, seconds) at each report. Of rows the best model by those kept out is taken."""
    family = "flow" if family == "columns" else family
    spec = {"family": family, "config": dataclasses.asdict(chosen.model), "domain": data.domain}
    torch.manual_seed(seed)
    model = build({**spec, "classes": len(data.class_names)})
    marks: list[tuple[int, float]] = []
    source = TrainingData(data, settings, seed, "cpu")

    def report(made: TrainingReport) -> float | None:
        marks.append((made.examples, clock.elapsed))
        return nats(made.model, data, "val", seed) if made.model and data.domain["kind"] == "table" else None

    return loop.train(model, source, settings, seed=seed, report=report), marks


def nats(model: GenerativeModel, data: Dataset, split: str, seed: int) -> float:
    """Mean negative log-density of a split's rows, in their own units."""
    noise = Streams.seeded(seed, "benchmark")
    return -model.log_prob(data.split(split).all().x, noise).mean().item()  # type: ignore[attr-defined]


def sample(model: GenerativeModel, n: int, seed: int) -> torch.Tensor:
    """Images, uint8 `[n, height, width, channels]`, labels drawn as often as the data has them."""
    streams = Streams.seeded(seed, "benchmark")
    return torch.cat([model.sample(min(250, n - at), None, streams) for at in range(0, n, 250)])  # type: ignore[attr-defined]
