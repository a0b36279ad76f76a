"""A training in a process that is there to be killed: tells what it is doing, and keeps a ledger of sample ids."""

from __future__ import annotations

import json
import os
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from test_contract import examples
from test_loop import DOMAIN, digest, fresh, joined

from data.permutation import permuted
from models import Batch
from pipelines.training import checkpoint, loop
from pipelines.training.config import TrainingConfig
from pipelines.training.context import TrainingReport, WorkerContext
from pipelines.training.errors import LostWorker

EXAMPLES, BATCH = 80, 32
SETTINGS = TrainingConfig(
    total_examples=40 * BATCH, batch_size=BATCH, warmup_examples=0, reports=20, checkpoints=10, evaluations=5
)


class Ledger:
    """Batches of a stream of epochs; whatever is asked for is told and written down."""

    def __init__(self, tell: Connection, path: Path) -> None:
        self.data, self.tell, self.path = examples(DOMAIN, EXAMPLES, 3), tell, path

    def ids(self, step: int) -> np.ndarray:
        positions = np.arange(step * BATCH, (step + 1) * BATCH)
        epochs = positions // EXAMPLES
        parts = [permuted(positions[epochs == e] % EXAMPLES, EXAMPLES, "epoch", 3, int(e)) for e in np.unique(epochs)]
        return np.concatenate(parts)

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        ids = self.ids(step)
        mine = torch.from_numpy(ids).chunk(world_size)[rank]
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "rank": rank, "ids": mine.tolist()}) + "\n")
        crosses = (step + 1) * BATCH // EXAMPLES > step * BATCH // EXAMPLES
        self.tell.send(("epoch's end" if crosses else "update", step))
        return Batch(self.data.x[mine], self.data.label[mine])

    def reference(self) -> Batch:
        return self.data


def train(family: str, folder: str, rank: int, world_size: int, port: str, tell: Connection) -> None:
    """Train to the end; the last thing told is the digest of the model."""
    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)  # a fallback to an older checkpoint would be one
    warnings.filterwarnings("ignore", "Grad strides")  # of 1x1 convolutions; slower, no fault
    place = joined(rank, world_size, port) if world_size > 1 else WorkerContext()
    write = checkpoint.write_tensors

    def told(path: Path, tensors: dict) -> str:
        tell.send(("writing", 0))
        return write(path, tensors)

    checkpoint.write_tensors = told

    def report(said: TrainingReport) -> float | None:
        tell.send(("report", said.examples))
        return None if said.model is None else float(int(digest(said.model)[:8], 16))  # as good as random

    root = Path(folder)
    try:
        model = loop.train(
            fresh(family),
            Ledger(tell, root / f"ledger-{rank}.jsonl"),
            SETTINGS,
            seed=3,
            report=report,
            folder=root / "checkpoints",
            context=place,
        )
        if rank == 0:
            tell.send(("done", digest(model)))
    except LostWorker:
        tell.send(("lost", 0))
    os._exit(0)
