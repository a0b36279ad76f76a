"""Progress on the terminal: a bar where there is one, a line of the log now and then where there is not."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.training.job import read_metrics

log = logging.getLogger(__name__)

PLAIN_SECONDS = 10.0
"""Seconds between lines of the log when standard error is not a terminal."""


class ProgressBar:
    """Progress of something counted in examples; a bar from the first on, for one at 0 % says nothing.

    Arguments:
        name: Shown in front.
        total: Examples in all.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.shown = time.monotonic()
        self.examples = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.examples:
            log.info("%s: %s of %s examples", self.name, f"{self.examples:,}", f"{self.total:,}")

    def show(self, examples: int, metrics: Mapping[str, float]) -> None:
        """Show how far it has come, and its losses."""
        losses = {name.split("/")[0]: f"{value:.4g}" for name, value in metrics.items() if name.endswith("/loss")}
        self.examples = examples
        if self.terminal:
            if self.bar is None:
                self.bar = tqdm(total=self.total, initial=examples, desc=self.name, unit="ex", unit_scale=True)
            self.bar.n = examples
            self.bar.set_postfix(losses)
        elif time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            told = ", ".join(f"{name} {value}" for name, value in losses.items())
            log.info("%s: %s of %s examples, %s", self.name, f"{examples:,}", f"{self.total:,}", told)


@contextmanager
def track_progress(state: Path, total: int, name: str, run: Any) -> Iterator[None]:
    """While the block runs, show a progress bar and keep MLflow up to date from what rank 0 records."""
    stop, metrics = threading.Event(), state / "metrics.jsonl"

    def follow() -> None:
        seen, latest = 0, []
        with ProgressBar(name, total) as bar:
            while True:
                ended = stop.wait(0.5)
                changed = metrics.stat().st_mtime_ns if metrics.exists() else 0
                if changed != seen:
                    seen, latest = changed, read_metrics(state)[-1:]
                for point in latest:
                    bar.show(point["examples"], point["metrics"])
                run.follow(metrics)
                if ended:
                    return

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
