"""The MLflow side: runs, sweeps, evaluations, and the model registry.

This package and `served_model` are the only importers of MLflow, and they import it when first used.
A run is an outbox: what is said goes to the server when it can be reached, is kept when not, and is
said once, whatever was killed or unreachable in between. What was said already is recognized: a run
by its tag `run_key`, a point by its metric and step, a picture by its name and step, a model version
by its tags `model_digest`, `code_digest`, `job` and `held_out_digest`. What several processes might change at once is
changed in turns (`turns`).
"""

from __future__ import annotations

from pipelines.tracking.alias_records import AliasRecord, alias_records, changing, write_aliases
from pipelines.tracking.downloads import checked_download, download, load_served
from pipelines.tracking.evaluations import evaluation_metrics, log_evaluation
from pipelines.tracking.model_registry import publish
from pipelines.tracking.moving import migrate
from pipelines.tracking.outbox import Outbox, replay
from pipelines.tracking.runs import TrainingRun
from pipelines.tracking.served_files import open_served
from pipelines.tracking.server import DEFAULT_URI, code_version, connect, examine, store_exists, user
from pipelines.tracking.sweeps import Sweep
from pipelines.tracking.versions import (
    MODEL,
    Version,
    aliases,
    find_version,
    model_key,
    model_names,
    run_record,
    versions,
    why_absent,
    with_record,
)

__all__ = [
    "DEFAULT_URI",
    "MODEL",
    "AliasRecord",
    "Outbox",
    "Sweep",
    "TrainingRun",
    "Version",
    "alias_records",
    "aliases",
    "changing",
    "checked_download",
    "code_version",
    "connect",
    "download",
    "evaluation_metrics",
    "examine",
    "find_version",
    "load_served",
    "log_evaluation",
    "migrate",
    "model_key",
    "model_names",
    "open_served",
    "publish",
    "replay",
    "run_record",
    "store_exists",
    "user",
    "versions",
    "why_absent",
    "with_record",
    "write_aliases",
]
