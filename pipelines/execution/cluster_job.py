"""A stage's work as a job on a cluster that is reached through its job server: submitted, followed, found again."""

from __future__ import annotations

import dataclasses
import json
import logging
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
from data.fetched_shards import shards_at
from data.files import folder_digest
from pipelines import cluster
from pipelines.config import Cluster
from pipelines.storage import stores
from pipelines.storage.mirror import PRIVATE, StateMirror
from pipelines.training.errors import Interrupted
from pipelines.training.job import FAILURE, STOP, TrainingJob, failure

log = logging.getLogger(__name__)

REQUEST = "request.json"
"""What a job is asked to do, in its working directory."""

ENTRY = "python -m pipelines.execution.remote"
"""The command of a job."""

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
        """Where a folder of that content lies in the storage; sent if it is not there yet.

        Raises:
            FileNotFoundError: If it is not there, and its shards are not here either.
        """
        store, name = stores.open_store(self.storage), f"{Path(folder).name}-{digest[:16]}"
        if name not in store.names(name):
            if place := shards_at(Path(folder)):
                raise FileNotFoundError(
                    f"the shards of {folder} were left in {place}, and there is no {name} in {self.storage}. Set"
                    " cluster.storage to where they are, or run `fivefold prepare`"
                )
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
            tick: Called as `JobServer.follow` does, when what has changed there is here.

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
            self.server.submit(job, ENTRY, Path(folder))


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
