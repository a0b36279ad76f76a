"""Making a yardstick: classifiers, spaces, floors and the classical baseline, and the folder that keeps them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from data.files import canonical, json_text, sha256, whole_folder
from models.domains.table import Table
from pipelines.evaluation.domain import FeatureEncoder, error_unit
from pipelines.evaluation.domains import feature_encoder
from pipelines.evaluation.domains.anomalies import anomalous_examples
from pipelines.evaluation.domains.image import IndependentPixels
from pipelines.evaluation.inference import evaluation_subset, predict, proportional_labels
from pipelines.evaluation.metrics import compression, imputation
from pipelines.evaluation.metrics.anomaly import anomaly_metrics
from pipelines.evaluation.metrics.base import Metric, root_mean, share
from pipelines.evaluation.metrics.distribution import distribution_metrics, frechet
from pipelines.evaluation.metrics.label_accuracy import matches_label
from pipelines.evaluation.metrics.likelihood import density_metric, independent_columns
from pipelines.evaluation.metrics.memorization import copy_metrics
from pipelines.evaluation.metrics.probe import probe_metric
from pipelines.evaluation.metrics.reconstruction import squared_error
from pipelines.evaluation.metrics.tabular import row_metrics
from pipelines.evaluation.reference.baseline import ClassicalBaseline
from pipelines.evaluation.reference.fit import PseudoLabels, fit, fixed_threads
from pipelines.evaluation.reference.imputers import classical_imputation
from pipelines.evaluation.reference.networks import network
from pipelines.evaluation.reference.reference import FACTS, FORMAT, SPACES, Space, standardized

if TYPE_CHECKING:
    from data.dataset import Dataset, Examples
    from pipelines.evaluation.config import ReferenceConfig


log = logging.getLogger(__name__)


def make(dataset: Dataset, name: str, folder: Path, *, seed: int, settings: ReferenceConfig) -> None:
    """Make the yardstick of an open dataset in `folder`, whole or not at all."""
    with fixed_threads(), whole_folder(folder) as temporary:
        ReferenceBuilder(dataset, name, seed, settings).write(temporary)


class ReferenceBuilder:
    """Builds the evaluation reference: each step adds tensors or facts.

    Arguments:
        dataset: The prepared dataset.
        name: Its name.
        seed: Seed of everything random.
        settings: How it is made.
    """

    def __init__(self, dataset: Dataset, name: str, seed: int, settings: ReferenceConfig) -> None:
        self.dataset, self.name, self.seed, self.settings = (dataset, name, seed, settings)
        self.inputs: FeatureEncoder = feature_encoder(dataset.domain)
        self.index = {split: self._chosen(split) for split in ("train", "val", "test")}
        self.rows: dict[str, Examples] = {
            split: dataset.split(split).take(index) for split, index in self.index.items() if len(index)
        }
        self.facts: dict[str, Any] = {"networks": {}}
        self.files: dict[str, dict[str, Tensor]] = {}
        self.labelled = len(set(self.rows["train"].label[self.rows["train"].label >= 0].tolist())) > 1

    def _chosen(self, split: str) -> Int[Tensor, " n"]:
        """Row numbers in random order, at most `settings.rows`; empty for a split the dataset lacks."""
        n = len(self.dataset.split(split)) if split in self.dataset.splits else 0
        needed = {"train": 20, "test": 10}.get(split, 0)
        if n < needed:
            raise ValueError(
                f"The yardstick needs at least {needed} rows in the split {split!r} of {self.name}, got {n}. "
                "Give the dataset's card larger splits and run `fivefold prepare` again."
            )
        order = np.random.default_rng([self.seed, n]).permutation(n)[: self.settings.rows]
        return torch.from_numpy(order)

    def write(self, folder: Path) -> None:
        """Make everything and write it into an empty folder."""
        train, test = self.rows["train"], self.rows["test"]
        labels = self._labels()
        spaces = {"classifier": self._space("classifier", labels), "random": self._space("random", labels)}
        label_classifier = self._label_classifier(labels) if self.labelled else None
        points = {
            space.name: {split: space.features(rows.x) for split, rows in self.rows.items()}
            for space in spaces.values()
        }
        log.info("the yardstick's classifiers are trained: %s", self.facts["networks"])

        baseline = self._baseline(spaces["classifier"], points["classifier"], labels["train"])
        counts = torch.bincount(labels["train"][labels["train"] >= 0]).tolist()
        wanted = proportional_labels(counts, self.settings.samples, self.seed)
        drawn = baseline.sample(wanted, self.seed)
        for name, space in spaces.items():
            points[name]["baseline"] = space.features(drawn)
        n = min(self.settings.samples, len(train))
        strata = (labels["train"], wanted) if self.labelled else (None, None)
        floors = self._scored(points, "train", n, strata[0]) | self._of_rows(train.x[:n], train.label[:n])
        scores = self._scored(points, "baseline", n, strata[1]) | self._of_rows(drawn[:n], wanted[:n])
        if label_classifier is not None:
            known, resamples = test.label >= 0, self.settings.bootstrap
            right = matches_label(label_classifier, test.x[known], test.label[known], self.inputs)
            floors["accuracy"] = share(right, resamples, self.seed)
            scores["accuracy"] = share(
                matches_label(label_classifier, drawn, wanted, self.inputs), resamples, self.seed
            )
        scores |= self._baseline_rows(baseline, drawn, labels["train"])
        self.facts["reference"] = {
            "samples": n,
            "floors": {name: value.as_dict() for name, value in floors.items()},
            "baseline": {name: value.as_dict() for name, value in scores.items()},
        }
        self.files["baseline"] = {"x": drawn, "label": wanted}
        self.files["features"] = self._features(points)
        self._write_files(folder)

    # Classifiers and spaces

    def _labels(self) -> dict[str, Int[Tensor, " n"]]:
        """A class for every row: the given labels, or clusters where there are none."""
        if self.labelled:
            self.facts["labels"] = "given"
            return {split: rows.label for split, rows in self.rows.items()}
        self.facts["labels"] = (
            f"none given: {self.settings.clusters} k-means clusters of principal component codes stand for them"
        )
        clusters = PseudoLabels(self.rows["train"].x, self.inputs, clusters=self.settings.clusters, seed=self.seed)
        return {split: clusters(rows.x) for split, rows in self.rows.items()}

    def _space(self, role: str, labels: dict[str, Tensor]) -> Space:
        if role == "random" or self.dataset.kind == "table":
            seed = self.seed + SPACES.index(role) * 2
            built = network(role, shape=self.inputs.shape, classes=0, seed=seed).eval().requires_grad_(False)
            self.facts["networks"][role] = {"classes": 0}
        else:
            built = self._classifier(role, labels, self.seed)
        space = standardized(role, built, self.inputs, self.rows["train"].x)
        self.files[role] = space.tensors()
        return space

    def _label_classifier(self, labels: dict[str, Tensor]) -> torch.nn.Module:
        label_classifier = self._classifier("judge", labels, self.seed + 1)
        self.files["judge"] = {f"network.{key}": value.clone() for key, value in label_classifier.state_dict().items()}
        return label_classifier

    def _classifier(self, role: str, labels: dict[str, Tensor], seed: int) -> torch.nn.Module:
        classes = max(len(self.dataset.class_names), int(labels["train"].max()) + 1)
        built = network(role, shape=self.inputs.shape, classes=classes, seed=seed)
        known = labels["train"] >= 0
        settings = self.settings
        fit(
            built,
            self.rows["train"].x[known],
            labels["train"][known],
            self.inputs,
            examples=settings.examples,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=seed,
        )
        accuracy = {}
        for split, label in labels.items():
            known = label >= 0
            if known.any():
                right = predict(built, self.rows[split].x[known], self.inputs) == label[known]
                accuracy[split] = round(right.double().mean().item(), 6)
        self.facts["networks"][role] = {"classes": classes, "accuracy": accuracy}
        return built

    # Floors and the baseline

    def _baseline(self, space: Space, points: dict[str, np.ndarray], label: Tensor) -> ClassicalBaseline:
        """The classical baseline with the number of components that suits the validation split best."""
        known = label >= 0
        x, label = self.rows["train"].x[known], label[known]
        reference = points["val"] if len(points.get("val", ())) >= 2 * points["train"].shape[1] else points["train"]
        wanted = proportional_labels(torch.bincount(label).tolist(), len(label), self.seed)
        tried = []
        for components in sorted({min(c, int(np.prod(self.inputs.shape))) for c in self.settings.components}):
            baseline = ClassicalBaseline(x, label, self.inputs, components=components, seed=self.seed)
            distance = frechet(space.features(baseline.sample(wanted, self.seed + 1)), reference)
            tried.append((distance, components, baseline))
        _, components, best = min(tried, key=lambda entry: entry[:2])
        self.facts["baseline"] = {
            "what": "per class, principal components and a Gaussian mixture chosen by BIC",
            "components": components,
            "mixtures": {str(c): model.mixture.n_components for c, model in best.models.items()},
        }
        return best

    def _scored(
        self, points: dict[str, dict[str, np.ndarray]], rows: str, n: int, label: Tensor | None
    ) -> dict[str, Metric]:
        reference = {name: points[name]["test"] for name in SPACES}
        generated = {name: points[name][rows][:n] for name in SPACES}
        strata = (None, None) if label is None else (label[:n].numpy(), self.rows["test"].label.numpy())
        resamples, seed = self.settings.bootstrap, self.seed
        return distribution_metrics(reference, generated, strata=strata, resamples=resamples, seed=seed)

    def _of_rows(self, x: Tensor, label: Tensor) -> dict[str, Metric]:
        """What is measured of a table's rows alone; nothing of images."""
        if self.dataset.kind != "table":
            return {}
        rows = type(self.rows["test"])(x=x, label=label if self.labelled else torch.full_like(label, -1))
        options = {"resamples": self.settings.bootstrap, "seed": self.seed}
        return row_metrics(self.rows["test"], rows, self.dataset.domain["columns"], **options)

    def _baseline_rows(self, baseline: ClassicalBaseline, drawn: Tensor, label: Tensor) -> dict[str, Metric]:
        """What the baseline scores in everything but the distribution of its samples."""
        train, test = evaluation_subset(self.rows["train"]), evaluation_subset(self.rows["test"])
        resamples, seed = self.settings.bootstrap, self.seed
        every = self.dataset.split("train").all().x
        found = copy_metrics(drawn, every, self.rows["test"].x, self.inputs, resamples, seed)[0]
        error = squared_error(test.x, baseline.reconstruct(test.x), self.inputs)
        found["reconstruction_rmse"] = root_mean(error, resamples, seed, unit=error_unit(self.inputs))
        if self.labelled:
            found["probe_accuracy"] = probe_metric(
                baseline.encode(train.x), train.label, baseline.encode(test.x), test.label, resamples, seed
            )
        anomalous = anomalous_examples(self.dataset, test, seed)
        if anomalous:
            scores = {kind: baseline.anomaly_score(x) for kind, x in anomalous.items()}
            normal = baseline.anomaly_score(test.x)
            found |= anomaly_metrics(normal, scores, resamples=resamples, seed=seed)
        found |= density_metric(self._independent(test.x, label), self.inputs, resamples, seed)
        return found | self._compressed(baseline, test.x) | self._imputed(test.x)

    def _independent(self, x: Tensor, label: Tensor) -> np.ndarray:
        """Log-probabilities by a density to beat, whose values are independent of each other."""
        if self.dataset.kind == "table":
            self.facts["baseline"]["density"] = "independent columns with their training distributions"
            return independent_columns(x, Table(columns=self.dataset.domain["columns"]))
        self.facts["baseline"]["density"] = "per class, independent pixels with histograms"
        levels, known = self.dataset.domain["levels"], label >= 0
        pixels = IndependentPixels(_level(self.rows["train"].x[known], levels), label[known].numpy(), levels)
        return pixels.log_prob(_level(x, levels))

    def _compressed(self, baseline: ClassicalBaseline, x: Tensor) -> dict[str, Metric]:
        x, options = x[: compression.ROWS], {"resamples": self.settings.bootstrap, "seed": self.seed}
        codes = torch.from_numpy(baseline.encode(x))
        decoded = baseline.decode(compression.rounded(codes).numpy())
        unit = error_unit(self.inputs)
        return compression.compression_metrics(x, codes, decoded, self.inputs, unit=unit, **options)

    def _imputed(self, x: Tensor) -> dict[str, Metric]:
        """What the best of the classical ways to fill in hidden cells scores; the facts keep them all."""
        kind, options = self.dataset.kind, {"resamples": self.settings.bootstrap, "seed": self.seed}
        x, train = x[: imputation.ROWS[kind]], self.rows["train"].x
        found = classical_imputation(train, x, self.dataset.domain, **options)
        if not found:
            return {}
        self.facts["imputation"] = {
            way: {name: round(value.value, 6) for name, value in metrics.items()} for way, metrics in found.items()
        }
        return min(found.values(), key=lambda metrics: metrics["imputation_crps"].value)

    # The folder

    def _features(self, points: dict[str, dict[str, np.ndarray]]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for space, splits in points.items():
            tensors |= {f"{space}.{split}": torch.from_numpy(values).float() for split, values in splits.items()}
        for split, rows in self.rows.items():
            tensors |= {f"label.{split}": rows.label, f"index.{split}": self.index[split]}
        return tensors

    def _write_files(self, folder: Path) -> None:
        for name, tensors in self.files.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        hashes = {f"{name}.safetensors": sha256(folder / f"{name}.safetensors") for name in sorted(self.files)}
        label = self.rows["train"].label
        facts = {
            "format": FORMAT,
            "dataset": self.name,
            "data_digest": self.dataset.digest,
            "digest": hashlib.sha256(canonical({"format": FORMAT, "files": hashes})).hexdigest(),
            "domain": self.dataset.domain,
            "class_names": list(self.dataset.class_names),
            "label_counts": torch.bincount(label[label >= 0], minlength=len(self.dataset.class_names)).tolist(),
            "seed": self.seed,
            **self.facts,
            "files": hashes,
        }
        (folder / FACTS).write_text(json_text(facts), encoding="utf-8")


def _level(x: Tensor, levels: int) -> np.ndarray:
    return (x.flatten(1).double() * ((levels - 1) / 255)).round().long().numpy()
