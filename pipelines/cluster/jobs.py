"""Ray jobs, under ids derived from the work: whoever asks again finds the same job."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from pipelines.paths import UMASK

ACTIVE = ("PENDING", "RUNNING")
"""States of a job that is not over."""

PATIENCE = 300.0
"""Seconds for which a job server may be unreachable while a job is followed."""

LONGEST_PAUSE = 5.0
"""Seconds between two looks at a job that has been running for some minutes; at the beginning they are one."""

STARTING = 60.0
"""Seconds that a head which has just started may not be ready for jobs."""

STOPPING = 60
"""Seconds that a job which is stopped has for its last checkpoint."""


PASSED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_NO_SIGN_REQUEST", UMASK)
"""Variables that a job gets from who submits it: where its storage is and who may read there, nothing secret."""

QUIET = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
"""Loggers that tell of every upload and every closed connection."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Arguments:
        status: `SUCCEEDED`, `STOPPED`, `FAILED`; `LOST`: the server has not answered for `PATIENCE` seconds; or
            `FORGOTTEN`: it answers and knows of no such job, as a head that was started in the place of a lost one.
        message: What Ray says of it.
        exit_status: Of the job's command, where it came to an end.
    """

    status: str
    message: str
    exit_status: int | None


class JobServer:
    """The job server of a Ray cluster.

    Arguments:
        address: `http(s)://host:8265`, the dashboard's.

    Raises:
        ConnectionError: If it does not answer, wants a token, or runs another Ray or Python.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            self.client = JobSubmissionClient(address)
            reply = self.client._do_request("GET", "/api/v0/cluster_metadata")
            reply.raise_for_status()
        except AuthenticationError as error:
            given = "does not take this token" if os.environ.get("RAY_AUTH_MODE") == "token" else "wants a token"
            raise ConnectionError(
                f"the cluster at {address} {given}: set RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or the"
                " path of a file with it in RAY_AUTH_TOKEN_PATH (`ray get-auth-token` shows it on the head)"
            ) from error
        except (OSError, RuntimeError) as error:
            raise ConnectionError(
                f"no Ray job server answers at {address}: {error}. Start the cluster (`ray up ray_cluster.yaml`) and"
                " the tunnel to it (`ray dashboard ray_cluster.yaml`), or unset RAY_ADDRESS and cluster.address to"
                " work on this machine"
            ) from error
        _compare(reply.json()["data"], address)

    def attempts(self, name: str) -> dict[int, str]:
        """State of every job that was ever submitted for a piece of work, by attempt, from 1."""
        pattern = re.compile(rf"{re.escape(name)}-(\d+)")
        found = ((pattern.fullmatch(job.submission_id or ""), job.status) for job in self.client.list_jobs())
        return {int(match[1]): str(status.value) for match, status in found if match}

    def submit(self, job: str, command: str, code: Path) -> None:
        """Start a job; if another process has just started the same one, that one counts.

        Arguments:
            job: Its id.
            command: A shell command, run in a copy of `code`.
            code: A folder, at most 100 MiB.

        Raises:
            RuntimeError: If the server refuses.
        """
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        environment |= {"RAY_JOB_STOP_WAIT_TIME_S": str(STOPPING), "OMP_WAIT_POLICY": "PASSIVE"}
        sent = {"working_dir": str(code), "env_vars": environment}
        end = time.monotonic() + STARTING
        while True:
            try:
                self.client.submit_job(entrypoint=command, submission_id=job, runtime_env=sent)
                return
            except RuntimeError as error:
                if any(known.submission_id == job for known in self.client.list_jobs()):
                    return
                if "try again later" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1)

    def follow(self, job: str, write: Callable[[str], None], tick: Callable[[], None]) -> Outcome:
        """Wait for a job's end.

        Arguments:
            job: Its id.
            write: Is given what the job says, as it says it, from a thread of its own.
            tick: Called every second, later every `LONGEST_PAUSE`; what it raises ends the waiting, not the job.
        """
        ended = threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._tail(job, write, ended)), name="job log", daemon=True
        )
        thread.start()
        began = answered = time.monotonic()
        try:
            while True:
                tick()
                try:
                    info = self.client.get_job_info(job)
                    answered = time.monotonic()
                except (OSError, RuntimeError, AuthenticationError) as error:
                    if f"{job} does not exist" in str(error):
                        return Outcome("FORGOTTEN", str(error), None)
                    if time.monotonic() - answered > PATIENCE:
                        return Outcome("LOST", str(error), None)
                else:
                    if info.status.value not in ACTIVE:
                        tick()
                        thread.join(timeout=5)
                        return Outcome(info.status.value, info.message or "", info.driver_exit_code)
                time.sleep(min(LONGEST_PAUSE, max(1.0, (time.monotonic() - began) / 60)))
        finally:
            ended.set()

    async def _tail(self, job: str, write: Callable[[str], None], ended: threading.Event) -> None:
        """Pass a job's log on; after a broken connection from where it broke."""
        shown = 0
        while not ended.is_set():
            position = 0
            try:
                async for text in self.client.tail_job_logs(job):
                    if ended.is_set():
                        return
                    if new := text[max(0, shown - position) :]:
                        write(new)
                    position += len(text)
                    shown = max(shown, position)
                return
            except Exception:  # whatever a websocket may raise; the job's state is asked for elsewhere
                await asyncio.sleep(2)


def _compare(there: dict[str, Any], address: str) -> None:
    """Refuse a cluster that could not read what is sent.

    Raises:
        ConnectionError: If Ray differs, or the first two numbers of Python.
    """
    theirs = {"Ray": there["rayVersion"], "Python": ".".join(there["pythonVersion"].split(".")[:2])}
    ours = {"Ray": ray.__version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    different = [f"{name} {theirs[name]} there, {ours[name]} here" for name in ours if ours[name] != theirs[name]]
    if different:
        raise ConnectionError(
            f"the cluster at {address} runs other versions: {'; '.join(different)}. Install requirements.lock on both"
            " sides, with the same Python"
        )
