"""Rows of a table given a code or a noisy version of themselves, one cell after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..networks.embeddings import LabelEmbedding, full_precision
from ..networks.mlp import Perceptron
from ..rng import Streams
from ..shapes import Bool, Float, Num
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
        dropout: Share of the network's values that training sets to zero.

    References:
        | Variational lossy autoencoder (Chen et al., 2017), section 3 (why a decoder that sees all needs no code)
        | https://arxiv.org/abs/1611.02731
    """

    drawn = True
    loss_name = "reconstruction_nats"

    def __init__(self, table: Domain, classes: int, *, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.table, self.outputs = table, width
        self.rows = RowNetwork(table, context=width, width=width, blocks=1, dropout=dropout)
        self.classes = nn.Embedding(classes, width) if classes else None
        self.takes_labels = classes > 0

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

    def training_log_prob(
        self, raw: Tensor, x: Tensor, generator: Streams, gaps: Tensor | None = None, marked: Tensor | None = None
    ) -> Float[Tensor, "batch columns"]:
        """The same, half the rows in random orders; gaps count as outcomes."""
        return self.rows.log_prob(x, raw, generator, 0.5, gaps=gaps, marked=marked)

    def mean(self, raw: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch dims"]:
        """The likeliest category and the median number, column after column, in model space."""
        nothing = torch.full((len(raw), len(self.table.columns)), torch.nan, device=raw.device, dtype=torch.float64)
        return self.table.to_model(self.rows.walk(nothing, torch.zeros_like(nothing), raw, likeliest=True)[0])

    def sample(self, raw: Float[Tensor, "batch outputs"], generator: Streams) -> Float[Tensor, "batch dims"]:
        nothing = torch.full((len(raw), len(self.table.columns)), torch.nan, device=raw.device, dtype=torch.float64)
        z = generator.normal(*nothing.shape)
        x, _ = self.rows.walk(nothing, z, raw, gaps=torch.zeros_like(nothing, dtype=torch.bool))
        y = self.table.to_model(x)
        return torch.where(self.table.expand(self.table.observed(x)), y, torch.nan)

    def completed(self, raw: Tensor, x: Tensor, generator: Streams) -> Float[Tensor, "batch dims"]:
        return self.table.to_model(self.rows.walk(x, generator.normal(*x.shape), raw)[0])


class Settler(nn.Module):
    r"""Rows given a noisy version of themselves in model space, cell after cell.

    What a network without an order of cells draws is right cell by cell before it is right as a row. So it stops at
    noise of standard deviation `sigma`, and the cells are drawn from

    .. math:: p(x \mid y + \sigma \epsilon) = \prod_j p(x_j \mid x_{<j}, y + \sigma \epsilon)

    which is learned from the data alone.

    Where training cells are missing the noisy row cannot say so: generators and denoisers give every cell a value, and
    a missing one would be taken for the middle. So the noisy version of a cell of such a column is used for the choice
    of its own value only, neither for whether it has one nor for the other cells.

    Arguments:
        table: The domain, a `Table`.
        classes: Labels; 0 for none.
        sigma: Standard deviation of the noise.
        width: Length of a cell's vector.
        hidden: Units of the network that reads the noisy row.
        dropout: Share of the network's values that training sets to zero.
    """

    def __init__(
        self, table: Domain, classes: int, *, sigma: float, width: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.table, self.sigma = table, sigma
        self.reader = Perceptron(table.dimensions, width, hidden=hidden, blocks=1)
        self.label = LabelEmbedding(classes, width)
        self.rows = RowNetwork(table, context=width, width=width, dropout=dropout)
        self.own = nn.ModuleDict({str(i): nn.Linear(table.sizes[i], width) for i in table.missing_shares})
        seen = torch.ones(1, len(table.columns), dtype=torch.bool)
        seen[:, list(table.missing_shares)] = False
        self.seen: Tensor  # values of the noisy row that everything may depend on
        self.register_buffer("seen", table.expand(seen), persistent=False)

    def _hints(self, noisy: Tensor) -> Float[Tensor, "batch columns width"] | None:
        """What the noisy version of a cell whose column has missing training cells says of its value."""
        if not self.own:
            return None
        noisy = noisy.to(self.rows.place.dtype) / math.sqrt(1 + self.sigma**2)
        hints = noisy.new_zeros(len(noisy), *self.rows.place.shape)
        for column, network in self.own.items():
            start = self.table.starts[int(column)]
            hints[:, int(column)] = full_precision(network(noisy[:, start : start + self.table.sizes[int(column)]]))
        return hints

    def _context(self, noisy: Tensor, label: Tensor | None) -> Float[Tensor, "batch width"]:
        noisy = self.seen * noisy.to(self.rows.place.dtype) / math.sqrt(1 + self.sigma**2)
        return full_precision(self.reader(noisy)) + self.label(label, len(noisy))

    def nats(
        self,
        x: Num[Tensor, "batch columns"],
        y: Float[Tensor, "batch dims"],
        label: Tensor | None,
        generator: Streams,
        gaps: Bool[Tensor, "batch columns"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Negative log-likelihood of rows, their `gaps` included, given their noisy versions: what is trained."""
        noisy = y + self.sigma * generator.normal(*y.shape)
        context, hints = self._context(noisy, label), self._hints(noisy)
        return -self.rows.log_prob(x, context, generator, 0.5, gaps=gaps, hints=hints).sum(1)

    def draw(
        self,
        noisy: Float[Tensor, "batch dims"],
        x: Float[Tensor, "batch columns"] | None,
        label: Tensor | None,
        generator: Streams,
        *,
        gaps: bool = False,
    ) -> Float[Tensor, "batch columns"]:
        """Rows given their noisy versions and those cells of `x` that are not NaN; with `gaps` where the data have
        them, else complete."""
        shape = len(noisy), len(self.table.columns)
        known = torch.full(shape, torch.nan, device=noisy.device, dtype=torch.float64) if x is None else x
        none = torch.zeros(shape, device=noisy.device, dtype=torch.bool) if gaps else None
        context, hints = self._context(noisy, label), self._hints(noisy)
        return self.rows.walk(known, generator.normal(*shape), context, gaps=none, hints=hints)[0]
