"""Training and searching on a cluster that is reached through its job server.

On this side, the stage: it keeps the prepared data and the yardstick in the cluster's storage, once, under the hash
of their content; sends the code, and a request, as the job's working directory; and follows the job's state, which
lies in the storage too. On the other side, the job (`python -m pipelines.execution.remote`): it reads the request and
does what the stage would do on this machine. A job's id is the name of its state and the number of the attempt, so
that a stage that lost its machine finds its job again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

import data
import models
import pipelines
from data.files import canonical, sha256, write_atomically
from pipelines import cluster
from pipelines.config import Cluster, Params, Train
from pipelines.execution.local import run_local
from pipelines.execution.search import SearchJob, TrialLog, search_local
from pipelines.paths import private_umask
from pipelines.serving import artifact
from pipelines.storage import stores
from pipelines.storage.mirror import PRIVATE, StateMirror, refresh, synced_state
from pipelines.training.errors import Interrupted
from pipelines.training.job import FAILURE, STOP, TrainingJob, failure, locked

log = logging.getLogger(__name__)

REQUEST, EVENTS = "request.json", "events.jsonl"

RESUMABLE = 75
"""Exit status of a job that was asked to stop and can go on."""

CODE = (".py", ".html", ".css")
"""Files of the packages that a job is sent."""


class ClusterJob:
    """A stage's work as a job on a cluster, its state mirrored into a local folder.

    Arguments:
        address: Of the job server.
        settings: Where the storage is.
        state: The local folder of the state; it takes over what changes there.

    Raises:
        ValueError: If no storage is set.
        ConnectionError: If the server does not answer or does not fit.
        OSError: If the storage cannot be reached.
    """

    def __init__(self, address: str, settings: Cluster, state: Path) -> None:
        if not settings.storage:
            raise ValueError(
                f"cluster.storage is not set, but jobs are sent to {address}; set it in params.yaml to a folder that"
                " this machine and all nodes of the cluster see, or to s3://bucket/prefix"
            )
        self.server = cluster.JobServer(address)
        self.storage = settings.storage.rstrip("/")
        self.local = state
        self.state = f"{self.storage}/{state.name}"
        self.mirror = StateMirror(self.state, state, (*PRIVATE, STOP))
        self.name = f"fivefold-{state.name}"

    def upload_once(self, folder: str, digest: str) -> str:
        """Where a folder of that content lies in the storage; sent if it is not there yet."""
        store, name = stores.open_store(self.storage), f"{Path(folder).name}-{digest[:16]}"
        if name not in store.names(name):
            log.info("sending %s to %s", folder, store)

            def fill(target: Path) -> None:
                (target / stores.MANIFEST).write_text("{}")  # what has none does not count in a bucket
                for path in Path(folder).iterdir():
                    shutil.copy2(path, target / path.name)

            store.install(name, fill)
        return f"{self.storage}/{name}"

    def with_cluster_paths(self, job: TrainingJob, data_digest: str) -> TrainingJob:
        """A job as the cluster sees it."""
        return dataclasses.replace(
            job,
            prepared=self.upload_once(job.prepared, data_digest),
            yardstick=self.upload_once(job.yardstick, folder_digest(Path(job.yardstick))),
            state=job.state.replace(str(self.local), self.state, 1),
            checkpoints=job.checkpoints.replace(str(self.local), self.state, 1),
        )

    def run(self, request: Callable[[], Mapping[str, Any]], tick: Callable[[], None]) -> None:
        """Run a request as a job to its end, or attach to the job that runs it already.

        Arguments:
            request: Makes the request, asked for only if a job must be submitted.
            tick: Called every second, when what has changed there is here.

        Raises:
            Interrupted: If this process is to end (the job goes on), the job was stopped, or its server is lost.
            Exception: What ended the job.
        """
        attempts = self.server.attempts(self.name)
        number = max(attempts, default=0)
        attached = attempts.get(number) in cluster.ACTIVE
        number += not attached
        job = f"{self.name}-{number}"
        if not attached:
            self._submit(job, request())
        log.info("%s job %s at %s", "attached to" if attached else "submitted", job, self.server.address)
        goes_on = f"job {job} goes on; the same command attaches to it again, `ray job stop {job}` ends it"

        def watch() -> None:
            with suppress(OSError):  # tried again in a second; the last time, below, must succeed
                self.mirror.pull()
            tick()
            if (self.local / STOP).exists():
                raise Interrupted(goes_on)

        try:
            outcome = self.server.follow(job, lambda text: tqdm.write(text, file=sys.stderr, end=""), watch)
        except KeyboardInterrupt:
            log.info(goes_on)
            raise
        self.mirror.pull()
        tick()
        if outcome.status == "FORGOTTEN":  # the new attempt goes on from the newest checkpoint
            log.info("the cluster at %s has a new head, which does not know %s", self.server.address, job)
            self.run(request, tick)
            return
        if outcome.status == "LOST":
            raise Interrupted(f"the job server at {self.server.address} is lost ({outcome.message}); {goes_on}")
        if outcome.status != "SUCCEEDED":
            stopped = Interrupted(f"job {job} was stopped on the cluster")
            failed = RuntimeError(f"job {job} {outcome.status}: {outcome.message.strip()}")
            raise failure(self.local) or (stopped if outcome.status == "STOPPED" else failed)

    def _submit(self, job: str, request: Mapping[str, Any]) -> None:
        for leftover in (FAILURE, STOP):
            self.mirror.remove(leftover)
        with tempfile.TemporaryDirectory(prefix="fivefold-") as folder:
            copy_code(Path(folder))
            (Path(folder) / REQUEST).write_text(json.dumps({**request, "state": self.state}), encoding="utf-8")
            self.server.submit(job, "python -m pipelines.execution.remote", Path(folder))


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


def job_server(settings: Cluster) -> str:
    """Address of the job server that work is sent to; empty where Ray is joined or started instead.

    `RAY_ADDRESS` goes before `cluster.address`; in a Ray job it is the cluster's own and no job server's.
    """
    address = os.environ.get("RAY_ADDRESS") or settings.address
    return address if address.startswith(("http://", "https://")) else ""


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of a folder's files."""
    hashes = {path.name: sha256(path) for path in folder.iterdir()}
    return hashlib.sha256(canonical(hashes)).hexdigest()


def copy_code(target: Path) -> None:
    """The three packages, without what else lies beside them (data, caches)."""
    for package in (models, data, pipelines):
        _copy_package(Path(str(package.__file__)).parent, target / package.__name__)


def _copy_package(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            _copy_package(path, target / path.name)
        elif path.suffix in CODE:
            shutil.copyfile(path, target / path.name)


def main() -> int:
    """Runs on the cluster: does what the request asks for and leaves any error in the state folder."""
    os.umask(private_umask())
    request = json.loads(Path(REQUEST).read_text(encoding="utf-8"))
    with synced_state(request["state"]) as state, locked(state):
        ended = None
        try:
            if "train" in request:
                run_local(TrainingJob(**request["job"]), Train(**request["train"]), state=state)
            else:
                search_local(SearchJob.read(request["search"]), TrialEvents(state / EVENTS))
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
