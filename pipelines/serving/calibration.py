"""Anomaly scores as p-values, against scores of held-out rows that the model was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class HeldOutScores:
    r"""Scores of held-out rows, which make a score of any model a p-value.

    .. math:: p(s) = \frac{1 + \#\{i : s_i \ge s\}}{n + 1}

    If a new row is exchangeable with the held-out ones, :math:`P(p \le \alpha) \le \alpha` for every rate.

    Arguments:
        scores: Of the held-out rows; higher is more anomalous.

    References:
        | Testing for outliers with conformal p-values (Bates et al., 2023), eq. 2
        | https://arxiv.org/abs/2104.08279
    """

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = np.sort(np.asarray(scores, np.float64))

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """The share of rows, a new one among them, that are as anomalous or more, `[rows]`."""
        below = np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")
        return (1 + len(self) - below) / (len(self) + 1)

    def check_rate(self, rate: float) -> None:
        """Refuse a rate at which nothing could ever be flagged.

        Raises:
            ValueError: Names the lowest rate that so many held-out rows allow.
        """
        if rate * (len(self) + 1) < 1:
            raise ValueError(
                f"rate must be at least {1 / (len(self) + 1):.3g}, the lowest that {len(self)} held-out rows can tell, "
                f"got {rate!r}."
            )

    def threshold(self, rate: float) -> float | None:
        """The held-out score above which rows are flagged; `None` if the rate is too low for that."""
        flagged = int(np.floor(rate * (len(self) + 1) + 1e-9)) - 1
        if flagged < 0 or flagged >= len(self):
            return None
        return float(self.scores[len(self) - 1 - flagged])
