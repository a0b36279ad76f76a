"""Which family is best at which job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.evaluation.use_cases import USE_CASES


def best(job: str, results: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, Metric] | None:
    """The family with the best value, the metric's name and the metric; `None` if none can do the job.

    Arguments:
        job: A key of `use_cases.USE_CASES`.
        results: By family, what `evaluate` wrote.
    """
    found = {family: USE_CASES[job].metric(result["metrics"]) for family, result in results.items()}
    able = {family: entry for family, entry in found.items() if entry is not None}
    if not able:
        return None
    sign = 1 if USE_CASES[job].better == "lower" else -1
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
    winners = {job: best(job, results) for job in USE_CASES}

    def row(family: str, kind: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
        jobs = [job for job, winner in winners.items() if kind == "family" and winner and winner[0] == family]
        return {"family": family, "kind": kind, "metrics": dict(metrics), "jobs": jobs}

    families: Sequence[dict[str, Any]] = [row(name, "family", result["metrics"]) for name, result in results.items()]
    return [
        row("real data", "real", reference["floors"]),
        row("classical baseline", "baseline", reference["baseline"]),
        *families,
    ]


def results(dataset: str, families: Sequence[str], *, root: str | Path = ".") -> dict[str, dict[str, Any]]:
    """What `evaluate` wrote of each family.

    Raises:
        FileNotFoundError: If a family has not been evaluated.
    """
    found = {}
    for family in families:
        path = Path(root) / "runs" / dataset / "results" / f"{family}.json"
        if not path.is_file():
            raise FileNotFoundError(f"There is no {path}. Run `fivefold evaluate --family {family}` first.")
        found[family] = json.loads(path.read_text(encoding="utf-8"))
    return found


def leaderboard(dataset: str, families: Sequence[str], *, root: str | Path = ".") -> list[dict[str, Any]]:
    """A row for real data, for the classical baseline and for every family (see `rows`).

    Raises:
        FileNotFoundError: If a family has not been evaluated, or there is no yardstick.
        ValueError: If a file of the yardstick was altered.
    """
    reference = Path(root) / "runs" / dataset / "yardstick"
    return rows(checked_facts(reference)["reference"], results(dataset, families, root=root))
