"""Running a training job from this machine."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from models.domains import domain as build_domain
from pipelines.config.sections import Train
from pipelines.execution.signals import stop_on_sigterm
from pipelines.training.job import STOP, TrainingJob, failure


def run_local(
    job: TrainingJob, settings: Train, address: str = "", *, state: Path | None = None, verbose: bool = False
) -> None:
    """Run a job's workers to the end; the finished model is then in its state folder.

    Arguments:
        job: The training.
        settings: How many workers, and how long they are waited for.
        address: Of the Ray cluster to join; empty for this machine (see `cluster.connected`).
        state: The job's state folder as this process sees it, if that is not `job.state`.
        verbose: Let Ray's own log through.

    Raises:
        ConnectionError: If Ray cannot be reached.
        Exception: What ended the training.
    """
    from pipelines import cluster
    from pipelines.training.worker import run_worker  # seconds of imports that who only submits a job is spared

    state = state or Path(job.state)
    for restarts_left in range(settings.max_failures, -1, -1):
        with cluster.connected(address, verbose=verbose), stop_on_sigterm(state / STOP):  # Ray has a handler of its own
            each = job.training["virtual_ranks"] // job.training["accumulate"]
            try:
                cluster.run_workers(
                    run_worker,
                    dataclasses.asdict(job),
                    workers=cluster.worker_count(settings.workers, each),
                    threads=threads(job.spec["domain"]),
                    storage=f"{job.state}/ray",
                    max_failures=settings.max_failures,
                    timeout=settings.timeout,
                )
                break
            except cluster.LostController as error:
                if not restarts_left or failure(state):
                    raise failure(state) or error from error
            except RuntimeError as error:
                raise failure(state) or error from error
            except SystemExit:  # Ray's own handler of Ctrl-C ends with status 0, as if all were done
                raise KeyboardInterrupt from None
    shutil.rmtree(state / "ray", ignore_errors=True)
    ended_by = failure(state)
    if ended_by is not None:
        raise ended_by


SMALL_EXAMPLE_VALUES = 256
"""Values per example below which one thread is faster than two: the work of a layer is over before it is shared."""


def threads(domain: dict[str, Any]) -> int:
    """Threads of a worker on a CPU: one for small examples, else 0 for all its cores."""
    return 1 if build_domain(domain).dimensions < SMALL_EXAMPLE_VALUES else 0
