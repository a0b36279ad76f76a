"""The loop: two processes equal one, resumed equals uninterrupted bit for bit, divergence stops before the update."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from forks import pair
from test_contract import DOMAINS, SMALL, examples

from models import FAMILIES, Batch, GenerativeModel, Losses, Objective, Streams, build
from models.domains import domain
from models.domains.grid import Image
from pipelines.storage.stores import open_store
from pipelines.training import checkpoint, loop
from pipelines.training.checkpoint_manager import CheckpointManager
from pipelines.training.config import Augment, DivergencePolicy, TrainingConfig
from pipelines.training.context import TrainingReport, WorkerContext
from pipelines.training.divergence import SPIKE_WARMUP_UPDATES, DivergenceGuard
from pipelines.training.errors import Diverged, Interrupted, LostWorker
from pipelines.training.state import TrainingState

__all__ = ["pair"]

DOMAIN = DOMAINS["grey 8x8, 17 levels"]
BATCH = 32
SETTINGS = TrainingConfig(
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


JUMPS = "diffusion with jumps"
"""A second objective, which begins half way through the training."""


def fresh(family: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    name = family.split()[0]
    config = SMALL[name] | ({"jumps": 0.5} if family == JUMPS else {})
    return build({"family": name, "config": config, "domain": DOMAIN, "classes": 3}).to(dtype)


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


@pytest.mark.parametrize("family", [*FAMILIES, JUMPS])
@pytest.mark.parametrize("reports", [1, 4])
def test_resumed_equals_uninterrupted_bit_for_bit(family, reports, tmp_path):
    torch.set_num_threads(1)
    whole = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=lambda _: None, folder=tmp_path / "whole")
    seen = []

    def stopping(report: TrainingReport) -> None:
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


@pytest.mark.parametrize("how", [{"reports": 1}, {"reports": 5}, {"reports": 24, "checkpoints": 24}])
def test_how_often_it_reports_and_saves_leaves_the_best_model_as_it_is(how, tmp_path):
    settings = replace(SETTINGS, total_examples=24 * BATCH, reports=100, evaluations=5)
    evaluated = {}

    def kept(settings: TrainingConfig) -> str:
        seen = evaluated[settings] = []

        def score(report: TrainingReport) -> float | None:
            if report.model is None:
                return None
            seen.append(report.examples // BATCH)
            return abs(len(seen) - 2.0)  # the second is the best

        return digest(
            loop.train(fresh("vae"), Data(), settings, seed=3, report=score, folder=tmp_path / str(len(evaluated)))
        )

    assert kept(settings) == kept(replace(settings, **how))
    assert [*evaluated.values()] == [[5, 10, 15, 20, 24]] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_finished_training_is_not_trained_again(family, tmp_path):
    first = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=lambda _: None, folder=tmp_path)
    reports = []
    second = loop.train(fresh(family), Data(), SETTINGS, seed=3, report=reports.append, folder=tmp_path)
    assert not reports
    assert digest(first) == digest(second)


def test_the_best_model_is_kept_also_across_an_interruption(tmp_path):
    models = []

    def scored(report: TrainingReport) -> float | None:
        if report.model is None:
            return None
        models.append(digest(report.model))
        return float(len(models))

    best = loop.train(fresh("vae"), Data(), SETTINGS, seed=3, report=scored, folder=tmp_path)
    assert len(models) == 3
    assert digest(best) == models[0]


def joined(rank: int, world_size: int, port: str, seconds: float = 60) -> WorkerContext:
    """A gloo group of processes on loopback."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": str(world_size)}
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))
    return WorkerContext(rank, world_size)


def worker(rank: int, world_size: int, family: str, port: str, out: str) -> None:
    torch.set_default_dtype(torch.float64)
    place = joined(rank, world_size, port)
    for accumulate in (1, 4):
        settings, said = replace(SETTINGS, accumulate=accumulate), []
        model = loop.train(fresh(family, torch.float64), Data(), settings, seed=3, report=keeping(said), context=place)
        if rank == 0:
            torch.save(model.state_dict(), f"{out}{accumulate}")
            Path(f"{out}{accumulate}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


def keeping(said: list[dict[str, float]]):
    """A report that keeps the numbers, all but the speed."""

    def report(report: TrainingReport) -> None:
        said.append({k: v for k, v in report.metrics.items() if k != "examples_per_second"})

    return report


@pytest.mark.parametrize("family", [*FAMILIES, JUMPS])
def test_two_processes_and_smaller_parts_equal_one(family, tmp_path, unused_port, pair):
    """Data-parallel workers, gradient accumulation, and both at once: the same updates, and the same said of them."""
    out = tmp_path / "two"
    context = pair(worker, 2, family, unused_port, str(out), join=False)
    torch.set_default_dtype(torch.float64)
    said: dict[int, list[dict[str, float]]] = {1: [], 8: []}
    try:
        one, parts = (
            loop.train(
                fresh(family, torch.float64), Data(), replace(SETTINGS, accumulate=n), seed=3, report=keeping(said[n])
            )
            for n in (1, 8)
        )
    finally:
        torch.set_default_dtype(torch.float32)
    while not context.join():
        pass
    expected = one.state_dict()
    others = [parts.state_dict(), *(torch.load(f"{out}{n}", weights_only=True) for n in (1, 4))]
    for name, tensor in ((name, tensor) for other in others for name, tensor in other.items()):
        assert torch.allclose(tensor, expected[name], rtol=1e-7, atol=1e-9), name
    assert len(said[1]) == SETTINGS.reports
    for other in (said[8], *(json.loads(Path(f"{out}{n}.json").read_text()) for n in (1, 4))):
        for mine, theirs in zip(said[1], other, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4)


class Slope(GenerativeModel):
    """One weight, whose loss is the weight times the mean of `x`: AdamW moves it by the learning rate each time."""

    def __init__(self) -> None:
        super().__init__(domain(DOMAIN), 0)
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.fitted = 0

    def objectives(self) -> tuple[Objective, ...]:
        return (Descent(self),)

    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.fitted = len(batch)


class Descent(Objective):
    def __init__(self, model: Slope) -> None:
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        self.seen.append(batch.seen)
        self.model.updates += 1
        total = self.model.weight * batch.x[:, 0]
        return Losses(total, {"x": batch.x[:, 0]})


class Slopes:
    """Batches of 8 whose gradient is `slope(step)`; half of each is twice as steep, the other half is flat."""

    def __init__(self, slope=lambda step: 1.0) -> None:
        self.slope = slope

    def ids(self, step: int) -> range:
        return range(8 * step, 8 * step + 8)

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        x = torch.tensor([2.0, 0.0] * 4, dtype=torch.float64) * self.slope(step)
        return Batch(x[:, None].chunk(world_size)[rank])

    def reference(self) -> Batch:
        return Batch(torch.zeros(5, 1, dtype=torch.float64))


FIVE = TrainingConfig(
    total_examples=40,
    batch_size=8,
    lr=0.1,
    schedule="constant",
    warmup_examples=0,
    weight_decay=0.0,
    ema_half_life=16,
    ema_ramp=0.5,
    reports=5,
    checkpoints=5,
    evaluations=5,
)
"""Five updates."""


class Player(Objective):
    """Notes the noise that it is given."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.drawn = name, []
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        self.drawn.append(tuple(generator.normal(len(batch)).tolist()))
        return Losses(self.weight * batch.x[:, 0], {})


class Players(Slope):
    def __init__(self) -> None:
        super().__init__()
        self.players = torch.nn.ModuleList([Player("one"), Player("other")])

    def objectives(self) -> tuple[Objective, ...]:
        return tuple(self.players)


def test_each_objective_has_noise_of_its_own_in_each_step_and_by_the_seed() -> None:
    def drawn(seed: int) -> list[list[tuple[float, ...]]]:
        model = Players()
        loop.train(model, Slopes(), FIVE, seed=seed, report=lambda report: None)
        return [player.drawn for player in model.players]

    one, again, other = drawn(0), drawn(0), drawn(1)
    assert one == again
    every = [noise for players in (one, other) for player in players for noise in player]
    assert len(every) == len(set(every)) >= 20


class Pictures:
    """Batches of 16 pictures of 20 columns, numbered from the left."""

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        return Batch(self.reference().x[: 16 // world_size])

    def reference(self) -> Batch:
        return Batch(torch.arange(20, dtype=torch.uint8).reshape(1, 1, 20, 1).expand(16, 5, 20, 1))


class Watcher(Slope):
    """Notes the pictures that it is given, by update."""

    def __init__(self) -> None:
        super().__init__()
        self.domain, self.given = Image(channels=1, height=5, width=20), {}

    def objectives(self) -> tuple[Objective, ...]:
        return (Watching(self),)

    def initialize(self, batch: Batch, generator: Streams) -> None:
        self.fitted_to = [batch.x]

    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.fitted_to.append(batch.x)


class Watching(Descent):
    name = "watching"

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        self.model.given.setdefault(batch.seen // 16, []).append(batch.x[:, 2, :, 0].clone())
        return Losses(self.model.weight * torch.ones(len(batch), dtype=torch.float64))


def test_pictures_are_mirrored_throughout_and_moved_less_and_less() -> None:
    def given(accumulate: int = 1, **augment) -> torch.Tensor:
        model, settings = Watcher(), replace(FIVE, total_examples=640, batch_size=16, accumulate=accumulate)
        settings = replace(settings, reports=1, evaluations=1, augment=Augment(**augment))
        loop.train(model, Pictures(), settings, seed=0, report=lambda report: None)
        return torch.stack([torch.cat(model.given[step]) for step in range(40)])

    plain, left_to_right = given(), torch.arange(20, dtype=torch.uint8)
    assert (plain == left_to_right).all()
    mirrored = given(flip=True)
    share = (mirrored == left_to_right.flip(0)).all(-1).double()
    assert ((mirrored == left_to_right).all(-1) | (share == 1)).all()
    assert all(abs(half.mean() - 0.5) < 0.11 for half in share.chunk(2))  # four deviations
    moved = given(shift=0.4)  # two of five pixels
    reach = (moved[..., 10].int() - 10).abs().amax(1)
    assert [sorted(set(part.tolist())) for part in (reach[:7], reach[8:22], reach[23:])] == [[2], [1], [0]]
    assert (moved[30:] == left_to_right).all()
    assert torch.equal(given(accumulate=2, flip=True, shift=0.4), given(flip=True, shift=0.4))
    for augment, expected in (({"shift": 0.4}, {0}), ({"flip": True, "shift": 0.4}, {0, 19})):
        settings = replace(FIVE, batch_size=16, augment=Augment(**augment))
        fitted_to = loop.train(Watcher(), Pictures(), settings, seed=0, report=lambda report: None).fitted_to
        assert [set(x[:, 2, 0, 0].tolist()) for x in fitted_to] == 2 * [expected]  # what stands at the left
    rows = Watcher()
    rows.domain = domain(next(spec for spec in DOMAINS.values() if spec["kind"] == "table"))
    with pytest.raises(ValueError, match=r"training\.augment: a table cannot be mirrored or moved, images can"):
        loop.train(rows, Slopes(), replace(FIVE, augment=Augment(flip=True)), seed=0, report=lambda report: None)


def descended(settings: TrainingConfig, slope=lambda step: 1.0, **options) -> tuple[Slope, list[TrainingReport]]:
    """The model that training returns, and what was reported."""
    reports: list[TrainingReport] = []
    score = options.pop("score", lambda report: None)
    model = loop.train(
        Slope(), Slopes(slope), settings, seed=0, report=lambda r: (reports.append(r), score(r))[1], **options
    )
    return model, reports


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, [0.1] * 5),
        ({"warmup_examples": 16}, [0.05, 0.1, 0.1, 0.1, 0.1]),
        ({"warmup_examples": 80}, [0.01, 0.02, 0.03, 0.04, 0.05]),
        # half a period of the cosine: (1 + cos 36°) / 2 = 0.9045085, and so on, with a period of 360°/10
        ({"schedule": "cosine"}, [0.1, 0.09045085, 0.06545085, 0.03454915, 0.00954915]),
        ({"schedule": "cosine", "warmup_examples": 16}, [0.05, 0.09045085, 0.06545085, 0.03454915, 0.00954915]),
    ],
)
@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_each_update_moves_by_the_rate_of_its_schedule(changes, rates, speed, monkeypatch):
    """The sign of the gradient is constant, so AdamW's steps are the rates themselves, by hand; times the objective's
    speed."""
    monkeypatch.setattr(Descent, "speed", speed)
    model, reports = descended(replace(FIVE, ema_half_life=0, **changes))
    moved = [-float(report.model.weight) / speed for report in reports]  # without averaging
    assert moved == pytest.approx([sum(rates[: n + 1]) for n in range(5)], abs=1e-7)
    assert [report.metrics["lr"] for report in reports] == pytest.approx(rates, abs=1e-7)
    assert float(model.weight) == pytest.approx(-speed * sum(rates), abs=1e-7)


def test_what_is_evaluated_and_kept_is_the_average(tmp_path):
    """Half-lives of half the examples seen, at most 16: 4, 8, 12, 16, 16; decays 1/4, 1/2, 2^(-2/3), 2^(-1/2) twice."""
    averages, average = [], 0.0
    for update, decay in enumerate((1 / 4, 1 / 2, 2 ** (-2 / 3), 2**-0.5, 2**-0.5)):
        average = decay * average + (1 - decay) * -0.1 * (update + 1)
        averages.append(average)
    last, reports = descended(FIVE)
    assert [float(report.model.weight) for report in reports] == pytest.approx(averages, abs=1e-7)
    assert [(int(r.model.updates), r.model.fitted) for r in reports] == [(n + 1, 5) for n in range(5)]
    assert float(last.weight) == pytest.approx(averages[-1], abs=1e-7)
    scored = iter([3.0, 1.0, 2.0, 1.0, 4.0])
    best, _ = descended(FIVE, folder=tmp_path, score=lambda _: next(scored))
    assert float(best.weight) == pytest.approx(averages[1], abs=1e-7)
    again, none = descended(FIVE, folder=tmp_path)
    assert (float(again.weight), none) == (float(best.weight), [])


def test_after_the_best_model_is_lost_the_best_from_there_on_is_kept(tmp_path):
    def scored(values):
        left = iter(values)

        def score(report: TrainingReport) -> float:
            value = next(left)
            if value is None:
                raise Stop
            return value

        return score

    with pytest.raises(Stop):
        descended(FIVE, folder=tmp_path, score=scored([1.0, 5.0, None]))
    (best,) = tmp_path.glob("best-*")
    (best / checkpoint.TENSORS).write_bytes(b"")
    (tmp_path / ".step-0000000009.tmp").mkdir()  # what a killed process leaves
    with pytest.warns(UserWarning, match="is damaged"):
        kept, reports = descended(FIVE, folder=tmp_path, score=scored([3.0, 2.0, 4.0]))
    assert float(kept.weight) == pytest.approx(-0.2569038, abs=1e-6)  # the average after four updates, as above
    assert len(reports) == 3
    assert not (tmp_path / ".step-0000000009.tmp").exists()


def test_reports_are_means_since_the_last_one():
    _, reports = descended(
        replace(FIVE, total_examples=48, reports=3, evaluations=3, ema_half_life=0), slope=lambda step: step + 1
    )
    assert [report.examples for report in reports] == [16, 32, 48]
    assert [report.metrics["loss/x"] for report in reports] == pytest.approx([1.5, 3.5, 5.5])
    assert [report.metrics["loss/gradient_norm"] for report in reports] == pytest.approx([1.5, 3.5, 5.5])
    assert reports[0].metrics["loss/loss"] == pytest.approx(-0.1 * 2 / 2, rel=1e-6)  # 0 at first, then 2 × -0.1


def test_long_gradients_are_shortened_and_others_left_alone():
    """Shortened to 1, gradients of 1, 50 and 1000 are a constant one; with no or a higher limit they are not."""
    steep = {0: 1.0, 1: 50.0}
    short, _ = descended(replace(FIVE, ema_half_life=0, grad_clip=1.0), slope=lambda step: steep.get(step, 1000.0))
    assert float(short.weight) == pytest.approx(-0.5, abs=1e-6)
    free, _ = descended(replace(FIVE, ema_half_life=0, grad_clip=0.0), slope=lambda step: steep.get(step, 1000.0))
    high, _ = descended(replace(FIVE, ema_half_life=0, grad_clip=1e6), slope=lambda step: steep.get(step, 1000.0))
    assert float(free.weight) == float(high.weight) != pytest.approx(-0.5, abs=1e-2)


def test_weights_decay_by_the_rate_times_the_decay():
    """Decoupled: w ← (1 - 0.1·0.5) w - 0.1, by hand."""
    weight = 0.0
    for _ in range(5):
        weight = 0.95 * weight - 0.1
    model, _ = descended(replace(FIVE, ema_half_life=0, weight_decay=0.5))
    assert float(model.weight) == pytest.approx(weight, abs=1e-6)


def test_the_moments_of_the_gradient_decay_as_set():
    """Gradients 1, then 3: with β₁ = .5, β₂ = .75 the second step is .1·(7/3)/√(39/7), by hand."""
    model, _ = descended(
        replace(FIVE, total_examples=16, beta1=0.5, beta2=0.75, ema_half_life=0, grad_clip=0.0),
        slope=lambda step: 1.0 + 2 * step,
    )
    assert float(model.weight) == pytest.approx(-0.1 - 0.1 * (7 / 3) / (39 / 7) ** 0.5, abs=1e-6)


def test_a_training_that_diverges_before_its_first_checkpoint_goes_back_to_the_start(tmp_path):
    settings = replace(FIVE, checkpoints=1, evaluations=1, ema_half_life=0)
    worst = {1: float("nan")}
    model, reports = descended(
        settings, lambda step: worst.get(step, 1.0), folder=tmp_path, policy=DivergencePolicy(rollback=True, most=1)
    )
    assert [report.examples for report in reports] == [8, 8, 16, 24, 32, 40]
    assert float(model.weight) == pytest.approx(-0.5, abs=1e-7)


def test_a_leap_is_seen_also_right_after_an_interruption(tmp_path):
    """What the loss was before is part of the state: killed after 60 updates, it leaps at the 63rd."""
    settings = replace(FIVE, total_examples=8 * 80, reports=8, checkpoints=8, evaluations=1)

    def slope(step: int) -> float:
        return -1e3 if step == 62 else 1 + 0.01 * (step % 5)

    def killed(report: TrainingReport) -> None:
        if report.examples == 8 * 60:
            raise Stop

    told = []
    for folder, scores in (("whole", [None]), ("cut", [killed, None])):
        run = {"folder": tmp_path / folder, "policy": DivergencePolicy(spike=8)}
        for score in scores:
            with pytest.raises((Diverged, Stop)) as caught:
                descended(settings, slope, **run, **({"score": score} if score else {}))
        told.append(str(caught.value).replace(str(tmp_path / folder), ""))
    assert "leapt" in told[0]
    assert "after 496 examples" in told[0]
    assert told[1] == told[0]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_loss_or_gradient_stops_before_the_update(where, tmp_path):
    model = fresh("vae")
    seen = []

    def poisoned(report: TrainingReport) -> None:
        seen.append(report.examples)
        if len(seen) == 2:
            weight = model.decoder.head.weight
            if where == "loss":
                weight.data[0] = float("nan")
            else:
                weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(Diverged, match=r"vae loss or its gradient is not finite .* after 128 examples"):
        loop.train(model, Data(), SETTINGS, seed=3, report=poisoned, folder=tmp_path)
    if where == "gradient":
        assert all(torch.isfinite(p).all() for p in model.parameters())
    recorded = (tmp_path / "diverged.json").read_text()
    assert str(int(Data().ids(4)[0])) in recorded


class Poisoned(Data):
    """Batches after some of which the gradients are not finite."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers, self.now, self.used = numbers, -1, []

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        self.now = step
        self.used.append(step)
        return super().batch(step, rank, world_size)

    def model(self, *, rank: int = 0) -> torch.nn.Module:
        model = fresh("vae")
        if rank == 0:
            worst = float("inf")
            model.decoder.head.weight.register_hook(lambda g: g * worst if self.now in self.numbers else g)
        return model


def test_a_rollback_passes_over_the_batches_since_the_checkpoint_bit_for_bit(tmp_path):
    """Update 6 of 12 diverges, once more later; killed at any report in between, it ends in the same bits."""
    torch.set_num_threads(1)
    policy = DivergencePolicy(rollback=True)

    def train(folder: Path, kill_after: int = 99) -> str:
        source, seen = Poisoned(6, 11), []

        def report(said: TrainingReport) -> None:
            seen.append(said.examples)
            if len(seen) > kill_after:
                raise Stop

        try:
            model = loop.train(
                source.model(), source, SETTINGS, seed=3, report=report, folder=tmp_path / folder, policy=policy
            )
        except Stop:
            return ""
        return digest(model)

    begun: list[int] = []
    source = Poisoned(6, 11)
    whole = loop.train(
        source.model(),
        source,
        SETTINGS,
        seed=3,
        report=lambda _: None,
        folder=tmp_path / "whole",
        policy=policy,
        on_start=begun.append,
    )
    assert all(torch.isfinite(tensor).all() for tensor in whole.state_dict().values())
    assert begun == [0, 4 * BATCH, 8 * BATCH]
    assert source.used == [*range(7), *range(7, 12), *range(12, 16)]  # 4, 5 and 6 were passed over, later 11
    record = json.loads((tmp_path / "whole" / "diverged-0000000006.json").read_text())
    assert record["ids"] == {str(n): Data().ids(n).tolist() for n in (4, 5, 6)}
    for kill_after in (2, 3, 5):
        folder = tmp_path / str(kill_after)
        assert train(folder, kill_after) == ""
        assert train(folder) == digest(whole)


def test_rollbacks_are_bounded(tmp_path):
    source = Poisoned(*range(5, 99))
    with pytest.raises(Diverged, match="rolled back 2 times before"):
        loop.train(
            source.model(),
            source,
            SETTINGS,
            seed=3,
            report=lambda _: None,
            folder=tmp_path,
            policy=DivergencePolicy(rollback=True, most=2),
        )
    assert checkpoint.load_newest(open_store(tmp_path)).step == 4  # nothing that was finished is lost


@pytest.mark.parametrize("seen", [SPIKE_WARMUP_UPDATES - 1, SPIKE_WARMUP_UPDATES])
def test_a_loss_may_leap_until_its_spread_is_known(seen):
    progress = TrainingState(fresh("vae"), SETTINGS, WorkerContext())
    watch = DivergenceGuard(WorkerContext(), DivergencePolicy(spike=8), lambda: False)
    losses = [torch.tensor(5 + 0.1 * (n % 7)) for n in range(seen)] + [torch.tensor(20.0)]
    reasons = [watch.rejection_reason(progress, progress.objectives[0], loss, torch.tensor(1.0)) for loss in losses]
    assert [reason is not None for reason in reasons] == [False] * seen + [seen == SPIKE_WARMUP_UPDATES]


def test_a_loss_that_leaps_diverges():
    progress = TrainingState(fresh("vae"), SETTINGS, WorkerContext())
    watch = DivergenceGuard(WorkerContext(), DivergencePolicy(spike=8), lambda: False)
    (objective,), norm = progress.objectives, torch.tensor(1.0)
    for n in range(SPIKE_WARMUP_UPDATES):
        assert watch.rejection_reason(progress, objective, torch.tensor(5 + 0.1 * (n % 7)), norm) is None
    assert watch.rejection_reason(progress, objective, torch.tensor(6.0), norm) is None
    before = json.dumps(progress.facts())
    assert "leapt to 20" in watch.rejection_reason(progress, objective, torch.tensor(20.0), norm)
    assert json.dumps(progress.facts()) == before  # what is refused leaves no trace
    for n in range(400):  # 4 and 6 in turn: 5 ± 1, so that 13 is eight deviations away
        assert watch.rejection_reason(progress, objective, torch.tensor(4.0 + 2 * (n % 2)), norm) is None
    assert "leapt to 13.5 (it was 5" in watch.rejection_reason(progress, objective, torch.tensor(13.5), norm)
    assert watch.rejection_reason(progress, objective, torch.tensor(12.0), norm) is None
    calm = DivergenceGuard(WorkerContext(), DivergencePolicy(), lambda: False)
    assert calm.rejection_reason(progress, objective, torch.tensor(20.0), norm) is None


def poisoned_rank(rank: int, world_size: int, port: str, out: str) -> None:
    """The loss of rank 1 alone is not finite."""
    place = joined(rank, world_size, port)
    model = fresh("vae")
    objective = model.objectives()[0]
    if rank == 1:
        forward = type(objective).forward
        count = iter(range(99))

        def bad(self, batch, noise):
            losses = forward(self, batch, noise)
            worst = float("nan") if next(count) == 3 else 1.0
            return replace(losses, total=losses.total.detach() * worst + losses.total)

        type(objective).forward = bad
    before = []
    try:
        loop.train(model, Data(), SETTINGS, seed=3, report=lambda r: before.append(r.examples), context=place)
    except Diverged as error:
        Path(f"{out}{rank}").write_text(f"{digest(model)} {error}")
    torch.distributed.destroy_process_group()


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(tmp_path, unused_port, pair):
    out = tmp_path / "rank"
    pair(poisoned_rank, 2, unused_port, str(out))
    first, second = Path(f"{out}0").read_text(), Path(f"{out}1").read_text()
    assert first.split()[0] == second.split()[0]
    assert "not finite" in first
    assert "after 96 examples" in first


def hanging_rank(rank: int, world_size: int, port: str, out: str) -> None:
    place = joined(rank, world_size, port, seconds=3)

    class Slow(Data):
        def batch(self, step: int, rank: int, world_size: int) -> Batch:
            if step == 2 and rank == 1:
                while not Path(f"{out}done").exists():
                    time.sleep(0.1)
                os._exit(0)
            return super().batch(step, rank, world_size)

    try:
        loop.train(fresh("vae"), Slow(), SETTINGS, seed=3, report=lambda _: None, context=place)
    except LostWorker as error:
        Path(out).write_text(str(error))
    Path(f"{out}done").touch()
    os._exit(0)


def test_a_hanging_rank_is_named(tmp_path, unused_port, pair):
    pair(hanging_rank, 2, unused_port, str(tmp_path / "told"))
    assert (tmp_path / "told").read_text().startswith("rank 1 of 2 did not answer: it hangs, or it or its node is gone")


def test_too_little_memory_suggests_what_to_set_and_is_not_tried_again():
    class Full(Data):
        tries = 0

        def batch(self, step: int, rank: int, world_size: int) -> Batch:
            Full.tries += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(RuntimeError, match=r"batch_size 32; set training.accumulate: 2 .* or training.batch_size: 16"):
        loop.train(fresh("vae"), Full(), SETTINGS, seed=3, report=lambda _: None)
    assert Full.tries == 1


def test_a_checkpoint_says_what_it_is_of_and_another_training_refuses_it(tmp_path):
    said = {"spec": {"family": "vae"}, "data": "d1", "code": "c1"}
    run = {"seed": 3, "report": lambda _: None, "folder": tmp_path}
    loop.train(fresh("vae"), Data(), SETTINGS, identity=said, extra={"run_id": "r1"}, **run)
    facts = checkpoint.load_newest(open_store(tmp_path)).facts
    assert (facts["identity"], facts["run_id"], facts["examples"]) == (said, "r1", 12 * BATCH)
    with pytest.raises(ValueError, match=r"of another training \(code: c1 there, c2 here; spec.family: vae there"):
        loop.train(fresh("gan"), Data(), SETTINGS, identity={**said, "spec": {"family": "gan"}, "code": "c2"}, **run)


def test_a_damaged_best_model_is_said_and_replaced(tmp_path):
    run = {"seed": 3, "folder": tmp_path}
    loop.train(fresh("vae"), Data(), SETTINGS, report=scores(), **run)
    (best,) = tmp_path.glob("best-*")
    (best / checkpoint.TENSORS).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"best-.* is damaged"):
        again = loop.train(fresh("vae"), Data(), SETTINGS, report=scores(), **run)
    last = loop.train(fresh("vae"), Data(), SETTINGS, report=lambda _: None, seed=3)
    assert digest(again) == digest(last)


def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_bit_for_bit(tmp_path):
    torch.set_num_threads(1)
    settings = replace(SETTINGS, checkpoints=1)  # none is due before the end
    whole = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None)
    asked = iter([False, False, False, True, *[False] * 9])  # twice per update: the GAN has two objectives
    with pytest.raises(Interrupted, match="stopped after 64 of 384 examples"):
        loop.train(
            fresh("gan"),
            Data(),
            settings,
            seed=3,
            report=lambda _: None,
            folder=tmp_path,
            should_stop=lambda: next(asked),
        )
    resumed = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None, folder=tmp_path)
    assert digest(whole) == digest(resumed)


def test_a_node_about_to_go_brings_a_checkpoint_at_once(tmp_path, monkeypatch):
    """And one at each report until it goes; the training is otherwise the same."""
    settings = replace(SETTINGS, checkpoints=1)  # none is due before the end
    whole = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None)
    saved, save = [], CheckpointManager.save
    monkeypatch.setattr(CheckpointManager, "save", lambda self, seen: (saved.append(seen // BATCH), save(self, seen)))
    told = iter([False] * 5 + [True] * 99)  # asked twice per update: the GAN has two objectives
    place = WorkerContext(notice=lambda: next(told))
    noticed = loop.train(fresh("gan"), Data(), settings, seed=3, report=lambda _: None, folder=tmp_path, context=place)
    assert saved == [3, 4, 6, 8, 10, 12]
    assert digest(whole) == digest(noticed)


def test_workers_that_cannot_share_the_batch_are_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"3 workers .* use one of \[1, 2, 4, 8\]"):
        WorkerContext(0, 3).virtual_ranks(8)
