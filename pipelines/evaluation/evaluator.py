"""One family's evaluation: every metric and figure that its capabilities allow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.capabilities import AnomalyScoring, Coding, Density, DensityBound, Imputation, Reconstruction, Sampling
from models.contract import GenerativeModel
from pipelines.evaluation import inference
from pipelines.evaluation.domain import FigureWriter, error_unit
from pipelines.evaluation.domains.anomalies import anomalous_examples
from pipelines.evaluation.domains.image import ImageFigureWriter
from pipelines.evaluation.domains.table import TableFigureWriter
from pipelines.evaluation.inference import evaluation_subset
from pipelines.evaluation.metrics import compression, imputation
from pipelines.evaluation.metrics.anomaly import anomaly_metrics
from pipelines.evaluation.metrics.base import Metric, root_mean, share
from pipelines.evaluation.metrics.distribution import distribution_metrics
from pipelines.evaluation.metrics.label_accuracy import matches_label
from pipelines.evaluation.metrics.likelihood import density_metric
from pipelines.evaluation.metrics.memorization import CRITERION, copy_metrics
from pipelines.evaluation.metrics.probe import probe_metric
from pipelines.evaluation.metrics.reconstruction import squared_error
from pipelines.evaluation.metrics.tabular import row_metrics
from pipelines.evaluation.reference.reference import Reference

if TYPE_CHECKING:
    from data.dataset import Dataset, Examples


log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Clock:
    """Seconds spent, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)


class Evaluator:
    """One model, measured.

    Arguments:
        model: The finished model.
        dataset: The prepared dataset.
        reference: The dataset's yardstick.
        samples: Samples drawn.
        seed: Seed of samples, folds and resamples.
        bootstrap: Resamples behind each interval.
        bound_samples: Draws behind each likelihood bound.
    """

    def __init__(
        self,
        model: GenerativeModel,
        dataset: Dataset,
        reference: Reference,
        *,
        samples: int,
        seed: int,
        bootstrap: int,
        bound_samples: int,
    ) -> None:
        self.model, self.dataset, self.reference = model, dataset, reference
        self.samples, self.seed, self.bootstrap, self.bound_samples = (samples, seed, bootstrap, bound_samples)
        self.train: Examples = dataset.split("train").take(reference.index["train"])
        self.test: Examples = dataset.split("test").take(reference.index["test"])
        self.asked: Examples = evaluation_subset(self.test)
        self.metrics: dict[str, Metric] = {}
        self.clock = Clock()
        self.extra: dict[str, Any] = {}
        self.figures: FigureWriter = (
            ImageFigureWriter(dataset.class_names)
            if dataset.kind == "image"
            else TableFigureWriter(dataset.domain, dataset.class_names, self.test.x, self.test.label)
        )

    def run(self, pictures: Path) -> dict[str, Any]:
        """Measure everything the model can do, draw the pictures, and say what was found."""
        steps: list[tuple[str, type, Callable[[], None]]] = [
            ("sample", Sampling, self._sample),
            ("log_prob", Density, self._log_prob),
            ("elbo", DensityBound, self._elbo),
            ("reconstruct", Reconstruction, self._reconstruct),
            ("codes", Coding, self._codes),
            ("anomaly", AnomalyScoring, self._anomaly),
            ("impute", Imputation, self._impute),
        ]
        for name, capability, step in steps:
            if isinstance(self.model, capability):
                with self.clock(name):
                    step()
                log.info("%s measured in %.1f s", name, self.clock.seconds[name])
        self.figures.write(pictures)
        floors, baseline = (self.reference.facts["reference"]["floors"], self.reference.facts["reference"]["baseline"])
        return {
            "metrics": {name: self._beside(name, value, floors, baseline) for name, value in self.metrics.items()},
            **self.extra,
            "settings": {
                "samples": self.samples,
                "compared": self._compared,
                "reference_rows": len(self.test),
                "bootstrap": self.bootstrap,
                "bound_samples": self.bound_samples,
                "seed": self.seed,
            },
            "pictures": sorted(path.name for path in pictures.iterdir()),
            "seconds": self.clock.seconds,
        }

    @property
    def _options(self) -> dict[str, int]:
        return {"resamples": self.bootstrap, "seed": self.seed}

    @property
    def _compared(self) -> int:
        """Generated rows in the distances: as many as there are training rows for the floor, at most."""
        return min(self.samples, len(self.train.x))

    def _beside(self, name: str, value: Metric, floors: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
        """A metric with its floor and baseline; an exact density and a bound share their baseline."""
        baseline_metric = baseline.get(name) or baseline.get(name.removesuffix("_bound"))
        found = value.floor if value.floor is not None else floors.get(name, {}).get("value")
        return value.beside(floor=found, baseline=baseline_metric["value"] if baseline_metric else None).as_dict()

    # One step per capability

    def _sample(self) -> None:
        counts = self.reference.facts["label_counts"]
        asked = bool(self.model.classes) and sum(counts) > 0
        label = inference.proportional_labels(counts, self.samples, self.seed) if asked else None
        with self.clock("draw"):
            drawn = inference.sample(self.model, self.samples, label, self.seed)
        n = self._compared
        points = {name: space.features(drawn[:n]) for name, space in self.reference.spaces.items()}
        strata = (None, None) if label is None else (label[:n].numpy(), self.test.label.numpy())
        self.metrics |= distribution_metrics(self._real("test"), points, strata=strata, **self._options)
        self._refresh_reference(n)
        if self.dataset.kind == "table":
            self.metrics |= self._of_rows(drawn[:n], None if label is None else label[:n])
        if label is not None and self.reference.label_classifier is not None:
            right = matches_label(self.reference.label_classifier, drawn, label, self.reference.inputs)
            self.metrics["accuracy"] = share(right, self.bootstrap, self.seed)
        train = self.dataset.split("train").all().x
        found, check, nearest = copy_metrics(drawn, train, self.test.x, self.reference.inputs, **self._options)
        self.metrics |= found
        self.extra["copies"] = {"clean": check.clean, "nearer_than_test": check.nearer, "criterion": CRITERION}
        self.figures.samples(drawn, label)
        self.figures.nearest(drawn, train[torch.from_numpy(nearest.index)])

    def _real(self, rows: str) -> dict[str, np.ndarray]:
        return {name: space.rows[rows] for name, space in self.reference.spaces.items()}

    def _refresh_reference(self, n: int) -> None:
        """Floors and baseline for `n` rows, where the yardstick holds them for another number."""
        reference = self.reference.facts["reference"]
        if reference["samples"] == n:
            return
        for rows, kept in (("train", "floors"), ("baseline", "baseline")):
            points = {name: values[:n] for name, values in self._real(rows).items()}
            scores = distribution_metrics(self._real("test"), points, resamples=0, seed=self.seed)
            if self.dataset.kind == "table":
                kept_rows = self.train if rows == "train" else self.reference.baseline
                scores |= self._of_rows(kept_rows.x[:n], kept_rows.label[:n], resamples=0)
            reference[kept] = {**reference[kept], **{name: value.as_dict() for name, value in scores.items()}}
        reference["samples"] = n

    def _of_rows(self, x: Tensor, label: Tensor | None, resamples: int | None = None) -> dict[str, Metric]:
        """What is measured of a table's rows alone."""
        label = torch.full((len(x),), -1) if label is None else label
        resamples = self.bootstrap if resamples is None else resamples
        rows = type(self.test)(x=x, label=label)
        return row_metrics(self.test, rows, self.dataset.domain["columns"], resamples=resamples, seed=self.seed)

    def _log_prob(self) -> None:
        nats = inference.log_prob(self.model, self.asked.x, self.seed)
        self.metrics |= density_metric(nats, self.reference.inputs, **self._options)

    def _elbo(self) -> None:
        nats = inference.elbo(self.model, self.asked.x, self.seed, self.bound_samples)
        self.metrics |= density_metric(nats, self.reference.inputs, **self._options, bound=True)

    def _reconstruct(self) -> None:
        rebuilt = inference.reconstruct(self.model, self.asked.x, self.seed)
        error = squared_error(self.asked.x, rebuilt, self.reference.inputs)
        unit = error_unit(self.reference.inputs)
        self.metrics["reconstruction_rmse"] = root_mean(error, self.bootstrap, self.seed, unit=unit)
        self.figures.reconstructions(self.asked.x, rebuilt)

    def _codes(self) -> None:
        rows = evaluation_subset(self.train)
        train, test = inference.encode(self.model, rows.x), inference.encode(self.model, self.asked.x)
        self.extra["code_size"] = test.shape[1]
        if self.reference.label_classifier is not None:
            known, labels = (train.double().numpy(), rows.label), (test.double().numpy(), self.asked.label)
            self.metrics["probe_accuracy"] = probe_metric(*known, *labels, **self._options)
        self.figures.interpolations(test, lambda codes: inference.decode(self.model, codes))
        few = test[: compression.ROWS]
        decoded, to_inputs = inference.decode(self.model, compression.rounded(few)), self.reference.inputs
        self.metrics |= compression.compression_metrics(
            self.asked.x[: compression.ROWS], few, decoded, to_inputs, unit=error_unit(to_inputs), **self._options
        )

    def _anomaly(self) -> None:
        anomalous = anomalous_examples(self.dataset, self.asked, self.reference.facts["seed"])
        normal = inference.anomaly_score(self.model, self.asked.x, self.seed)
        self.extra["held_out_scores"] = normal.tolist()
        self.figures.anomalies(self.asked.x, normal)
        if anomalous:
            scores = {kind: inference.anomaly_score(self.model, x, self.seed) for kind, x in anomalous.items()}
            self.metrics |= anomaly_metrics(normal, scores, **self._options)

    def _impute(self) -> None:
        kind = self.dataset.kind
        x = self.asked.x[: imputation.ROWS[kind]]
        hidden = imputation.hidden_cells(x, kind, self.reference.facts["seed"])
        if not hidden.any():
            return
        draws = inference.impute(self.model, x, ~hidden, self.seed, draws=imputation.DRAWS[kind])
        self.metrics |= imputation.imputation_metrics(x, hidden, draws, self.dataset.domain, **self._options)
        self.figures.imputations(x, hidden, draws)
