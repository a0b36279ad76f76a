"""A copy of the work tree that tests run in, and processes forked from a warm one.

The work tree itself is never written to. The copy is made equal to it at each start, so a run killed while a change
was in place leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Plugins are among the modules that are loaded before pytest begins.
PYTEST = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans (Linux), so that none outlives a test run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_children() -> None:
    """Ends every process below this one and waits for it."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=10)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def tracked(root: Path) -> list[str]:
    """Files of a work tree, relative to it: those that git knows or does not ignore; without git, all but hidden."""
    command = ["git", "-C", str(root), "ls-files", "-coz", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.split("\0")
        return sorted(name for name in names if name and (root / name).is_file())
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts))


class Workspace:
    """The copy at `state/work` of the work tree at `root`."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root, self.state, self.work = root, state, state / "work"
        self.files = tracked(root)

    def sync(self) -> None:
        """Makes the copy equal to the work tree; files that are equal already keep their times."""
        for name in self.files:
            content, copy = (self.root / name).read_bytes(), self.work / name
            if not copy.is_file() or copy.read_bytes() != content:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
            copy.chmod((self.root / name).stat().st_mode)
        kept = set(self.files)
        for path in list(self.work.rglob("*.py")):
            if str(path.relative_to(self.work)) not in kept:
                path.unlink()

    @contextlib.contextmanager
    def changed(self, path: str, content: bytes) -> Iterator[None]:
        """While inside, the copy of a file has another content and a time that no byte code was made for."""
        place = self.work / path
        original, times = place.read_bytes(), place.stat()
        try:
            place.write_bytes(content)
            os.utime(place, (times.st_atime, times.st_mtime + 86_400 + random.randrange(10**6)))
            yield
        finally:
            place.write_bytes(original)
            os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))

    def run(self, work: Callable[[], dict[str, Any]], limit: float, write_bytecode: bool = False) -> Ended:
        """Calls `work` in a fork of this process, inside the copy, for at most `limit` seconds."""
        answer, log = self.state / "answer.json", self.state / "output.txt"
        answer.unlink(missing_ok=True)
        begun = time.monotonic()
        child = os.fork()
        if not child:
            code = 70
            try:
                self._enter(log, write_bytecode)
                partial = answer.with_suffix(".partial")
                partial.write_text(json.dumps(work()))
                partial.rename(answer)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        timed_out, processor = False, 0.0
        try:
            while True:
                ended, _, used = os.wait4(child, os.WNOHANG)
                if ended:
                    processor = used.ru_utime + used.ru_stime
                    break
                if time.monotonic() - begun > limit:
                    timed_out = True
                    break
                time.sleep(0.02)
        finally:
            kill_children()
        seconds = time.monotonic() - begun
        return Ended(timed_out, json.loads(answer.read_text()) if answer.exists() else None, seconds, processor)

    def _enter(self, log: Path, write_bytecode: bool) -> None:
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(self.work)
        here = {"", str(self.root), os.getcwd()}
        sys.path[:] = [str(self.work), *(place for place in sys.path if place not in here)]
        os.environ["PYTHONPATH"] = str(self.work)
        sys.dont_write_bytecode = not write_bytecode
        if write_bytecode:
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        else:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.argv = ["pytest"]


@dataclass(frozen=True)
class Ended:
    """How a forked call ended: its answer, or None where it was killed or died; wall and processor time, in seconds."""

    timed_out: bool
    answer: dict[str, Any] | None
    seconds: float
    processor: float


def installed() -> list[str]:
    """Modules imported in this process that came with installed packages, in the order of their import."""
    folders = tuple(place for place in sys.path if place.endswith(("site-packages", "dist-packages")))
    return [
        name
        for name, module in list(sys.modules.items())
        if (getattr(module, "__file__", None) or "").startswith(folders)
    ]


def warm_up(names: list[str]) -> None:
    """Imports installed modules, so that forks need not; pytest's own begin afresh."""
    left = {"_pytest", "pytest", "conftest", "mutmut", "libcst"}
    for name in names:
        if name.split(".")[0] not in left and name not in sys.modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()
