"""Work on a cluster that is reached through its job server.

On this side, the stage: it keeps the prepared data and the yardstick in the cluster's storage, once, under the hash
of their content; sends the code, and a request, as the job's working directory; and follows the job's state, which
lies in the storage too. On the other side, the job (`python -m pipelines.execution.remote`): it reads the request and
does what the stage would do on this machine. A job's id is the name of its state and the number of the attempt, so
that a stage that lost its machine finds its job again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.files import write_atomically
from pipelines import cluster
from pipelines.config import Params, Train
from pipelines.execution import on_nodes
from pipelines.execution.cluster_job import REQUEST, ClusterJob
from pipelines.execution.local import run_local
from pipelines.execution.search import SearchJob, TrialLog, search_local
from pipelines.paths import private_umask
from pipelines.serving import artifact
from pipelines.storage.mirror import refresh, synced_state
from pipelines.training.errors import Interrupted
from pipelines.training.job import FAILURE, TrainingJob, failure, locked

EVENTS = "events.jsonl"

RESUMABLE = 75
"""Exit status of a job that was asked to stop and can go on."""


def train(job: TrainingJob, settings: Params, address: str, data_digest: str) -> None:
    """Train on the cluster; the finished model, curves and pictures are then in the job's local state folder.

    Raises:
        Exception: What ended the training there, or as `ClusterJob.run`.
    """
    state = Path(job.state)
    remote = ClusterJob(address, settings.cluster, state)
    remote.mirror.pull()
    (state / FAILURE).unlink(missing_ok=True)  # of an earlier attempt
    model = state / "model"
    if not (model / artifact.MANIFEST).exists():
        train = dataclasses.asdict(settings.train)
        remote.run(
            lambda: {"train": train, "job": dataclasses.asdict(remote.with_cluster_paths(job, data_digest))},
            lambda: None,
        )
    if not (model / artifact.MANIFEST).exists():
        raise RuntimeError(f"{remote.name} succeeded on the cluster but left no model in {remote.state}")
    artifact.check(model)


def search(
    make: Callable[[], SearchJob], settings: Params, address: str, data_digest: str, trial_log: TrialLog
) -> None:
    """Search on the cluster; what happens to the trials there goes into the trial log.

    Arguments:
        make: The search for the trials that the log lacks.
        settings: Of the user.
        address: Of the job server.
        data_digest: Of the prepared data.
        trial_log: Of this sweep.

    Raises:
        Exception: What ended the search there, or as `ClusterJob.run`.
    """
    state = trial_log.path.parent
    remote = ClusterJob(address, settings.cluster, state)
    handled = 0

    def tick() -> None:
        nonlocal handled
        log = state / EVENTS
        lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
        for line in lines[handled:]:
            event = json.loads(line)
            getattr(trial_log, event["what"])(*event["said"])
        handled = len(lines)

    def request() -> dict[str, Any]:
        wanted = make()
        return {
            "search": dataclasses.asdict(
                dataclasses.replace(wanted, job=remote.with_cluster_paths(wanted.job, data_digest))
            )
        }

    remote.mirror.pull()
    (state / FAILURE).unlink(missing_ok=True)
    tick()
    if len(trial_log.finished()) < settings.tune.trials:
        remote.run(request, tick)


class TrialEvents:
    """Records what happens to trials on the cluster, for the trial log of the submitting stage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def trial_started(self, trial: str, settings: Mapping[str, float]) -> None:
        self._note("trial_started", trial, dict(settings))

    def trial_result(self, trial: str, examples: int, metrics: Mapping[str, float]) -> None:
        self._note("trial_result", trial, examples, dict(metrics))

    def trial_finished(self, trial: str, settings: Mapping[str, float], score: float | None, error: str | None) -> None:
        self._note("trial_finished", trial, dict(settings), score, error)

    def _note(self, what: str, *said: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "said": said}) + "\n")


def main() -> int:
    """Runs on the cluster: does what the request asks for and leaves any error in the state folder."""
    os.umask(private_umask())
    request = json.loads(Path(REQUEST).read_text(encoding="utf-8"))
    with synced_state(request["state"]) as state, locked(state):
        ended = None
        try:
            if "train" in request:
                run_local(TrainingJob(**request["job"]), Train(**request["train"]), state=state)
            elif "search" in request:
                search_local(SearchJob.read(request["search"]), TrialEvents(state / EVENTS))
            else:
                ((kind, job),) = ((kind, request[kind]) for kind in on_nodes.WORK if kind in request)
                with cluster.connected():
                    on_nodes.run_on_node(kind, job, request["state"], state)
        except (ValueError, OSError, RuntimeError) as error:
            ended = error
        if "train" in request:  # of a search this process has written everything itself, some of it just now
            refresh(request["state"], state)
        ended = failure(state) or ended
        if ended is None:
            return 0
        if not (state / FAILURE).exists():
            record = {"kind": type(ended).__name__, "message": str(ended), "rank": -1, "expected": True}
            write_atomically(state / FAILURE, json.dumps(record))
        print(f"{type(ended).__name__}: {ended}", file=sys.stderr)
        return RESUMABLE if isinstance(ended, Interrupted) else 1


if __name__ == "__main__":
    sys.exit(main())
