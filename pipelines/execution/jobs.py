"""A family's settings made into a training job."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from data.dataset import Dataset
from data.schema import closest
from models import FAMILIES
from pipelines.config import Family, Params
from pipelines.paths import prepared_folder, runs_folder
from pipelines.training.job import TrainingJob

log = logging.getLogger(__name__)


def family_settings(settings: Params, family: str) -> Family:
    """A family's settings, checked to be one that is trained.

    Raises:
        ValueError: If it is not among `families`, or its budget is not yet a number of examples.
    """
    if family not in settings.families:
        near = closest(family, FAMILIES)
        raise ValueError(
            f"{family or repr(family)} is not in families of params.yaml ({', '.join(settings.families)})"
            f"{'; add it there' if family in FAMILIES else f'; did you mean {near}?' if near else ''}"
        )
    if family in settings.unmeasured:
        raise ValueError(
            f"{family}.training.budget is {settings.family[family].training.budget}, and nobody has measured how many "
            "examples that is with these settings; run `fivefold settings --write` first"
        )
    return settings.family[family]


def make_job(settings: Params, family: str, chosen: Family, dataset: Dataset, state: Path) -> TrainingJob:
    """The job that trains a family with these settings."""
    config = dataclasses.asdict(chosen.model)
    spec = {"family": family, "config": config, "domain": dataset.domain, "classes": len(dataset.class_names)}
    folder = runs_folder(settings.dataset)
    return TrainingJob(
        spec=spec,
        training=dataclasses.asdict(chosen.training),
        seed=settings.seed,
        prepared=str(prepared_folder(settings.dataset).resolve()),
        yardstick=str((folder / "yardstick").resolve()),
        state=str(state),
    )


def checkpoints_at(settings: Params, state: Path) -> str:
    """Where a training's checkpoints go: below `train.storage` if that is set, else into its state."""
    chosen = settings.train.storage
    if not chosen:
        return str(state / "checkpoints")
    root = chosen.rstrip("/") if chosen.startswith("s3://") else Path(chosen).resolve()
    return f"{root}/{settings.dataset}/{state.name}"


def fitting_batch(chosen: Family, data: Dataset, family: str) -> Family:
    """The settings with a batch no larger than the training split, but of one example for each virtual rank at least;
    says so where it had to shrink. Where there are fewer examples than that, a batch holds some of them twice."""
    available, training = len(data.split("train")), chosen.training
    if training.batch_size <= available:
        return chosen
    fitting = max(available - available % training.virtual_ranks, training.virtual_ranks)
    text = "%s: batch_size %d exceeds the %d training examples; using %d"
    log.info(text, family, training.batch_size, available, fitting)
    return dataclasses.replace(chosen, training=dataclasses.replace(training, batch_size=fitting))
