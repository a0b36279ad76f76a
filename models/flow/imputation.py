"""Draws of an example's hidden values given the others, from a joint density that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..rng import Streams
from ..shapes import Bool, Float

LogProb = Callable[[Tensor], Tensor]
"""Log-density of each of a batch of points, `[batch]`."""

AT_ONCE = 32768
"""Points evaluated together, which bounds memory."""


def gibbs(
    log_prob: LogProb,
    y: Float[Tensor, "batch dims"],
    hidden: Bool[Tensor, "batch dims"],
    edges: Float[Tensor, "dims _"],
    refresh: Callable[[], Float[Tensor, "batch dims"]],
    generator: Streams,
) -> Iterator[Float[Tensor, "batch dims"]]:
    r"""States of a Gibbs sampler over the hidden columns, one per sweep, without end.

    A column's conditional is evaluated at one random point of each interval between its `edges`,
    and the next value is one of these points, drawn in proportion to

    .. math:: p(y_j, y_{-j}) \, (e_{i+1} - e_i)

    Arguments:
        log_prob: The joint log-density, up to a constant.
        y: Where to start.
        hidden: The columns to draw, row by row.
        edges: Increasing; per column, intervals that cover its values.
        refresh: New values of the columns that are not hidden (their dequantization noise), used before each sweep.
        generator: Source of randomness.

    References:
        | Facilitating the Gibbs sampler: the griddy-Gibbs sampler (Ritter and Tanner, 1992)
        | https://doi.org/10.1080/01621459.1992.10476248
    """
    columns = hidden.any(0).nonzero()[:, 0].tolist()
    widths = edges.diff(dim=1)
    while True:
        y = torch.where(hidden, y, refresh())
        for column in columns:
            rows = hidden[:, column].nonzero()[:, 0]
            u = generator.uniform(len(y), widths.shape[1] + 1)[rows].to(y.dtype)
            points = edges[column, :-1] + u[:, 1:] * widths[column]  # [rows, intervals]
            density = torch.empty_like(points)
            many = max(AT_ONCE // points.shape[1], 1)
            for part in torch.arange(len(rows), device=y.device).split(many):
                trial = y[rows[part]][:, None].repeat(1, points.shape[1], 1)
                trial[:, :, column] = points[part]
                density[part] = log_prob(trial.flatten(0, 1)).unflatten(0, trial.shape[:2])
            weight = (density + widths[column].clamp(min=1e-12).log()).softmax(1).cumsum(1)
            choice = (u[:, :1] * weight[:, -1:] >= weight).sum(1).clamp(max=points.shape[1] - 1)
            y = y.clone()
            y[rows, column] = points.gather(1, choice[:, None])[:, 0]
        yield y


def langevin(
    log_prob: LogProb,
    y: Float[Tensor, "batch *event"],
    hidden: Bool[Tensor, "batch *event"],
    generator: Streams,
    *,
    steps: int,
) -> Float[Tensor, "batch *event"]:
    r"""The last state of Metropolis-adjusted Langevin chains over the hidden values.

    Each chain's step size follows its rate of acceptance (towards 0.57) in the first three quarters of the steps.

    References:
        | Optimal scaling of discrete approximations to Langevin diffusions (Roberts and Rosenthal, 1998)
        | https://doi.org/10.1111/1467-9868.00123
    """

    def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            log_p = log_prob(y)
            (gradient,) = torch.autograd.grad(log_p.sum(), y)
        return log_p.detach(), gradient * hidden

    wide = [-1, *[1] * (y.ndim - 1)]
    log_step = y.new_full((len(y),), -3.0)
    log_p, gradient = evaluate(y)
    for number in range(steps):
        step = log_step.exp().reshape(wide)  # standard deviation of the proposal
        noise = generator.normal(*y.shape).to(y.dtype) * hidden
        proposal = y + 0.5 * step.square() * gradient + step * noise
        log_p_there, gradient_there = evaluate(proposal)
        back = (y - proposal - 0.5 * step.square() * gradient_there) / step * hidden
        log_ratio = log_p_there - log_p + 0.5 * (noise.square() - back.square()).flatten(1).sum(1)
        chance = torch.nan_to_num(log_ratio, nan=-torch.inf).clamp(max=0).exp()  # a proposal without density
        accepted = generator.uniform(len(y)).to(y.dtype) < chance
        log_p = torch.where(accepted, log_p_there, log_p)
        y = torch.where(accepted.reshape(wide), proposal, y)
        gradient = torch.where(accepted.reshape(wide), gradient_there, gradient)
        if number < 0.75 * steps:
            log_step = log_step + 0.2 * (chance - 0.57)
    return y
