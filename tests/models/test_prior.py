"""The flow or diffusion model that codes are drawn from, against codes of known densities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from test_contract import DOMAINS, SMALL, examples
from test_loop import SETTINGS, Data, Stop, digest
from test_tables import seeded

from models import Batch, Streams, build
from models.prior import LatentPrior, PriorObjective
from pipelines.training import loop

KINDS = ["flow", "diffusion"]
AT, SPREAD = np.array([90.0, 110.0, 100.0]), np.array([3.0, 2.0])
"""Class 0 lies at two places of the first dimension, class 1 at a third."""


def known_codes(n: int, label: torch.Tensor, seed: int) -> torch.Tensor:
    """Codes far from unit size: class 0 of two halves, class 1 of one place and another second dimension."""
    g = seeded(seed)
    half = torch.rand(n, generator=g) < 0.5
    place = torch.where(label == 1, AT[2], torch.where(half, AT[0], AT[1]))
    second = torch.where(label == 1, 5.0, -5.0)
    return torch.stack([place, second], 1).float() + torch.tensor(SPREAD).float() * torch.randn(n, 2, generator=g)


def known_log_prob(z: np.ndarray, shares: np.ndarray) -> np.ndarray:
    first = stats.norm.logpdf(z[:, :1], AT, SPREAD[0]) + np.log([0.5, 0.5, 1.0])
    second = stats.norm.logpdf(z[:, 1:], [-5.0, -5.0, 5.0], SPREAD[1])
    return logsumexp(first + second + np.log(shares[[0, 0, 1]]), axis=1)


@pytest.fixture(scope="module", params=KINDS)
def trained(request) -> LatentPrior:
    """A prior after a short training; its encoder is the identity."""
    torch.manual_seed(0)
    prior = LatentPrior(request.param, 2, 2, 16)
    shares = torch.tensor([0.75, 0.25])
    prior.initialize(
        3 * torch.randn(100, 2, generator=seeded(0)) + torch.tensor([90.0, 0.0]), shares
    )  # of an encoder that moves later on
    objective = PriorObjective(prior, lambda batch, generator: batch.x)
    optimizer = torch.optim.Adam(objective.parameters(), 6e-3)
    for step in range(300):
        label = torch.multinomial(shares, 128, replacement=True, generator=seeded(step))
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / 300)
        optimizer.zero_grad()
        objective(Batch(known_codes(128, label, step), label), Streams.seeded(step)).total.mean().backward()
        optimizer.step()
    return prior.eval().requires_grad_(False)


def test_codes_are_drawn_from_their_class(trained):
    for label in (0, 1):
        z = trained.sample(1500, torch.full((1500,), label), Streams.seeded(1)).numpy()
        truth = known_codes(1500, torch.full((1500,), label), 9).numpy()
        for dimension in (0, 1):
            assert stats.ks_2samp(z[:, dimension], truth[:, dimension]).statistic < 0.12, (label, dimension)


def test_the_density_of_codes_is_normalized_and_near_the_known_one(trained):
    if not trained.has_density:
        with pytest.raises(AssertionError):
            trained.joint_log_prob(torch.zeros(1, 2))
        return
    shares = np.array([0.75, 0.25])
    label = torch.multinomial(torch.tensor(shares), 2000, replacement=True, generator=seeded(5))
    z = known_codes(2000, label, 6)
    gap = known_log_prob(z.double().numpy(), shares) - trained.joint_log_prob(z).logsumexp(1).double().numpy()
    assert -0.02 < gap.mean() < 0.1
    first, second = torch.linspace(60, 140, 161), torch.linspace(-30, 30, 161)
    grid = torch.cartesian_prod(first, second)
    mass = trained.joint_log_prob(grid).double().exp().sum(0) * (first[1] - first[0]) * (second[1] - second[0])
    assert mass.numpy() == pytest.approx(shares, abs=0.01)


@pytest.mark.parametrize(("family", "kind"), [("autoencoder", "flow"), ("vae", "diffusion")])
@pytest.mark.parametrize(("domain", "classes"), [("grey 8x8, 17 levels", 3), ("table", 0)])
def test_the_prior_learns_and_does_not_teach_the_encoder(family, kind, domain, classes):
    batch = examples(DOMAINS[domain], 32, classes)
    spec = {"family": family, "config": {**SMALL[family], "prior": kind}, "domain": DOMAINS[domain], "classes": classes}
    model = build(spec)
    model.initialize(batch, Streams.seeded(0))
    objective = model.objectives()[1]
    objective(batch, Streams.seeded(0, ranks=range(8))).total.mean().backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in model.latent_prior.parameters()}
    assert all(p.grad is None for p in model.encoder.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_a_prior_goes_on_bit_for_bit(kind, tmp_path):
    torch.set_num_threads(1)

    def fresh() -> torch.nn.Module:
        torch.manual_seed(0)
        config = {**SMALL["autoencoder"], "prior": kind}
        return build(
            {"family": "autoencoder", "config": config, "domain": DOMAINS["grey 8x8, 17 levels"], "classes": 3}
        )

    whole = loop.train(fresh(), Data(), SETTINGS, seed=3, report=lambda _: None)

    def stop(report: loop.TrainingReport) -> None:
        if report.examples >= SETTINGS.total_examples // 2:
            raise Stop

    with pytest.raises(Stop):
        loop.train(fresh(), Data(), SETTINGS, seed=3, report=stop, folder=tmp_path)
    resumed = loop.train(fresh(), Data(), SETTINGS, seed=3, report=lambda _: None, folder=tmp_path)
    assert digest(whole) == digest(resumed)
    sampled = [m.eval().sample(4, None, Streams.seeded(0)) for m in (whole, resumed)]
    assert torch.equal(*sampled)
