"""What work elsewhere says of itself, and how far it is: written there into a file of its state, shown here."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from pipelines.training.job import record_failure
from pipelines.training.progress import PLAIN_SECONDS

log = logging.getLogger(__name__)

ROOMS = ("pipelines", "data", "models")
"""Whose log is passed on."""


class Listener(Protocol):
    """Who is told how far an evaluation is."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def said(self, level: int, text: str) -> None: ...


class Shown:
    """Progress on the terminal: a bar for what a model is asked where there is one, a line now and then where not."""

    def __init__(self, name: str) -> None:
        self.name, self.shown = name, time.monotonic()
        self.bar: tqdm | None = None
        self.terminal = sys.stderr.isatty()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how many rows of those asked about have been answered."""
        if self.terminal:
            if self.bar is None or self.bar.desc != f"{self.name} {what}: ":
                self.close()
                self.bar = tqdm(total=total, desc=f"{self.name} {what}", unit="row", unit_scale=True, leave=False)
            self.bar.n = done
            self.bar.refresh()
            if done >= total:
                self.close()
        elif time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            log.info("%s: %s of %s rows of %s", self.name, f"{done:,}", f"{total:,}", what)

    def said(self, level: int, text: str) -> None:
        """What was logged where the work is."""
        log.log(level, "%s", text)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Events(logging.Handler):
    """Writes what a listener is to be told into a file that comes back to the terminal."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path

    def progress(self, what: str, done: int, total: int) -> None:
        """As of a listener."""
        self._note("progress", what, done, total)

    def emit(self, record: logging.LogRecord) -> None:
        """As of a handler of the log."""
        self._note("said", record.levelno, record.getMessage())

    def said(self, level: int, text: str) -> None:
        """As of a listener."""
        self._note("said", level, text)

    def _note(self, what: str, *said: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "said": said}) + "\n")


class EventReader:
    """Tells a listener what has been added to a file of events.

    Arguments:
        path: The file; what is in it now is no news.
        listener: Is told.
    """

    def __init__(self, path: Path, listener: Listener) -> None:
        self.path, self.listener = path, listener
        self.handled = len(self._lines())

    def __call__(self) -> None:
        """Tell what is new."""
        lines = self._lines()
        for line in lines[self.handled :]:
            event = json.loads(line)
            getattr(self.listener, event["what"])(*event["said"])
        self.handled = max(self.handled, len(lines))

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []


@contextmanager
def followed(path: Path, listener: Listener) -> Iterator[None]:
    """While the block runs, a listener is told what is added to a file of events."""
    over, reader = threading.Event(), EventReader(path, listener)

    def follow() -> None:
        while not over.wait(0.5):
            reader()
        reader()

    thread = threading.Thread(target=follow, name="events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def recorded(state: Path, name: str) -> Iterator[Events]:
    """While the block runs, its log goes into a file of the state; an error is left there, too, and ends the block."""
    events = Events(state / name)
    for room in ROOMS:
        logging.getLogger(room).addHandler(events)
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        yield events
    except Exception as error:
        record_failure(state, error, 0)
    finally:
        for room in ROOMS:
            logging.getLogger(room).removeHandler(events)
