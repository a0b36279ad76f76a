"""A training in a process of its own, for a test to kill: prints a line per report and a digest at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_loop import SETTINGS, Data, digest, fresh

from pipelines.training import loop

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = loop.train(
        fresh("vae"),
        Data(),
        SETTINGS,
        seed=3,
        report=lambda report: print(report.examples, flush=True),
        folder=Path(sys.argv[1]),
    )
    print("digest", digest(model), flush=True)
