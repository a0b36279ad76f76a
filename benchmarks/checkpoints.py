"""What a checkpoint costs the training: how long it stands still, and how long the writing takes behind it.

    python benchmarks/checkpoints.py [--parameters 50e6] [--interval 60] [--folder DIR or s3://...]

The state is that of a model in training: weights, their average, AdamW's two moments. A loop of matrix
products stands for the training; it is timed alone and with a checkpoint after each interval.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch

from pipelines.storage.stores import open_store
from pipelines.training.checkpoint import AsyncCheckpointWriter, Checkpoint


def state(parameters: int) -> dict[str, torch.Tensor]:
    """Four tensors' worth per parameter, in layers of a million."""
    layers = max(1, round(parameters / 1_048_576))
    kinds = ("model", "average", "mean", "square")
    return {f"{kind}.{n}": torch.randn(1024, 1024) for kind in kinds for n in range(layers)}


def steps(seconds: float, writer: AsyncCheckpointWriter | None = None) -> int:
    """Updates made in that time."""
    a, b, count = torch.randn(256, 256), torch.randn(256, 256), 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if writer:
            writer.check()
        for _ in range(10):
            a = (a @ b).tanh()
        count += 1
    return count


def main() -> None:
    """Print a table of pauses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=50e6)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--folder", default="")
    chosen = parser.parse_args()
    tensors = state(int(chosen.parameters))
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    print(f"{chosen.parameters / 1e6:.0f} million parameters, a state of {size / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory() as temporary:
        storage = open_store(chosen.folder or temporary)
        alone = steps(chosen.interval)
        with AsyncCheckpointWriter(storage) as writer:
            for number in range(chosen.checkpoints):
                started, busy = time.perf_counter(), time.thread_time()
                writer.save(Checkpoint(number, tensors, {}))
                pause, copying = time.perf_counter() - started, time.thread_time() - busy
                made = steps(chosen.interval - pause, writer)
                late = writer._writing is not None
                print(
                    f"checkpoint {number}: training stood still for {pause:.2f} s ({copying:.2f} s of them computing), "
                    f"{pause / chosen.interval:.1%} of the interval; {made} updates, "
                    f"{made / alone:.1%} of {alone} without; "
                    f"{'still writing at' if late else 'written before'} the interval's end"
                )


if __name__ == "__main__":
    main()
