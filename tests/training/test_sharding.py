"""State spread over workers: the same model as on one, half the memory on each of two, the same checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forks import pair
from test_loop import SETTINGS, Data, fresh, joined
from torch import Tensor
from torch.distributed.tensor import DTensor

from models import FAMILIES
from pipelines.training import loop
from pipelines.training.config import DivergencePolicy
from pipelines.training.context import WorkerContext
from pipelines.training.errors import Interrupted
from pipelines.training.fsdp import local_shard
from pipelines.training.state import TrainingState

__all__ = ["pair"]

SHORT = replace(SETTINGS, total_examples=SETTINGS.total_examples // 2, reports=3)
"""Six updates: one of a state that is spread takes a tenth of a second, and they are compared with one worker's."""


def held(progress: TrainingState) -> int:
    """Bytes of everything trained, averaged or kept by an optimizer, that lie on this worker between two updates."""
    moments = [v for o in progress.optimizers for state in o.state.values() for v in state.values() if v.ndim]
    tensors: list[Tensor] = [*progress.model.parameters(), *progress.average.parameters(), *moments]
    return sum(local_shard(tensor).nbytes for tensor in tensors)


def trained(
    family: str, place: WorkerContext, accumulate: int = 1, folder: Path | None = None, stop: int = 0
) -> dict | None:
    """Weights of a training, stopped after so many updates if that is not 0."""
    asked = iter(range(1_000))
    try:
        model = loop.train(
            fresh(family, torch.float64),
            Data(),
            replace(SHORT, accumulate=accumulate),
            seed=3,
            report=lambda _: None,
            context=place,
            folder=folder,
            should_stop=lambda: next(asked) == stop - 1,
        )
    except Interrupted:
        return None
    return model.state_dict() if place.rank == 0 else None


def worker(rank: int, family: str, port: str, out: Path) -> None:
    torch.set_default_dtype(torch.float64)
    apart = joined(rank, 2, port)
    place = replace(apart, shard=True)
    found = {
        "sharded": trained(family, place),
        "in parts": trained(family, place, accumulate=2),
        "stopped": trained(family, place, folder=out / "same", stop=3),
        "resumed": trained(family, place, folder=out / "same"),
        "left": trained(family, place, folder=out / "other", stop=3),
    }
    if rank == 0:
        assert found["stopped"] is found["left"] is None
        torch.save({name: weights for name, weights in found.items() if weights}, out / "weights")
    sizes = {}
    for name, where in (("copied", apart), ("spread", place)):
        progress = TrainingState(fresh(family), SETTINGS, where)
        for objective in progress.objectives:
            for parameter in objective.parameters():
                parameter.grad = torch.zeros_like(parameter)
        for optimizer in progress.optimizers:
            optimizer.step()
        sizes[name] = held(progress)
        assert any(isinstance(p, DTensor) for p in progress.model.parameters()) == (name == "spread")
    (out / f"bytes-{rank}").write_text(json.dumps(sizes))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_spread_over_two_workers_it_is_the_same_training(family, tmp_path, unused_port, pair):
    """In one piece or in parts, resumed spread or on one worker; each worker holds about half."""
    pair(worker, family, unused_port, tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        one = trained(family, WorkerContext())
        found = torch.load(tmp_path / "weights", weights_only=True)
        found["resumed on one"] = trained(family, WorkerContext(), folder=tmp_path / "other")
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(found["resumed"][name], tensor) for name, tensor in found["sharded"].items())
    for weights in found.values():
        for name, tensor in weights.items():
            assert torch.allclose(tensor, one[name], rtol=1e-7, atol=1e-9), name
    for rank in range(2):
        sizes = json.loads((tmp_path / f"bytes-{rank}").read_text())
        assert sizes["spread"] < 0.6 * sizes["copied"]


def diverging(rank: int, port: str, out: Path) -> None:
    """The eighth loss of rank 1 alone is not finite."""
    place = replace(joined(rank, 2, port), shard=True)
    model = fresh("vae")
    kind, count = type(model.objectives()[0]), iter(range(99))
    forward = kind.forward

    def bad(self, batch, noise):
        losses = forward(self, batch, noise)
        return replace(losses, total=losses.total * torch.nan) if next(count) == 7 and rank == 1 else losses

    kind.forward = bad
    policy = DivergencePolicy(rollback=True)
    loop.train(model, Data(), SETTINGS, seed=3, report=lambda _: None, context=place, folder=out, policy=policy)
    torch.distributed.destroy_process_group()


def test_spread_over_two_workers_it_is_rolled_back(tmp_path, unused_port, pair):
    pair(diverging, unused_port, tmp_path)
    assert json.loads((tmp_path / "diverged-0000000007.json").read_text())["step"] == 7
