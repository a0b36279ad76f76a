"""The loop: two processes equal one, resumed equals uninterrupted bit for bit, divergence stops before the update."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_contract import DOMAINS, SMALL, examples
from torch import multiprocessing

from models import FAMILIES, Batch, build
from pipelines import loop
from pipelines.loop import Place, Settings

DOMAIN = DOMAINS["grey 8x8, 17 levels"]
BATCH = 32
SETTINGS = Settings(
    total_examples=12 * BATCH, batch_size=BATCH, warmup_examples=0, reports=6, checkpoints=3, evaluations=3
)


class Data:
    """Batches as pure functions of the step, in memory."""

    def __init__(self) -> None:
        self.data = examples(DOMAIN, 96, 3)

    def ids(self, step: int) -> torch.Tensor:
        return torch.randperm(96, generator=torch.Generator().manual_seed(step))[:BATCH]

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        ids = self.ids(step).chunk(world_size)[rank]
        return Batch(self.data.x[ids], self.data.label[ids])

    def reference(self) -> Batch:
        return self.data


def fresh(family: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    return build({"family": family, "config": SMALL[family], "domain": DOMAIN, "classes": 3}).to(dtype)


def digest(model: torch.nn.Module) -> str:
    sums = [hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for t in model.state_dict().values()]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def scores():
    """A score that gets worse: the best model is the first one evaluated."""
    count = iter(range(100))
    return lambda report: None if report.model is None else float(next(count))


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_bits(family):
    torch.set_num_threads(1)
    first, second = (loop.train(fresh(family), Data(), SETTINGS, seed=3, report=lambda _: None) for _ in range(2))
    assert digest(first) == digest(second)
    other = loop.train(fresh(family), Data(), SETTINGS, seed=4, report=lambda _: None)
    assert digest(first) != digest(other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reports", [1, 4])
def test_resumed_equals_uninterrupted_bit_for_bit(family, reports, tmp_path):
    torch.set_num_threads(1)
    whole = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=lambda _: None, folder=tmp_path / "whole")
    seen = []

    def stopping(report: loop.Report) -> None:
        seen.append(report.examples)
        if len(seen) > reports:
            raise Stop

    with pytest.raises(Stop):
        loop.train(fresh(family), Data(), SETTINGS, seed=3, report=stopping, folder=tmp_path / "cut")
    again = []
    resumed = loop.train(
        fresh(family),
        Data(),
        SETTINGS,
        seed=3,
        report=lambda r: again.append(r.examples),
        folder=tmp_path / "cut",
    )
    assert digest(whole) == digest(resumed)
    assert len(again) < 6 or reports == 1  # it went on, it did not start again


@pytest.mark.parametrize("family", FAMILIES)
def test_a_finished_training_is_not_trained_again(family, tmp_path):
    first = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=lambda _: None, folder=tmp_path)
    reports = []
    second = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=reports.append, folder=tmp_path)
    assert not reports
    assert digest(first) == digest(second)


def test_the_best_model_is_kept_also_across_an_interruption(tmp_path):
    models = []

    def scored(report: loop.Report) -> float | None:
        if report.model is None:
            return None
        models.append(digest(report.model))
        return float(len(models))

    best = loop.train(fresh("vae"), Data(), SETTINGS, seed=3, report=scored, folder=tmp_path)
    assert len(models) == 3
    assert digest(best) == models[0]


def worker(rank: int, world_size: int, family: str, port: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": str(world_size)}
    torch.distributed.init_process_group("gloo")
    place = Place(rank, world_size)
    model = loop.train(fresh(family, torch.float64), Data(), SETTINGS, seed=3, report=lambda _: None, place=place)
    if rank == 0:
        torch.save(model.state_dict(), out)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_equal_one(family, tmp_path, unused_port):
    out = tmp_path / "two.pt"
    context = multiprocessing.spawn(worker, (2, family, unused_port, str(out)), nprocs=2, join=False)
    torch.set_default_dtype(torch.float64)
    try:
        one = loop.train(fresh(family, torch.float64), Data(), SETTINGS, seed=3, report=lambda _: None)
    finally:
        torch.set_default_dtype(torch.float32)
    while not context.join():
        pass
    for name, tensor in torch.load(out, weights_only=True).items():
        assert torch.allclose(tensor, one.state_dict()[name], rtol=1e-7, atol=1e-9), name


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_loss_or_gradient_stops_before_the_update(where, tmp_path):
    model = fresh("vae")
    seen = []

    def poisoned(report: loop.Report) -> None:
        seen.append(report.examples)
        if len(seen) == 2:
            weight = model.decoder.head.weight
            if where == "loss":
                weight.data[0] = float("nan")
            else:
                weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(loop.Diverged, match="vae loss or its gradient is not finite after 128 examples"):
        loop.train(model, Data(), SETTINGS, seed=3, report=poisoned, folder=tmp_path)
    if where == "gradient":
        assert all(torch.isfinite(p).all() for p in model.parameters())
    recorded = (tmp_path / "diverged.json").read_text()
    assert str(int(Data().ids(4)[0])) in recorded


def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_bit_for_bit(tmp_path):
    torch.set_num_threads(1)
    settings = replace(SETTINGS, checkpoints=1)  # none is due before the end
    whole = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None)
    asked = iter([False, True])
    with pytest.raises(loop.Interrupted, match="stopped after 128 of 384 examples"):
        loop.train(
            fresh("gan"),
            Data(),
            settings,
            seed=3,
            report=lambda _: None,
            folder=tmp_path,
            stopping=lambda: next(asked),
        )
    resumed = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None, folder=tmp_path)
    assert digest(whole) == digest(resumed)


def test_workers_that_cannot_share_the_batch_are_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"3 workers .* use one of \[1, 2, 4, 8\]"):
        Place(0, 3).virtual_ranks(8)


def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    """SIGKILL in the middle of an update, twice, then to the end; compared with an undisturbed process."""
    script = Path(__file__).with_name("train_vae.py")

    def run(folder: Path, kill_after: int | None) -> str:
        with subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True) as process:
            for count, line in enumerate(process.stdout):
                if line.startswith("digest"):
                    return line
                if count == kill_after:
                    process.kill()
        return ""

    undisturbed = run(tmp_path / "a", None)
    assert run(tmp_path / "b", 1) == run(tmp_path / "b", 2) == ""
    assert run(tmp_path / "b", None) == undisturbed != ""
