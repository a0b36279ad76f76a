"""The consistency function against known answers: Gaussians, quantiles of mixtures, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from models import Batch, Streams, build
from models.diffusion.consistency import jump

FOUR = {"kind": "image", "channels": 1, "height": 2, "width": 2, "levels": 256}
MEANS, SPREAD = (-0.6, 0.5), 0.2


def small(jumps: float, **sampling):
    """A model of images of four pixels."""
    torch.manual_seed(0)
    config = {"width": 16, "embed": 32, "label_dropout": 0.0, "jumps": jumps}
    return build({"family": "diffusion", "config": config, "sampling": sampling, "domain": FOUR, "classes": 0})


def mixture(n: int, seed: int) -> torch.Tensor:
    """Images of independent pixels about one of two means, a third of them about the lower."""
    random = np.random.default_rng(seed)
    mean = np.where(random.random(n) < 1 / 3, *MEANS).reshape(n, 1, 1, 1)
    y = torch.tensor(mean + SPREAD * random.standard_normal((n, 2, 2, 1)))
    return ((y + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def trained(jumps: float, steps: int):
    """Objectives in turn, the second from the half on."""
    model = small(jumps)
    model.initialize(Batch(mixture(1024, 0)), Streams.seeded(0))
    objectives = model.objectives()
    optimizers = [torch.optim.Adam(objective.parameters(), 5e-3) for objective in objectives]
    for step in range(steps):
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            if step < objective.begins * steps:
                continue
            for group in optimizer.param_groups:
                group["lr"] = 5e-3 * (1 - step / steps)
            optimizer.zero_grad()
            objective(Batch(mixture(128, step)), Streams.seeded(step, objective.name)).total.mean().backward()
            optimizer.step()
    return model


def test_jumps_leave_all_other_weights_as_they_are():
    """Bit for bit, so densities, codes and imputations are those of a model without."""
    model, plain = trained(0.5, 6), trained(0.0, 6)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert any(weight.any() for weight in model.consistency.differences)


def test_one_evaluation_ends_where_the_ode_does():
    """Along the line of the two means the ODE keeps the order of examples, so it ends at the quantile of the data of
    which the noise is one (by scipy); across it, it scales. The denoiser ends at the mean instead."""
    model = trained(0.5, 350)
    z = torch.randn(1000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along, grid = z.sum(1).numpy() / 2, np.linspace(-3, 3, 4001)
    share = sum(w * stats.norm(2 * m, SPREAD).cdf(grid) for w, m in zip((1 / 3, 2 / 3), MEANS, strict=True))
    exact = SPREAD * (z.numpy() - along[:, None] / 2)
    exact += np.interp(stats.norm.cdf(along), share, grid)[:, None] / 2
    with torch.no_grad():
        x = 80 * z.reshape(-1, 1, 2, 2)
        ends = model.denoised(x, 80.0, None, network=model.consistency).flatten(1).numpy()
        mean = model.denoised(x, 80.0, None).flatten(1).numpy()

    def error(found) -> float:
        return float(np.sqrt(np.square(found - exact).mean()))

    assert error(mean) > 0.45
    assert error(ends) < 0.2


def test_jumps_keep_a_gaussian_from_any_level_over_any_others():
    """The ODE of N(0, 0.3^2) scales by 0.3 / sqrt(0.3^2 + sigma^2); what ends there has that spread."""
    y = 0.3 * torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def ends(x, sigma):
        return x * 0.3 / (0.09 + sigma**2).sqrt()

    for levels in ([80.0, 0.0], [5.0, 0.6, 0.2, 0.0], [80.0, 0.5]):
        x = y + levels[0] * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        found = jump(ends, x, torch.tensor(levels, dtype=y.dtype), Streams.seeded(2))
        assert float(found.std()) == pytest.approx((0.09 + levels[-1] ** 2) ** 0.5, rel=0.02)


def test_workers_see_the_same_jumps():
    """Eight streams played by one worker, or four by each of two: the same examples and noise, so the same losses."""
    model = small(0.3)
    objective, x = model.objectives()[1], mixture(64, 0)
    whole = objective(Batch(x), Streams.seeded(0, ranks=range(8))).total
    halves = [
        objective(Batch(part), Streams.seeded(0, ranks=ranks)).total
        for part, ranks in zip(x.chunk(2), (range(4), range(4, 8)), strict=True)
    ]
    assert len(whole) == 16  # 2 of each stream's 8
    assert torch.allclose(whole, torch.cat(halves), atol=1e-6)


def test_only_a_model_with_jumps_jumps():
    with pytest.raises(ValueError, match="sampler: consistency needs a model that was trained with jumps, this one"):
        small(0.0).with_sampling(sampler="consistency")
    one = small(0.5).with_sampling(sampler="consistency", steps=1)
    assert one.sample(3, None, Streams.seeded(0)).shape == (3, 2, 2, 1)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        one.with_sampling(sampler="dpmpp_2m")
    with pytest.raises(ValueError, match=r"jumps must lie between 0 and 1, got 1\.5"):
        small(1.5)
