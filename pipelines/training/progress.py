"""Progress on the terminal: a bar where there is one, a plain line now and then where there is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.training.job import read_metrics

PLAIN_SECONDS = 10.0
"""Seconds between plain lines when standard error is not a terminal."""


class ProgressBar:
    """Progress of something counted in examples.

    Arguments:
        name: Shown in front.
        total: Examples in all.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=name, unit="ex", unit_scale=True, disable=not self.terminal, leave=True)
        self.shown = time.monotonic()
        self.examples = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if not self.terminal and self.examples:
            print(f"{self.name}: {self.examples:,} of {self.total:,} examples", file=sys.stderr, flush=True)

    def show(self, examples: int, metrics: Mapping[str, float]) -> None:
        """Show how far it has come, and its losses."""
        losses = {name.split("/")[0]: f"{value:.4g}" for name, value in metrics.items() if name.endswith("/loss")}
        self.examples = examples
        if self.terminal:
            self.bar.n = examples
            self.bar.set_postfix(losses)
        elif time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            told = ", ".join(f"{name} {value}" for name, value in losses.items())
            print(f"{self.name}: {examples:,} of {self.total:,} examples, {told}", file=sys.stderr, flush=True)


@contextmanager
def following(state: Path, total: int, name: str, run: Any) -> Iterator[None]:
    """While the block runs: a progress bar, and MLflow kept up to date, from what rank 0 records."""
    stop = threading.Event()

    def follow() -> None:
        with ProgressBar(name, total) as bar:
            while True:
                ended = stop.wait(0.5)
                recorded = read_metrics(state)
                if recorded:
                    bar.show(recorded[-1]["examples"], recorded[-1]["metrics"])
                run.follow(state / "metrics.jsonl")
                if ended:
                    return

    thread = threading.Thread(target=follow, name="following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
