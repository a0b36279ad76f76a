"""Taking turns: of all who want to change the same thing in MLflow, one at a time does, on whatever machines they run.

MLflow has no locks, but a param of a run is written once: the second who writes it is refused, by SQLite and Postgres
alike, directly or through a server. So a run's params `turn.00001`, `turn.00002`, … say who had it when, and
`turn.00001.end` that a turn is over. Who wants one writes the next number's param when the last turn is over. A turn
whose process was killed is ended by the next who wants one: at once if it ran on the same machine, else when its sign
of life has stood still for a minute.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.outbox import experiment_of
from pipelines.tracking.server import allowed, answered, get_client, is_absence, user

if TYPE_CHECKING:
    from mlflow import MlflowClient


LEASE = 60.0
"""Seconds without a sign of life after which a turn on another machine counts as abandoned."""
BEAT = 5.0
"""Seconds between signs of life."""
LEDGER = "turns"
"""Tag of a registered model: the run whose params say whose turn it is."""

_held: list[Turn] = []


class LostTurn(RuntimeError):
    """Another took over, because this process gave no sign of life for too long."""


class Turn:
    """The right to change something until it ends.

    Arguments:
        run_id: The run whose params say whose turn it is.
        number: Of the turn.
        who: What its param says.
    """

    def __init__(self, run_id: str, number: int, who: str) -> None:
        self.run_id, self.number, self.who = run_id, number, who
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._live, daemon=True, name=f"turn {number}")
        self._heart.start()

    def confirm(self) -> None:
        """Make sure it is still ours, as it might not be after a machine's sleep.

        Raises:
            LostTurn: If another took over.
        """
        end = get_client().get_run(self.run_id).data.params.get(_key(self.number) + ".end")
        if end is not None:
            raise LostTurn(
                f"this process gave no sign of life for {LEASE:.0f} s, so its turn was ended ({end}). "
                "Nothing was written since; run the same command again."
            )

    def end(self) -> None:
        """Let the next have it."""
        self._over.set()
        self._heart.join(timeout=BEAT)
        _write_once(get_client(), self.run_id, _key(self.number) + ".end", f"done {_now()}")

    def _live(self) -> None:
        beats = 0
        while not self._over.wait(BEAT):
            beats += 1
            with contextlib.suppress(Exception):  # a server that is away for a moment
                get_client().set_tag(self.run_id, "turn.alive", f"{self.number} {beats}")


def confirm() -> None:
    """Before what cannot be taken back: make sure that a turn that this process began is still its own.

    Raises:
        LostTurn: If another took over.
    """
    for turn in _held:
        turn.confirm()


@contextlib.contextmanager
def taking_turn(run_id: str, what: str, say: Callable[[str], None] = print) -> Iterator[Turn]:
    """Wait until nobody else has it, have it for the time of a block, and end it.

    Arguments:
        run_id: The run whose params say whose turn it is.
        what: What for, as others read it.
        say: Told once, when there is somebody to wait for.
    """
    who = f"{what} by {user()} on {socket.gethostname()} | {_now()} | {_process()} | {uuid.uuid4().hex[:12]}"
    turn = Turn(run_id, _next(run_id, who, say), who)
    _held.append(turn)
    try:
        yield turn
    finally:
        _held.remove(turn)
        with contextlib.suppress(Exception):  # the next who wants one ends it, when this process is over
            turn.end()


@answered
def _next(run_id: str, who: str, say: Callable[[str], None]) -> int:
    """Wait for the turn; returns its number."""
    client, told, sign, since, pause = get_client(), 0, "", time.monotonic(), 0.05
    while True:
        run = client.get_run(run_id)
        params = run.data.params
        number = max((int(found[1]) for key in params if (found := re.fullmatch(r"turn\.(\d+)", key))), default=0)
        if number == 0 or _key(number) + ".end" in params:
            if _write_once(client, run_id, _key(number + 1), who):
                return number + 1
            continue
        holder = params[_key(number)]
        alive = f"{number} {run.data.tags.get('turn.alive', '')}"
        if alive != sign:
            sign, since = alive, time.monotonic()
        if _is_dead(holder) or time.monotonic() - since > LEASE:
            _write_once(client, run_id, _key(number) + ".end", f"abandoned; seen {_now()} by {who}")
            continue
        if told != number:
            told, pause = number, 0.05
            say(f"waiting for {holder.split(' | ')[0]}, since {holder.split(' | ')[1]}")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _key(number: int) -> str:
    return f"turn.{number:05d}"


def _write_once(client: MlflowClient, run_id: str, key: str, value: str) -> bool:
    """Whether the param is ours: written now, or before when only the answer was lost."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_param(run_id, key, value)
    except MlflowException as error:
        found = client.get_run(run_id).data.params.get(key)
        if found is None:
            raise
        if found != value and error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return found == value
    return True


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _process() -> str:
    """What tells this process from every other that there ever was on a machine: boot, namespace, id, start."""
    return " ".join((*_machine(), str(os.getpid()), _start(os.getpid())))


def _machine() -> tuple[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "unknown", "unknown"


def _start(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none (or it is over and not yet collected)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_dead(who: str) -> bool:
    """Whether a turn's process ran on this machine and is over."""
    boot, namespace, pid, *start = who.split(" | ")[2].split()
    return boot != "unknown" and (boot, namespace) == _machine() and [_start(int(pid))] != start


def ledger(name: str, experiment: str) -> str:
    """The run whose params say whose turn it is to change a registered model; made, with the model, where missing.

    Arguments:
        name: Of the registered model.
        experiment: Name of the experiment that the run belongs to, which exists.
    """
    from mlflow.exceptions import MlflowException

    client = get_client()
    try:
        tags: Mapping[str, str] = client.get_registered_model(name).tags
    except MlflowException as error:
        if not is_absence(error):
            raise
        ours = _new_ledger(client, name, experiment)
        try:
            client.create_registered_model(name, tags={LEDGER: ours})  # whoever makes the model has named its run
            return ours
        except MlflowException as error:
            client.delete_run(ours)
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = client.get_registered_model(name).tags
    return tags[LEDGER] if LEDGER in tags else _adopt(client, name, experiment)


def _adopt(client: MlflowClient, name: str, experiment: str) -> str:
    """A ledger for a registered model of before there were any: the run of its first version says which."""
    items = client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"], max_results=1000)
    first = min((item for item in items if item.run_id), key=lambda item: int(item.version), default=None)
    ours = _new_ledger(client, name, experiment)
    key = f"{LEDGER}.{allowed(name)}"
    if first is not None and not _write_once(client, first.run_id, key, ours):
        client.delete_run(ours)
        ours = client.get_run(first.run_id).data.params[key]
    client.set_registered_model_tag(name, LEDGER, ours)
    return ours


def _new_ledger(client: MlflowClient, name: str, experiment: str) -> str:
    tags = {"stage": "register", "mlflow.source.name": "fivefold", "mlflow.user": user()}
    run = client.create_run(experiment_of(client, experiment), tags=tags, run_name=f"changes of {name}")
    client.set_terminated(run.info.run_id)
    return run.info.run_id
