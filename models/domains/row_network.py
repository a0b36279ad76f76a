"""Rows of a table, one column given others: an any-order causal network over the cells of a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.dropout import Drop, dropout, keep_all
from ..networks.embeddings import full_precision
from ..networks.transformer import CausalTransformer, Past
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .base import Domain
from .many_categories import MANY, ManyCategories
from .row_intervals import Intervals, Places, intervals_of
from .table_quantiles import Cells

AT_ONCE = 1 << 22
"""Probabilities computed together, which bounds memory."""

FEATURES = 10
"""Smooth functions of a number's place on the normal scale, of which neighbouring intervals' vectors are made."""


class Decided(NamedTuple):
    """Cells of one column, each `[batch]`.

    Arguments:
        code: Standard normal; of a gap the middle of the gaps'.
        y: The value's place on the normal scale, float64.
        gap: Which of the unknown turn out to be gaps.
    """

    code: Tensor
    y: Tensor
    gap: Tensor


class RowNetwork(nn.Module):
    r"""The conditional distribution of every cell of a row, given any others and a vector.

    .. math:: p(x) = \prod_t p(x_{o_t} \mid x_{o_1}, \dots, x_{o_{t-1}})

    in any order :math:`o` of the columns. A conditional is a monotone piecewise linear map of the column's own
    distribution (`Table`'s), whose pieces are categories, frequent numbers, and ranges of others: so it has a
    probability or a density, a quantile function, and draws of it are cells of the table.

    Where training cells are missing, a cell is first a gap or not, then one of its values, both given the cells
    before, gaps among them:

    .. math:: p(x_t \mid x_{<t}) = (1 - \pi_t) \, p(x_t \mid x_{<t}, \text{no gap}), \quad
        \pi_t = p(\text{gap} \mid x_{<t})

    Without `gaps` every cell is taken to have a value, one that is NaN is unknown, and the second factor stands alone.

    Arguments:
        table: The domain, a `Table`.
        context: Length of the vector that everything is conditional on.
        width: Length of a cell's vector.
        blocks: Blocks of attention.
        parts: Parts into which a column of numbers is divided.
        dropout: Share of the network's values that training sets to zero.

    References:
        | Neural autoregressive distribution estimation (Uria et al., 2016), section 4 (any order)
        | https://arxiv.org/abs/1605.02226
        | XLNet (Yang et al., 2019), section 2.3 (attention that knows which place is asked for)
        | https://arxiv.org/abs/1906.08237
    """

    def __init__(
        self, table: Domain, *, context: int, width: int, blocks: int = 2, parts: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.table, self.dropout = table, dropout
        columns = len(table.columns)
        self._intervals = {torch.device("cpu"): intervals_of(table, parts)}
        intervals = self._intervals[torch.device("cpu")]
        counts = intervals.counts
        large = [i for i in table.categorical if counts[i] > MANY]
        self.few = [i for i in range(columns) if i not in large]
        """Columns whose every part has a vector of the network's width."""
        self.starts = {column: sum(counts[i] for i in self.few[:k]) for k, column in enumerate(self.few)}
        total = sum(counts[i] for i in self.few)
        self.context = nn.Linear(context, width)
        self.given, self.asked = nn.Embedding(columns + 1, width), nn.Embedding(columns, width)
        self.value, self.place = nn.Embedding(max(total, 1), width), nn.Parameter(torch.zeros(columns, width))
        self.network = CausalTransformer(width, blocks=blocks, heads=math.gcd(width, 4))
        self.likely = nn.Embedding(max(total, 1), width)
        marginal = self._marginal(intervals)
        self.bias = nn.Parameter(torch.cat([marginal[i] for i in self.few] or [torch.zeros(1)]))
        if not self.few:
            for unused in (self.value, self.likely):
                unused.requires_grad_(False)
            self.bias.requires_grad_(False)
        self.shape_in = self.shape_out = None
        if table.numeric:
            self.shape_in = nn.Parameter(0.1 * torch.randn(len(table.numeric), FEATURES, width))
            self.shape_out = nn.Parameter(torch.zeros(len(table.numeric), FEATURES, width))
        self.many = ManyCategories({i: marginal[i] for i in large}, width) if large else None
        self.lacking = None
        self.lacks: Tensor  # which columns may have gaps
        self.register_buffer("lacks", torch.zeros(columns, dtype=torch.bool), persistent=False)
        if table.gap_shares:
            self.lacks[list(table.gap_shares)] = True
            self.gap = nn.Parameter(0.1 * torch.randn(columns, width))
            self.lacking = nn.Linear(width, columns)
            nn.init.zeros_(self.lacking.weight)
            share = torch.tensor([table.gap_shares.get(i, 0.5) for i in range(columns)])
            self.lacking.bias.data.copy_(share.logit())
        nn.init.normal_(self.value.weight, std=0.1)
        nn.init.zeros_(self.likely.weight)
        nn.init.normal_(self.given.weight, std=0.1)
        nn.init.normal_(self.asked.weight, std=0.1)
        self.features: Tensor  # of each number's parts, padded
        self.register_buffer("features", self._features(intervals), persistent=False)

    @staticmethod
    def _marginal(intervals: Intervals) -> list[Tensor]:
        widths = intervals.edges.diff(dim=1).clamp(min=1e-12).log().to(torch.get_default_dtype())
        return [w[:n] for w, n in zip(widths, intervals.counts, strict=True)]

    def _features(self, intervals: Intervals) -> Float[Tensor, "numbers most features"]:
        """Smooth functions of each part of each number's column, padded with zeros."""
        every = torch.zeros(len(self.table.numeric), intervals.edges.shape[1], FEATURES, dtype=torch.float64)
        for position, column in enumerate(self.table.numeric):
            edges = intervals.edges[column, : intervals.counts[column] + 1]
            y = torch.special.ndtri((edges[1:] + edges[:-1]) / 2)[:, None]
            centers = torch.linspace(-2.5, 2.5, FEATURES - 2, dtype=torch.float64)
            every[position, : len(y)] = torch.cat([y, y.square() - 1, (-(y - centers).square() / 0.7).exp()], dim=1)
        return every.to(torch.get_default_dtype())

    def intervals(self, device: torch.device) -> Intervals:
        """The columns' intervals on a device."""
        if device not in self._intervals:
            self._intervals[device] = self._intervals[torch.device("cpu")].to(device)
        return self._intervals[device]

    # Cells

    def places(self, x: Num[Tensor, "batch columns"], gaps: Bool[Tensor, "batch columns"] | None = None) -> Places:
        """Where the cells lie, and what remains of their log-probability once their interval's is known."""
        return self._placed(self.table.cells(x), gaps, slice(None))

    def _placed(self, cells: Cells, gaps: Bool[Tensor, "batch columns"] | None, columns: slice) -> Places:
        intervals = self.intervals(cells.lower.device)
        y = torch.where(cells.observed, cells.middle, 0.0)
        edges = intervals.edges[columns]
        u = torch.special.ndtr(y)
        part = torch.searchsorted(edges[:, 1:-1].contiguous(), u.T.contiguous(), right=True).T
        part = torch.minimum(part, torch.tensor([n - 1 for n in intervals.counts[columns]], device=part.device))
        width = self._edge(edges, part + 1) - self._edge(edges, part)
        normal = -0.5 * (y.square() + math.log(2 * math.pi))
        rest = self.table.log_det(cells, y) + normal - width.log()
        gap = torch.zeros_like(cells.observed) if gaps is None else gaps & ~cells.observed & self.lacks[columns]
        return Places(part, y, torch.where(cells.observed, rest, 0.0), cells.observed, gap)

    @staticmethod
    def _edge(edges: Tensor, part: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        return edges.gather(1, part.T.contiguous()).T

    def order(
        self, observed: Bool[Tensor, "batch columns"], generator: Streams | None = None, share: float = 1.0
    ) -> Int[Tensor, "batch columns"]:
        """An order of each row's columns, the unknown last: the table's, in a `share` of the rows a random one."""
        n, columns = observed.shape
        first = torch.arange(columns, device=observed.device, dtype=torch.float32).expand(n, -1) / columns
        if generator is not None:
            first = torch.where(generator.uniform(n, 1) < share, generator.uniform(n, columns), first)
        return (first + ~observed).argsort(dim=1, stable=True)

    # The network

    def _smooth(self) -> Float[Tensor, "numbers most width"] | None:
        """What the vectors of numbers' parts have beside their own, which neighbours share; `None` without numbers."""
        return None if self.shape_in is None else self.features @ self.shape_in

    def _cells(self, places: Places) -> Float[Tensor, "batch columns width"]:
        """A vector for each cell's value: that of its part, and of numbers what follows smoothly from their place."""
        h = self._vectors(places.part) + self.given.weight[:-1]
        y = places.y.clamp(-6, 6).to(h.dtype)
        h = h + y[..., None] * self.place
        if (smooth := self._smooth()) is not None:
            numeric = self.table.numeric
            part = places.part[:, numeric] + smooth.shape[1] * torch.arange(len(numeric), device=y.device)
            h = h.index_add(1, torch.tensor(numeric, device=y.device), F.embedding(part, smooth.flatten(0, 1)))
        return h if self.lacking is None else torch.where(places.gap[..., None], self.gap, h)

    def _vectors(self, part: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns width"]:
        starts = torch.tensor(list(self.starts.values()), device=part.device, dtype=torch.long)
        if self.many is None:
            return self.value(part + starts)
        few, large = (torch.tensor(c, device=part.device, dtype=torch.long) for c in (self.few, self.many.columns))
        order = torch.cat([few, large]).argsort()
        return torch.cat([self.value(part[:, few] + starts), self.many.vectors(part[:, large])], dim=1)[:, order]

    def _cells_of(
        self, column: int, value: Float[Tensor, " batch"], gap: Bool[Tensor, " batch"], smooth: Tensor | None
    ) -> Float[Tensor, "batch width"]:
        """The same of the cells of one column."""
        places = self._placed(self.table.cells_of(column, value), gap[:, None], slice(column, column + 1))
        part = places.part[:, 0]
        few = column in self.starts
        h = self.value(part + self.starts[column]) if few else self._large().vector(column, part)
        h = h + self.given.weight[column]
        h = h + places.y.clamp(-6, 6).to(h.dtype) * self.place[column]
        if smooth is not None and column in self.table.numeric:
            h = h + F.embedding(part, smooth[self.table.numeric.index(column)])
        return h if self.lacking is None else torch.where(places.gap, self.gap[column], h)

    def hidden(
        self,
        places: Places,
        order: Int[Tensor, "batch columns"],
        context: Float[Tensor, "batch context"],
        drop: Drop = keep_all,
    ) -> Float[Tensor, "batch columns width"]:
        """What is known of each column from those before it in the order, column by column."""
        index = order[..., None].expand(-1, -1, self.place.shape[1])
        seen = self._cells(places).gather(1, index)
        begin = self.given.weight[-1].expand(len(order), 1, -1)
        h = torch.cat([begin, seen[:, :-1]], dim=1) + self.asked(order) + self.context(context)[:, None]
        out = full_precision(self.network(h, drop=drop))
        return torch.zeros_like(out).scatter(1, index, out)

    def _likely(self, column: int) -> Float[Tensor, "parts width"]:
        """The vectors whose products with what is known of a column are its parts' logits."""
        count = self.intervals(self.bias.device).counts[column]
        own = self.likely.weight[self.starts[column] : self.starts[column] + count]
        if column in self.table.categorical or self.shape_out is None:
            return own
        position = self.table.numeric.index(column)
        return own + self.features[position, :count] @ self.shape_out[position]

    def _log_p(self, h: Float[Tensor, "batch width"], column: int) -> Float[Tensor, "batch parts"]:
        """Log-probability of a column's parts."""
        if column not in self.starts:
            return self._large().log_p(h, column)
        count = self.intervals(h.device).counts[column]
        bias = self.bias[self.starts[column] : self.starts[column] + count]
        return (h @ self._likely(column).T + bias).log_softmax(1)

    def _log_p_of(
        self, h: Float[Tensor, "batch columns width"], part: Int[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch columns"]:
        """Log-probability of the cells' parts."""
        each: list[Tensor] = [h.new_zeros(0)] * h.shape[1]
        for column in self.few:
            each[column] = self._log_p(h[:, column], column).gather(1, part[:, column, None])[:, 0]
        if self.many is not None:
            large = self.many.log_p_of(h[:, self.many.columns], part[:, self.many.columns])
            for column, log_p in zip(self.many.columns, large.unbind(1), strict=True):
                each[column] = log_p
        return torch.stack(each, dim=1)

    def _large(self) -> ManyCategories:
        assert self.many is not None
        return self.many

    def log_prob(
        self,
        x: Num[Tensor, "batch columns"],
        context: Float[Tensor, "batch context"],
        generator: Streams | None = None,
        share: float = 1.0,
        *,
        gaps: Bool[Tensor, "batch columns"] | None = None,
        marked: Bool[Tensor, "batch columns"] | None = None,
        hints: Float[Tensor, "batch columns width"] | None = None,
    ) -> Float[Tensor, "batch columns"]:
        """Log-probability of each cell given those before it in nats (a density in data units if continuous).

        Unknown cells count 0: they come last, so that nothing is conditional on them.

        Arguments:
            x: Rows, NaN where missing.
            context: What they are conditional on.
            generator: Of random orders, and in training of dropout; `None` for the table's order.
            share: Of the rows in a random order.
            gaps: Which NaN are gaps, and so outcomes that count; `None` where all cells are taken to have a value.
            marked: Of which known cells it counts that they have a value; `None` for all.
            hints: What is known of each cell's value, should it have one.
        """
        places = self.places(x, gaps)
        order = self.order(places.observed | places.gap, generator, share)
        h = self.hidden(places, order, context, self._drop(generator))
        told = h if hints is None else h + hints
        with torch.autocast(h.device.type, enabled=False):
            each = self._log_p_of(told, places.part)
            total = torch.where(places.observed, each + places.rest.to(h.dtype), 0.0)
            if gaps is None or self.lacking is None:
                return total
            odds = (h * self.lacking.weight).sum(2) + self.lacking.bias
            mark = torch.where(places.gap, F.logsigmoid(odds), F.logsigmoid(-odds))
            counted = places.observed if marked is None else places.observed & marked
            return total + torch.where((places.gap | counted) & self.lacks, mark, 0.0)

    def _drop(self, generator: Streams | None) -> Drop:
        return dropout(self.dropout, generator if self.training else None)

    def _gap_probability(self, h: Float[Tensor, "batch width"], column: int) -> Float[Tensor, " batch"]:
        if self.lacking is None or column not in self.table.gap_shares:
            return h.new_zeros(len(h), dtype=torch.float64)
        return (h @ self.lacking.weight[column] + self.lacking.bias[column]).double().sigmoid()

    # Draws and codes

    def walk(
        self,
        x: Num[Tensor, "batch columns"],
        z: Float[Tensor, "batch columns"],
        context: Float[Tensor, "batch context"],
        *,
        in_place: bool = False,
        likeliest: bool = False,
        gaps: Bool[Tensor, "batch columns"] | None = None,
        hints: Float[Tensor, "batch columns width"] | None = None,
    ) -> tuple[Float[Tensor, "batch columns"], Float[Tensor, "batch columns"]]:
        r"""Complete rows and their codes, column after column, the known ones first, else in the table's order.

        .. math:: \Phi(z_j) = F_j(x_j \mid \text{those before})

        A known cell's code is computed from its value, a missing cell's value from its code. Both directions
        do the same arithmetic, so that one is the other's exact inverse.

        Arguments:
            x: Rows, NaN where missing.
            z: Codes, standard normal, of which those of missing cells are used.
            context: What the rows are conditional on.
            in_place: Whether missing cells keep their place in the order.
            likeliest: Whether missing categories are the likeliest, whatever their code.
            gaps: Which NaN of `x` are gaps rather than unknown; then unknown cells may turn out to be gaps, too, and
                stay NaN: the last of the unit interval is theirs. `None` where all cells get a value.
            hints: What is known of each cell's value, should it have one.
        """
        x, z = x.double().clone(), z.double().clone()
        places = self.places(x, gaps)
        known, gap = places.observed, places.gap.clone()
        order = self.order(known | gap | in_place)
        past, smooth, counts = Past(), self._smooth(), self.intervals(x.device).counts
        rows = torch.arange(len(x), device=x.device)
        seen = self.given.weight[-1].expand(len(x), -1)
        context = self.context(context)
        for step in range(x.shape[1]):
            asked = order[:, step]
            h = full_precision(self.network((seen + self.asked(asked) + context)[:, None], past))[:, 0]
            told = h if hints is None else h + hints[rows, asked]
            seen = torch.empty_like(seen, memory_format=torch.contiguous_format)
            columns = asked.unique().tolist()
            for column, chosen in ((c, part) for c in columns for part in rows[asked == c].split(AT_ONCE // counts[c])):
                at = chosen, column
                given, given_gap = known[at], gap[at]
                none = None if gaps is None else self._gap_probability(h[chosen], column)
                cell = self._decided(column, told[chosen], z[at], none, places.part[at], places.y[at], given, likeliest)
                z[at] = torch.where(given | given_gap, cell.code, z[at])
                gap[at] = given_gap | cell.gap
                x[at] = torch.where(given | gap[at], x[at], self.table.values_of(column, cell.y))
                seen[chosen] = self._cells_of(column, x[at], gap[at], smooth)
        return x, z

    def _decided(
        self,
        column: int,
        told: Float[Tensor, "batch width"],
        z: Float[Tensor, " batch"],
        none: Float[Tensor, " batch"] | None,
        part: Int[Tensor, " batch"],
        y: Float[Tensor, " batch"],
        known: Bool[Tensor, " batch"],
        likeliest: bool,
    ) -> Decided:
        """Cells of one column from their codes, or, of the `known` ones, codes from their places.

        Arguments:
            column: Which.
            told: What is known of each cell.
            z: Codes.
            none: Probability of a gap; `None` if all cells have values.
            part: The known cells' intervals.
            y: Their places on the normal scale.
            known: Which these are.
            likeliest: Whether a category is the likeliest, whatever its code.
        """
        p = self._log_p(told, column).double().exp()
        after = p.cumsum(1)
        p, after = p / after[:, -1:], after / after[:, -1:]
        edge = self.intervals(told.device).edges[column, : p.shape[1] + 1]
        v = torch.special.ndtr(z)
        none = torch.zeros_like(v) if none is None else none
        gap = ~known & (none > 0) & (v >= 1 - none)
        v = (v / (1 - none).clamp(min=1e-300)).clamp(max=1)
        drawn = torch.searchsorted(after, v[:, None].contiguous(), right=True)[:, 0].clamp(max=p.shape[1] - 1)
        top = likeliest and column in self.table.categorical
        part = torch.where(known, part, p.argmax(1) if top else drawn)
        left, width, mass = edge[part], edge[part + 1] - edge[part], p.gather(1, part[:, None])[:, 0]
        before = after.gather(1, part[:, None])[:, 0] - mass
        share = torch.where(
            known,
            (torch.special.ndtr(y) - left) / width,
            torch.full_like(v, 0.5) if top else (v - before) / mass.clamp(min=1e-300),
        ).clamp(0, 1)
        code = torch.where(known, (1 - none) * (before + share * mass), 1 - none / 2)
        place = left + share * width
        return Decided(
            torch.special.ndtri(code.clamp(1e-300, 1 - 1e-16)), torch.special.ndtri(place.clamp(1e-300, 1 - 1e-16)), gap
        )
