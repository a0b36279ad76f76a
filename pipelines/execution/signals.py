"""What SIGTERM does to a stage: it asks workers to stop after their update, or ends at once what can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.training.errors import Interrupted


@contextmanager
def stop_on_sigterm(stop: Path) -> Iterator[None]:
    """While the block runs, SIGTERM asks the workers to stop after their update instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.touch())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # none, if it was not Python's


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM ends it at once as what can go on."""

    def end(*_: Any) -> None:
        raise Interrupted("stopped by SIGTERM; what the model has answered is kept")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
