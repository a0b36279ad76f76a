"""Families against known answers: Jacobians, exact likelihoods, analytic denoisers, orders of convergence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm
from sklearn.covariance import EmpiricalCovariance
from sklearn.mixture import GaussianMixture as Sklearns
from test_tables import seeded
from torch import nn

from models import Batch, Streams, build
from models.anomaly import MahalanobisScore
from models.domains import domain
from models.domains.grid import Image, random_shift
from models.gan import gradient_penalty
from models.imputation import impute_in_random_order, mask_cells, reveal_cells, sample_nearest
from models.mixture import GaussianMixture
from models.vae import VAE
from models.vae.config import Config as VAEConfig
from models.vae.gaussians import gaussian_divergence, gaussian_log_prob


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_discretized_logistic_sums_to_one(double):
    image = Image(channels=1, height=1, width=1, levels=17)
    likelihood = image.likelihood(3)
    raw = 2 * torch.randn(1, likelihood.outputs, 1, 1)
    levels = (torch.arange(17) * 255 / 16).round().to(torch.uint8).reshape(17, 1, 1, 1)
    total = likelihood.log_prob(raw.expand(17, -1, -1, -1), levels).exp().sum()
    assert abs(float(total) - 1) < 1e-5


def test_gaussian_divergence_is_the_expected_log_ratio():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(1, 3), torch.randn(1, 3)
    mean0, log_variance0 = torch.randn(1, 3), torch.randn(1, 3)
    z = mean + (0.5 * log_variance).exp() * torch.randn(400_000, 3)
    ratio = gaussian_log_prob(z, mean, log_variance) - gaussian_log_prob(z, mean0, log_variance0)
    exact = gaussian_divergence(mean, log_variance, mean0, log_variance0).sum()
    assert abs(ratio.mean() - exact) < 0.01 * exact


class LinearGaussian:
    """x = z + noise in one dimension, z standard normal: log p(x) is known."""

    parameters, noise, takes_labels = 1, 0.5, False

    def log_prob(self, raw, x):
        return gaussian_log_prob(x.double(), raw, torch.full_like(raw, math.log(self.noise**2)))[:, None]


def linear_gaussian_vae(slack: float, prior: str) -> VAE:
    """A VAE of which decoder and prior are exact (a flow's is standard normal before it has learned anything), and the
    posterior's variance too large by `slack`."""

    class Identity(Image):
        def to_model(self, x):
            return x.double()

    model = VAE(
        VAEConfig(latent=1, width=4, prior_components=0, prior=prior), Identity(channels=1, height=1, width=1), 0
    )
    if model.latent_prior is not None:
        model.latent_prior.double()
    variance = 1 / (1 + 1 / LinearGaussian.noise**2)

    class Posterior(nn.Module):
        def forward(self, y):
            mean = variance / LinearGaussian.noise**2 * y
            return torch.cat([mean, torch.full_like(mean, math.log(variance * slack))], dim=1)

    model.encoder, model.decoder, model.likelihood = Posterior(), nn.Identity(), LinearGaussian()
    return model


def gaps(model: VAE, x: torch.Tensor, exact: torch.Tensor) -> dict[int, float]:
    """Nats between the exact log-density and the bound by 1 and by 256 draws; their standard error is 0.003."""
    repeats = {1: 20, 256: 2}
    bounds = {k: [model.elbo(x, Streams.seeded(k, r), samples=k) for r in range(n)] for k, n in repeats.items()}
    return {k: float((exact - torch.stack(each)).mean()) for k, each in bounds.items()}


@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_vae_bound_is_below_the_exact_likelihood_and_tight_with_many_draws(slack):
    model = linear_gaussian_vae(slack, "mixture")
    x = torch.linspace(-2, 2, 64).double()[:, None]
    exact = gaussian_log_prob(x, torch.zeros_like(x), torch.full_like(x, math.log(1 + LinearGaussian.noise**2)))
    gap = gaps(model, x, exact)
    if slack == 1.0:
        assert abs(gap[1]) < 1e-5  # the posterior is exact: so is a single draw
    else:
        assert gap[1] > 0.05
        assert -0.01 < gap[256] < 0.1 * gap[1]


def test_the_bound_takes_the_flow_for_its_prior():
    """With the exact posterior and a prior that is the flow's standard normal, a single draw is exact."""
    model = linear_gaussian_vae(1.0, "flow")
    model.mixture.scale.fill_(7.0)  # which nothing may ask
    x = torch.linspace(-2, 2, 16).double()[:, None]
    exact = gaussian_log_prob(x, torch.zeros_like(x), torch.full_like(x, math.log(1 + LinearGaussian.noise**2)))
    assert torch.allclose(model.elbo(x, Streams.seeded(0)), exact, atol=1e-5)


def test_gradient_penalty_is_the_hand_computed_one():
    y = torch.randn(4, 1, 2, 2, requires_grad=True)
    weight = torch.randn(4)
    score = (y.flatten(1).square() * weight).sum(1)
    expected = (2 * y.flatten(1) * weight).square().sum(1)
    assert torch.allclose(gradient_penalty(score, y), expected)


# A mixture per class

WEIGHTS = np.array([[0.7, 0.3], [0.4, 0.6]])
MEANS = np.array([[[2.0, 0.0], [4.0, 1.0]], [[-2.0, 0.0], [-3.0, -1.0]]])
COVARIANCES = np.array(
    [[[[1.0, 0.6], [0.6, 1.0]], [[0.5, 0], [0, 2]]], [[[2, -0.5], [-0.5, 0.5]], [[1, 0.3], [0.3, 1]]]]
)
FREQUENCIES = np.array([0.85, 0.15])


def known_mixture() -> GaussianMixture:
    mixture = GaussianMixture(2, 2, 2).double()
    mixture.log_weight.copy_(torch.tensor(WEIGHTS).log())
    mixture.mean.copy_(torch.tensor(MEANS))
    mixture.scale.copy_(torch.linalg.cholesky(torch.tensor(COVARIANCES)))
    return mixture


def exact_density(z: np.ndarray) -> np.ndarray:
    """Density of each point under each class, by scipy."""
    return np.stack(
        [
            sum(w * stats.multivariate_normal(m, c).pdf(z) for w, m, c in zip(*of_class, strict=True))
            for of_class in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
        ],
        axis=1,
    )


def exact_moments() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of each class."""
    means = np.einsum("yk,ykd->yd", WEIGHTS, MEANS)
    apart = MEANS - means[:, None]
    return means, np.einsum("yk,ykde->yde", WEIGHTS, COVARIANCES + apart[..., None] * apart[..., None, :])


def test_a_mixtures_conditional_and_marginal_densities_are_scipys():
    z = 3 * np.random.default_rng(0).standard_normal((200, 2))
    exact, mixture, frequencies = exact_density(z), known_mixture(), torch.tensor(FREQUENCIES)
    label = torch.arange(200) % 3 - 1
    found = mixture.log_prob(torch.tensor(z), label, frequencies)
    marginal = np.log(exact @ FREQUENCIES)
    expected = np.where(label.numpy() < 0, marginal, np.log(exact[np.arange(200), label.clamp(min=0).numpy()]))
    assert np.allclose(found, expected)
    assert np.allclose(mixture.log_prob(torch.tensor(z), None, frequencies), marginal)
    for classes in (0, 1):  # one group of codes
        mixture = GaussianMixture(2, classes, 2).double()
        mixture.log_weight.copy_(torch.tensor(WEIGHTS[0]).log())
        mixture.mean.copy_(torch.tensor(MEANS[0]))
        mixture.scale.copy_(torch.linalg.cholesky(torch.tensor(COVARIANCES[0])))
        joint = mixture.joint_log_prob(torch.tensor(z), torch.ones(classes))
        assert np.allclose(joint, np.log(exact[:, :1]))
        assert np.allclose(mixture.log_prob(torch.tensor(z), None, torch.ones(classes)), np.log(exact[:, 0]))


def test_a_mixtures_draws_have_the_moments_of_their_class(double):
    means, covariances = exact_moments()
    label = torch.arange(40_000) % 2
    drawn = known_mixture().sample(40_000, label, Streams.seeded(1))
    for y in (0, 1):
        assert np.allclose(drawn[label == y].mean(0), means[y], atol=0.05)
        assert np.allclose(np.cov(drawn[label == y].T), covariances[y], atol=0.1)


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_a_code_is_transported_to_its_place_in_the_other_class(double, strength):
    """Whitened by its own class, coloured by the other: moments are the other's, the place is kept in part."""
    means, covariances = exact_moments()
    roots = [np.real(sqrtm(covariance)) for covariance in covariances]
    mixture, frequencies = known_mixture(), torch.tensor(FREQUENCIES)
    label = (torch.rand(20_000, generator=seeded()) < FREQUENCIES[1]).long()
    z = mixture.sample(20_000, label, Streams.seeded(1))
    own = (exact_density(z.numpy()) * FREQUENCIES).argmax(1)
    place = np.stack([np.linalg.solve(roots[y], (z.numpy() - means[y]).T).T for y in (0, 1)])[own, np.arange(len(z))]
    for wanted in (torch.zeros(len(z), dtype=torch.long), torch.ones(len(z), dtype=torch.long), None):
        moved = mixture.transported(z, wanted, frequencies, strength, Streams.seeded(2)).numpy()
        to = own if wanted is None else wanted.numpy()
        back = np.stack([np.linalg.solve(roots[y], (moved - means[y]).T).T for y in (0, 1)])[to, np.arange(len(z))]
        if strength == 0:
            assert np.allclose(back, place, atol=1e-3)
        else:
            fresh = (back - math.sqrt(1 - strength**2) * place) / strength
            assert np.allclose(fresh.mean(0), 0, atol=0.03)
            assert np.allclose(np.cov(fresh.T), np.eye(2), atol=0.04)
    stay = mixture.transported(z, torch.full((len(z),), -1), frequencies, 0.0, Streams.seeded(2))
    assert torch.allclose(stay, z, atol=1e-3)


def test_a_fitted_mixture_is_as_good_as_scikit_learns(double):
    """Per class, on fresh codes; codes without a label, far away, have no part in it."""
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(2, (4000,), generator=rng)
    z = known_mixture().sample(4000, label, Streams.seeded(3))
    strangers = torch.full((200, 2), 30.0) + torch.randn(200, 2, generator=rng)
    mixture = GaussianMixture(2, 2, 2)
    unknown = torch.full((200,), -1)
    codes, labels, streams = torch.cat([z, strangers]), torch.cat([label, unknown]), Streams.seeded(0)
    with torch.device("meta"):  # what it makes must be said to lie where the codes do
        mixture.fit(codes, labels, streams)
    fresh = known_mixture().sample(4000, label, Streams.seeded(4))
    found = mixture.log_prob(fresh, label, torch.full((2,), 0.5))
    exact = np.log(exact_density(fresh.numpy()))
    for y in (0, 1):
        theirs = Sklearns(2, random_state=0).fit(z[label == y].numpy()).score(fresh[label == y].numpy())
        ours = float(found[label == y].mean())
        assert ours > theirs - 0.04
        assert ours < exact[label == y, y].mean()  # nothing beats the truth


def test_a_fitted_mixture_weighs_its_components_as_the_codes_do():
    z = torch.randn(1000, 2, generator=seeded()) + torch.where(torch.arange(1000) < 900, -5.0, 5.0)[:, None]
    mixture = GaussianMixture(2, 0, 2)
    mixture.fit(z, None, Streams.seeded(0))
    drawn = mixture.sample(4000, None, Streams.seeded(1))
    assert abs(float((drawn[:, 0] < 0).double().mean()) - 0.9) < 0.025  # 5 standard errors; alike they would be half


def test_a_class_without_examples_gets_the_gaussian_of_all():
    z = torch.randn(500, 2, generator=seeded()) * torch.tensor([1.0, 3.0]) + 5
    mixture = GaussianMixture(2, 2, 1)
    mixture.fit(z, torch.zeros(500, dtype=torch.long), Streams.seeded(0))
    drawn = mixture.sample(4000, torch.ones(4000, dtype=torch.long), Streams.seeded(1))
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=0.2)
    assert torch.allclose(drawn.std(0), z.std(0), rtol=0.06)


@pytest.mark.parametrize("codes", [5, 41, 400])
def test_many_classes_share_the_covariance_that_few_codes_cannot_tell(double, codes):
    """100 classes of one covariance in 16 dimensions. The truth is 16 / 2n nats better for the means alone; what each
    class's own covariance would cost is (16 x 17 / 2) / 2n nats more, if there are enough codes for it to exist."""
    dims, classes = 16, 100
    spread = torch.randn(dims, dims, generator=seeded()) / 4 + torch.eye(dims)
    centres = 2 * torch.randn(classes, dims, generator=seeded())

    def draw(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(classes * n, dims, generator=torch.Generator().manual_seed(seed))
        label = torch.arange(classes).repeat(n)
        return centres[label] + noise @ spread.T, label

    mixture = GaussianMixture(dims, classes, 2)
    mixture.fit(*draw(codes, 1), Streams.seeded(0), 20)
    z, label = draw(20, 2)
    truth = torch.distributions.MultivariateNormal(torch.zeros(dims), spread @ spread.T).log_prob(z - centres[label])
    gap = float((truth - mixture.log_prob(z, label, torch.full((classes,), 1 / classes))).mean())
    assert -0.05 < gap < 1.5 * dims / (2 * codes) + 0.1


def test_components_apart_stay_apart_where_codes_are_few():
    """Sixty codes of a class at two far places: one Gaussian for both would cost more than a nat."""
    z = 0.3 * torch.randn(120, 4, generator=seeded()) + torch.where(torch.arange(120) % 4 < 2, -3.0, 3.0)[:, None]
    label = torch.arange(120) % 2
    mixture = GaussianMixture(4, 2, 2)
    mixture.fit(z, label, Streams.seeded(0))
    far = torch.zeros(1, 4)  # the middle, where one Gaussian has its mode
    assert float(mixture.log_prob(far, label[:1], torch.full((2,), 0.5))) < -20


def test_shares_of_labels_are_those_of_all_the_data():
    """Two in a thousand are positive, of which the batch holds none."""
    spec = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 2}
    x, label = torch.zeros(8, 4, 4, 1, dtype=torch.uint8), torch.zeros(8, dtype=torch.long)
    model = build({"family": "gan", "config": {"width": 4, "latent": 2}, "domain": spec, "classes": 3})
    model.initialize(Batch(x, label, label_counts=torch.tensor([998, 2, 0])), Streams.seeded(0))
    assert torch.allclose(model.label_frequencies, torch.tensor([0.998, 0.002, 0.0]), atol=1e-6)


# Noise


def linear_autoencoder(family: str) -> nn.Module:
    """Reconstructions are projections of 16 pixels onto three directions."""
    spec = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 256}
    model = build({"family": family, "config": {"latent": 3, "width": 4}, "domain": spec, "classes": 0})
    basis = torch.linalg.qr(torch.randn(16, 3, generator=seeded()))[0]

    class Encoder(nn.Module):
        def forward(self, y):
            z = y.flatten(1) @ basis
            return z if family == "autoencoder" else torch.cat([z, torch.full_like(z, -9.0)], dim=1)

    class Decoder(nn.Module):
        def forward(self, z):
            return (z @ basis.T).reshape(-1, 1, 4, 4)

    model.encoder, model.decoder, model.likelihood = Encoder(), Decoder(), model.domain.reconstruction()
    model.basis = basis
    return model


@pytest.mark.parametrize("family", ["autoencoder", "vae"])
def test_denoising_by_a_linear_autoencoder_is_the_wiener_filter(family):
    """What lies off the subspace, of variance s^2, is kept by s^2 / (s^2 + sigma^2): the best any estimate of it does.

    At every noise the error is at most the input's own; a grey level is 1 / 127.5."""
    model, spread = linear_autoencoder(family), 8 / 127.5
    clean = 0.25 * torch.randn(4000, 3, generator=seeded()) @ model.basis.T
    y = (clean + spread * torch.randn(4000, 16, generator=torch.Generator().manual_seed(9))).reshape(-1, 1, 4, 4)
    x = ((y + 1) * 127.5).movedim(1, -1)
    model.finalize(Batch(x), Streams.seeded(0))
    for grey in (0.5, 2.0, 8.0, 32.0):
        noisy = x + grey * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        error = (model.denoise(noisy, grey).float() - x).square().mean()
        kept = spread**2 * 127.5**2 / (spread**2 * 127.5**2 + grey**2)
        wiener = grey**2 * (3 + 13 * kept) / 16 + 1 / 12  # and rounding to whole levels
        assert float(error) == pytest.approx(wiener, rel=0.04)
        assert float(error) <= 1.02 * (grey**2 + 1 / 12)


# How typical an example is


def test_typicality_is_the_mahalanobis_distance_of_scikit_learn():
    rows = torch.randn(2000, 3, generator=seeded()) @ torch.tensor([[1.0, 0.5, 0], [0, 2.0, 0], [0, 0, 0.1]]) + 7
    typicality = MahalanobisScore(3)
    typicality.fit(rows)
    theirs = EmpiricalCovariance().fit(rows.numpy()).mahalanobis(rows.numpy())
    assert np.allclose(typicality(rows), theirs, rtol=0.02, atol=1e-3)


def test_upper_only_typicality_falls_below_the_mean_and_rises_above_it():
    """Each statistic in units of its spread, summed."""
    rows = torch.randn(4000, 2, generator=seeded()) * torch.tensor([1.0, 10.0]) + torch.tensor([3.0, -5.0])
    typicality = MahalanobisScore(2, upper_only=True)
    typicality.fit(rows)
    mean, spread = rows.mean(0), rows.std(0)
    odd = torch.stack([mean - 5 * spread, mean, mean + 5 * spread, mean + torch.stack([2 * spread[0], -spread[1]])])
    assert torch.allclose(typicality(odd), torch.tensor([-10.0, 0.0, 10.0, 1.0]), atol=0.05)


def test_two_sided_typicality_calls_the_very_middle_odd_too():
    """Of 30 standard normals the squared distance from the mean is near 30: 0 is as unheard of as 90."""
    rows = torch.randn(2000, 30, generator=seeded())
    typicality = MahalanobisScore(30, both_sides=True)
    typicality.fit(rows)
    odd = torch.stack([torch.full((30,), 0.05), torch.full((30,), math.sqrt(3.0))])
    assert (typicality(odd) > typicality(rows).quantile(0.99)).all()


# Starting from generated examples, and hiding cells


def test_the_nearest_member_of_a_pool_is_found_among_large_ones():
    match, large = torch.tensor([[1.0, 2.0, 9.0]]), 60 * torch.randn(40, 3, generator=seeded())
    y, known = torch.tensor([[1.0, 2.0, -7.0]]), torch.tensor([[True, True, False]])
    drawn = sample_nearest(y, known, torch.cat([match.repeat(8, 1), large]), Streams.seeded(0), draws=50)
    assert (drawn < 8).all()


def test_members_of_a_pool_are_drawn_with_weights_that_fall_with_the_distance():
    members = torch.tensor([[0.0], [1.0], [math.sqrt(2.0)], [2.0]])
    y = torch.zeros(20_000, 1)
    drawn = sample_nearest(
        y, torch.ones(20_000, 1, dtype=torch.bool), members, Streams.seeded(0), draws=1, neighbours=3
    )[0]
    weights = np.exp(-np.array([0, 1, 2, 4.0]) / 1.0)  # the nearest three lie 1 beyond the nearest on average
    assert np.allclose(torch.bincount(drawn).numpy() / 20_000, weights / weights.sum(), atol=0.015)


def test_cells_are_filled_once_each_given_those_filled_before():
    """A draw that says how many cells it was shown: among one known and three gaps it says 1, 2 and 3."""
    x = torch.tensor([[0.5, torch.nan, torch.nan, torch.nan]] * 5)

    def draw(current: torch.Tensor) -> torch.Tensor:
        return (~current.isnan()).sum(1, keepdim=True).float().expand(-1, 4)

    filled = impute_in_random_order(~x.isnan(), x, Streams.seeded(0), draw, rounds=5000)
    assert (filled[:, 0] == 0.5).all()
    assert torch.equal(filled[:, 1:].sort(1).values, torch.tensor([[1.0, 2.0, 3.0]]).expand(5, 3))
    assert len({str(row) for row in filled[:, 1:].tolist()}) > 1
    together = impute_in_random_order(~x.isnan(), x, Streams.seeded(0), draw, rounds=1)
    assert (together[:, 1:] == 1).all()


@pytest.mark.parametrize("part", [0.4, 1.0])
def test_hidden_shares_are_uniform_in_the_stated_part_of_the_rows(part):
    observed = torch.ones(4000, 200, dtype=torch.bool)
    observed[:, ::2] = False
    for left in (
        mask_cells(observed, part, Streams.seeded(0)),
        observed & ~reveal_cells(observed, part, Streams.seeded(0)),
    ):
        assert not (left & ~observed).any()
        gone = 1 - left.double().sum(1) / 100
        assert abs(float((gone > 0).double().mean()) - 0.99 * part) < 0.03
        chosen = gone[gone > 0]
        assert (
            stats.kstest(chosen.numpy() + np.random.default_rng(0).uniform(-0.005, 0.005, len(chosen)), "uniform")[0]
            < 0.05
        )


# Autoencoders of rows


def standard_normal_columns(kinds: str) -> dict:
    grid = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 1001, dtype=torch.float64)).tolist()
    facts = {"type": "continuous", "min": grid[0], "max": grid[-1], "mean": 0.0, "std": 1.0, "quantiles": grid}
    return {"kind": "table", "columns": [{"name": f"x{index}", **facts} for index in range(len(kinds))]}


class Linear(nn.Module):
    """z of variance 3/4 and two columns x = z + noise of variance 1/4: what is known of z given any of them.

    The columns are standard normal, their correlation is 3/4, all other densities follow.
    """

    def __init__(self, slack: float) -> None:
        super().__init__()
        self.slack = slack

    def forward(self, y, observed):
        precision = 4 / 3 + 4 * observed.sum(1, keepdim=True)
        return torch.cat([4 * y.sum(1, keepdim=True) / precision, (self.slack / precision).log()], dim=1).to(y.dtype)


class ColumnsOf(nn.Module):
    """The likelihood's outputs: log-weight, mean and log-scale of each column."""

    def forward(self, z):
        mean = 6 * torch.atanh(z / 6)  # means are bounded softly
        return torch.cat([torch.zeros_like(z), mean, torch.full_like(z, math.log(0.5))] * 2, dim=1)


def linear_rows(slack: float) -> VAE:
    config = {"latent": 1, "width": 4, "components": 1, "prior_components": 0, "cells": "independent"}
    model = build({"family": "vae", "config": config, "domain": standard_normal_columns("cc"), "classes": 0})
    model.mixture.scale.fill_(math.sqrt(0.75))
    model.encoder, model.decoder = Linear(slack), ColumnsOf()
    return model


def test_the_bound_of_rows_is_the_exact_density_of_their_known_cells():
    x = torch.tensor([[0.5, 1.0], [-1.2, 0.3], [1.5, 1.4], [0.0, -0.8]], dtype=torch.float64)
    both = stats.multivariate_normal([0, 0], [[1, 0.75], [0.75, 1]]).logpdf(x.numpy())
    assert np.allclose(linear_rows(1.0).elbo(x, Streams.seeded(0)), both, atol=0.03)
    assert np.allclose(linear_rows(3.0).elbo(x, Streams.seeded(0), samples=3000), both, atol=0.05)
    gap = torch.where(torch.tensor([True, False]), x, torch.nan)
    assert np.allclose(linear_rows(1.0).elbo(gap, Streams.seeded(0)), stats.norm.logpdf(x[:, 0]), atol=0.03)


def test_imputed_cells_follow_the_exact_conditional_though_the_encoder_is_too_unsure():
    """Mean 3/4 x and variance 7/16; without p(z)/q(z|x) in the weights the mean would be 15/16 x."""
    x = torch.tensor([[1.5, 0.0], [-1.5, 0.0]], dtype=torch.float64).repeat(40, 1)
    observed = torch.tensor([True, False]).expand(80, 2)
    draws = linear_rows(4.0).impute(x, observed, Streams.seeded(0), draws=40)[:, :, 1]
    mean = float((draws * x[:, 0].sign()).mean())
    assert abs(mean - 1.125) < 0.07
    assert abs(float(draws.mean(0).abs().mean()) - 1.125) < 0.1
    assert abs(float((draws - draws.mean(0)).square().mean()) * 40 / 39 - 7 / 16) < 0.06


def test_what_training_minimizes_is_the_bound_in_closed_form():
    """With the exact posterior the expected loss is -log p(x), and beta and free bits change the divergence only."""
    x = torch.tensor([[0.5, 1.0], [-1.2, 0.3]], dtype=torch.float64).repeat(4000, 1)
    both = stats.multivariate_normal([0, 0], [[1, 0.75], [0.75, 1]]).logpdf(x[:2].numpy())
    variance = 1 / (4 / 3 + 8)
    mean = 4 * x[:2].sum(1) * variance
    prior = torch.distributions.Normal(torch.zeros(2).double(), math.sqrt(0.75))
    divergence = torch.distributions.kl_divergence(torch.distributions.Normal(mean, math.sqrt(variance)), prior)

    def loss(seen: int = 0, **config: float) -> torch.Tensor:
        options = {"latent": 1, "width": 4, "components": 1, "hide": 0.0, "cells": "independent"} | config
        model = build({"family": "vae", "config": options, "domain": standard_normal_columns("cc"), "classes": 2})
        model.encoder, model.decoder = Linear(1.0), ColumnsOf()
        with torch.no_grad():
            (weights,) = model.prior.parameters()
            weights.copy_(torch.tensor([[5.0, 0.0], [0.0, math.log(0.75)], [-5.0, 0.0]]))
            label = torch.ones(len(x), dtype=torch.long)
            total = model.objectives()[0](Batch(x, label, seen=seen), Streams.seeded(0)).total
        return total.reshape(-1, 2).mean(0)

    assert np.allclose(loss(free_bits=0.0), -both, atol=0.03)
    assert np.allclose(loss(free_bits=0.0, beta=3.0), -both + 2 * divergence.numpy(), atol=0.03)
    assert np.allclose(loss(free_bits=9.0), -both + (9 - divergence.numpy()), atol=0.03)
    warm = loss(seen=250, warmup_examples=1000, free_bits=0.0)
    assert np.allclose(warm, -both - 0.75 * divergence.numpy(), atol=0.03)


class Sure(nn.Module):
    """An encoder that knows nothing: mean and variance of every code are given."""

    def __init__(self, mean: float, variance: float) -> None:
        super().__init__()
        self.mean, self.variance = mean, variance

    def forward(self, y, observed):
        return torch.tensor([[self.mean, math.log(self.variance)]]).expand(len(y), 2)


def test_the_prior_after_training_is_the_learned_one_or_that_of_all_posteriors():
    rows, label = torch.randn(1000, 2, generator=seeded()).double(), torch.arange(1000) % 2
    for components, means, variance in ((0, (-2.0, 2.0), 0.25), (1, (3.0, 3.0), 1.5)):
        config = {"latent": 1, "width": 4, "prior_components": components, "cells": "independent"}
        model = build({"family": "vae", "config": config, "domain": standard_normal_columns("cc"), "classes": 2})
        model.encoder, model.decoder = Sure(3.0, 1.5), nn.Sequential(nn.Linear(1, 18))
        with torch.no_grad():
            (weights,) = model.prior.parameters()
            weights.copy_(torch.tensor([[-2.0, math.log(0.25)], [2.0, math.log(0.25)], [9.0, 0.0]]))
        model.finalize(Batch(rows, label), Streams.seeded(0))
        drawn = model.mixture.sample(4000, torch.arange(4000) % 2, Streams.seeded(1)).reshape(-1, 2)
        assert torch.allclose(drawn.mean(0), torch.tensor(means), atol=0.1)
        assert torch.allclose(drawn.var(0), torch.tensor([variance, variance]), rtol=0.1)


class Copying(nn.Module):
    """An autoencoder of two equal columns: of a cell it was shown it says that, of one it was not the other."""

    def forward(self, y, state):
        return torch.cat([torch.where(state > 0, y, y.flip(1)), state], dim=1)


class CopiedColumns(nn.Module):
    def forward(self, z):
        like = [torch.zeros(len(z), 3), torch.zeros(len(z), 3), torch.full((len(z), 3), -2.0)]
        return torch.cat(
            [part + (z[:, i, None] if n == 1 else 0) for i in (0, 1) for n, part in enumerate(like)], dim=1
        )


def test_a_broken_dependence_between_columns_is_an_anomaly():
    """Rows of which each cell is ordinary and so is the code, but x2 is not x1: seen if the judged cell is hidden."""
    config = {"latent": 4, "width": 4, "components": 1, "cells": "independent"}
    model = build({"family": "autoencoder", "config": config, "domain": standard_normal_columns("cc"), "classes": 0})
    model.encoder, model.decoder = Copying(), CopiedColumns()
    model.mixture.fit = lambda *_: None
    x = torch.randn(500, 1, generator=seeded()).double().expand(-1, 2).contiguous()
    model.finalize(Batch(x), Streams.seeded(0))
    broken = x * torch.tensor([1.0, -1.0], dtype=torch.float64)
    apart = (x[:, 0].abs() > 0.7) & (x[:, 0].abs() < 2.5)
    intact, odd = (model.anomaly_score(rows[apart], Streams.seeded(0)) for rows in (x, broken))
    assert (odd > intact.quantile(0.99)).all()


# Images mirrored and moved


def test_augmented_images_are_mirrored_or_moved_ones():
    image = Image(channels=3, height=9, width=7)
    x = torch.randint(256, (64, 9, 7, 3), dtype=torch.uint8, generator=seeded())
    assert image.augmented(x, Streams.seeded(0)) is x
    mirrored = image.augmented(x, Streams.seeded(0), flip=True)
    kinds = [(a == b).all().item() or 2 * (a == b.flip(1)).all().item() for a, b in zip(mirrored, x, strict=True)]
    assert set(map(int, kinds)) == {1, 2}
    assert 16 < sum(kinds) - 64 < 48
    moved = image.augmented(x, Streams.seeded(1), flip=True, shift=0.3)  # by up to 2 of the 7 pixels
    assert (moved.shape, moved.dtype) == (x.shape, torch.uint8)
    padded = np.pad(x.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for picture, wide in zip(moved.numpy(), padded, strict=True):
        views = [side[i : i + 9, j : j + 7] for side in (wide, wide[:, ::-1]) for i in range(5) for j in range(5)]
        assert any((picture == view).all() for view in views)
    numbered = torch.arange(63, dtype=torch.uint8).reshape(1, 9, 7, 1).expand(400, 9, 7, 1)
    middle = Image(channels=1, height=9, width=7).augmented(numbered, Streams.seeded(2), shift=0.3)[:, 4, 3, 0].int()
    down, across = torch.div(middle, 7, rounding_mode="floor") - 4, middle % 7 - 3
    for offsets in (down, across):  # all five, each in about 80 of 400
        assert np.unique(offsets).tolist() == [-2, -1, 0, 1, 2]
        assert np.bincount(offsets + 2).min() > 50
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.2
    with pytest.raises(ValueError, match="a table cannot be mirrored or moved"):
        domain(standard_normal_columns("cc")).augmented(torch.zeros(2, 2), Streams.seeded(0), flip=True)


# GANs


@pytest.mark.parametrize("part", [0.0, 0.25])
def test_images_are_shifted_by_every_offset_up_to_the_reach(part):
    y = torch.full((3000, 2, 9, 9), -1.0)
    y[:, :, 4, 4] = 1.0
    moved = random_shift(y, part, Streams.seeded(0))
    at = (moved > 0).nonzero()
    assert len(at) == 2 * len(y)  # each once per channel, the rest filled with the lowest value
    assert torch.equal(at[::2, [0, 2, 3]], at[1::2, [0, 2, 3]])
    reach = 2 if part else 0
    for offsets in (at[::2, 2] - 4, at[::2, 3] - 4):
        assert offsets.unique().tolist() == list(range(-reach, reach + 1))
        assert (torch.bincount(offsets + reach) / 3000 - 1 / (2 * reach + 1)).abs().max() < 0.03
    assert abs(np.corrcoef(at[::2, 2], at[::2, 3])[0, 1]) < 0.06 if part else True


class Weighing(nn.Module):
    """A critic that weighs values: D(y) = w y."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.4]))

    def forward(self, y, label, observed):
        return y @ self.weight


class Always(nn.Module):
    """A generator of one example."""

    noise = 3

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, z, label):
        return self.value.expand(len(z), 2)


@pytest.mark.parametrize("loss", ["hinge", "relativistic", "wasserstein"])
def test_both_players_losses_are_the_hand_computed_ones(loss):
    """D(fake) = -0.5; the critic's gradient has norm 0.5 everywhere."""
    config = {"loss": loss, "gamma": 0.8, "penalty": 10.0, "width": 4, "critic_width": 4, "settle": 0.0}
    model = build({"family": "gan", "config": config, "domain": standard_normal_columns("cc"), "classes": 0})
    model.critic, model.generator = Weighing(), Always()
    rows = torch.tensor([[3.0, -3.0], [0.5, 0.5], [-2.0, 1.0]], dtype=torch.float64)
    real, fake = model.domain.to_model(rows).numpy() @ np.array([0.3, -0.4]), -0.5
    critic, generator = (objective(Batch(rows), Streams.seeded(0)).total.detach() for objective in model.objectives())
    expected = {
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + fake), np.full(3, -fake)),
        "relativistic": (np.log1p(np.exp(fake - real)) + 0.4 * 0.5, np.log1p(np.exp(real - fake))),
        "wasserstein": (fake - real + 10 * 0.25, np.full(3, -fake)),
    }[loss]
    assert np.allclose(critic, expected[0], atol=1e-5)
    assert np.allclose(generator, expected[1], atol=1e-5)


class Straight(nn.Module):
    """A generator whose examples are its noise."""

    noise = 2

    def forward(self, z, label):
        return z


def inverting(steps: int, classes: int = 0):
    config = {"width": 4, "critic_width": 4, "latent": 2}
    spec = {"family": "gan", "config": config, "domain": standard_normal_columns("cc"), "classes": classes}
    model = build(spec | {"sampling": {"inversion_steps": steps}})
    model.generator = Straight()
    return model


def test_a_reconstruction_is_the_best_of_its_starts_and_descends_to_the_example():
    x = torch.randn(300, 2, generator=seeded()).clamp(-1.5, 1.5).double()
    y = inverting(0).domain.to_model(x)

    def errors(found: torch.Tensor) -> torch.Tensor:
        return (found - y).square().sum(-1)

    pool = torch.randn(4096, 2, generator=seeded(1))
    starts = errors(pool[sample_nearest(y, torch.ones(300, 2, dtype=torch.bool), pool, Streams.seeded(5), draws=4)])
    best = float(starts.min(0).values.mean())
    assert float(starts.mean()) > 1.8 * best
    without = errors(inverting(0).domain.to_model(inverting(0).reconstruct(x, Streams.seeded(0))))
    assert 0.7 * best < float(without.mean()) < 1.4 * best
    after = errors(inverting(20).domain.to_model(inverting(20).reconstruct(x, Streams.seeded(0))))
    assert float(after.mean()) < 0.05 * best
