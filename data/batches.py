"""Batches as a pure function of the data, the seed, the step and the rank.

The examples of a split are seen in a stream of epochs: position `p = step * batch_size + i` belongs
to epoch `p // N`, and within an epoch the order is a permutation that depends on `(seed, epoch)`
only. So there is no loader state to save, any step can be sought at once, no batch is ever partial
(one may straddle epochs), and the global batch does not depend on how many workers share it.
"""

from __future__ import annotations

import logging
import resource
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from data.dataset import Examples, Split
from data.permutation import permuted

log = logging.getLogger(__name__)

WINDOW = 1 << 16
CONTROL_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where version 2 and version 1 of control groups state the memory allowed and taken."""


class Batches:
    """The batches of a split.

    Arguments:
        split: What to draw from.
        batch_size: Examples of a global batch; where the split has fewer, a batch holds some more than once.
        seed: Selects the order.
        device: Where batches are wanted.
        memory: `device` keeps the whole split on the device, `mapped` reads each batch from the
            shards, `auto` chooses by the memory that is free.
    Raises:
        ValueError: If the batch size is not positive.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        memory: Literal["auto", "device", "mapped"] = "auto",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.resident = _resident(split, self.device) if memory == "auto" else memory == "device"
        self._examples = split.all().to(self.device) if self.resident else None
        self._window: tuple[int, int, NDArray[np.int64]] = (-1, -1, np.empty(0, np.int64))
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, int, int], Future[Examples]] | None = None

    def epoch(self, step: int) -> int:
        """The epoch that the first example of a step belongs to."""
        return step * self.batch_size // len(self.split)

    def ids(self, step: int) -> NDArray[np.int64]:
        """Positions in the split of a step's global batch, `[batch_size]`."""
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        n, start = len(self.split), step * self.batch_size
        parts, end = [], start + self.batch_size
        while start < end:
            epoch, offset = divmod(start, n)
            part = self._ordered(epoch, offset, min(offset + end - start, n))
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def get(self, step: int, rank: int = 0, world_size: int = 1) -> Examples:
        """A rank's slice of a step's global batch, on the device.

        Arguments:
            step: Which batch, from 0.
            rank: Which worker, from 0 to `world_size` - 1.
            world_size: Number of workers; divides the batch size.
        Raises:
            ValueError: If the workers cannot share the batch evenly.
        """
        self._check(rank, world_size)
        if self._examples is None:
            return self._from_shards(step, rank, world_size)
        mine = torch.from_numpy(self._slice(step, rank, world_size)).to(self.device, non_blocking=True)
        x, label = self._examples.x, self._examples.label
        return Examples(x=x.index_select(0, mine), label=label.index_select(0, mine))

    def _check(self, rank: int, world_size: int) -> None:
        if world_size < 1 or self.batch_size % world_size:
            near = [size for size in range(1, 65) if self.batch_size % size == 0]
            raise ValueError(
                f"{world_size} workers cannot share a batch of {self.batch_size} evenly; "
                f"use one of {near} workers, or another batch_size."
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0 … {world_size - 1}, got {rank}")

    def _slice(self, step: int, rank: int, world_size: int) -> NDArray[np.int64]:
        each = self.batch_size // world_size
        return self.ids(step)[rank * each : (rank + 1) * each]

    def _ordered(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Part of an epoch's order, taken from a window that is computed once for many batches."""
        window = start // WINDOW
        offset = window * WINDOW
        known_epoch, known_window, order = self._window
        if (known_epoch, known_window) != (epoch, window):
            positions = np.arange(offset, min(offset + WINDOW, len(self.split)))
            order = permuted(positions, len(self.split), "epoch", self.seed, epoch)
            self._window = (epoch, window, order)
        return order[start - offset : stop - offset]

    def _from_shards(self, step: int, rank: int, world_size: int) -> Examples:
        """Read a batch from the shards, and the next one in the background."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        key = (step, rank, world_size)
        if self._ahead is not None and self._ahead[0] == key:
            examples = self._ahead[1].result()
        else:
            examples = self._reader.submit(self._read, *key).result()
        following = (step + 1, rank, world_size)
        self._ahead = (following, self._reader.submit(self._read, *following))
        return examples.to(self.device)

    def _read(self, step: int, rank: int, world_size: int) -> Examples:
        examples = self.split.take(self._slice(step, rank, world_size))
        if self.device.type != "cuda":
            return examples
        return Examples(x=examples.x.pin_memory(), label=examples.label.pin_memory())


def _resident(split: Split, device: torch.device) -> bool:
    """Whether a split fits on a device beside what else is there: at most half of the free memory."""
    needed = split.example_bytes * len(split)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    fits = needed <= free // 2
    where = "kept on the device" if fits else "read from its shards"
    log.debug("split %s: %.1f MB of data, %.1f MB free on %s: %s", split.name, needed / 1e6, free / 1e6, device, where)
    return fits


def free_memory() -> int:
    """Bytes of main memory that this process may still take: control groups and its own limit included."""
    free = psutil.virtual_memory().available
    for group, most, used in CONTROL_GROUPS:
        try:
            free = min(free, int((group / most).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):
            continue
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - psutil.Process().memory_info().data)
    return max(0, free)
