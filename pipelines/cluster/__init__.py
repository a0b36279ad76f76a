"""The Ray adapter, the only importer of Ray: joining a cluster, workers that train together, trials, jobs."""

from __future__ import annotations

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
