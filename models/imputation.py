"""What the families share when they fill in missing cells: hiding cells, and starting from generated examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .rng import Stratified, Streams
from .shapes import Bool, Float, Int, Num


def _chosen(cells: Bool[Tensor, "batch *data"], part: float, generator: Streams) -> Bool[Tensor, "batch *data"]:
    """In `part` of the rows a random share of the cells, from none to all; nothing in the others."""
    rows = generator.uniform(len(cells), 2)
    share = torch.where(rows[:, 0] < part, rows[:, 1], 0.0).reshape(-1, *[1] * (cells.ndim - 1))
    return generator.uniform(*cells.shape) < share


def mask_cells(observed: Bool[Tensor, "batch *data"], part: float, generator: Streams) -> Bool[Tensor, "batch *data"]:
    """Which cells are left: in `part` of the rows a random share of them, from none to all, is hidden."""
    return observed & ~_chosen(observed, part, generator)


def reveal_cells(observed: Bool[Tensor, "batch *data"], part: float, generator: Streams) -> Bool[Tensor, "batch *data"]:
    """Which cells are given: in `part` of the rows a random share of them, from none to all, in the others none."""
    return observed & _chosen(observed, part, generator)


def with_gaps(x: Num[Tensor, "batch *data"], observed: Bool[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
    """The examples with NaN where they are not observed."""
    return torch.where(observed, x if x.is_floating_point() else x.float(), torch.nan)


def sample_nearest(
    y: Float[Tensor, "batch *event"],
    known: Bool[Tensor, "batch *event"],
    pool: Float[Tensor, "pool *event"],
    generator: Streams,
    *,
    draws: int,
    neighbours: int = 8,
) -> Int[Tensor, "draws batch"]:
    r"""Members of a pool that agree with the known values, drawn with weights that fall with the distance.

    .. math:: w_j \propto \exp(-(d_j - d_{min}) / s), \quad s = \text{mean excess of the nearest few}

    with :math:`d` the squared distance over the known values.
    """
    mask, values, members = (t.flatten(1).to(torch.float32) for t in (known, y, pool))
    distance = (mask * values.square()).sum(1, keepdim=True) - 2 * (mask * values) @ members.T
    distance = distance + mask @ members.square().T  # [batch, pool]
    least = distance.topk(min(neighbours, len(pool)), dim=1, largest=False).values
    excess = (least.mean(1, keepdim=True) - least[:, :1]).clamp(min=1e-6)
    weights = (-(distance - least[:, :1]) / excess).softmax(1)
    edges = weights.double().cumsum(1)
    u = torch.stack([generator.uniform(len(y)) for _ in range(draws)], dim=1).double() * edges[:, -1:]
    return torch.searchsorted(edges, u.contiguous(), right=True).clamp(max=len(pool) - 1).T


def tempered(
    log_weight: Float[Tensor, "batch choices"], *, effective: float, halvings: int = 12
) -> Float[Tensor, "batch choices"]:
    r"""Importance weights raised to the largest power up to 1 that leaves each row so many effective choices.

    The effective number is :math:`1 / \sum_i w_i^2` of normalized weights. When a few of the choices hold
    all weight, draws repeat them; a power below 1 takes a little bias for much less of that.

    Arguments:
        log_weight: Logarithms of the weights, up to a constant.
        effective: Effective choices that are enough; at most `choices`.
        halvings: Steps of the search for the power, on a logarithmic scale down to a millionth.

    References:
        | Inference for Lévy-driven stochastic volatility models via adaptive SMC (Jasra et al., 2011)
        | https://doi.org/10.1111/j.1467-9469.2010.00723.x
    """
    high = power = torch.ones_like(log_weight[:, :1])
    low = 1e-6 * high
    for _ in range(halvings):
        enough = 1 / (power * log_weight).softmax(1).square().sum(1, keepdim=True) >= effective
        low, high = torch.where(enough, power, low), torch.where(enough, high, power)
        power = (low * high).sqrt()
    return low * log_weight


def impute_in_random_order(
    observed: Bool[Tensor, "batch columns"],
    x: Float[Tensor, "batch columns"],
    generator: Streams,
    draw: Callable[[Tensor], Tensor],
    *,
    rounds: int,
) -> Float[Tensor, "batch columns"]:
    """Fill missing cells in a random order, in so many rounds, each given the cells filled before it.

    Arguments:
        observed: Which cells are known.
        x: Examples, NaN where missing.
        generator: Source of randomness.
        draw: Examples (NaN where missing) to complete examples drawn given them.
        rounds: Groups that each row's missing cells are divided into.
    """
    group = (generator.uniform(*observed.shape) * rounds).long()
    current = x
    for number in range(rounds):
        turn = ~observed & (group == number)
        if turn.any():
            current = torch.where(turn, draw(current), current)
    return current


def repeated(
    fill: Callable[[Tensor, Streams], Tensor], x: Num[Tensor, "batch *_"], generator: Streams, draws: int
) -> Num[Tensor, "draws batch *data"]:
    """Several fillings of every row, their noise spread evenly over the draws, a bounded number of rows at once.

    Arguments:
        fill: Examples (each row repeated) and streams to complete examples.
        x: Examples, NaN where missing, or what stands for them.
        generator: Source of randomness.
        draws: How many fillings.
    """
    parts = []
    for part in x.split(max(1, 16384 // draws)):
        copies = part.repeat(draws, *[1] * (x.ndim - 1))
        parts.append(fill(copies, Stratified(generator, draws)).unflatten(0, (draws, len(part))))
    return torch.cat(parts, dim=1) if parts else x.expand(draws, *x.shape)
