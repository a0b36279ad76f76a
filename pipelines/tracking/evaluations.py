"""Evaluations on the runs that trained their models: figures as a table, those that decide a job as metrics."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import turns
from pipelines.tracking.outbox import MOST_METRICS
from pipelines.tracking.server import allowed, answered, connect, find_run, get_client, is_absence, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLE = "evaluation/metrics.json"
"""The table of a run's evaluation, as `mlflow.log_table` would write it (which adds rows at each call)."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Tag of a run by which MLflow's pages find its tables."""


@answered
def log_evaluation(run_id: str, results: Mapping[str, Any], pictures: Mapping[str, str | Path] | None = None) -> None:
    """Put a model's results on the run that trained it; said twice, they are there once.

    Of two evaluations of a run at once the later ends what is seen, whole.

    Arguments:
        run_id: The training's run.
        results: What `evaluate` writes. Numbers that decide a job become metrics `evaluate.<name>`, by which runs can
            be sorted; all numbers are one table, `evaluation/metrics.json`, a row each with interval, floor and
            baseline; all of it is the file `evaluation/results.json`.
        pictures: Files by name, kept beside it.
    Raises:
        ConnectionError: If the server is away.
        ValueError: If there is no such run.
    """
    from mlflow.exceptions import MlflowException

    connect()
    try:
        run_id = find_run(run_id).info.run_id
    except MlflowException as error:
        if not is_absence(error):
            raise
        raise ValueError(
            f"MLflow has no run {run_id!r}, in which the {results.get('family')} was trained ({reason(error)}). "
            "Was MLFLOW_TRACKING_URI another one then? Point it there, or train again."
        ) from error
    with turns.taking_turn(run_id, "evaluate"):
        _log_evaluation(get_client(), run_id, results, pictures or {})


def _log_evaluation(
    client: MlflowClient, run_id: str, results: Mapping[str, Any], pictures: Mapping[str, str | Path]
) -> None:
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    there = {metric.key: metric for metric in run.data._metric_objs}
    # MLflow shows the point of the latest time, which another machine's clock may have set ahead of ours
    moment = max(int(1000 * time.time()), *(1 + metric.timestamp for metric in there.values()), 0)
    metrics = [
        Metric(key, value, moment, 0)
        for key, value in evaluation_metrics(results).items()
        if key not in there or there[key].value != value
    ]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
    client.log_dict(run_id, evaluation_table(results), TABLE)
    tables = json.loads(run.data.tags.get(TABLES_TAG) or "[]")
    if (entry := {"path": TABLE, "type": "table"}) not in tables:
        client.set_tag(run_id, TABLES_TAG, json.dumps([*tables, entry]))
    client.log_dict(run_id, dict(results), "evaluation/results.json")
    for name, path in pictures.items():
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / f"{allowed(name)}{Path(path).suffix}"
            copy.write_bytes(Path(path).read_bytes())
            client.log_artifact(run_id, str(copy), "evaluation")


def evaluation_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a results file that decide a job, or guard it, as flat metrics."""
    from pipelines.evaluation.use_cases import USE_CASES

    flat: dict[str, float] = {}
    for use in USE_CASES.values():
        for name in (*use.metrics, *use.guards, *use.floors):
            number = _entry(results.get("metrics", {}).get(name)).get("value")
            if isinstance(number, Real) and not isinstance(number, bool):
                flat[allowed(f"evaluate.{name}")] = float(number)
    return flat


def evaluation_table(results: Mapping[str, Any]) -> dict[str, list]:
    """All numbers of a results file, a row each; MLflow's pages show it as a table, and beside other runs'."""
    columns = ["metric", "value", "low", "high", "floor", "baseline", "unit", "better"]
    rows = [
        [name, *(_entry(entry).get(column) for column in columns[1:])]
        for name, entry in sorted(results.get("metrics", {}).items())
    ]
    rows += [
        [f"seconds.{name}", seconds, None, None, None, None, "s", "lower"]
        for name, seconds in sorted(results.get("seconds", {}).items())
    ]
    return {"columns": columns, "data": rows}


def _entry(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"value": entry}
