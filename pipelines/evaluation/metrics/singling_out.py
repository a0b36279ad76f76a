"""Can somebody be singled out: is there a description, read off the samples, that fits one training row and no other?

A description is three cells of a sample: a category (or a gap) as it is, a number as "at most" or "at least" itself,
away from the samples' median. Those that fit one sample only are the attacks. One succeeds if it fits exactly one of
the training rows; the control counts those that fit exactly one of as many test rows, for a narrow description fits
one row of any such table now and then. Attacks that hit the same row count as one in the intervals. Where there are
fewer test rows than training rows, only as many of these take part, and copies of the others are not seen:
`closest_record` sees them.

References:
    | A unified framework for quantifying privacy risk in synthetic data (Giomi et al., 2023), section 4.1
    | https://arxiv.org/abs/2211.10459
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pipelines.evaluation.metrics.attacks import FEWEST, excess
from pipelines.evaluation.metrics.base import MOST_PAIRWISE, PRIVACY, Description
from pipelines.evaluation.metrics.closest_record import some
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

SINGLING_OUT = Description(
    name="singling_out",
    title="Singling out",
    sentence="Descriptions read off samples that fit just one training row, beyond those that fit just one unseen row.",
    group=PRIVACY,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (SINGLING_OUT,)

CELLS = 3
"""Cells of a description."""
TRIES = 8_000
"""Descriptions looked at; those that fit one sample only are the attacks."""


def measure(samples: SampleSet) -> Findings:
    """The excess of training rows singled out; nothing where no description fits a single sample."""
    size = min(len(samples.every), len(samples.test), MOST_PAIRWISE)
    drawn = samples.drawn[:MOST_PAIRWISE].double().numpy()
    if min(size, len(drawn)) < FEWEST:
        return Findings(metrics={}, left_out={SINGLING_OUT.name: too_few(FEWEST, samples)})
    train, test = (some(x, size).double().numpy() for x in (samples.every, samples.test.x))
    attacks = Descriptions(drawn, samples.domain["columns"], np.random.default_rng([samples.seed, len(drawn)]))
    single = attacks.only(drawn) >= 0
    first = np.unique(np.where(single, attacks.row, -1), return_index=True)[1]  # one description of a sample
    chosen = first[single[first]]
    if len(chosen) < FEWEST:
        return Findings(metrics={}, left_out={SINGLING_OUT.name: "hardly a sample has three cells as no other has"})
    hit = [attacks.only(side)[chosen] for side in (train, test)]
    repeats = repeated(hit[0]), repeated(hit[1])
    found, details = excess(SINGLING_OUT, hit[0] >= 0, hit[1] >= 0, repeats)
    return Findings(metrics={SINGLING_OUT.name: found}, details={SINGLING_OUT.name: details})


def repeated(hit: Int[np.ndarray, " attacks"]) -> float:
    """How often the row that an attack hits is hit, on average over the successful attacks."""
    times = np.unique(hit[hit >= 0], return_counts=True)[1]
    return float(np.square(times).sum() / times.sum()) if len(times) else 1.0


class Descriptions:
    """Descriptions read off samples.

    Arguments:
        drawn: The samples, NaN where missing.
        columns: The columns of the dataset's domain.
        random: What chooses samples and cells.
    """

    def __init__(
        self, drawn: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]], random: np.random.Generator
    ) -> None:
        width = drawn.shape[1]
        self.row = random.integers(0, len(drawn), TRIES)
        self.columns = random.random((TRIES, width)).argsort(1)[:, : min(CELLS, width)]
        self.drawn = drawn
        self.category = np.array([column["type"] == "categorical" for column in columns])
        known = np.where(np.isnan(drawn), np.inf, drawn)  # a column without a known value has no middle: no cell is it
        order = np.sort(known, 0)
        self.middle = order[np.maximum(np.isfinite(order).sum(0) - 1, 0) // 2, np.arange(width)]

    def only(self, rows: Float[np.ndarray, "m columns"]) -> Int[np.ndarray, " tries"]:
        """The one row that each description fits; -1 where it fits none or several."""
        fits = np.ones((TRIES, len(rows)), bool)
        for column in range(rows.shape[1]):
            where = np.flatnonzero((self.columns == column).any(1))
            if len(where):
                fits[where] &= self._cells(column, self.drawn[self.row[where], column], rows[:, column])
        return np.where(fits.sum(1) == 1, fits.argmax(1), -1)

    def _cells(
        self, column: int, said: Float[np.ndarray, " tries"], values: Float[np.ndarray, " m"]
    ) -> Bool[np.ndarray, "tries m"]:
        gap = np.isnan(said)[:, None] & np.isnan(values)
        if self.category[column]:
            return gap | (said[:, None] == values)
        above = said[:, None] > self.middle[column]
        return gap | (above & (values >= said[:, None])) | (~above & (values <= said[:, None]))
