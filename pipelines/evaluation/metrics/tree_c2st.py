"""By which columns are samples told from test rows? Small decision trees that see two or three columns each.

Half of the rows of both sides teach a tree for every column and every two columns; a quarter chooses the pairs that
tell most and extends them by a third column; the last quarter, which neither saw, says how well the best tree does.

References:
    | Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int
from sklearn.tree import DecisionTreeClassifier

from pipelines.evaluation.metrics.base import MOST_PAIRWISE, SAMPLES, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

C2ST_TREES = Description(
    name="c2st_trees",
    title="Two-sample test, small trees",
    sentence="Accuracy of the best tree of at most three columns telling samples from test rows; 0.5 is a guess.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (C2ST_TREES,)

MOST_COLUMNS = 16
"""Columns that enter pairs: those by which single trees tell most."""
EXTENDED = 4
"""Pairs that are extended by a third column."""
SHOWN = 5
"""Sets of columns that the details name."""
FEWEST = 80
"""Rows of a side below which nothing is measured."""

Columns = tuple[int, ...]


def measure(samples: SampleSet) -> Findings:
    """Accuracy of the best small tree, and the sets of columns that tell most."""
    size = min(len(samples.test), samples.compared, 2 * MOST_PAIRWISE)
    if size < FEWEST:
        return Findings(metrics={}, left_out={C2ST_TREES.name: too_few(FEWEST, samples)})
    real, drawn = samples.test.x[:size].double().numpy(), samples.drawn[:size].double().numpy()
    right, told = tree_predictions(real, drawn, seed=samples.seed)
    names = [str(column["name"]) for column in samples.domain["columns"]]
    details = [{"columns": [names[i] for i in chosen], "accuracy": round(share, 4)} for chosen, share in told]
    metrics = {C2ST_TREES.name: C2ST_TREES.mean(right, **samples.options)}
    return Findings(metrics=metrics, details={"told_apart": details})


def tree_predictions(
    real: Float[np.ndarray, "n columns"], drawn: Float[np.ndarray, "n columns"], *, seed: int
) -> tuple[Float[np.ndarray, " judged"], list[tuple[Columns, float]]]:
    """Whether the best tree is right on each row of the last quarter; the columns that tell most, with accuracies.

    Arguments:
        real: Test rows, NaN where missing.
        drawn: As many samples.
        seed: Seed of the division into parts.
    """
    order = np.random.default_rng([seed, len(real)]).permutation(len(real))
    taught, chosen, judged = np.split(order, [len(order) // 2, 3 * len(order) // 4])
    x, y = np.stack([real, drawn]), np.repeat([0, 1], [len(taught)] * 2)

    def part(rows: Int[np.ndarray, " k"], columns: Columns) -> Float[np.ndarray, "both columns"]:
        return np.concatenate([side[rows][:, list(columns)] for side in x])

    def right(columns: Columns, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, " both"]:
        tree = DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=10, random_state=seed)
        answer = tree.fit(part(taught, columns), y).predict(part(rows, columns))
        return (answer == np.repeat([0, 1], len(rows))).astype(float)

    def ranked(sets: list[Columns]) -> list[tuple[Columns, float]]:
        scores = [(columns, float(right(columns, chosen).mean())) for columns in sets]
        return sorted(scores, key=lambda entry: (-entry[1], len(entry[0]), entry[0]))

    singles = ranked([(i,) for i in range(real.shape[1])])
    kept = sorted(columns[0] for columns, _ in singles[:MOST_COLUMNS])
    pairs = ranked(list(itertools.combinations(kept, 2)))
    longer = {tuple(sorted({*pair, i})) for pair, _ in pairs[:EXTENDED] for i in kept if i not in pair}
    every = sorted(singles + pairs + ranked(sorted(longer)), key=lambda entry: (-entry[1], len(entry[0]), entry[0]))
    told = [(columns, float(right(columns, judged).mean())) for columns, _ in every[:SHOWN]]
    return right(every[0][0], judged), told
