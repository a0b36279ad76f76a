"""A training as plain data, and the files in its state folder that tell how it stands."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.files import write_atomically
from pipelines.training.errors import Diverged, Interrupted


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; a lock left by a dead process does not count.

    Raises:
        RuntimeError: If another process holds it, naming that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RuntimeError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for it or end it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def clear(state: Path) -> None:
    """Remove what an earlier process was told or left there."""
    for leftover in (FAILURE, STOP):
        (state / leftover).unlink(missing_ok=True)


STOP = "stop"
"""A file of this name in the state folder asks a training to stop after its next update."""

FAILURE = "failure.json"
"""What ended a training that no restart would help; left in the state folder for the driver."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything a worker needs to train, as plain data.

    Arguments:
        spec: For `models.build`.
        training: Fields of `training.config.TrainingConfig`.
        seed: Seed of weights, noise and order.
        prepared: Folder of the prepared dataset.
        yardstick: Folder of the yardstick.
        state: Folder of this training's state.
        checkpoints: Where its checkpoints go, a folder or an `s3://` URL.
        shard: Whether the workers share the model and its state between them.
        policy: Fields of `training.config.DivergencePolicy`.
        identity: What makes this training this one; stands in every checkpoint.
        run_id: Its run in MLflow; likewise.
    """

    spec: dict[str, Any]
    training: dict[str, Any]
    seed: int
    prepared: str
    yardstick: str
    state: str
    checkpoints: str = ""
    shard: bool = False
    policy: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""


def read_metrics(state: Path) -> list[dict[str, Any]]:
    """The recorded points of a training; a last line cut short by a kill is dropped."""
    path = state / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def record_failure(state: Path, error: Exception, rank: int) -> None:
    """Leave an error for the driver, unless there is one already: the first is the cause of the others."""
    failure = {
        "kind": type(error).__name__,
        "message": str(error),
        "rank": rank,
        "expected": isinstance(error, (ValueError, OSError, Diverged, Interrupted))
        or isinstance(error.__cause__, torch.OutOfMemoryError),
        "traceback": "".join(traceback.format_exception(error)),
    }
    if not (state / FAILURE).exists():
        write_atomically(state / FAILURE, json.dumps(failure))


def failure(state: Path) -> Exception | None:
    """The error that ended a training, if one did."""
    if not (state / FAILURE).exists():
        return None
    record = json.loads((state / FAILURE).read_text(encoding="utf-8"))
    kinds = {"Diverged": Diverged, "Interrupted": Interrupted, "RuntimeError": RuntimeError}
    if record["expected"]:
        return kinds.get(record["kind"], ValueError)(record["message"])
    return RuntimeError(
        f"a bug stopped the training, first on rank {record['rank']}; trying again would not help:\n"
        f"{record['traceback']}"
    )
