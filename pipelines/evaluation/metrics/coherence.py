r"""Could the rows exist? Pairs of values that the training rows avoid although chance would have brought them together.

Values :math:`a, b` of two columns are an impossible pair when no training row holds both, although
independence would give :math:`n_a n_b / n \ge` `EXPECTED` such rows. Columns of at most `MOST_VALUES` values
take part, a missing cell being one more value; of other columns with missing cells the mark of missing does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from pipelines.evaluation.metrics.base import SAMPLES, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet, faulty

IMPOSSIBLE_PAIRS = Description(
    name="impossible_pairs",
    title="Impossible rows",
    sentence="Rows holding two values that no training row holds together, though chance would bring 20 such rows.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (IMPOSSIBLE_PAIRS,)

EXPECTED = 20
"""Training rows that independence would give a pair of values for its absence to tell something."""
MOST_VALUES = 60
"""Values of a column up to which its values take part."""
MOST_PAIRS = 5_000
"""Pairs of columns looked at; of more, so many are chosen at random, always the same ones."""


def measure(samples: SampleSet) -> Findings:
    """The share of impossible rows among all samples; nothing of a table with a single such column."""
    train, drawn = (x.double().numpy() for x in (samples.every, samples.drawn))
    names = [str(column["name"]) for column in samples.domain["columns"]]
    pairs = impossible_pairs(discrete(train, drawn))
    return faulty(IMPOSSIBLE_PAIRS, samples, (({"columns": [names[k] for k in pair]}, rows) for pair, rows in pairs))


Codes = dict[int, tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]]
"""By column, the number of each training row's and of each sample's value; -1 for a value training rows lack."""


def discrete(train: Float[np.ndarray, "n columns"], drawn: Float[np.ndarray, "m columns"]) -> Codes:
    """Values as numbers, of the columns that take part."""
    codes: Codes = {}
    for i, (known, new) in enumerate(zip(train.T, drawn.T, strict=True)):
        values = np.unique(known)  # all NaN are one value, the last
        if len(values) > MOST_VALUES:
            known, new = np.isnan(known).astype(float), np.isnan(new).astype(float)
            values = np.unique(known)
        if len(values) > 1:
            codes[i] = _numbered(known, values), _numbered(new, values)
    return codes


def _numbered(x: Float[np.ndarray, " n"], values: Float[np.ndarray, " values"]) -> Int[np.ndarray, " n"]:
    place = np.searchsorted(values, x).clip(max=len(values) - 1)
    same = (values[place] == x) | (np.isnan(values[place]) & np.isnan(x))
    return np.where(same, place, -1)


def impossible_pairs(codes: Codes) -> Iterator[tuple[tuple[int, int], Bool[np.ndarray, " m"]]]:
    """For each two columns, which samples hold an impossible pair of their values."""
    every = list(itertools.combinations(codes, 2))
    if len(every) > MOST_PAIRS:
        every = [every[k] for k in np.sort(np.random.default_rng(0).permutation(len(every))[:MOST_PAIRS])]
    for i, j in every:
        (a, new_a), (b, new_b) = codes[i], codes[j]
        shape = a.max() + 1, b.max() + 1
        together = np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1]).reshape(shape)
        expected = np.outer(together.sum(1), together.sum(0)) / len(a)
        avoided = (together == 0) & (expected >= EXPECTED)
        yield (i, j), avoided[new_a, new_b] & (new_a >= 0) & (new_b >= 0)
