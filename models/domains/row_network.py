"""Rows of a table, one column given others: an any-order causal network over the cells of a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.embeddings import full_precision
from ..networks.transformer import CausalTransformer, Past
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .base import Domain

MANY = 256
"""Parts of a column beyond which they are asked for in two steps: the group first, then which of the group."""

AT_ONCE = 1 << 22
"""Probabilities computed together, which bounds memory."""

FEATURES = 10
"""Smooth functions of a number's place on the normal scale, of which neighbouring intervals' vectors are made."""


class Intervals(NamedTuple):
    """The unit interval of each column's distribution in parts: a category, a frequent value or a range of values each.

    Arguments:
        edges: Ends of the parts, rising from 0 to 1, `[columns, most + 1]`, 1 beyond a column's last; float64.
        counts: Parts of each column.
    """

    edges: Tensor
    counts: list[int]

    def to(self, device: torch.device) -> Intervals:
        """The same on another device."""
        return Intervals(self.edges.to(device), self.counts)


def intervals_of(table: Domain, most: int) -> Intervals:
    """Every category, and every number that is frequent or one of few, a part of its own; the rest in at most about
    `most` parts of equal probability. No cell lies in two of them."""
    knots = table.knots(torch.device("cpu"))
    every = []
    for column, number in enumerate(knots.knots.tolist()):
        x, below, above = knots.x[column, :number], knots.below[column], knots.above[column]
        u = below + (1 - below - above) * knots.u[column, :number]
        ends = torch.ones(number, dtype=torch.bool)
        ends[1:-1] = (x[1:-1] != x[:-2]) | (x[1:-1] != x[2:])  # a jump has two ends, and nothing between them
        inner = u[ends][1:-1].tolist()
        least = 0.0 if column in table.categorical or len(inner) < most else 1 / most
        edges = [0.0]
        for now, then in zip(inner, [*inner, 1.0][1:], strict=True):
            if now - edges[-1] >= least or (then - now >= least > 0 and now - edges[-1] > 0):
                edges.append(now)
        every.append(torch.tensor([*edges, 1.0], dtype=torch.float64))
    longest = max(map(len, every))
    padded = torch.ones(len(every), longest, dtype=torch.float64)
    for column, edges in enumerate(every):
        padded[column, : len(edges)] = edges
    return Intervals(padded, [len(edges) - 1 for edges in every])


class Places(NamedTuple):
    """Where a row's cells lie, each `[batch, columns]`.

    Arguments:
        part: Which of its column's intervals, int64.
        y: The place on the normal scale, float64.
        rest: What makes of the interval's log-probability the cell's (a density in data units if continuous), float64.
        observed: Whether the cell has a value, and it is known.
        gap: Whether the cell is known to have none.
    """

    part: Tensor
    y: Tensor
    rest: Tensor
    observed: Tensor
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
        most: Parts into which a column of numbers is divided.

    References:
        | Neural autoregressive distribution estimation (Uria et al., 2016), section 4 (any order)
        | https://arxiv.org/abs/1605.02226
        | XLNet (Yang et al., 2019), section 2.3 (attention that knows which place is asked for)
        | https://arxiv.org/abs/1906.08237
    """

    def __init__(self, table: Domain, *, context: int, width: int, blocks: int = 2, most: int = 128) -> None:
        super().__init__()
        self.table = table
        columns = len(table.columns)
        self._intervals = {torch.device("cpu"): intervals_of(table, most)}
        intervals = self._intervals[torch.device("cpu")]
        total = sum(intervals.counts)
        self.starts = [sum(intervals.counts[:i]) for i in range(columns)]
        self.context = nn.Linear(context, width)
        self.given, self.asked = nn.Embedding(columns + 1, width), nn.Embedding(columns, width)
        self.value, self.place = nn.Embedding(total, width), nn.Parameter(torch.zeros(columns, width))
        self.network = CausalTransformer(width, blocks=blocks, heads=math.gcd(width, 4))
        self.likely = nn.Embedding(total, width)
        self.bias = nn.Parameter(self._marginal(intervals))
        self.shape_in = self.shape_out = None
        if table.numeric:
            self.shape_in = nn.Parameter(0.1 * torch.randn(len(table.numeric), FEATURES, width))
            self.shape_out = nn.Parameter(torch.zeros(len(table.numeric), FEATURES, width))
        self.groups = nn.ModuleDict(
            {str(i): self._grouping(i, width) for i, count in enumerate(intervals.counts) if count > MANY}
        )
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

    def _grouping(self, column: int, width: int) -> nn.Linear:
        """The logits of a large column's groups of parts, at the start those of the marginal."""
        marginal = self._grouped(self.bias.detach(), column, fill=-math.inf).logsumexp(1)
        layer = nn.Linear(width, len(marginal))
        nn.init.zeros_(layer.weight)
        layer.bias.data.copy_(marginal)
        return layer

    def _grouped(self, parts: Float[Tensor, "total *rest"], column: int, *, fill: float = 0.0) -> Tensor:
        """What belongs to a large column's parts, in groups of the square root of their number, the last filled up."""
        count = self.intervals(parts.device).counts[column]
        size = math.isqrt(count - 1) + 1
        own = parts[self.starts[column] : self.starts[column] + count]
        rest = own.new_full((-count % size, *own.shape[1:]), fill)
        return torch.cat([own, rest]).unflatten(0, (-1, size))

    @staticmethod
    def _marginal(intervals: Intervals) -> Tensor:
        widths = intervals.edges.diff(dim=1).clamp(min=1e-12).log()
        return torch.cat([w[:n] for w, n in zip(widths, intervals.counts, strict=True)]).to(torch.get_default_dtype())

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
        cells = self.table.cells(x)
        y = torch.where(cells.observed, cells.middle, 0.0)
        edges = self.intervals(x.device).edges
        u = torch.special.ndtr(y)
        part = torch.searchsorted(edges[:, 1:-1].contiguous(), u.T.contiguous(), right=True).T
        last = torch.tensor([n - 1 for n in self.intervals(x.device).counts], device=x.device)
        part = torch.minimum(part, last)
        width = self._edge(edges, part + 1) - self._edge(edges, part)
        normal = -0.5 * (y.square() + math.log(2 * math.pi))
        rest = self.table.log_det(cells, y) + normal - width.log()
        gap = torch.zeros_like(cells.observed) if gaps is None else gaps & ~cells.observed & self.lacks
        return Places(part, y, torch.where(cells.observed, rest, 0.0), cells.observed, gap)

    @staticmethod
    def _edge(edges: Tensor, part: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        return edges.gather(1, part.T.contiguous()).T

    def order(
        self, observed: Bool[Tensor, "batch columns"], generator: Streams | None, share: float = 1.0
    ) -> Int[Tensor, "batch columns"]:
        """An order of each row's columns, the unknown last: the table's, in a `share` of the rows a random one."""
        n, columns = observed.shape
        first = torch.arange(columns, device=observed.device, dtype=torch.float32).expand(n, -1) / columns
        if generator is not None:
            first = torch.where(generator.uniform(n, 1) < share, generator.uniform(n, columns), first)
        return (first + ~observed).argsort(dim=1, stable=True)

    # The network

    def _cells(self, places: Places) -> Float[Tensor, "batch columns width"]:
        """A vector for each cell's value: that of its part, and of numbers what follows smoothly from their place."""
        starts = torch.tensor(self.starts, device=places.part.device)
        h = self.value(places.part + starts) + self.given.weight[:-1]
        y = places.y.clamp(-6, 6).to(h.dtype)
        h = h + y[..., None] * self.place
        if self.shape_in is not None:
            numeric = self.table.numeric
            smooth = self.features @ self.shape_in  # [numbers, most, width]
            part = places.part[:, numeric] + smooth.shape[1] * torch.arange(len(numeric), device=y.device)
            h = h.index_add(1, torch.tensor(numeric, device=y.device), F.embedding(part, smooth.flatten(0, 1)))
        return h if self.lacking is None else torch.where(places.gap[..., None], self.gap, h)

    def hidden(
        self, places: Places, order: Int[Tensor, "batch columns"], context: Float[Tensor, "batch context"]
    ) -> Float[Tensor, "batch columns width"]:
        """What is known of each column from those before it in the order, column by column."""
        index = order[..., None].expand(-1, -1, self.place.shape[1])
        seen = self._cells(places).gather(1, index)
        begin = self.given.weight[-1].expand(len(order), 1, -1)
        h = torch.cat([begin, seen[:, :-1]], dim=1) + self.asked(order) + self.context(context)[:, None]
        out = full_precision(self.network(h))
        return torch.zeros_like(out).scatter(1, index, out)

    def _likely(self, column: int) -> Float[Tensor, "parts width"]:
        """The vectors whose products with what is known of a column are its parts' logits."""
        count = self.intervals(self.bias.device).counts[column]
        own = self.likely.weight[self.starts[column] : self.starts[column] + count]
        if column in self.table.categorical or self.shape_out is None:
            return own
        position = self.table.numeric.index(column)
        return own + self.features[position, :count] @ self.shape_out[position]

    def _log_p(
        self, h: Float[Tensor, "batch width"], column: int, part: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *parts"]:
        """Log-probability of a column's parts: of one for each row, or of all."""
        count = self.intervals(h.device).counts[column]
        if count <= MANY:
            bias = self.bias[self.starts[column] : self.starts[column] + count]
            every = (h @ self._likely(column).T + bias).log_softmax(1)
            return every if part is None else every.gather(1, part[:, None])[:, 0]
        groups = self.groups[str(column)](h).log_softmax(1)
        bias = self._grouped(self.bias, column, fill=-math.inf)
        size = bias.shape[1]
        if part is None:
            logits = F.pad(h @ self._likely(column).T, (0, bias.numel() - count))
            within = (logits.unflatten(1, bias.shape) + bias).log_softmax(2)
            return (groups[:, :, None] + within).flatten(1)[:, :count]
        group = part // size
        members = (group[:, None] * size + torch.arange(size, device=part.device)).clamp(max=count - 1)
        logits = torch.einsum("nw,nmw->nm", h, F.embedding(members, self._likely(column))) + bias[group]
        within = logits.log_softmax(1).gather(1, (part % size)[:, None])
        return (groups.gather(1, group[:, None]) + within)[:, 0]

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
            generator: Of random orders; `None` for the table's.
            share: Of the rows in a random order.
            gaps: Which NaN are gaps, and so outcomes that count; `None` where all cells are taken to have a value.
            marked: Of which known cells it counts that they have a value; `None` for all.
            hints: What is known of each cell's value, should it have one.
        """
        places = self.places(x, gaps)
        h = self.hidden(places, self.order(places.observed | places.gap, generator, share), context)
        told = h if hints is None else h + hints
        with torch.autocast(h.device.type, enabled=False):
            each = [self._log_p(told[:, column], column, places.part[:, column]) for column in range(h.shape[1])]
            total = torch.where(places.observed, torch.stack(each, dim=1) + places.rest.to(h.dtype), 0.0)
            if gaps is None or self.lacking is None:
                return total
            odds = (h * self.lacking.weight).sum(2) + self.lacking.bias
            mark = torch.where(places.gap, F.logsigmoid(odds), F.logsigmoid(-odds))
            counted = places.observed if marked is None else places.observed & marked
            return total + torch.where((places.gap | counted) & self.lacks, mark, 0.0)

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
        generator: Streams | None = None,
        *,
        in_place: bool = False,
        likeliest: bool = False,
        gaps: Bool[Tensor, "batch columns"] | None = None,
        hints: Float[Tensor, "batch columns width"] | None = None,
    ) -> tuple[Float[Tensor, "batch columns"], Float[Tensor, "batch columns"]]:
        r"""Complete rows and their codes, column after column, the known ones first.

        .. math:: \Phi(z_j) = F_j(x_j \mid \text{those before})

        A known cell's code is computed from its value, a missing cell's value from its code. Both directions
        do the same arithmetic, so that one is the other's exact inverse.

        Arguments:
            x: Rows, NaN where missing.
            z: Codes, standard normal, of which those of missing cells are used.
            context: What the rows are conditional on.
            generator: Of random orders; `None` for the table's.
            in_place: Whether missing cells keep their place in the order.
            likeliest: Whether missing categories are the likeliest, whatever their code.
            gaps: Which NaN of `x` are gaps rather than unknown; then unknown cells may turn out to be gaps, too, and
                stay NaN: the last of the unit interval is theirs. `None` where all cells get a value.
            hints: What is known of each cell's value, should it have one.
        """
        x, z = x.double().clone(), z.double().clone()
        observed = self.table.observed(x)
        gap = torch.zeros_like(observed) if gaps is None else gaps & ~observed & self.lacks
        order = self.order(observed | gap | in_place, generator)
        past = Past()
        edges, counts = self.intervals(x.device).edges, self.intervals(x.device).counts
        rows = torch.arange(len(x), device=x.device)
        seen = self.given.weight[-1].expand(len(x), -1)
        context = self.context(context)
        y = torch.zeros_like(x)
        for step in range(x.shape[1]):
            asked = order[:, step]
            h = full_precision(self.network((seen + self.asked(asked) + context)[:, None], past))[:, 0]
            places = self.places(torch.where(observed, x, torch.nan), gap)
            told = h if hints is None else h + hints[rows, asked]
            columns = asked.unique().tolist()
            for column, chosen in ((c, part) for c in columns for part in rows[asked == c].split(AT_ONCE // counts[c])):
                p = self._log_p(told[chosen], column).double().exp()
                after = p.cumsum(1)
                p, after = p / after[:, -1:], after / after[:, -1:]
                edge = edges[column, : counts[column] + 1]
                known = observed[chosen, column]
                part = places.part[chosen, column]
                v = torch.special.ndtr(z[chosen, column])
                none = torch.zeros_like(v) if gaps is None else self._gap_probability(h[chosen], column)
                given_gap = gap[chosen, column]
                gap[chosen, column] = given_gap | ~known & (none > 0) & (v >= 1 - none)
                v = (v / (1 - none).clamp(min=1e-300)).clamp(max=1)
                drawn = torch.searchsorted(after, v[:, None].contiguous(), right=True)[:, 0].clamp(max=len(edge) - 2)
                decided = likeliest and column in self.table.categorical
                if decided:
                    drawn = p.argmax(1)
                part = torch.where(known, part, drawn)
                left, width, mass = edge[part], edge[part + 1] - edge[part], p.gather(1, part[:, None])[:, 0]
                before = after.gather(1, part[:, None])[:, 0] - mass
                share = torch.where(
                    known,
                    (torch.special.ndtr(places.y[chosen, column]) - left) / width,
                    torch.full_like(v, 0.5) if decided else (v - before) / mass.clamp(min=1e-300),
                ).clamp(0, 1)
                code = torch.where(known, (1 - none) * (before + share * mass), 1 - none / 2)
                code = torch.special.ndtri(code.clamp(1e-300, 1 - 1e-16))
                z[chosen, column] = torch.where(known | given_gap, code, z[chosen, column])
                y[chosen, column] = torch.special.ndtri((left + share * width).clamp(1e-300, 1 - 1e-16))
            values = self.table.from_probit(y)
            new = values.gather(1, asked[:, None])[:, 0]
            x[rows, asked] = torch.where(observed[rows, asked] | gap[rows, asked], x[rows, asked], new)
            observed = observed.clone()
            observed[rows, asked] = ~gap[rows, asked]
            if step + 1 < x.shape[1]:
                seen = self._cells(self.places(torch.where(observed, x, torch.nan), gap))[rows, asked]
        return x, z
