"""What a model may be wanted for, and by which metric the best one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.metrics.base import Better, Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class UseCase:
    """What a model may be wanted for, and the number that decides who is best at it.

    Arguments:
        metrics: The deciding metric, then what stands in for it where a family lacks it.
        better: Which direction is better.
        guards: Metrics by which no model may be worse than the holder it would replace, where both have them.
        floors: Metrics by which no model may be worse than both real rows and the classical baseline.
    """

    metrics: tuple[str, ...]
    better: Better
    guards: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()

    def metric(self, metrics: Mapping[str, Any]) -> tuple[str, Metric] | None:
        """The deciding metric of one family's `metrics` and its name; `None` if it cannot do the job."""
        for name in self.metrics:
            if name in metrics:
                return name, Metric(**metrics[name])
        return None


USE_CASES: dict[str, UseCase] = {
    "generation": UseCase(
        metrics=("frechet",), better="lower", guards=("impossible_pairs", "broken_rules"), floors=("exact_copies",)
    ),
    "density": UseCase(
        metrics=("bits_per_dim", "nats_per_row", "bits_per_dim_bound", "nats_per_row_bound"), better="lower"
    ),
    "imputation": UseCase(metrics=("imputation_crps",), better="lower"),
    "anomaly": UseCase(metrics=("anomaly_auroc",), better="higher"),
    "representation": UseCase(metrics=("probe_accuracy",), better="higher"),
}
"""Jobs, which are also the registry's aliases. A bound stands in for an exact density: it can only
understate the family that has it."""

ARROWS: dict[Better, str] = {"lower": "↓", "higher": "↑"}
"""How a direction is written behind the name of a number: what is better."""


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """One number for each job that a family can do, the deciding one, named by job and direction: `generation↓`.

    Arguments:
        metrics: What `evaluate` measured of the family.
    """
    decided = {name: use_case.metric(metrics) for name, use_case in USE_CASES.items()}
    return {name + ARROWS[USE_CASES[name].better]: found[1].value for name, found in decided.items() if found}
