"""Measuring a finished model with the yardstick, wherever the two lie and whoever asks the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from pipelines.evaluation.inference import Ask, ask_here
from pipelines.storage import model_folder
from pipelines.storage.mirror import local_copy

RESULT, PICTURES, PARTS, YARDSTICK = "result.json", "pictures", "parts", "yardstick"
"""What the state of a job holds: its result, and until that is there the parts that are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """Everything that measuring a model needs, as plain data.

    Arguments:
        dataset: Name of the dataset.
        family: Of the model.
        model: Folder of the finished model, a path or an `s3://` URL.
        prepared: Folder of the prepared dataset, likewise.
        yardstick: Folder of the yardstick, likewise.
        samples: Samples drawn.
        seed: Seed of samples, folds and resamples.
        bootstrap: Resamples behind each interval.
        bound_samples: Draws behind each likelihood bound.
    """

    dataset: str
    family: str
    model: str
    prepared: str
    yardstick: str
    samples: int
    seed: int
    bootstrap: int
    bound_samples: int


@dataclass(frozen=True, slots=True)
class ReferenceJob:
    """Everything that making a yardstick needs, as plain data.

    Arguments:
        name: Of the dataset.
        prepared: Folder of the prepared dataset, a path or an `s3://` URL.
        seed: Seed of everything random.
        settings: Fields of `evaluation.config.ReferenceConfig`.
    """

    name: str
    prepared: str
    seed: int
    settings: dict[str, Any]


def measure(job: EvaluationJob, pictures: Path, *, ask: Ask = ask_here, device: str = "cpu") -> dict[str, Any]:
    """Measure a model in everything it can do.

    Arguments:
        job: What is measured.
        pictures: An empty folder, for the pictures.
        ask: What puts the questions to the model.
        device: Where the model and the networks of the yardstick are.
    """
    from pipelines.evaluation.evaluator import Evaluator  # a second of imports that who only submits a job is spared
    from pipelines.evaluation.reference.reference import Reference

    model, _ = model_folder.load(local_copy(job.model), device)
    measuring = Evaluator(
        model,
        Dataset.open(local_copy(job.prepared)),
        Reference.open(local_copy(job.yardstick), device),
        samples=job.samples,
        seed=job.seed,
        bootstrap=job.bootstrap,
        bound_samples=job.bound_samples,
        ask=ask,
    )
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), **measuring.run(pictures)}
