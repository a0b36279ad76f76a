"""One family's evaluation: every metric and figure that its capabilities allow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.capabilities import AnomalyScoring, Coding, Density, DensityBound, Imputation, Reconstruction, Sampling
from pipelines.evaluation import inference
from pipelines.evaluation.domain import FigureWriter
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.domains.anomalies import anomalous_examples
from pipelines.evaluation.explorer import explored
from pipelines.evaluation.inference import evaluation_subset
from pipelines.evaluation.metrics import compression, sample_metrics
from pipelines.evaluation.metrics.anomaly import anomaly_metrics
from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.metrics.imputation import imputation_metrics
from pipelines.evaluation.metrics.likelihood import density_metric
from pipelines.evaluation.metrics.membership import density_attack
from pipelines.evaluation.metrics.probe import PROBE_ACCURACY, probe_metric
from pipelines.evaluation.metrics.reconstruction import RECONSTRUCTION_RMSE, squared_error
from pipelines.evaluation.metrics.samples import SampleSet
from pipelines.evaluation.reference.reference import Reference
from pipelines.evaluation.reference.replay import ReplayedRows

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
    """One model, measured: a family's, the classical baseline, or real rows in place of samples.

    Arguments:
        model: What is measured, by the capabilities it has.
        dataset: The prepared dataset.
        reference: The dataset's yardstick.
        samples: Samples drawn.
        seed: Seed of samples, folds and resamples.
        bootstrap: Resamples behind each interval.
        bound_samples: Draws behind each likelihood bound.
        chunk: Rows a model is asked about at a time.
        ask: What puts the questions to the model.
        figures: What draws example figures; `None` for the kind of data's own.
    """

    def __init__(
        self,
        model: object,
        dataset: Dataset,
        reference: Reference,
        *,
        samples: int,
        seed: int,
        bootstrap: int,
        bound_samples: int,
        chunk: int = inference.CHUNK,
        ask: inference.Ask = inference.ask_here,
        figures: FigureWriter | None = None,
    ) -> None:
        self.model, self.dataset, self.reference = model, dataset, reference
        self.samples, self.seed, self.bootstrap, self.bound_samples = (samples, seed, bootstrap, bound_samples)
        self.chunk, self.ask = chunk, ask
        self.train: Examples = dataset.split("train").take(reference.index["train"])
        self.test: Examples = dataset.split("test").take(reference.index["test"])
        self.asked: Examples = evaluation_subset(self.test)
        self.metrics: dict[str, Metric] = {}
        self.clock = Clock()
        self.details: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        """Metrics that were not measured, each with the reason."""
        self.domain = evaluation_domain(dataset.domain)
        self.replays = figures is not None
        """Whether real rows or the baseline stand in for a family's model: its steps are no news."""
        self.figures = self.domain.figures(dataset.class_names, self.test) if figures is None else figures
        self.sample_metrics = sample_metrics(dataset.kind)
        """The files of metrics that samples are measured by."""

    def run(self, pictures: Path) -> dict[str, Any]:
        """Measure everything the model can do, draw the pictures, and say what was found."""
        if self._compared < min(self.samples, len(self.train.x)):
            log.warning(
                "%d of %d samples enter the distances: the yardstick keeps no more rows of the classical baseline. "
                "Set features.samples to %d to compare them all.",
                *(self._compared, self.samples, self.samples),
            )
        self.measure()
        self.figures.write(pictures)
        floors, baseline = (self.reference.facts["reference"]["floors"], self.reference.facts["reference"]["baseline"])
        return {
            "metrics": {name: self._beside(name, value, floors, baseline) for name, value in self.metrics.items()},
            **self.details,
            "left_out": self.left_out,
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

    def measure(self, steps: Collection[str] | None = None) -> dict[str, Metric]:
        """Measure what the model can do.

        Arguments:
            steps: Of these only, by name; `None` for all.
        """
        known: list[tuple[str, type, Callable[[], None]]] = [
            ("sample", Sampling, self._sample),
            ("log_prob", Density, self._log_prob),
            ("elbo", DensityBound, self._elbo),
            ("reconstruct", Reconstruction, self._reconstruct),
            ("codes", Coding, self._codes),
            ("anomaly", AnomalyScoring, self._anomaly),
            ("impute", Imputation, self._impute),
        ]
        for name, capability, step in known:
            if isinstance(self.model, capability) and (steps is None or name in steps):
                with self.clock(name):
                    step()
                level = logging.DEBUG if self.replays else logging.INFO
                log.log(level, "%s: measured in %.1f s", name, self.clock.seconds[name])
        return self.metrics

    @property
    def _how(self) -> dict[str, Any]:
        return {"chunk": self.chunk, "ask": self.ask}

    @property
    def _options(self) -> dict[str, int]:
        return {"resamples": self.bootstrap, "seed": self.seed}

    @property
    def _compared(self) -> int:
        """Generated rows in the distances: at most as many as are kept for the floor and of the baseline."""
        return min(self.samples, len(self.train.x), len(self.reference.baseline.x))

    def _beside(self, name: str, value: Metric, floors: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
        """A metric with its floor and baseline; an exact density and a bound share their baseline."""
        baseline_metric = baseline.get(name) or baseline.get(name.removesuffix("_bound"))
        found = value.floor if value.floor is not None else floors.get(name, {}).get("value")
        return value.beside(floor=found, baseline=baseline_metric["value"] if baseline_metric else None).as_dict()

    # One step per capability

    def _sample(self) -> None:
        label = self._labels()
        with self.clock("draw"):
            drawn = inference.sample(self.model, self.samples, label, self.seed, **self._how)
        samples = SampleSet(
            drawn=drawn,
            label=label,
            compared=self._compared,
            train=self.train,
            every=self.dataset.split("train").all().x,
            test=self.test,
            domain=self.dataset.domain,
            inputs=self.reference.inputs,
            spaces=self.reference.spaces,
            label_classifier=self.reference.label_classifier,
            resamples=self.bootstrap,
            seed=self.seed,
        )
        for entry in self.sample_metrics:
            found = entry.measure(samples)
            self.metrics |= found.metrics
            self.details |= found.details
            self.left_out |= found.left_out
            if found.nearest is not None:
                self.figures.nearest(drawn, samples.every[torch.from_numpy(found.nearest)])
        if not isinstance(self.model, ReplayedRows):
            self._refresh_reference(samples.compared)
        self.figures.samples(drawn, label)

    def _labels(self) -> Tensor | None:
        """Labels of the samples: those of replayed rows, else in the training rows' proportions; `None` for none."""
        if isinstance(self.model, ReplayedRows):
            return None if self.model.label is None else self.model.label[: self.samples]
        counts = self.reference.facts["label_counts"]
        asked = bool(getattr(self.model, "classes", 0)) and sum(counts) > 0
        return inference.proportional_labels(counts, self.samples, self.seed) if asked else None

    def _refresh_reference(self, n: int) -> None:
        """Floors and baseline for `n` rows, where the yardstick holds them for another number."""
        facts = self.reference.facts["reference"]
        if facts["samples"] == n:
            return
        for rows, kept in ((self.train, "floors"), (self.reference.baseline, "baseline")):
            fresh = replayed(rows.x[:n], rows.label[:n], self.dataset, self.reference, seed=self.seed, bootstrap=0)
            facts[kept] = {**facts[kept], **{name: value.as_dict() for name, value in fresh.items()}}
        facts["samples"] = n

    def _log_prob(self) -> None:
        nats = inference.log_prob(self.model, self.asked.x, self.seed, **self._how)
        self.metrics |= density_metric(nats, self.reference.inputs, **self._options)
        if not isinstance(self.model, DensityBound):  # a bound is asked for sooner, and it is what training raised
            known = inference.log_prob(self.model, evaluation_subset(self.train).x, self.seed, **self._how)
            self.metrics |= density_attack(known, nats, **self._options)

    def _elbo(self) -> None:
        nats, known = (
            inference.elbo(self.model, rows.x, self.seed, self.bound_samples, **self._how)
            for rows in (self.asked, evaluation_subset(self.train))
        )
        self.metrics |= density_metric(nats, self.reference.inputs, **self._options, bound=True)
        self.metrics |= density_attack(known, nats, **self._options)

    def _reconstruct(self) -> None:
        rebuilt = inference.reconstruct(self.model, self.asked.x, self.seed, **self._how)
        inputs = self.reference.inputs
        error = squared_error(self.asked.x, rebuilt, inputs)
        found = RECONSTRUCTION_RMSE.root_mean(error, self.bootstrap, self.seed, unit=inputs.error_unit)
        self.metrics[RECONSTRUCTION_RMSE.name] = found
        self.figures.reconstructions(self.asked.x, rebuilt)

    def _codes(self) -> None:
        rows = evaluation_subset(self.train)
        train, test = (inference.encode(self.model, x, **self._how) for x in (rows.x, self.asked.x))
        self.details["code_size"] = test.shape[1]
        if self.reference.label_classifier is not None:
            known, labels = (train.double().numpy(), rows.label), (test.double().numpy(), self.asked.label)
            self.metrics[PROBE_ACCURACY.name] = probe_metric(*known, *labels, **self._options)

        def decode(codes: Tensor) -> Tensor:
            return inference.decode(self.model, codes, **self._how)

        self.figures.interpolations(test, decode)
        if not self.replays:
            flat = self.reference.inputs.flat(self.asked.x)
            found = explored(test, flat, self.asked, self.dataset.class_names, decode)
            if found is not None:
                self.figures.exploration(found)
        few = test[: compression.ROWS]
        decoded = decode(compression.rounded(few))
        self.metrics |= compression.compression_metrics(
            self.asked.x[: compression.ROWS], few, decoded, self.reference.inputs, **self._options
        )

    def _anomaly(self) -> None:
        anomalous = anomalous_examples(self.dataset, self.asked, self.reference.facts["seed"])

        def score(x: Tensor) -> np.ndarray:
            return inference.anomaly_score(self.model, x, self.seed, **self._how)

        normal = score(self.asked.x)
        self.details["held_out_scores"] = normal.tolist()
        self.figures.anomalies(self.asked.x, normal)
        if anomalous:
            self.metrics |= anomaly_metrics(normal, {kind: score(x) for kind, x in anomalous.items()}, **self._options)

    def _impute(self) -> None:
        x = self.asked.x[: self.domain.imputation_rows]
        hidden = self.domain.hidden_cells(x, self.reference.facts["seed"])
        if not hidden.any():
            return
        draws = inference.impute(self.model, x, ~hidden, self.seed, draws=self.domain.imputation_draws, ask=self.ask)
        self.metrics |= imputation_metrics(x, hidden, draws, self.domain, **self._options)
        self.figures.imputations(x, hidden, draws)


def replayed(
    x: Tensor,
    label: Tensor | None,
    dataset: Dataset,
    reference: Reference,
    *,
    seed: int,
    bootstrap: int,
    floor: Collection[str | None] = ("train",),
) -> dict[str, Metric]:
    """What known rows score in place of samples.

    Arguments:
        x: The rows in data space.
        label: Their labels; `None` where the data have none.
        dataset: The prepared dataset.
        reference: The dataset's yardstick.
        seed: Seed of folds and resamples.
        bootstrap: Resamples behind each interval.
        floor: Only by metrics whose floor is one of these.
    """
    rows = Evaluator(
        ReplayedRows(x, label),
        dataset,
        reference,
        samples=len(x),
        seed=seed,
        bootstrap=bootstrap,
        bound_samples=1,
        chunk=max(len(x), 1),
        figures=FigureWriter(),
    )
    rows.sample_metrics = [entry for entry in rows.sample_metrics if entry.floor in floor]
    return rows.measure()
