"""Rows of a table given a code or a noisy version of themselves, one cell after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..networks.embeddings import LabelEmbedding, full_precision
from ..networks.mlp import Perceptron
from ..rng import Streams
from ..shapes import Float, Num
from .base import Domain, Likelihood
from .row_network import RowNetwork


class RowLikelihood(nn.Module, Likelihood):
    r"""A row given a vector, cell after cell: what a decoder says of a cell depends on the cells before it.

    .. math:: \log p(x \mid z) = \sum_t \log p(x_{o_t} \mid x_{o_1}, \dots, x_{o_{t-1}}, z)

    Half the rows are learned in the table's order, which is that of draws, and half in random ones, in which many a
    cell has little but the vector to go by: so the vector keeps its information, and any cells may be given.

    Arguments:
        table: The domain, a `Table`.
        classes: Labels; 0 for none.
        width: Length of a cell's vector.
        blocks: Blocks of attention.

    References:
        | Variational lossy autoencoder (Chen et al., 2017), section 3 (why a decoder that sees all needs no code)
        | https://arxiv.org/abs/1611.02731
    """

    drawn = True
    loss_name = "reconstruction_nats"

    def __init__(self, table: Domain, classes: int, *, width: int, blocks: int = 1) -> None:
        super().__init__()
        self.table, self.outputs = table, width
        self.rows = RowNetwork(table, context=width, width=width, blocks=blocks)
        self.classes = nn.Embedding(classes, width) if classes else None

    def labelled(
        self, raw: Float[Tensor, "batch outputs"], label: Tensor | None, hiding: Streams | None = None
    ) -> Float[Tensor, "batch outputs"]:
        if self.classes is None or label is None:
            return raw
        known = label >= 0
        if hiding is not None:
            known = known & (hiding.uniform(len(label)) < 0.5)
        return raw + self.classes(label.clamp(min=0)) * known[:, None]

    def log_prob(
        self, raw: Float[Tensor, "batch outputs"], x: Num[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch columns"]:
        """Log-probability of each cell given those before it, 0 where missing."""
        return self.rows.log_prob(x, raw)

    def training_log_prob(self, raw: Tensor, x: Tensor, generator: Streams) -> Float[Tensor, "batch columns"]:
        return self.rows.log_prob(x, raw, generator, 0.5)

    def mean(self, raw: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch dims"]:
        """The likeliest category and the median number, column after column, in model space."""
        nothing = torch.full((len(raw), len(self.table.columns)), torch.nan, device=raw.device, dtype=torch.float64)
        return self.table.to_model(self.rows.walk(nothing, torch.zeros_like(nothing), raw, likeliest=True)[0])

    def sample(self, raw: Float[Tensor, "batch outputs"], generator: Streams) -> Float[Tensor, "batch dims"]:
        nothing = torch.full((len(raw), len(self.table.columns)), torch.nan, device=raw.device, dtype=torch.float64)
        return self.completed(raw, nothing, generator)

    def completed(self, raw: Tensor, x: Tensor, generator: Streams) -> Float[Tensor, "batch dims"]:
        return self.table.to_model(self.rows.walk(x, generator.normal(*x.shape), raw)[0])


class Settler(nn.Module):
    r"""Rows given a noisy version of themselves in model space, cell after cell.

    What a network without an order of cells draws is right cell by cell before it is right as a row. So it stops at
    noise of standard deviation `sigma`, and the cells are drawn from

    .. math:: p(x \mid y + \sigma \epsilon) = \prod_j p(x_j \mid x_{<j}, y + \sigma \epsilon)

    which is learned from the data alone.

    Arguments:
        table: The domain, a `Table`.
        classes: Labels; 0 for none.
        sigma: Standard deviation of the noise.
        width: Length of a cell's vector.
        hidden: Units of the network that reads the noisy row.
    """

    def __init__(self, table: Domain, classes: int, *, sigma: float, width: int, hidden: int) -> None:
        super().__init__()
        self.table, self.sigma = table, sigma
        self.reader = Perceptron(table.dimensions, width, hidden=hidden, blocks=1)
        self.label = LabelEmbedding(classes, width)
        self.rows = RowNetwork(table, context=width, width=width)

    def _context(self, noisy: Tensor, label: Tensor | None) -> Float[Tensor, "batch width"]:
        noisy = noisy.to(self.rows.place.dtype) / math.sqrt(1 + self.sigma**2)
        return full_precision(self.reader(noisy)) + self.label(label, len(noisy))

    def nats(
        self, x: Num[Tensor, "batch columns"], y: Float[Tensor, "batch dims"], label: Tensor | None, generator: Streams
    ) -> Float[Tensor, " batch"]:
        """Negative log-likelihood of rows given their noisy versions: what is trained."""
        noisy = y + self.sigma * generator.normal(*y.shape)
        return -self.rows.log_prob(x, self._context(noisy, label), generator, 0.5).sum(1)

    def draw(
        self,
        noisy: Float[Tensor, "batch dims"],
        x: Float[Tensor, "batch columns"] | None,
        label: Tensor | None,
        generator: Streams,
    ) -> Float[Tensor, "batch columns"]:
        """Rows given their noisy versions and those cells of `x` that are not NaN."""
        shape = len(noisy), len(self.table.columns)
        known = torch.full(shape, torch.nan, device=noisy.device, dtype=torch.float64) if x is None else x
        return self.rows.walk(known, generator.normal(*shape), self._context(noisy, label))[0]
