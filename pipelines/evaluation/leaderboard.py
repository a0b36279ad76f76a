"""Which family is best at which job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.metric import Better, Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a model may be wanted for, and the number that decides who is best at it.

    Arguments:
        metrics: The deciding metric, then what stands in for it where a family lacks it.
        better: Which direction is better.
    """

    metrics: tuple[str, ...]
    better: Better

    def metric(self, metrics: Mapping[str, Any]) -> tuple[str, Metric] | None:
        """The deciding metric of one family's `metrics` and its name; `None` if it cannot do the job."""
        for name in self.metrics:
            if name in metrics:
                return name, Metric(**metrics[name])
        return None


JOBS: dict[str, Job] = {
    "generation": Job(metrics=("frechet",), better="lower"),
    "density": Job(
        metrics=("bits_per_dim", "nats_per_row", "bits_per_dim_bound", "nats_per_row_bound"), better="lower"
    ),
    "imputation": Job(metrics=("imputation_crps",), better="lower"),
    "anomaly": Job(metrics=("anomaly_auroc",), better="higher"),
    "representation": Job(metrics=("probe_accuracy",), better="higher"),
}
"""Jobs, which are also the registry's aliases. A bound stands in for an exact density: it can only
understate the family that has it."""


def best(job: str, results: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, Metric] | None:
    """The family with the best value, the metric's name and the metric; `None` if none can do the job.

    Arguments:
        job: A key of `JOBS`.
        results: By family, what `evaluate` wrote.
    """
    found = {family: JOBS[job].metric(result["metrics"]) for family, result in results.items()}
    able = {family: entry for family, entry in found.items() if entry is not None}
    if not able:
        return None
    sign = 1 if JOBS[job].better == "lower" else -1
    family = min(able, key=lambda name: (sign * able[name][1].value, name))
    return family, *able[family]


def rows(reference: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table row for real data (the floor), for the classical baseline and for every family.

    Each row has `family`, `kind` (`real`, `baseline` or `family`), `metrics` (as `evaluate` writes
    them) and `jobs`, the jobs it is best at among the families.

    Arguments:
        reference: What the yardstick says of floors and baseline.
        results: By family, what `evaluate` wrote.
    """
    winners = {job: best(job, results) for job in JOBS}

    def row(family: str, kind: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
        jobs = [job for job, winner in winners.items() if kind == "family" and winner and winner[0] == family]
        return {"family": family, "kind": kind, "metrics": dict(metrics), "jobs": jobs}

    families: Sequence[dict[str, Any]] = [row(name, "family", result["metrics"]) for name, result in results.items()]
    return [
        row("real data", "real", reference["floors"]),
        row("classical baseline", "baseline", reference["baseline"]),
        *families,
    ]
