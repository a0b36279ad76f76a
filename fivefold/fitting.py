"""Training in a notebook: the pipeline's readers, its loop and its format, without its stages."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

import models
from data.cards import Card, Column, SplitPlan
from data.dataset import Dataset
from data.ingest.build import build as prepare
from data.ingest.inspect import inspect
from data.schema import closest
from fivefold.model import Model
from fivefold.rows import written
from models import build
from pipelines import config
from pipelines.config import Family
from pipelines.execution.jobs import fitting_batch
from pipelines.training import loop
from pipelines.training.context import TrainingReport, WorkerContext
from pipelines.training.privacy import guarantee
from pipelines.training.worker import TrainingData

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FAMILIES: tuple[str, ...] = tuple(models.FAMILIES)
"""Names of the families that `fit` trains."""


def fit(
    data: pd.DataFrame | pa.Table | np.ndarray,
    family: str = "flow",
    *,
    label: str | Sequence[Any] | np.ndarray | None = None,
    examples: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    device: str = "",
    progress: bool | None = None,
) -> Model:
    """Train a family on rows or images.

        model = fivefold.fit(frame, family="flow", label="income", settings={"model.steps": 4, "training.lr": 2e-3})
        model = fivefold.fit(images, family="diffusion", label=digits)  # uint8 [n, height, width]

    Arguments:
        data: A DataFrame or Arrow table (numbers, categories, dates, identifiers, any cell missing), rows of numbers
            `[n, columns]`, or images as whole numbers from 0 to 255, `[n, height, width]` or
            `[n, height, width, channels]` with 1 or 3 channels.
        family: One of `FAMILIES`.
        label: Of a table, the column that names the class of a row; of an array, the class of each row, `[n]`.
            The model is then conditional on it.
        examples: Examples to see in all, counting repeats; by default as many as suit the data, as in the pipeline:
            at most some five minutes on two cores of a CPU.
        seed: Seed of weights, noise and order: the same seed on the same machine gives the same model.
        settings: Settings of the family, by the names they have in `params.yaml` (`model.width`, `sampling.steps`, …);
            the others are those that suit the data, as in the pipeline.
        columns: Types of a table's columns that shall not be found out: those of a card
            (`continuous`, `integer`, `categorical`, `identifier`, `skip`, …).
        device: Where to train, `cuda` or `cpu`; by default a GPU if there is one.
        progress: Whether to show a bar; by default in a terminal or notebook.
    Returns:
        The model, averaged over the last updates and finished, as the pipeline would leave it.
    Raises:
        ValueError: If family, settings, rows or labels are not what can be learned from.
        Diverged: If the loss stopped being finite.
    """
    if family not in models.FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    length = {} if examples is None else {"training.total_examples": examples}
    chosen = {"training.evaluations": 1, **length, **(settings or {})}
    cls = models.FAMILIES[family]
    config.with_settings(Family(model=cls.Config(), sampling=cls.SamplingConfig()), chosen)  # before any reading
    with tempfile.TemporaryDirectory(prefix="fivefold-") as temporary:
        dataset, layout = _prepared(data, label, columns or {}, Path(temporary))
        family_settings = config.with_settings(config.suiting(family, dataset.manifest), chosen)
        training = fitting_batch(family_settings, dataset, family).training
        spec = {
            "family": family,
            "config": dataclasses.asdict(family_settings.model),
            "domain": dataset.domain,
            "classes": len(dataset.class_names),
        }
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(), _bar(family, training.total_examples, progress) as report:
            torch.manual_seed(seed)
            network = loop.train(
                build(spec),
                TrainingData(dataset, training, seed, device),
                training,
                seed=seed,
                report=report,
                context=WorkerContext(device=device),
            )
        network = network.eval().with_sampling(**dataclasses.asdict(family_settings.sampling))
        facts = {
            **spec,
            "sampling": dataclasses.asdict(network.sampling),
            "dataset": dataset.name,
            "class_names": layout.pop("classes", dataset.class_names),
            "table": dataset.manifest.get("table", []),
            **({"constraints": stated} if (stated := dataset.manifest.get("constraints")) else {}),
            "data_digest": dataset.digest,
            "seed": seed,
            "training": dataclasses.asdict(training),
            **({"privacy": guarantee(training, len(dataset.split("train")))} if training.privacy.epsilon else {}),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "total_examples": training.total_examples,
            "rows": layout,
        }
    return Model(network, facts)


def _prepared(data: Any, label: Any, columns: Mapping[str, str], folder: Path) -> tuple[Dataset, dict[str, Any]]:
    """The rows as a prepared dataset of one split, by the way that every source goes."""
    path, layout, certain = written(data, label, folder)
    found = inspect(str(path), "rows", folder, label=layout["label"] if path.suffix == ".parquet" else "")
    card = dataclasses.replace(
        found.card,
        splits=SplitPlan(train=1.0, val=0.0, test=0.0, published=False),
        duplicates="keep",
    )
    card = _with_types(card, {**certain, **columns})
    skipped = [column for column in card.columns if column.type == "skip" and column.name not in columns]
    if skipped:
        reasons = "; ".join(f"{column.name}: {column.why}" for column in skipped)
        warnings.warn(f"left out: {reasons}", stacklevel=3)
    prepare(card, folder, folder / "prepared", lambda function, items, size: map(function, items))
    return Dataset.open(folder / "prepared"), layout


def _with_types(card: Card, types: Mapping[str, str]) -> Card:
    """A card with the types of some columns given."""
    names = [column.name for column in card.columns]
    for name in types:
        if name not in names:
            near = closest(name, names)
            raise ValueError(f"columns names no column: {name!r}" + (f"; did you mean {near!r}?" if near else "."))
    given = tuple(
        column
        if types.get(column.name, column.type) == column.type
        else Column(name=column.name, type=types[column.name])
        for column in card.columns
    )
    return dataclasses.replace(card, columns=given)


@contextmanager
def _bar(name: str, total: int, progress: bool | None) -> Iterator[Any]:
    """A progress bar, and what moves it."""
    hidden = not (sys.stderr.isatty() or "ipykernel" in sys.modules) if progress is None else not progress
    with tqdm(total=total, desc=name, unit="ex", unit_scale=True, disable=hidden) as bar:

        def report(told: TrainingReport) -> None:
            bar.update(told.examples - bar.n)
            bar.set_postfix(
                {key.split("/")[0]: f"{value:.4g}" for key, value in told.metrics.items() if "/loss" in key}
            )

        yield report
