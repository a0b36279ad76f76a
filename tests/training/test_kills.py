"""SIGKILL at seeded random instants: whatever was killed whenever, the training ends in the same bits.

Each run is killed `KILLS` times where it then stands, one rank or all of them, and each time started
again; in the end every tensor of its last checkpoint (weights, averages, optimizers), its model and the
ledger of sample ids are those of a run that was left alone.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import socket
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import killed
import pytest
from forks import forks

from models import FAMILIES
from pipelines.storage.stores import open_store
from pipelines.training import checkpoint

KILLS = 6
INSTANTS = ["update", "epoch's end", "writing", "report"]


@pytest.fixture(scope="module")
def trainings() -> multiprocessing.context.ForkServerContext:
    """Processes that have everything imported."""
    return forks("killed", "torch._dynamo")


def run(context, family: str, folder: Path, world_size: int, kill: tuple[str, int, float, bool] | None) -> str:
    """Start a training; kill it at an instant, or let it end and return what it says of its model.

    Arguments:
        kill: What it must be doing, for the how many-th time, how many seconds later, and whether all
            ranks are killed or only the last.
    """
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    pipes = [context.Pipe(duplex=False) for _ in range(world_size)]
    processes = [
        context.Process(target=killed.train, args=(family, str(folder), rank, world_size, port, pipes[rank][1]))
        for rank in range(world_size)
    ]
    for process, (_, sending) in zip(processes, pipes, strict=True):
        process.start()
        sending.close()
    try:
        return follow(processes, [receiving for receiving, _ in pipes], kill)
    finally:
        for process in processes:
            process.join(60)
            assert not process.is_alive()


def follow(processes: list, ends: list[Connection], kill: tuple[str, int, float, bool] | None) -> str:
    ends, first, seen, said = list(ends), ends[0], 0, ""
    while ends:
        ready = wait(ends, 120)
        assert ready, "nothing was heard for two minutes"
        for end in ready:
            try:
                event, detail = end.recv()
            except EOFError:
                ends.remove(end)
                continue
            if event == "done":
                said = detail
            if end is not first or kill is None or event != kill[0]:
                continue
            seen += 1
            if seen == kill[1]:
                time.sleep(kill[2])
                for process in processes if kill[3] else processes[-1:]:
                    os.kill(process.pid, signal.SIGKILL)
    return said


def state(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor of the last checkpoint and of the best model."""
    storage = open_store(folder / "checkpoints")
    newest = checkpoint.load_newest(storage)
    best = checkpoint.load_best(storage, newest.facts["best_step"])
    return {
        f"{kind}.{name}": hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for kind, found in (("state", newest), ("best", best))
        for name, tensor in found.tensors.items()
    }


def ledger(folder: Path, world_size: int) -> dict[int, list[int]]:
    """Sample ids by update; however often an update was made again, they were the same."""
    parts: dict[tuple[int, int], list[int]] = {}
    for rank in range(world_size):
        for line in (folder / f"ledger-{rank}.jsonl").read_text().split("\n")[:-1]:
            entry = json.loads(line)
            assert parts.setdefault((entry["step"], rank), entry["ids"]) == entry["ids"]
    steps = sorted({step for step, _ in parts})
    return {step: [i for rank in range(world_size) for i in parts[step, rank]] for step in steps}


@pytest.mark.parametrize(
    ("family", "world_size"),
    [
        pytest.param(family, world_size, marks=[] if (family, world_size) == ("vae", 1) else pytest.mark.slow)
        for family in FAMILIES
        for world_size in (1, 2)
    ],
)
def test_killed_again_and_again_it_ends_in_the_same_bits(family, world_size, trainings, tmp_path):
    undisturbed = run(trainings, family, tmp_path / "whole", world_size, None)
    assert undisturbed
    chance = random.Random(f"{family} {world_size}")
    killed_at = []
    said = ""
    for number in range(KILLS):
        instant = INSTANTS[number % len(INSTANTS)]
        plan = (instant, chance.randint(1, 2), chance.random() * 0.02, world_size == 1 or chance.random() < 0.5)
        said = run(trainings, family, tmp_path / "killed", world_size, plan)
        killed_at.append(plan)
        assert not said, f"it ended before it could be killed at {plan}, after {killed_at}"
    said = run(trainings, family, tmp_path / "killed", world_size, None)
    assert said == undisturbed
    assert state(tmp_path / "killed") == state(tmp_path / "whole")
    trained = ledger(tmp_path / "killed", world_size)
    assert trained == ledger(tmp_path / "whole", world_size)
    ids = [i for step in range(killed.SETTINGS.total_steps) for i in trained[step]]
    for epoch in range(len(ids) // killed.EXAMPLES):
        assert sorted(ids[epoch * killed.EXAMPLES : (epoch + 1) * killed.EXAMPLES]) == list(range(killed.EXAMPLES))
