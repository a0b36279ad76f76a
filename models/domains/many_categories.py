"""Columns of many categories in a network over the cells of a row: short vectors, and questions in two steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import Float, Int

MANY = 256
"""Categories of a column beyond which a network sees and says them in parts, not one by one."""


def group_size(count: int) -> int:
    """Categories in a group of so many: a quarter of the square root of their number, for a vector that is looked up
    costs as much as many that are multiplied."""
    return max(1, math.isqrt(count) // 4)


class ManyCategories(nn.Module):
    r"""Vectors of the categories of large columns, and their probabilities: of the group first, then within it.

    .. math:: p(k) = p(g) \, p(k \mid g), \quad \log p(k \mid g) \propto v_k^\top W h + b_k

    A category has a vector of a quarter of the width for what is told of it and one for what is asked; two matrices
    that all share bring these to the network's width.

    Arguments:
        log_shares: Logarithms of the categories' shares of each column, by its number.
        width: Length of a cell's vector.

    References:
        | ALBERT (Lan et al., 2020), section 3.1 (short vectors)
        | https://arxiv.org/abs/1909.11942
        | Classes for fast maximum entropy training (Goodman, 2001) (two steps)
        | https://arxiv.org/abs/cs/0108006
    """

    def __init__(self, log_shares: dict[int, Float[Tensor, " categories"]], width: int) -> None:
        super().__init__()
        self.counts = {column: len(shares) for column, shares in log_shares.items()}
        self.columns = list(self.counts)
        totals = list(self.counts.values())
        self.starts = [sum(totals[:i]) for i in range(len(totals))]
        short = max(1, width // 4)
        self.value, self.widened = nn.Embedding(sum(totals), short), nn.Linear(short, width, bias=False)
        self.likely, self.shortened = nn.Embedding(sum(totals), short), nn.Linear(width, short, bias=False)
        self.bias = nn.Parameter(torch.cat(list(log_shares.values())))
        self.groups = nn.ModuleDict({str(column): self._grouping(column, width) for column in self.columns})
        nn.init.normal_(self.value.weight, std=0.2)
        nn.init.zeros_(self.likely.weight)

    def _grouping(self, column: int, width: int) -> nn.Linear:
        """The logits of a column's groups, at the start those of the marginal."""
        marginal = self._in_groups(self.bias.detach(), column).logsumexp(1)
        layer = nn.Linear(width, len(marginal))
        nn.init.zeros_(layer.weight)
        layer.bias.data.copy_(marginal)
        return layer

    def _in_groups(self, every: Float[Tensor, " total"], column: int) -> Float[Tensor, "groups size"]:
        """What belongs to a column's categories, group by group, the last filled up with minus infinity."""
        count, start = self.counts[column], self.starts[self.columns.index(column)]
        own = every[start : start + count]
        size = group_size(count)
        return torch.cat([own, own.new_full((-count % size,), -math.inf)]).unflatten(0, (-1, size))

    def vectors(self, code: Int[Tensor, "batch large"]) -> Float[Tensor, "batch large width"]:
        """What is told of cells of all large columns."""
        return self.widened(self.value(code + torch.tensor(self.starts, device=code.device)))

    def vector(self, column: int, code: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """The same of cells of one."""
        return self.widened(self.value(code + self.starts[self.columns.index(column)]))

    def log_p(self, h: Float[Tensor, "batch width"], column: int) -> Float[Tensor, "batch categories"]:
        """Log-probabilities of a column's categories given what is known of it."""
        count, start = self.counts[column], self.starts[self.columns.index(column)]
        bias = self._in_groups(self.bias, column)
        logits = self.shortened(h) @ self.likely.weight[start : start + count].T
        within = (F.pad(logits, (0, bias.numel() - count)).unflatten(1, bias.shape) + bias).log_softmax(2)
        return (self.groups[str(column)](h).log_softmax(1)[:, :, None] + within).flatten(1)[:, :count]

    def log_p_of(
        self, h: Float[Tensor, "batch large width"], code: Int[Tensor, "batch large"]
    ) -> Float[Tensor, "batch large"]:
        """Log-probability of one category of each column: only the members of its group are looked at.

        All columns' members are looked up at once, for a gradient of a weight is as long as the weight.
        """
        sizes = [group_size(count) for count in self.counts.values()]
        group = code // torch.tensor(sizes, device=code.device)
        members = torch.cat(
            [group[:, i, None] * size + torch.arange(size, device=code.device) for i, size in enumerate(sizes)], dim=1
        )
        repeats = torch.tensor(sizes, device=code.device)
        ends = torch.tensor(list(self.counts.values()), device=code.device).repeat_interleave(repeats)
        starts = torch.tensor(self.starts, device=code.device).repeat_interleave(repeats)
        at = members.minimum(ends - 1) + starts
        vectors, bias = self.likely(at), F.embedding(at, self.bias[:, None])[..., 0]
        bias = bias.masked_fill(members >= ends, -math.inf)
        short = self.shortened(h)
        each = []
        for i, (own, level) in enumerate(zip(vectors.split(sizes, dim=1), bias.split(sizes, dim=1), strict=True)):
            within = ((own @ short[:, i, :, None])[..., 0] + level).log_softmax(1)
            groups = self.groups[str(self.columns[i])](h[:, i]).log_softmax(1)
            place = (code[:, i] % sizes[i])[:, None]
            each.append((groups.gather(1, group[:, i, None]) + within.gather(1, place))[:, 0])
        return torch.stack(each, dim=1)
