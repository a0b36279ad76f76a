"""The Ray adapter, the only importer of Ray: joining a cluster, workers that train together, trials, jobs.

Each name is imported when it is first asked for: who only submits a job has no use for the seconds that Ray's own
libraries for training and tuning take.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.cluster.connection import connected, in_tasks, knock
    from pipelines.cluster.jobs import ACTIVE, JobServer, Outcome
    from pipelines.cluster.pool import Pool, run_on_node
    from pipelines.cluster.trials import TrialRecorder, run_trials
    from pipelines.cluster.workers import LostController, last_line, run_workers, worker_count

__all__ = [
    "ACTIVE",
    "JobServer",
    "LostController",
    "Outcome",
    "Pool",
    "TrialRecorder",
    "connected",
    "in_tasks",
    "knock",
    "last_line",
    "run_on_node",
    "run_trials",
    "run_workers",
    "worker_count",
]

_HOMES = {
    "connection": ("connected", "in_tasks", "knock"),
    "jobs": ("ACTIVE", "JobServer", "Outcome"),
    "pool": ("Pool", "run_on_node"),
    "trials": ("TrialRecorder", "run_trials"),
    "workers": ("LostController", "last_line", "run_workers", "worker_count"),
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, from the module that it is defined in."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
