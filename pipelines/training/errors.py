"""The errors that end a training."""

from __future__ import annotations


class CorruptCheckpoint(ValueError):
    """A checkpoint whose bytes are not those that were written."""


class Interrupted(RuntimeError):
    """Training was asked to stop; its checkpoint is written and the same command goes on."""


class Diverged(RuntimeError):
    """A loss or a gradient is not finite, or leapt; the weights are those before the update."""


class LostWorker(RuntimeError):
    """Another worker is gone or hangs; a restart from the newest checkpoint may help."""
