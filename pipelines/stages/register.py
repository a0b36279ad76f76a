"""The stage `register`: finished models become versions of one registered model, jobs become its aliases.

Not in an experiment (`dvc exp run`): nothing is registered until `fivefold promote` is called.

A downstream team asks for the best model for a job, `models:/digits@generation`, not for a family.
An alias moves only when the challenger beats its holder beyond the bootstrap interval, on the same data and by the
same yardstick, and is not worse than the classical baseline; either way the record says why. Two who register at once
do so one after the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_atomically
from pipelines import tracking
from pipelines.registry.package import publish, vendored_code
from pipelines.registry.promotion import Jobs, assign_alias, job_table
from pipelines.serving import artifact
from pipelines.tracking import Version

EXPERIMENT = "DVC_EXP_NAME"
"""Variable in which DVC tells the commands of `dvc exp run`, and no others, the experiment's name."""


def register(
    dataset: str,
    families: Sequence[str],
    *,
    root: str | Path = ".",
    jobs: Jobs | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Register the finished model of every family, and give every job to the best.

    A version knows its job: each family's model is a version that waits to be asked for a task, and what an alias
    points at is a version of the same model that does the alias' job unasked. Running it again registers nothing twice.

    Arguments:
        dataset: Name of the dataset, and of the registered model.
        families: The families to be found in `runs/<dataset>/models` and `results`.
        root: The project's root.
        jobs: By job, the metrics that decide it; by default the table of `evaluate`.
        say: Where each job's decision is printed.
    Returns:
        What is written to `runs/<dataset>/registry.json`: the versions, and by job the alias' holder.
    Raises:
        ValueError: If a model or its results are missing or altered.
        ConnectionError: If MLflow is away; what was registered before stays.
    """
    root = Path(root)
    if experiment := os.environ.get(EXPERIMENT):
        return _unregistered(root, dataset, experiment, say)
    jobs = job_table() if jobs is None else jobs
    found = {family: _finished(root, dataset, family) for family in families}
    _require_one(found, "data_digest")
    _require_one(found, "yardstick_digest")
    tracking.connect()
    tracking.replay(root / "runs" / dataset / "state")
    record: dict[str, Any] = {"model": dataset, "versions": {}, "jobs": {}}
    moved: dict[str, tracking.AliasRecord | None] = {}
    with tracking.changing(dataset, "register", say=say), vendored_code() as package:

        def published(family: str, job: str = "") -> Version:
            facts, results = found[family]
            return publish(root, dataset, family, facts, results, package, job=job)

        registered = {family: published(family) for family in found}
        for family, version in registered.items():
            keys = ("model_digest", "code_digest", "data_digest", "run_id", "git_commit", "git_dirty")
            record["versions"][family] = {"version": version.number} | {key: version.tags.get(key, "") for key in keys}
        for job, metrics in jobs.items():
            record["jobs"][job], moved[job] = assign_alias(dataset, job, metrics, registered, published)
        tracking.write_aliases(dataset, {job: news for job, news in moved.items() if news is not None})
        for decision in record["jobs"].values():
            stays = "stays" if "version" in decision else "stays empty"
            say(f"{decision['alias']} {'moved' if decision['moved'] else stays}: {decision['why']}")
    _write(root, dataset, record)
    return record


def _unregistered(root: Path, dataset: str, experiment: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The record of an experiment: MLflow's registry is neither asked nor changed."""
    record = {"model": dataset, "experiment": experiment, "versions": {}, "jobs": {}}
    _write(root, dataset, record)
    say(f"The experiment {experiment} registers nothing. `fivefold promote {experiment}` does.")
    return record


def _write(root: Path, dataset: str, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(root / "runs" / dataset / "registry.json", text)


def _finished(root: Path, dataset: str, family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and results of a finished model, checked against each other."""
    folder = root / "runs" / dataset / "models" / family
    facts, _ = artifact.read(folder)
    path = root / "runs" / dataset / "results" / f"{family}.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There are no results in {path}. Run `fivefold evaluate --family {family}`."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Run `fivefold evaluate --family {family}` again.") from error
    if results.get("data_digest") != facts.get("data_digest"):
        raise ValueError(
            f"{path} was measured on data {str(results.get('data_digest'))[:12]}, the model in {folder} was trained on "
            f"{str(facts.get('data_digest'))[:12]}. Run `fivefold evaluate --family {family}` again."
        )
    return facts, results


def _require_one(found: Mapping[str, tuple[dict[str, Any], dict[str, Any]]], key: str) -> None:
    """All results must be measured alike, or they cannot be compared."""
    values = {family: str(results.get(key, ""))[:12] for family, (_, results) in found.items()}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{family} {value}" for family, value in values.items())
        raise ValueError(f"The results differ in {key} ({listed}). Run `fivefold evaluate` again for all of them.")
