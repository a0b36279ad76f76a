"""Random numbers: independent per virtual rank, the same however ranks are shared out, of the stated distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from models import Batch, Streams
from models.rng import Stratified

DRAWS = {
    "normal": lambda s, n: s.normal(n, 3),
    "uniform": lambda s, n: s.uniform(n, 3),
    "integers": lambda s, n: s.integers(1000, n, 3),
    "categorical": lambda s, n: s.categorical(torch.full((500,), 1 / 500), n),
    "choice": lambda s, n: s.choice(torch.zeros(n, 500)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_noise_does_not_depend_on_who_plays_the_virtual_ranks(draw):
    """Eight ranks on one worker, on two of four and on eight of one: the same numbers; each rank has its own."""
    whole = draw(Streams.seeded(3, ranks=range(8)), 16)
    for size in (4, 1):
        parts = [draw(Streams.seeded(3, ranks=range(first, first + size)), 2 * size) for first in range(0, 8, size)]
        assert torch.equal(whole, torch.cat(parts))
    assert len(whole.reshape(8, -1).unique(dim=0)) == 8
    assert not torch.equal(whole, draw(Streams.seeded(4, ranks=range(8)), 16))
    assert not torch.equal(whole, draw(Streams.seeded("3", ranks=range(8)), 16))
    streams = Streams.seeded(3, ranks=range(8))
    assert not torch.equal(draw(streams, 16), draw(streams, 16))


def test_a_draw_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of 8 streams, got 9"):
        Streams.seeded(0, ranks=range(8)).normal(9)
    with pytest.raises(ValueError, match="at least one generator"):
        Streams([])


def test_ranks_and_steps_are_not_correlated():
    """Of 16 streams of 4000 numbers no two correlate by more than 5 standard errors."""
    numbers = np.stack([Streams.seeded(step, ranks=(rank,)).normal(4000) for step in range(4) for rank in range(4)])
    correlation = np.corrcoef(numbers) - np.eye(16)
    assert np.abs(correlation).max() < 5 / 4000**0.5


def test_draws_have_the_stated_distributions():
    streams, weights = Streams.seeded(0, ranks=range(4)), np.array([0.5, 0.0, 0.3, 0.2])
    assert stats.kstest(streams.normal(4000), "norm").pvalue > 1e-3
    assert stats.kstest(streams.uniform(4000), "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(streams.integers(7, 7000), minlength=7)).pvalue > 1e-3
    log_weight = torch.tensor(weights).log().expand(4000, 4) + 3
    for found in (streams.categorical(2 * torch.tensor(weights), 4000), streams.choice(log_weight)):
        counts = np.bincount(found, minlength=4)
        assert counts[1] == 0
        assert stats.chisquare(counts[[0, 2, 3]], 4000 * weights[[0, 2, 3]]).pvalue > 1e-3


def test_stratified_draws_are_spread_evenly_and_by_themselves_as_ever():
    """Of ten draws for one place one lies in every tenth, in an order of its own; of both distributions."""
    u = Stratified(Streams.seeded(0), 10).uniform(4000, 2).reshape(10, 400, 2)
    tenths = (u * 10).floor()
    assert torch.equal(tenths.sort(0).values, torch.arange(10.0)[:, None, None].expand(10, 400, 2))
    assert stats.chisquare(np.bincount(tenths[0].flatten().long(), minlength=10)).pvalue > 1e-3
    assert abs(np.corrcoef(tenths[:, :, 0].flatten(), tenths[:, :, 1].flatten())[0, 1]) < 0.05
    z = Stratified(Streams.seeded(1), 10).normal(4000, 2)
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    assert z.reshape(10, -1).mean(0).std() < 0.1  # of independent draws 0.32


def test_what_a_batch_shows_is_what_is_observed():
    x, observed = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8), torch.tensor([[True, False], [True, True]])
    assert torch.equal(Batch(x).visible, x)
    shown = Batch(x, observed=observed).visible
    assert torch.equal(shown.isnan(), ~observed)
    assert torch.equal(shown[observed], torch.tensor([1.0, 3.0, 4.0]))
    moved = Batch(x, torch.tensor([0, 1]), observed, seen=7).to("cpu")
    assert (len(moved), moved.seen) == (2, 7)
    assert torch.equal(moved.observed, observed)
