r"""Do the columns of a table hang together as in the data?

Every column becomes standardized scores over the real rows: a number its rank, a category
:math:`(1[x = c] - p_c) / \sqrt{p_c}` for each of its values. The covariance :math:`M_{ab}` of two
columns' scores then holds all of their (rank) dependence, and

.. math:: V_{ab} = \lVert M_{ab} \rVert_F / \sqrt{\min(d_a, d_b)}

is Spearman's correlation of two numbers (its size), Cramer's V of two categories, and the correlation
ratio of the ranks of one with the other, from 0 to 1; `d` is 1 for a number, else categories less one.

References:
    | Mathematical Methods of Statistics (Cramer, 1946), chapter 21
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from pipelines.evaluation.bootstrap import counts


class Associations:
    """The scale on which columns are compared, from real rows.

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
        width = 0
        for index, column in enumerate(columns):
            self.places.append(width)
            values = real[:, index][~np.isnan(real[:, index])]
            categorical = column["type"] == "categorical"
            self.free.append(max(len(np.unique(values)) - 1, 1) if categorical else 1)
            width += max(len(column["categories"]), 1) if categorical else 1

    def scores(self, x: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n scores"]:
        """Standardized scores of rows; 0 where a cell is missing."""
        parts = []
        for index, column in enumerate(self.columns):
            known, values = self.real[:, index][~np.isnan(self.real[:, index])], x[:, index]
            missing = np.isnan(values)
            if column["type"] == "categorical":
                codes = np.arange(max(len(column["categories"]), 1))
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


def covariance(
    scores: Float[np.ndarray, "n scores"], weight: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, "scores scores"]:
    """Covariance of the scores; `weight` says how often each row counts."""
    rows = len(scores) if weight is None else weight.sum()
    weighted = scores if weight is None else scores * weight[:, None]
    mean = weighted.sum(0) / rows
    return scores.T @ weighted / rows - np.outer(mean, mean)
