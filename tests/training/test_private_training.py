"""Differential privacy: the accountant against known values, gradients cut one by one, secret batches and noise."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import comb, logsumexp

from models import Batch, build
from models.rng import Streams
from pipelines.training import accountant, loop, privacy
from pipelines.training.config import DivergencePolicy, Privacy, TrainingConfig
from pipelines.training.context import TrainingReport, WorkerContext

NUMBER = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0, "missing": 9}
CATEGORY = {"type": "categorical", "categories": ["x", "y", "z"], "frequencies": [5, 3, 2], "missing": 0}
COLUMNS = [NUMBER | {"name": "a", "quantiles": np.linspace(-3, 3, 21).tolist()}, CATEGORY | {"name": "b"}]
ROWS = 200
SETTINGS = TrainingConfig(
    total_examples=12 * 32, batch_size=32, warmup_examples=0, reports=6, checkpoints=3, evaluations=2,
    privacy=Privacy(epsilon=8, delta=1e-3),
)  # fmt: skip


def fresh(family: str = "flow", **config: Any) -> Any:
    torch.manual_seed(0)
    spec = {"kind": "table", "columns": COLUMNS}
    config = {"width": 8, **config}
    return build({"family": family, "config": config, "domain": spec, "classes": 2})


class Data:
    """Rows in memory, by number; the first cell of every training row is a value of its own."""

    examples = ROWS

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.stack(
            [torch.randn(ROWS, generator=generator), torch.randint(3, (ROWS,), generator=generator)], 1
        ).double()
        self.x[::9, 0] = torch.nan
        self.label = torch.randint(2, (ROWS,), generator=generator)
        self.asked: list[list[int]] = []

    def take(self, ids: list[int]) -> Batch:
        self.asked.append(ids)
        return Batch(self.x[ids], self.label[ids])

    def ids(self, step: int) -> list[int]:
        raise AssertionError("batches of a private training are its own")

    def batch(self, step: int, rank: int, world_size: int) -> Batch:
        raise AssertionError("batches of a private training are its own")

    def reference(self) -> Batch:
        return Batch(self.x, self.label)


def gradients(model: Any, source: Any = None, **changes: Any) -> privacy.PrivateGradients:
    settings = replace(SETTINGS, **changes)
    return privacy.PrivateGradients(model, source or Data(), settings, WorkerContext(), DivergencePolicy())


# The accountant


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 4.0), (0.2, 0.7), (0.5, 1.5)])
def test_the_divergence_of_whole_orders_is_the_binomial_sum(rate: float, noise: float):
    for order in (2, 5, 32):
        k = np.arange(order + 1)
        terms = np.log(comb(order, k)) + (order - k) * math.log(1 - rate) + k * math.log(rate)
        expected = logsumexp(terms + k * (k - 1) / (2 * noise**2)) / (order - 1)
        assert accountant.renyi(order, rate, noise) == pytest.approx(expected, rel=1e-9)
    assert accountant.renyi(2.5, 1.0, noise) == pytest.approx(2.5 / (2 * noise**2), rel=1e-9)  # no sampling


KNOWN = [
    ((0.01, 4.0, 10_000, 1e-5), 1.0354900660362436),
    ((256 / 60_000, 1.3, 3516, 1e-5), 0.9545639531461374),
    ((0.02, 1.0, 500, 1e-6), 3.6025880872881686),
    ((1.0, 10.0, 100, 1e-5), 4.728507067217623),
]
"""What `dp-accounting` 0.6.0 says (`RdpAccountant`) of rate, noise, steps and delta."""


@pytest.mark.parametrize(("spent", "known"), KNOWN)
def test_epsilon_is_that_of_dp_accounting(spent: tuple[float, float, int, float], known: float):
    assert accountant.epsilon(*spent) == pytest.approx(known, rel=1e-4)
    assert accountant.epsilon(*spent) <= known * (1 + 1e-9)
    rate, noise, steps, delta = spent
    found = accountant.noise_for(known, rate, steps, delta)
    assert found == pytest.approx(noise, rel=3e-4)
    assert accountant.epsilon(rate, found, steps, delta) <= known


def test_epsilon_is_that_of_dp_accounting_itself():
    dp = pytest.importorskip("dp_accounting", reason="needs the extra `field` (dp-accounting)")
    rdp = importlib.import_module("dp_accounting.rdp")
    for (rate, noise, steps, delta), _ in KNOWN:
        event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
        theirs = rdp.RdpAccountant().compose(dp.SelfComposedDpEvent(event, steps)).get_epsilon(delta)
        assert accountant.epsilon(rate, noise, steps, delta) == pytest.approx(theirs, rel=1e-4)


# Gradients


def test_each_gradient_is_cut_and_noise_added():
    """Against one backward pass for every example; in the table's order nothing that is drawn matters."""
    model, data = fresh(order="table", label_dropout=0.0), Data()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    objective, batch = model.objectives()[0], data.take(list(range(40)))
    parameters = list(objective.parameters())
    norms, cut = [], [torch.zeros_like(p) for p in parameters]
    for i in range(40):
        loss = objective(Batch(batch.x[i : i + 1], batch.label[i : i + 1]), Streams.seeded(i)).total.sum()
        each = torch.autograd.grad(loss, parameters, allow_unused=True)
        each = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, each, strict=True)]
        norms.append(float(torch.stack([g.square().sum() for g in each]).sum().sqrt()))
        for total, g in zip(cut, each, strict=True):
            total += g * min(1.0, 6.0 / norms[-1])
    assert min(norms) < 6.0 < max(norms)
    private = gradients(model, data, privacy=Privacy(epsilon=8, delta=1e-3, clip=6.0))
    sigma, private.noise = private.noise, 0.0
    losses = private.accumulate(objective, batch, 0)
    together = objective(batch, Streams.seeded(0)).total
    torch.testing.assert_close(losses.total, together.detach())
    for parameter, total in zip(parameters, cut, strict=True):
        torch.testing.assert_close(parameter.grad, total / 32, atol=1e-6, rtol=1e-4)
    quiet = [p.grad.clone() for p in parameters]
    private.noise = sigma
    private.accumulate(objective, batch, 0)
    added = torch.cat([(p.grad - q).flatten() for p, q in zip(parameters, quiet, strict=True)])
    assert float(added.std()) == pytest.approx(sigma * 6.0 / 32, rel=4 / math.sqrt(2 * len(added)))
    assert abs(float(added.mean())) < 4 * float(added.std()) / math.sqrt(len(added))
    private.accumulate(objective, batch, 1)
    other = torch.cat([(p.grad - q).flatten() for p, q in zip(parameters, quiet, strict=True)])
    assert abs(float(torch.corrcoef(torch.stack([added, other]))[0, 1])) < 4 / math.sqrt(len(added))
    private.accumulate(objective, data.take([]), 2)  # a step without examples is noise alone
    alone = torch.cat([p.grad.flatten() for p in parameters])
    assert float(alone.std()) == pytest.approx(sigma * 6.0 / 32, rel=4 / math.sqrt(2 * len(alone)))


def test_examples_see_the_noise_that_they_would_see_together():
    model = fresh(order="random")
    objective, private = model.objectives()[0], gradients(model, privacy=Privacy(epsilon=8, delta=1e-3, clip=1e6))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    batch, private.noise = private.batch(3), 0.0
    private.accumulate(objective, batch, 3)
    streams = Streams.seeded(private.secret, 3, objective.name, "losses")
    expected = torch.autograd.grad(objective(batch, streams).total.sum() / 32, list(objective.parameters()))
    for parameter, gradient in zip(objective.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-3)


def test_batches_take_every_example_with_the_same_probability(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)  # once in some thousand runs a secret is four deviations off
    monkeypatch.setattr(privacy.secrets, "token_hex", lambda size: random.bytes(size).hex())
    data = Data()
    private = gradients(fresh(), data)
    for step in range(300):
        private.batch(step)
    sizes, times = np.array([len(ids) for ids in data.asked]), Counter(itertools.chain(*data.asked))
    rate = 32 / ROWS
    assert sizes.mean() == pytest.approx(32, abs=4 * math.sqrt(32 * (1 - rate) / 300))
    assert sizes.var() == pytest.approx(32 * (1 - rate), rel=4 * math.sqrt(2 / 300))  # binomial, as Poisson sampling is
    seen = np.array([times[i] for i in range(ROWS)])
    assert ((seen - 300 * rate) ** 2 / (300 * rate * (1 - rate))).mean() == pytest.approx(
        1, abs=4 * math.sqrt(2 / ROWS)
    )
    assert all(len(set(ids)) == len(ids) for ids in data.asked)
    assert torch.equal(private.batch(5).x.nan_to_num(), data.take(data.asked[5]).x.nan_to_num())
    other = gradients(fresh(), Data())
    assert private.secret != other.secret
    assert any(len(private.batch(step)) != len(other.batch(step)) for step in range(20))


# In the loop


def digest(model: torch.nn.Module) -> str:
    sums = [t.contiguous().numpy().tobytes() for t in model.state_dict().values()]
    return hashlib.sha256(b"".join(sums)).hexdigest()


def test_a_resumed_training_goes_on_bit_for_bit_by_the_secret_in_its_checkpoint(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    given = iter(["0" * 32, "0" * 32, "f" * 32, "f" * 32])
    monkeypatch.setattr(privacy.secrets, "token_hex", lambda n: next(given))

    def trained(folder: str, stop: int = 99) -> str:
        seen = []

        def report(told: TrainingReport) -> None:
            seen.append(told.examples)
            if len(seen) > stop:
                raise InterruptedError

        return digest(loop.train(fresh(), Data(), SETTINGS, seed=3, report=report, folder=tmp_path / folder))

    whole = trained("whole")
    with pytest.raises(InterruptedError):
        trained("cut", stop=4)
    assert trained("cut") == whole
    assert trained("other") != whole


def test_what_is_fitted_after_training_is_fitted_to_samples():
    fitted = []

    class Told(type(fresh())):
        def finalize(self, batch: Batch, generator: Streams) -> None:
            fitted.append(batch)
            super().finalize(batch, generator)

    model, data = fresh(), Data()
    model.__class__ = Told
    loop.train(model, data, SETTINGS, seed=3, report=lambda _: None)
    assert fitted
    known = set(data.x[:, 0][~data.x[:, 0].isnan()].tolist())
    for batch in fitted:
        assert not known & set(batch.x[:, 0].tolist())
        assert batch.label is not None
        assert set(batch.label.tolist()) == {0, 1}


def test_what_cannot_be_private_is_refused():
    for family in ("vae", "gan", "diffusion", "autoencoder"):
        with pytest.raises(ValueError, match=r"cannot be trained under differential privacy; set privacy.epsilon to 0"):
            loop.train(fresh(family), Data(), SETTINGS, seed=0, report=lambda _: None)
    with pytest.raises(ValueError, match=r"set train\.on_divergence to stop"):
        loop.train(fresh(), Data(), SETTINGS, seed=0, report=lambda _: None, policy=DivergencePolicy(rollback=True))
    with pytest.raises(ValueError, match=r"set train\.workers to 1"):
        privacy.PrivateGradients(fresh(), Data(), SETTINGS, WorkerContext(world_size=2), DivergencePolicy())
    with pytest.raises(ValueError, match=r"delta must be below one over the 200 training examples, got 0\.005"):
        gradients(fresh(), privacy=Privacy(epsilon=8, delta=0.005))
    for wrong, told in (({"epsilon": -1}, "epsilon"), ({"delta": 1}, "delta"), ({"clip": 0}, "clip")):
        with pytest.raises(ValueError, match=f"{told} must"):
            Privacy(**wrong)
    assert TrainingConfig(privacy={"epsilon": 2}).privacy == Privacy(epsilon=2)  # as a job's JSON has it


def test_what_is_promised_is_what_was_asked_for():
    told = privacy.guarantee(SETTINGS, ROWS)
    assert told["epsilon"] == pytest.approx(8, rel=1e-3)
    assert told["epsilon"] <= 8
    assert accountant.epsilon(32 / ROWS, told["noise"], 12, 1e-3) <= told["epsilon"]
    assert (told["delta"], told["steps"], told["rate"], told["clip"]) == (1e-3, 12, 32 / ROWS, 1.0)
    assert privacy.guarantee(replace(SETTINGS, total_examples=24 * 32), ROWS)["noise"] > told["noise"]
