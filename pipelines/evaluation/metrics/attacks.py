r"""How well an attack works on training examples, beside how well it works on examples that the model never saw.

A success rate alone tells nothing of privacy: who knows the population guesses many a value right. What training
examples lose by having been trained on is the **excess** over the same attack on the holdout, as a share of what
there was to win:

.. math:: R = \frac{r_\text{training} - r_\text{holdout}}{1 - r_\text{holdout}}

0 where the samples tell no more of training examples than of others, 1 where every attack on a training example
succeeds. Its interval is Newcombe's for a difference of two proportions, from the Wilson interval of each.

References:
    | A unified framework for quantifying privacy risk in synthetic data (Giomi et al., 2023), eq. 2
    | https://arxiv.org/abs/2211.10459
    | Interval estimation for the difference between independent proportions (Newcombe, 1998), method 10
    | https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool

from pipelines.evaluation.metrics.base import Description, Metric

Z = 1.959963984540054
"""Standard deviations within which 95 % of a normal distribution lie."""
FEWEST = 50
"""Rows of a side below which no attack is tried."""


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Arguments:
        share: The share of successes.
        n: Independent attempts; for dependent ones the number of independent ones that vary as much.
        z: Standard deviations; the default is for 95 %.
    References:
        | Probable inference, the law of succession, and statistical inference (Wilson, 1927)
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def excess(
    description: Description,
    training: Bool[np.ndarray, " n"],
    holdout: Bool[np.ndarray, " m"],
    repeats: tuple[float, float] = (1.0, 1.0),
) -> tuple[Metric, dict[str, Any]]:
    """The excess of successes on training examples, and for the details both rates with their intervals.

    Arguments:
        description: Of the metric.
        training: Whether each attack on a training example succeeded.
        holdout: The same of examples that the model never saw.
        repeats: How many attacks of either side tell as much as one that is independent of the others.
    """
    (a, low_a, high_a), (b, low_b, high_b) = (
        (float(side.mean()), *wilson(float(side.mean()), len(side) / most))
        for side, most in zip((training, holdout), repeats, strict=True)
    )
    left = max(1 - b, 1 / len(holdout))  # where the holdout is always guessed right there is nothing to win
    low, high = a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)
    found = description.of((a - b) / left, (max(low / left, -1.0), min(high / left, 1.0)))
    rates = {"training": [a, low_a, high_a], "holdout": [b, low_b, high_b]}
    details = {name: [round(value, 4) for value in rate] for name, rate in rates.items()}
    return found.beside(floor=0.0), details | {"attacks": len(training)}
