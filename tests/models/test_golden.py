"""Golden losses: ten float64 steps of every family, recorded in golden.json.

A change that moves them is either a mistake or a decision: then run this file as a script to record
them anew, and say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_loop import DOMAIN, Data, fresh

from models import FAMILIES, Streams

GOLDEN = Path(__file__).with_name("golden.json")


def losses(family: str) -> list[float]:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        model, data = fresh(family, torch.float64), Data()
        model.initialize(data.reference(), Streams.seeded("golden"))
        objectives = model.objectives()
        optimizers = [torch.optim.AdamW(o.parameters(), 1e-3) for o in objectives]
        recorded = []
        for step in range(10):
            for objective, optimizer in zip(objectives, optimizers, strict=True):
                optimizer.zero_grad()
                loss = objective(data.batch(step, 0, 1), Streams.seeded(step, ranks=range(8))).total.mean()
                loss.backward()
                optimizer.step()
                recorded.append(loss.item())
        return recorded
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_the_recorded_ones(family):
    assert losses(family) == pytest.approx(json.loads(GOLDEN.read_text())[family], rel=1e-7)


if __name__ == "__main__":
    assert DOMAIN["levels"] == 17
    GOLDEN.write_text(json.dumps({family: losses(family) for family in FAMILIES}, indent=1) + "\n")
