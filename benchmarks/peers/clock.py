"""The budget both sides are given: seconds on the wall, or of the processor where a machine is shared."""

from __future__ import annotations

import time


class Clock:
    """Counts a training's seconds and examples from the first step on.

    Arguments:
        seconds: The budget.
        cpu: Whether to count processor seconds of all threads instead of wall-clock seconds.
    """

    def __init__(self, seconds: float, *, cpu: bool = False) -> None:
        self.seconds = seconds
        self._now = time.process_time if cpu else time.perf_counter
        self.restart()

    def restart(self) -> None:
        """Start again from now."""
        self.started = self._now()
        self.examples, self.spent = 0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self.started

    def add(self, examples: int) -> bool:
        """Count examples; whether the budget is spent."""
        self.stop(self.examples + examples)
        return self.spent >= self.seconds

    def stop(self, examples: int) -> None:
        """So many examples have been seen by now."""
        self.examples, self.spent = examples, self.elapsed
