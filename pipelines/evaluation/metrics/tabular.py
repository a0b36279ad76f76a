"""Every metric of tables that needs nothing but samples; floors, baselines and families all go through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier

from pipelines.evaluation.metrics.anomaly import auroc, auroc_draws
from pipelines.evaluation.metrics.base import MOST_PAIRWISE, SAMPLES, Description, Metric, counts, interval
from pipelines.evaluation.metrics.samples import Findings, SampleSet

if TYPE_CHECKING:
    from data.dataset import Examples


COLUMN_DISTANCE = Description(
    name="column_distance",
    title="Column distance",
    sentence="Kolmogorov-Smirnov distance (numbers) or total variation (categories), averaged over columns.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
ASSOCIATION_DISTANCE = Description(
    name="association_distance",
    title="Association distance",
    sentence="How far the columns' dependences (rank correlations, Cramer's V) are from the real ones, on average.",
    group=SAMPLES,
    unit="association",
    better="lower",
)
UTILITY_AUROC = Description(
    name="utility_auroc",
    title="Utility, AUROC",
    sentence="A gradient-boosted classifier taught by samples, judged on real rows; the floor was taught by real ones.",
    group=SAMPLES,
    unit="area",
    better="higher",
)
UTILITY_ACCURACY = Description(
    name="utility_accuracy",
    title="Utility, accuracy",
    sentence="The same classifier's share of right labels.",
    group=SAMPLES,
    unit="share",
    better="higher",
)
DESCRIPTIONS = (COLUMN_DISTANCE, ASSOCIATION_DISTANCE, UTILITY_AUROC, UTILITY_ACCURACY)


def measure(samples: SampleSet) -> Findings:
    """How like real rows samples are, column by column, pair by pair, and to learn from."""
    x = samples.drawn[: samples.compared]
    label = torch.full((len(x),), -1) if samples.label is None else samples.label[: samples.compared]
    drawn = type(samples.test)(x=x, label=label)
    return Findings(metrics=row_metrics(samples.test, drawn, samples.domain["columns"], **samples.options))


def row_metrics(
    real: Examples, drawn: Examples, columns: Sequence[Mapping[str, Any]], *, resamples: int, seed: int
) -> dict[str, Metric]:
    """How like real rows samples are, column by column, pair by pair, and to learn from.

    Arguments:
        real: Test rows.
        drawn: Samples with the labels asked for (or real training rows, for the floor).
        columns: The columns of the dataset's domain.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of resamples and classifier.
    """
    a, b = real.x.double().numpy(), drawn.x.double().numpy()
    value = float(column_distances(a, b, columns).mean())
    spread = interval(value, distance_draws(a, b, columns, resamples=resamples, seed=seed))
    found = {COLUMN_DISTANCE.name: COLUMN_DISTANCE.of(value, spread)}
    if len(columns) > 1:
        scale, few = Associations(a[:MOST_PAIRWISE], columns), b[:MOST_PAIRWISE]
        value = scale.distance(few)
        spread = interval(value, scale.draws(few, resamples, seed))
        found[ASSOCIATION_DISTANCE.name] = ASSOCIATION_DISTANCE.of(value, spread)
    taught, judged = (b, drawn.label.numpy()), (a, real.label.numpy())
    return found | utility_metrics(taught, judged, columns, resamples=resamples, seed=seed)


MOST_SCORES = 1024
"""Scores of a row, beyond which the rare categories of columns that have many share theirs."""


class Associations:
    """The scale on which columns are compared, from real rows.

    A column of more categories than its part of `MOST_SCORES` keeps a score for the most frequent ones; the others
    share as many again, by their number (hashed): what is compared has a bounded size, whatever the categories.

    Arguments:
        real: Rows in data space, NaN where missing, `[n, columns]`.
        columns: The columns of the dataset's domain.
    """

    def __init__(self, real: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> None:
        self.real, self.columns = real, columns
        self.free: list[int] = []
        """Dimensions of each column's scores."""
        self.places: list[int] = []
        """Where each column's scores begin."""
        self.groups: dict[int, Int[np.ndarray, " categories"]] = {}
        """The score of each category, of the columns of categories."""
        width, most = 0, max(MOST_SCORES // len(columns), 8)
        for index, column in enumerate(columns):
            self.places.append(width)
            values = real[:, index][~np.isnan(real[:, index])]
            if column["type"] == "categorical":
                group = self.groups[index] = grouped(values.astype(np.int64), len(column["categories"]), most)
                self.free.append(max(len(np.unique(group[values.astype(np.int64)])) - 1, 1))
                width += int(group.max()) + 1
            else:
                self.free.append(1)
                width += 1

    def scores(self, x: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n scores"]:
        """Standardized scores of rows; 0 where a cell is missing."""
        parts = []
        for index in range(len(self.columns)):
            known, values = self.real[:, index][~np.isnan(self.real[:, index])], x[:, index]
            missing = np.isnan(values)
            if index in self.groups:
                group = self.groups[index]
                codes = np.arange(group.max() + 1)
                known, values = group[known.astype(np.int64)], group[np.nan_to_num(values).astype(np.int64)]
                share = (known[:, None] == codes).mean(0) if len(known) else np.zeros(len(codes))
                scale = np.where(share > 0, 1 / np.sqrt(np.maximum(share, 1e-12)), 0)
                part = ((values[:, None] == codes) - share) * scale
            else:
                order = np.sort(known)
                middle = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2
                ranks = rankdata(known) - 0.5 if len(known) else np.zeros(1)
                part = ((middle - ranks.mean()) / (ranks.std() or 1.0))[:, None]
            parts.append(np.where(missing[:, None], 0.0, part))
        return np.concatenate(parts, 1)

    def strengths(self, covariance: Float[np.ndarray, "scores scores"]) -> Float[np.ndarray, "columns columns"]:
        """Sizes of the blocks of a covariance (or of a difference of two)."""
        blocks = np.add.reduceat(np.add.reduceat(covariance**2, self.places, 0), self.places, 1)
        return np.sqrt(blocks / np.minimum.outer(self.free, self.free))

    def matrix(self, x: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "columns columns"]:
        """How strongly each two columns hang together, 0 to 1 over the real rows."""
        return self.strengths(covariance(self.scores(x)))

    def distance(self, x: Float[np.ndarray, "n columns"]) -> float:
        """How far samples' dependences are from the real ones, averaged over pairs of columns."""
        return self._mean(covariance(self.scores(x)) - covariance(self.scores(self.real)))

    def draws(self, x: Float[np.ndarray, "n columns"], resamples: int, seed: int) -> Float[np.ndarray, " resamples"]:
        """That distance with the rows of both sides resampled."""
        a, b = self.scores(self.real), self.scores(x)
        pairs = zip(counts(len(a), resamples, seed), counts(len(b), resamples, seed + 1), strict=True)
        return np.array([self._mean(covariance(b, v) - covariance(a, w)) for w, v in pairs])

    def _mean(self, difference: np.ndarray) -> float:
        above = np.triu_indices(len(self.columns), 1)
        return float(self.strengths(difference)[above].mean())


def grouped(values: Int[np.ndarray, " n"], categories: int, most: int) -> Int[np.ndarray, " categories"]:
    """A number below `most` for each category: its own, or beyond `most` categories one that rare ones share.

    Arguments:
        values: Known values of real rows.
        categories: How many there may be.
        most: How many numbers there are, two at least.
    """
    if categories <= most:
        return np.arange(max(categories, 1))
    own = most // 2
    order = np.argsort(-np.bincount(values, minlength=categories), kind="stable")
    group = own + np.arange(categories) % (most - own)
    group[order[:own]] = np.arange(own)
    return group


def covariance(
    scores: Float[np.ndarray, "n scores"], weight: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, "scores scores"]:
    """Covariance of the scores; `weight` says how often each row counts."""
    rows = len(scores) if weight is None else weight.sum()
    weighted = scores if weight is None else scores * weight[:, None]
    mean = weighted.sum(0) / rows
    return scores.T @ weighted / rows - np.outer(mean, mean)


Columns = Sequence[Mapping[str, Any]]


def column_distances(
    real: Float[np.ndarray, "n columns"],
    generated: Float[np.ndarray, "m columns"],
    columns: Columns,
    weights: tuple[Shaped[np.ndarray, "resamples n"], Shaped[np.ndarray, "resamples m"]] | None = None,
    *,
    gaps: bool = True,
) -> Float[np.ndarray, "resamples columns"]:
    """The distance of every column: of categories the total variation, missing being one of them; of numbers the
    largest difference of the known ones' distribution functions.

    Arguments:
        real: Rows in data space, NaN where missing.
        generated: The same of samples.
        columns: The columns of the dataset's domain.
        weights: How often each row counts, by resample; `None` for once each, in one resample.
        gaps: Whether missing is a category like others; else missing cells are left aside.
    """
    w, v = weights or (np.ones((1, len(real)), np.int64), np.ones((1, len(generated)), np.int64))
    found = np.zeros((len(w), len(columns)))
    for index, column in enumerate(columns):
        a, b = real[:, index], generated[:, index]
        if gaps and column["type"] == "categorical":
            a, b = np.nan_to_num(a, nan=-1), np.nan_to_num(b, nan=-1)
        points = np.union1d(a[~np.isnan(a)], b[~np.isnan(b)])
        difference = _cumulative(a, w, points) - _cumulative(b, v, points)
        if column["type"] == "categorical":
            found[:, index] = np.abs(np.diff(difference, axis=1, prepend=0)).sum(1) / 2
        else:
            found[:, index] = np.abs(difference).max(1, initial=0)
    return found


def _cumulative(values: np.ndarray, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Share of the known values up to each point, by resample, `[resamples, points]`."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    mass = np.concatenate([np.zeros((len(weight), 1)), weight[:, order].cumsum(1)], 1)
    return mass[:, np.searchsorted(values[order], points, "right")] / np.maximum(mass[:, -1:], 1)


def distance_draws(
    real: Float[np.ndarray, "n columns"],
    generated: Float[np.ndarray, "m columns"],
    columns: Columns,
    *,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, " resamples"]:
    """The mean distance of the columns with the rows of both sides resampled."""
    weights = counts(len(real), resamples, seed), counts(len(generated), resamples, seed + 1)
    return column_distances(real, generated, columns, weights).mean(1)


MOST_CATEGORIES = 255
"""Beyond so many categories a column is given to the classifier as a number."""


def utility_metrics(
    taught: tuple[Float[np.ndarray, "n columns"], Int[np.ndarray, " n"]],
    judged: tuple[Float[np.ndarray, "m columns"], Int[np.ndarray, " m"]],
    columns: Sequence[Mapping[str, Any]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Metric]:
    """How well the label of real rows is told by a classifier taught with other rows.

    Arguments:
        taught: Rows in data space and their labels, -1 where unknown.
        judged: Real test rows and theirs.
        columns: The columns of the dataset's domain.
        resamples: Bootstrap resamples.
        seed: Seed of classifier and resamples.
    Returns:
        `utility_auroc` (one class against the rest, averaged) and `utility_accuracy`; nothing where
        either side knows fewer than two classes.
    """
    (x, y), (test, label) = ((rows[named >= 0], named[named >= 0]) for rows, named in (taught, judged))
    classes = np.intersect1d(np.unique(y), np.unique(label))
    if len(classes) < 2:
        return {}
    categorical = [c["type"] == "categorical" and len(c["categories"]) <= MOST_CATEGORIES for c in columns]
    model = HistGradientBoostingClassifier(categorical_features=categorical, early_stopping=False, random_state=seed)
    probability = model.fit(x, y).predict_proba(test)
    known = np.unique(y)
    right = known[probability.argmax(1)] == label
    areas, draws = [], []
    for c in classes if len(classes) > 2 else classes[1:]:
        chance = probability[:, np.searchsorted(known, c)]
        areas.append(auroc(chance[label != c], chance[label == c]))
        draws.append(auroc_draws(chance[label != c], chance[label == c], resamples, seed))
    value = float(np.mean(areas))
    spread = interval(value, np.mean(draws, 0))
    return {
        UTILITY_AUROC.name: UTILITY_AUROC.of(value, spread),
        UTILITY_ACCURACY.name: UTILITY_ACCURACY.mean(right, resamples, seed),
    }
