"""Golden losses: ten float64 steps of every family on images, three on rows, recorded in golden.json.

A change that moves them is either a mistake or a decision: then run this file as a script to record
them anew, and say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_contract import DOMAINS, SMALL, examples
from test_loop import DOMAIN, Data, fresh

from models import FAMILIES, GenerativeModel, Streams, build

GOLDEN = Path(__file__).with_name("golden.json")


def of_rows(family: str) -> GenerativeModel:
    torch.manual_seed(0)
    return build({"family": family, "config": SMALL[family], "domain": DOMAINS["table"], "classes": 3})


def losses(family: str, kind: str) -> list[float]:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        model, data = fresh(family, torch.float64) if kind == "image" else of_rows(family), Data()
        rows = examples(DOMAINS["table"], 32, 3)
        model.initialize(data.reference() if kind == "image" else rows, Streams.seeded("golden"))
        objectives = model.objectives()
        optimizers = [torch.optim.AdamW(o.parameters(), 1e-3) for o in objectives]
        recorded = []
        for step in range(10 if kind == "image" else 3):
            for objective, optimizer in zip(objectives, optimizers, strict=True):
                optimizer.zero_grad()
                batch = data.batch(step, 0, 1) if kind == "image" else rows
                loss = objective(batch, Streams.seeded(step, ranks=range(8))).total.mean()
                loss.backward()
                optimizer.step()
                recorded.append(loss.item())
        return recorded
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_the_recorded_ones(family, kind):
    assert losses(family, kind) == pytest.approx(json.loads(GOLDEN.read_text())[kind][family], rel=1e-7)


if __name__ == "__main__":
    assert DOMAIN["levels"] == 17
    found = {kind: {family: losses(family, kind) for family in FAMILIES} for kind in ("image", "table")}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
