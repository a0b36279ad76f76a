"""Joining a Ray cluster, or starting one of this machine's cores; tasks on it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader

log = logging.getLogger(__name__)


@contextmanager
def connected(address: str = "", *, verbose: bool = False) -> Iterator[None]:
    """A Ray cluster: the one at the address, else one of this machine's cores, stopped afterwards.

    Arguments:
        address: Of the head (`host:6379`, `auto`, `ray://host:10001`); `RAY_ADDRESS` goes before it,
            and is what a Ray job finds set.
        verbose: Let Ray's own log through.

    Raises:
        ConnectionError: If an address is given and no cluster answers there.
    """
    address = os.environ.get("RAY_ADDRESS") or address
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2", "1")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    level = logging.INFO if verbose else logging.ERROR
    if not verbose:
        for name in ("ray", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        try:
            if address:
                log.info("joining the Ray cluster at %s …", address)
                knock(address)
            else:
                log.info("starting Ray …")
                _stay_on_loopback()
            ray.init(
                address=address or "local",
                log_to_driver=verbose,
                logging_level=level,
                include_dashboard=None if address else False,
                dashboard_host="127.0.0.1",
                _temp_dir=None if address else stack.enter_context(_private_session(keep=verbose)),
            )
        except (OSError, ValueError) as error:
            if not address:
                raise
            raise ConnectionError(
                f"no Ray cluster answers at {address}: {error}. Start it (`ray up ray_cluster.yaml`),"
                " or unset RAY_ADDRESS and cluster.address to train on this machine"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _private_session(*, keep: bool) -> Iterator[str]:
    """What a local Ray needs that no other user of this machine may have: a folder for its sockets, and a token.

    Loopback is open to everybody on the machine: without the token any of them could submit a job. It lives in this
    process' environment and those of its children, where Ray alone would leave it in a file that all can read.

    Arguments:
        keep: Leave the folder, with Ray's logs, where it is.
    """
    home = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    _remove_abandoned(Path(home))
    folder = tempfile.mkdtemp(prefix=f"{SESSION}{os.getpid()}-", dir=home)  # 0700; sockets' paths must be short
    inner = Path(folder, "r")  # Ray opens the folder it is given to everybody
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not named:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield str(inner)
    finally:
        if not named:
            del os.environ["RAY_AUTH_TOKEN"]
            AuthenticationTokenLoader.instance().reset_cache()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


SESSION = "fivefold-"
"""Beginning of the name of a local Ray's folder; the process' number follows."""

ABANDONED = 24 * 3600
"""Seconds after which the folder of a process that was killed is removed."""


def _remove_abandoned(home: Path) -> None:
    for folder in home.glob(f"{SESSION}[0-9]*-*"):
        with contextlib.suppress(OSError, ValueError):
            found, number = folder.lstat(), int(folder.name.split("-")[1])
            old = found.st_uid == os.geteuid() and time.time() - found.st_mtime > ABANDONED
            if old and stat.S_ISDIR(found.st_mode) and not Path(f"/proc/{number}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def knock(address: str) -> None:
    """Fail at once where Ray would try for minutes: nobody listens at the address.

    Raises:
        OSError: If no connection is made within three seconds.
    """
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    default = {"ray": 10001, "http": 80, "https": 443}.get(parts.scheme, 6379)
    socket.create_connection((parts.hostname or "", parts.port or default), timeout=3).close()


def _stay_on_loopback() -> None:
    """Let no socket of a local Ray listen beyond 127.0.0.1.

    Ray turns "127.0.0.1" into the host's outward address and then listens on every interface; the
    switch it has for Windows and macOS, where that raises firewall prompts, keeps it on loopback.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def in_tasks(function: Callable[[Any], Any], items: Iterable[Any], size: int) -> Iterator[Any]:
    """Apply a function to items in Ray tasks all over the cluster; results in order, few items ahead.

    Arguments:
        function: A pure function of bytes.
        items: Read lazily.
        size: Bytes behind all items; the cluster is asked whatever it is.
    """
    task = ray.remote(num_cpus=1)(function)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending: deque[Any] = deque()
    for item in items:
        pending.append(task.remote(item))
        if len(pending) > ahead:
            yield ray.get(pending.popleft())
    while pending:
        yield ray.get(pending.popleft())
