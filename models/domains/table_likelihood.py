"""Rows of a table whose cells are independent given a network's outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..networks.embeddings import full_precision
from ..rng import Streams
from ..shapes import Float, Num
from .base import Domain, Likelihood
from .digits import corner_of
from .table_quantiles import Cells


class MixedLikelihood(Likelihood):
    r"""Numbers: a mixture of Gaussians on the normal scale; categories: a categorical distribution.

    A number that has a probability (an integer, a value in bulk) gets that of its cell,
    :math:`\sum_i \pi_i [\Phi((b - \mu_i)/\sigma_i) - \Phi((a - \mu_i)/\sigma_i)]`; a continuous one
    its density in the data's units. A missing cell counts 0: it is integrated out exactly.

    Arguments:
        table: The domain.
        components: Gaussians per number.
    """

    drawn = True
    loss_name = "reconstruction_nats"

    def __init__(self, table: Domain, components: int) -> None:
        self.table, self.components = table, components
        self.numbers = len(table.numeric) * 3 * components
        self.category_sizes = [table.counts[i] for i in table.categorical]
        self.outputs = self.numbers + sum(self.category_sizes)
        """Network outputs needed, in all."""

    def _numbers(self, raw: Float[Tensor, "batch outputs"]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, each `[batch, numbers, components]`."""
        parts = full_precision(raw)[:, : self.numbers].unflatten(1, (-1, 3, self.components))
        logits, mean, log_scale = parts.unbind(2)
        spread = torch.linspace(-1, 1, self.components + 2, device=raw.device, dtype=mean.dtype)[1:-1]
        return logits.log_softmax(2), 6 * torch.tanh((mean + spread) / 6), log_scale.clamp(-4, 2)

    def _logits(self, raw: Float[Tensor, "batch outputs"]) -> list[Tensor]:
        return [
            part.log_softmax(1) for part in full_precision(raw)[:, self.numbers :].split(self.category_sizes, dim=1)
        ]

    def log_prob(
        self, raw: Float[Tensor, "batch outputs"], x: Num[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch columns"]:
        """Log-probability of each cell in nats (a density in data units if continuous), 0 where missing."""
        cells = self.table.cells(x)
        values: list[Tensor] = [raw.new_zeros(0)] * len(self.table.columns)
        if self.table.numeric:
            numbers = self._of_numbers(raw, cells)
            for position, index in enumerate(self.table.numeric):
                values[index] = numbers[:, position]
        for logits, index in zip(self._logits(raw) if self.category_sizes else (), self.table.categorical, strict=True):
            code = torch.where(cells.observed[:, index], x[:, index].double(), 0.0).long()
            values[index] = logits.gather(1, code[:, None])[:, 0]
        return torch.where(cells.observed, torch.stack(values, dim=1), 0.0)

    def _of_numbers(self, raw: Float[Tensor, "batch outputs"], cells: Cells) -> Float[Tensor, "batch numbers"]:
        log_weight, mean, log_scale = self._numbers(raw)
        chosen = Cells(*(t[:, self.table.numeric] for t in cells))
        middle = chosen.middle
        lower, upper = chosen.probit(chosen.lower), chosen.probit(chosen.upper)
        density = self.table.log_det(chosen, middle)  # of points: normal scale to data units
        wide = chosen.wide
        middle, lower, upper = (t.to(mean.dtype)[..., None] for t in (middle, lower, upper))
        centre = torch.where(wide[..., None], (lower + upper) / 2, middle)
        z = (centre - mean) * (-log_scale).exp()
        point = -0.5 * (z.square() + math.log(2 * math.pi)) - log_scale
        width = torch.where(wide[..., None], upper - lower, 1.0)
        scaled = width * (-log_scale).exp()
        broad = wide[..., None] & (scaled > 0.1)
        safe = torch.where(broad, scaled, 1.0)
        side = -z.abs()  # by symmetry, on the left where the logarithms are exact
        above, below = torch.special.log_ndtr(side + safe / 2), torch.special.log_ndtr(side - safe / 2)
        mass = above + torch.log(-torch.expm1((below - above).clamp(max=-1e-7)))
        value = torch.where(broad, mass, point + width.clamp(min=1e-30).log())
        total = (log_weight + value).logsumexp(2)
        return total + torch.where(wide, 0.0, density).to(total.dtype)

    def _assemble(self, numbers: Tensor, categories: list[Tensor]) -> Float[Tensor, "batch dims"]:
        parts: list[Tensor] = [numbers] * len(self.table.columns)
        for position, index in enumerate(self.table.numeric):
            parts[index] = numbers[:, position, None]
        for part, index in zip(categories, self.table.categorical, strict=True):
            parts[index] = part
        return torch.cat(parts, dim=1)

    def mean(self, raw: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch dims"]:
        """Means of the mixtures and probabilities of the categories, in model space; where categories are written in
        digits, those of the likeliest."""
        log_weight, mean, _ = self._numbers(raw)
        categories = []
        for logits, index in zip(self._logits(raw) if self.category_sizes else (), self.table.categorical, strict=True):
            in_digits = len(self.table.digits[index]) > 1
            categories.append(
                corner_of(logits.argmax(1), self.table.digits[index]).to(mean.dtype) if in_digits else logits.exp()
            )
        return self._assemble((log_weight.exp() * mean).sum(2), categories)

    def sample(self, raw: Float[Tensor, "batch outputs"], generator: Streams) -> Float[Tensor, "batch dims"]:
        """One draw in model space."""
        log_weight, mean, log_scale = self._numbers(raw)
        n = len(raw)
        chosen = generator.choice(log_weight)[..., None]
        scale = log_scale.gather(2, chosen)[..., 0].exp()
        numbers = mean.gather(2, chosen)[..., 0] + scale * generator.normal(n, mean.shape[1])
        categories = []
        for logits, index in zip(self._logits(raw) if self.category_sizes else (), self.table.categorical, strict=True):
            categories.append(corner_of(generator.choice(logits), self.table.digits[index]).to(numbers.dtype))
        return self._assemble(numbers, categories)
