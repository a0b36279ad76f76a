"""Making a yardstick: classifiers, spaces, floors and the classical baseline, and the folder that keeps them."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from data.files import canonical, json_text, sha256, whole_folder
from models.rng import Streams
from pipelines.evaluation.domain import FigureWriter
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.evaluator import Evaluator, replayed
from pipelines.evaluation.inference import predict, proportional_labels
from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.metrics.distribution import frechet
from pipelines.evaluation.reference.baseline import ClassicalBaseline
from pipelines.evaluation.reference.facts import FACTS, FORMAT
from pipelines.evaluation.reference.fit import PseudoLabels, fit, fixed_threads
from pipelines.evaluation.reference.imputers import sklearn_imputers
from pipelines.evaluation.reference.networks import network
from pipelines.evaluation.reference.reference import SPACES, Reference, Space, standardized

if TYPE_CHECKING:
    from data.dataset import Dataset, Examples
    from pipelines.evaluation.config import ReferenceConfig


log = logging.getLogger(__name__)


class Kept(Protocol):
    """Where the parts that are done are kept, for who goes on after an interruption."""

    def get(self, name: str) -> dict[str, Tensor] | None: ...
    def put(self, name: str, tensors: dict[str, Tensor]) -> None: ...


def build_reference(
    dataset: Dataset,
    name: str,
    folder: Path,
    *,
    seed: int,
    settings: ReferenceConfig,
    device: str = "cpu",
    kept: Kept | None = None,
) -> None:
    """Make the yardstick of an open dataset in `folder`, whole or not at all."""
    with fixed_threads(), whole_folder(folder) as temporary:
        ReferenceBuilder(dataset, name, seed, settings, device, kept).write(temporary)


class ReferenceBuilder:
    """Builds the evaluation reference: each step adds tensors or facts.

    Arguments:
        dataset: The prepared dataset.
        name: Its name.
        seed: Seed of everything random.
        settings: How it is made.
        device: Where its networks are trained and asked; each kind of device gives other bits.
        kept: Classifiers that an interrupted attempt has trained.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        seed: int,
        settings: ReferenceConfig,
        device: str = "cpu",
        kept: Kept | None = None,
    ) -> None:
        self.dataset, self.name, self.seed, self.settings = (dataset, name, seed, settings)
        self.device, self.kept = device, kept
        self.domain = evaluation_domain(dataset.domain)
        self.inputs = self.domain.encoder
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
        needed = {"train": 2, "test": 2}.get(split, 0)
        if n < needed:
            raise ValueError(
                f"The yardstick needs at least {needed} rows in the split {split!r} of {self.name}, got {n}. "
                "Give the dataset's card larger splits and run `fivefold prepare` again."
            )
        order = np.random.default_rng([self.seed, n]).permutation(n)[: self.settings.rows]
        return torch.from_numpy(order)

    def write(self, folder: Path) -> None:
        """Make everything and write it into an empty folder."""
        train = self.rows["train"]
        log.info("%s: training the yardstick's classifiers on %d rows …", self.name, len(train))
        labels = self._labels()
        spaces = {"classifier": self._space("classifier", labels), "random": self._space("random", labels)}
        label_classifier = self._label_classifier(labels) if self.labelled else None
        points = {
            space.name: {split: space.features(rows.x) for split, rows in self.rows.items()}
            for space in spaces.values()
        }
        log.info("%s: fitting the classical baseline …", self.name)
        baseline = self._baseline(spaces["classifier"], points["classifier"], labels["train"])
        counts = torch.bincount(labels["train"][labels["train"] >= 0]).tolist()
        wanted = proportional_labels(counts, self.settings.samples, self.seed)
        drawn = baseline.sample(len(wanted), wanted, seeded(self.seed))
        for name, space in spaces.items():
            points[name]["baseline"] = space.features(drawn)
        reference = Reference(
            facts={"label_counts": counts, "seed": self.seed},
            inputs=self.inputs,
            spaces={name: replace(space, rows=points[name]) for name, space in spaces.items()},
            label_classifier=label_classifier,
            labels=labels,
            index=self.index,
            baseline=type(train)(x=drawn, label=wanted),
        )
        n = min(self.settings.samples, len(train))
        log.info("%s: measuring what real rows and the baseline score …", self.name)
        self.facts["reference"] = {
            "samples": n,
            "floors": as_dicts(self._floors(reference, n)),
            "baseline": as_dicts(self._baseline_scores(reference, baseline)),
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
        if role == "random" or not self.domain.trained_features:
            seed = self.seed + SPACES.index(role) * 2
            built = (
                network(self.domain, role, shape=self.inputs.shape, classes=0, seed=seed).eval().requires_grad_(False)
            )
            built = built.to(self.device)
            self.facts["networks"][role] = {"classes": 0}
        else:
            built = self._classifier(role, labels, self.seed)
        space = standardized(role, built, self.inputs, self.rows["train"].x)
        self.files[role] = space.tensors()
        return space

    def _label_classifier(self, labels: dict[str, Tensor]) -> torch.nn.Module:
        label_classifier = self._classifier("judge", labels, self.seed + 1)
        self.files["judge"] = {
            f"network.{key}": value.cpu().clone() for key, value in label_classifier.state_dict().items()
        }
        return label_classifier

    def _classifier(self, role: str, labels: dict[str, Tensor], seed: int) -> torch.nn.Module:
        classes = max(len(self.dataset.class_names), int(labels["train"].max()) + 1)
        built = network(self.domain, role, shape=self.inputs.shape, classes=classes, seed=seed).to(self.device)
        part = f"{role}-{torch.device(self.device).type}"
        if trained := self.kept.get(part) if self.kept else None:
            built.load_state_dict(trained)
            built.eval().requires_grad_(False)
        else:
            self._fit(built, labels["train"], seed)
            if self.kept:
                self.kept.put(part, built.state_dict())
        accuracy = {}
        for split, label in labels.items():
            known = label >= 0
            if known.any():
                right = predict(built, self.rows[split].x[known], self.inputs) == label[known]
                accuracy[split] = round(right.double().mean().item(), 6)
        self.facts["networks"][role] = {"classes": classes, "accuracy": accuracy}
        return built

    def _fit(self, built: torch.nn.Module, label: Tensor, seed: int) -> None:
        """Train a classifier on the rows whose class is known."""
        known, settings = label >= 0, self.settings
        fit(
            built,
            self.rows["train"].x[known],
            label[known],
            self.inputs,
            examples=settings.examples,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=seed,
        )

    # Floors and the baseline

    def _baseline(self, space: Space, points: dict[str, np.ndarray], label: Tensor) -> ClassicalBaseline:
        """The classical baseline with the number of components that suits the validation split best."""
        known = label >= 0
        x, label = self.rows["train"].x[known], label[known]
        reference = points["val"] if len(points.get("val", ())) >= 2 * points["train"].shape[1] else points["train"]
        wanted = proportional_labels(torch.bincount(label).tolist(), len(label), self.seed)
        tried = []
        for components in sorted({min(c, int(np.prod(self.inputs.shape))) for c in self.settings.components}):
            baseline = ClassicalBaseline(x, label, self.domain, components=components, seed=self.seed)
            distance = frechet(space.features(baseline.sample(len(wanted), wanted, seeded(self.seed + 1))), reference)
            tried.append((distance, components, baseline))
        _, components, best = min(tried, key=lambda entry: entry[:2])
        self.facts["baseline"] = {
            "what": "per class, principal components and a Gaussian mixture chosen by BIC",
            "components": components,
            "density": best.density_name,
            "mixtures": {str(c): model.mixture.n_components for c, model in best.models.items()},
        }
        return best

    def _floors(self, reference: Reference, n: int) -> dict[str, Metric]:
        """What real rows score in place of samples: the first `n` training rows, or the test rows."""
        train, test = self.rows["train"], self.rows["test"]
        return self._replayed(reference, train.x[:n], train.label[:n], "train") | self._replayed(
            reference, test.x, test.label, "test"
        )

    def _replayed(self, reference: Reference, x: Tensor, label: Tensor, *floor: str | None) -> dict[str, Metric]:
        options = {"seed": self.seed, "bootstrap": self.settings.bootstrap, "floor": floor}
        return replayed(x, label if self.labelled else None, self.dataset, reference, **options)

    def _baseline_scores(self, reference: Reference, baseline: ClassicalBaseline) -> dict[str, Metric]:
        """What the baseline scores in everything it can do; of classical ways to fill in cells the best one's."""
        drawn = reference.baseline
        found = self._replayed(reference, drawn.x, drawn.label, "train", "test", None)

        def measured(model: object, *steps: str) -> dict[str, Metric]:
            asking = Evaluator(
                model,
                self.dataset,
                reference,
                samples=self.settings.samples,
                seed=self.seed,
                bootstrap=self.settings.bootstrap,
                bound_samples=1,
                chunk=self.settings.rows,
                figures=FigureWriter(),
            )
            return asking.measure(steps)

        train = self.rows["train"].x
        imputers = dict(sklearn_imputers(train, self.domain, seed=self.seed))
        ways = {way: scores for way, imputer in imputers.items() if (scores := measured(imputer, "impute"))}
        if ways:
            self.facts["imputation"] = {
                way: {name: round(value.value, 6) for name, value in scores.items()} for way, scores in ways.items()
            }
            baseline.imputer = imputers[min(ways, key=lambda way: ways[way]["imputation_crps"].value)]
        return found | measured(baseline, "log_prob", "reconstruct", "codes", "anomaly", "impute")

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


def seeded(seed: int) -> Streams:
    """Streams of a plain seed, for what draws with numpy's."""
    return Streams([torch.Generator().manual_seed(seed)])


def as_dicts(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Metrics in JSON types."""
    return {name: value.as_dict() for name, value in metrics.items()}
