"""What models of large images start from: principal components and Gaussians on them, beside scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import nn

from models import Batch, Streams, build
from models.flow import principal as flow_principal
from models.flow.config import Config
from models.flow.principal import PrincipalFlow
from models.networks.principal import leading_components

SPEC = {"kind": "image", "channels": 1, "height": 6, "width": 5, "levels": 256}


def images(n: int = 400, classes: int = 2) -> Batch:
    """Images near three directions about a mean of their class, with noise of three levels."""
    source = np.random.default_rng(0)
    label = source.integers(classes, size=n)
    middles, directions = 40 * source.normal(size=(classes, 30)), source.normal(size=(3, 30))
    flat = 128 + middles[label] / 3 + 12 * source.normal(size=(n, 3)) @ directions + 3 * source.normal(size=(n, 30))
    x = torch.from_numpy(flat.round().clip(0, 255).astype(np.uint8)).reshape(n, 6, 5, 1)
    return Batch(x, torch.from_numpy(label))


def begun(family: str, config: dict, batch: Batch, classes: int) -> nn.Module:
    """A model that was shown the data, and has not learned anything."""
    torch.manual_seed(0)
    model = build({"family": family, "config": {"width": 8, **config}, "domain": SPEC, "classes": classes})
    model.initialize(batch, Streams.seeded("initialize"))
    return model.eval()


@pytest.mark.parametrize(("n", "dims"), [(200, 12), (15, 40)], ids=["many examples", "few"])
def test_leading_components_are_those_of_scikit_learn(n, dims):
    source = np.random.default_rng(1)
    x = source.normal(size=(n, dims)) @ source.normal(size=(dims, dims))
    mean, basis, variances, rest = leading_components(torch.from_numpy(x), 5)
    mean, basis, variances = mean.numpy(), basis.numpy(), variances.numpy()
    known = PCA(5, svd_solver="full").fit(x)
    assert np.allclose(mean, known.mean_)
    assert np.allclose(np.abs(basis.T @ known.components_.T), np.eye(5), atol=1e-8)
    assert np.allclose(variances, known.explained_variance_)
    assert rest == pytest.approx(known.noise_variance_ * (min(n, dims) - 5) / (dims - 5))


def test_more_components_than_examples_have_no_variance_and_are_orthonormal():
    x = torch.randn(4, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, basis, variances, rest = leading_components(x, 8)
    assert torch.allclose(basis.T @ basis, torch.eye(8, dtype=torch.float64), atol=1e-12)
    assert (variances[:3] > 0.1).all()
    assert (variances[3:] < 1e-12).all()
    assert rest < 1e-12


def test_an_autoencoder_starts_as_the_principal_components():
    batch = images()
    model = begun("autoencoder", {"latent": 6, "principal": 4}, batch, 2)
    flat = batch.x.numpy().reshape(len(batch), -1).astype(float)
    known = PCA(4, svd_solver="full").fit(flat)
    expected = known.inverse_transform(known.transform(flat)).clip(0, 255)
    assert (
        np.abs(model.reconstruct(batch.x, Streams.seeded(0)).numpy().reshape(len(batch), -1) - expected).max() <= 0.51
    )
    codes = model.encode(batch.x)
    assert torch.allclose(codes[:, :4].std(0), torch.ones(4), atol=1e-3)
    assert not codes[:, 4:].any()


def test_a_vae_starts_with_means_along_the_principal_components():
    """Reconstructions are those and, small, what a network that learned nothing adds: with noise in its weights."""
    batch = images()
    model = begun("vae", {"latent": 4, "principal": 4}, batch, 2)
    flat = batch.x.numpy().reshape(len(batch), -1).astype(float)
    rebuilt = model.reconstruct(batch.x, Streams.seeded(0)).numpy().reshape(len(batch), -1)
    known = PCA(4, svd_solver="full").fit(flat)
    apart = np.square(rebuilt - known.inverse_transform(known.transform(flat)))
    assert apart.mean() < 0.02 * flat.var(0).mean()


def test_a_gan_starts_as_a_gaussian_per_class():
    batch = images(2000)
    model = begun("gan", {"latent": 6, "principal": 6, "critic_width": 8, "features": 8}, batch, 2)
    flat = batch.x.reshape(len(batch), -1).double()
    for label in (0, 1, -1):
        drawn = model.generator(Streams.seeded(label).normal(4000, 6), torch.full((4000,), label))
        drawn = (drawn.detach().flatten(1).double() + 1) * 127.5
        known = flat if label < 0 else flat[batch.label == label]
        assert torch.allclose(drawn.mean(0), known.mean(0), atol=4 * float(known.std(0).max()) / math.sqrt(2000))
        leading = torch.linalg.eigvalsh(torch.cov(known.T))[-3:]
        assert torch.allclose(torch.linalg.eigvalsh(torch.cov(drawn.T))[-3:], leading, rtol=0.15)


def test_what_a_gan_adds_to_its_gaussians_has_no_grid():
    """A pattern that the decoder puts into every block of 2x2 pixels is everywhere its mean, but at two edges."""
    model = begun("gan", {"latent": 6, "principal": 6, "patch": 2, "critic_width": 8, "features": 8}, images(), 2)
    noise, label = Streams.seeded(0).normal(5, 6), torch.tensor([0, 1, 0, 1, -1])
    start = model.generator(noise, label)
    pattern = torch.randn(4, generator=torch.Generator().manual_seed(0))
    model.generator.decoder.head.bias.data.copy_(pattern)
    added = (model.generator(noise, label) - start)[:, :, :5, :4]
    assert torch.allclose(added, pattern.mean().expand_as(added), atol=1e-5)


@pytest.mark.parametrize("label", [None, 0, 1], ids=["unknown", "first class", "second class"])
def test_a_denoiser_starts_as_that_of_a_gaussian_mixture(label):
    """Beside Bayes' rule for the classes' sample moments: all 30 components, so that nothing else is left over."""
    batch = images(4000)
    model = begun("diffusion", {"embed": 8, "principal": 30, "hide": 0.0}, batch, 2)
    y = model.domain.to_model(batch.x).flatten(1).double().numpy()
    sigma, groups = 0.3, [0, 1] if label is None else [label]
    noisy = y[:50] + sigma * np.random.default_rng(2).normal(size=(50, 30))
    weights, means = [], []
    for group in groups:
        members = y[batch.label.numpy() == group]
        mean, covariance = members.mean(0), np.cov(members.T)
        total = covariance + sigma**2 * np.eye(30)
        weights.append(len(members) * multivariate_normal(mean, total).pdf(noisy))
        means.append(mean + (noisy - mean) @ np.linalg.solve(total, covariance))
    weights = np.array(weights) / np.sum(weights, axis=0)
    expected = np.einsum("kn,knd->nd", weights, np.array(means))
    given = None if label is None else torch.full((50,), label)
    got = model.denoised(torch.from_numpy(noisy).float().reshape(50, 1, 6, 5), sigma, given).flatten(1).detach().numpy()
    assert np.sqrt(np.square(got - expected).mean()) < 0.02 * np.sqrt(np.square(noisy - y[:50]).mean())


def test_less_detail_is_drawn_when_asked():
    """Along all directions but the leading ones samples spread as told; along these as they did."""
    batch = images(2000, classes=1)
    known = PCA(3, svd_solver="full").fit(batch.x.numpy().reshape(len(batch), -1))
    spreads = {}
    for detail in (1.0, 0.25):
        model = begun("diffusion", {"embed": 8, "principal": 3}, batch, 0).with_sampling(
            detail=detail, steps=64, sigma_min=1e-3
        )
        drawn = model.sample(1000, None, Streams.seeded(0)).numpy().reshape(1000, -1).astype(float)
        along = known.transform(drawn)
        spreads[detail] = along.var(0).sum(), (drawn - known.inverse_transform(along)).var(0).sum()
    assert spreads[1.0][1] == pytest.approx(27 * known.noise_variance_, rel=0.1)
    assert spreads[0.25][1] == pytest.approx(spreads[1.0][1] / 16 + 27 / 12, rel=0.15)  # and of rounding to levels
    assert spreads[0.25][0] == pytest.approx(spreads[1.0][0], rel=0.05)


def test_large_images_flow_along_their_leading_components(monkeypatch):
    """An orthogonal map that takes scikit-learn's components to the first axes: volumes and lengths stay."""
    monkeypatch.setattr(flow_principal, "MOST_COMPONENTS", 16)
    source = np.random.default_rng(3)
    x = source.normal(size=(300, 30)) @ source.normal(size=(30, 30))
    network = PrincipalFlow((1, 6, 5), Config(architecture="principal", components=4, width=8, embed=4)).double()
    network.measure(torch.from_numpy(x))
    rotated = network.rotation(torch.from_numpy(x - x.mean(0))).numpy()
    known = PCA(4, svd_solver="full").fit(x)
    assert np.allclose(np.abs(rotated[:, :4]), np.abs(known.transform(x)))
    assert np.allclose(rotated @ rotated.T, (x - x.mean(0)) @ (x - x.mean(0)).T)
    assert np.allclose(network.scale.square()[:4], known.explained_variance_)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    point, c = torch.from_numpy(x[:1]).reshape(1, 1, 6, 5), torch.zeros(1, 4).double()
    latents, log_det = network(point, c)
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: torch.cat([z.flatten() for z in network(flat.reshape(1, 1, 6, 5), c)[0]]), point.flatten()
    )
    assert log_det[0].item() == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), rel=1e-9)
    assert torch.allclose(network.inverse(latents, c), point)
