"""The flow of rows: every cell by its exact conditional given those before it, in any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..capabilities import ConditionalSampling
from ..contract import Batch, Losses, Objective
from ..domains.base import Domain
from ..domains.row_network import RowNetwork
from ..imputation import repeated
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .base import BaseFlow
from .config import Config

__all__ = ["AutoregressiveFlow"]


class RowObjective(Objective):
    """Negative log-likelihood of the known cells and gaps, in nats, each row's columns in an order of its own."""

    name = "flow"
    per_example = True

    def __init__(self, model: AutoregressiveFlow) -> None:
        super().__init__()
        self.network, self.label = model.network, model.label
        self.config = model.config

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        label = batch.label
        if label is not None:
            label = torch.where(generator.uniform(len(batch)) < self.config.label_dropout, -1, label)
        share = {"table": 0.0, "mixed": 0.5, "random": 1.0}[self.config.order]
        each = self.network.log_prob(batch.visible, self.label(label, len(batch)), generator, share, gaps=batch.gaps)
        nll = -each.sum(1)
        return Losses(nll, {"bits_per_dim": nll / (each.shape[1] * math.log(2))})


class AutoregressiveFlow(BaseFlow, ConditionalSampling):
    r"""An invertible map between rows and standard normal codes, triangular in any order of the columns.

    .. math:: \Phi(z_j) = F_j(x_j \mid x_{<j}, y)

    A number's code and value determine each other; a category's is the middle of its interval. Probabilities of
    categories, integers and frequent numbers are exact, as are densities of the others: nothing is dequantized.

    References:
        | Masked autoregressive flow for density estimation (Papamakarios et al., 2017), section 3.1
        | https://arxiv.org/abs/1705.07057
    """

    network: RowNetwork

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        scale = {"width": config.width, "blocks": config.blocks, "parts": config.parts, "dropout": config.dropout}
        super().__init__(config, domain, classes, domain.row_network(context=config.embed, **scale), 2)
        self.exact_conditionals = config.order != "table"

    def objectives(self) -> tuple[Objective, ...]:
        return (RowObjective(self),)

    def _point(self, x: Num[Tensor, "batch columns"]) -> Num[Tensor, "batch columns"]:
        return x

    def _log_prob_given(
        self, point: Num[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        return self.network.log_prob(point, self.label(label, len(point))).sum(1)

    @torch.no_grad()
    def log_prob(
        self, x: Num[Tensor, "batch columns"], generator: Streams, *, label: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        r"""Exact log-probability of the known cells (of continuous ones the density, in the data's units), given the
        label where it is known, else marginal over labels. Cells are taken to have values: a NaN is unknown and summed
        out, no gap.

        .. math:: \log p(x) = \log \sum_c p(c) \, p(x \mid c)
        """
        return self._marginal_log_prob(x, label)

    def _statistics(self, x: Num[Tensor, "batch columns"], generator: Streams) -> Float[Tensor, "batch 2"]:
        """How improbable a row's cells are in all (numbers on the normal scale), and the most improbable of them."""
        each = self.network.log_prob(x, self.label(None, len(x))) - self.domain.unit_log_jacobian(x)
        return torch.stack([-each.sum(1), -each.amin(1)], dim=1)

    def _code(
        self, point: Num[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch columns"]:
        return self.network.walk(point, torch.zeros_like(point), self.label(label, len(point)), in_place=True)[1]

    def _complete(
        self, z: Float[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch columns"]:
        return self._from_latent(z, label, gaps=False)

    def _walked(
        self, x: Tensor, z: Tensor, label: Tensor | None, gaps: Tensor | None = None
    ) -> Float[Tensor, "batch columns"]:
        return self.network.walk(x, z, self.label(label, len(x)), gaps=gaps)[0]

    def _from_latent(
        self, z: Float[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None, *, gaps: bool = True
    ) -> Float[Tensor, "batch columns"]:
        nothing = torch.full_like(z, torch.nan, dtype=torch.float64)
        return self._walked(nothing, z, label, torch.zeros_like(z, dtype=torch.bool) if gaps else None)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n columns"]:
        label = self.draw_labels(n, label, generator)
        return self._from_latent(self.sampling.temperature * generator.normal(n, self.values), label)

    @torch.no_grad()
    def sample_given(
        self, x: Num[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None, generator: Streams
    ) -> tuple[Num[Tensor, "batch columns"], Int[Tensor, " batch"] | None]:
        label = self._labels_given(x, self.checked_labels(len(x), label), generator)
        z = self.sampling.temperature * generator.normal(len(x), self.values)
        return self._walked(x, z, label, torch.zeros_like(x, dtype=torch.bool)), label

    def _labels_given(
        self, x: Num[Tensor, "batch columns"], label: Int[Tensor, " batch"] | None, generator: Streams
    ) -> Int[Tensor, " batch"] | None:
        r"""The labels asked for, unknown ones drawn given the known cells, and that these are no gaps.

        .. math:: p(c \mid x) \propto p(c) \, p(x \mid c)
        """
        if not self.classes:
            return None
        rows, which = x.nan_to_num(nan=math.inf).unique(dim=0, return_inverse=True)
        rows = torch.where(rows.isinf(), torch.nan, rows)
        no_gaps, joint = torch.zeros_like(rows, dtype=torch.bool), []
        for c, frequency in enumerate(self.label_frequencies):
            context = self.label(torch.full((len(rows),), c, device=x.device), len(rows))
            joint.append(self.network.log_prob(rows, context, gaps=no_gaps).sum(1) + frequency.log())
        drawn = generator.choice(torch.stack(joint, dim=1)[which])
        return drawn if label is None else torch.where(label < 0, drawn, label)

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Codes, float64. A missing cell is a gap where its column has them, and decodes to one; elsewhere its code is
        0, and what that decodes to is what the later cells are given."""
        gaps = ~self.domain.observed(x)
        return self.network.walk(x, torch.zeros_like(x), self.label(None, len(x)), in_place=True, gaps=gaps)[1]

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch columns"]) -> Num[Tensor, "batch columns"]:
        return self._from_latent(z, None)

    def fill(
        self, x: Num[Tensor, "batch columns"], observed: Bool[Tensor, "batch columns"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch columns"]:
        """Draws from p(hidden | observed): the hidden cells one after the other, given the observed ones first."""

        def draw(x: Tensor, noise: Streams) -> Tensor:
            return self._walked(x, noise.normal(*x.shape), None)

        return repeated(draw, x, generator, draws)
