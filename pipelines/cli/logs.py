"""The log on standard error: plain on a terminal, above a progress bar; elsewhere with the time, as a file wants it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

ROOMS = ("pipelines", "data", "models")
"""Whose log is shown; libraries keep theirs."""


class LogHandler(logging.Handler):
    """Writes to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, a line."""
        text, stream = self.format(record), sys.stderr
        if not stream.isatty():
            print(
                f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))} {text}", file=stream, flush=True
            )
        elif "tqdm" in sys.modules:  # which knows where the bar is
            sys.modules["tqdm"].tqdm.write(text, file=stream)
        else:
            print(text, file=stream, flush=True)


@contextmanager
def shown_log() -> Iterator[None]:
    """While the block runs, what our code logs is seen."""
    handler, loggers = LogHandler(), [logging.getLogger(room) for room in ROOMS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    set_level(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def set_level(level: int) -> None:
    """How much of the log is seen."""
    for room in ROOMS:
        logging.getLogger(room).setLevel(level)
