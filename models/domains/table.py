"""Tables of numeric and categorical columns with missing cells, brought to a common scale by their quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.embeddings import full_precision
from ..networks.mlp import hidden_units
from ..rng import Streams
from ..shapes import Bool, Float, Num
from .base import DequantizedPoint, Domain, Likelihood
from .row_network import RowNetwork
from .table_quantiles import Cells, Knots, knots_of, stacked
from .table_rows import RowLikelihood, Settler


class Table(Domain):
    r"""Rows of continuous, integer and categorical cells, any of them missing.

    Data space is float64 `[n, columns]`: a number or a category's index, NaN where missing.

    Every column has the distribution :math:`F` of its training data, piecewise linear between some
    stored quantiles (the more rows, the more), and a value is a cell of it: a continuous one a
    point, unless it occurs in bulk, then all of its jump; an integer `k` all between k - ½ and
    k + ½; a category its part of the whole. The probit of (a point in) the cell is standard normal
    over the training data, whatever the column's scale, ties or tails. Beyond the training data's
    range the scale goes on as :math:`\pm(3.29 + \ln(1 + e))`, `e` the excess in standard deviations,
    so that outliers stay outliers, and finite.

    Model space has one dimension for a number (the probit of its cell's middle; 0 if missing) and
    one per category (one-hot; all 0 if missing; NaN if drawn as missing). Flow space has one dimension per column.

    Arguments:
        columns: As a prepared dataset's manifest lists them: `name`, `type` (`continuous`, `integer`,
            `categorical`), `categories` and `frequencies`, or `count`, `min`, `max`, `mean`, `std`, `quantiles`,
            and `tails` where fitted; and how many training cells are `missing`.
        missing: `model`: where training cells are missing, drawn ones may be; `fill`: every drawn cell has a value.
    """

    kind = "table"
    layout = "vector"
    takes_mask = True
    anomaly_tails = "upper"
    scales_per_value = True
    any_order = True

    def __init__(self, *, columns: Sequence[Mapping[str, Any]], missing: str = "model") -> None:
        if not columns:
            raise ValueError("a table needs at least one column, got none")
        if missing not in ("model", "fill"):
            raise ValueError(f"missing must be model or fill, got {missing!r}")
        self.missing = missing
        self.columns = [dict(column) for column in columns]
        self.sizes: list[int] = []
        for column in self.columns:
            if column["type"] not in ("continuous", "integer", "categorical"):
                raise ValueError(
                    f"column {column['name']!r}: expected type continuous, integer or categorical, "
                    f"got {column['type']!r}"
                )
            categorical = column["type"] == "categorical"
            self.sizes.append(max(len(column.get("categories") or ()), 1) if categorical else 1)
        kinds = [column["type"] for column in self.columns]
        self.numeric = [i for i, kind in enumerate(kinds) if kind != "categorical"]
        self.categorical = [i for i, kind in enumerate(kinds) if kind == "categorical"]
        self.whole = [i for i, kind in enumerate(kinds) if kind == "integer"]
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        shares = {i: _missing_share(column) for i, column in enumerate(self.columns)}
        self.missing_shares = {i: share for i, share in shares.items() if share}
        """Share of missing cells of the columns that have any in the training data."""
        self.gap_shares = self.missing_shares if missing == "model" else {}
        """The same of the columns whose drawn cells may be missing."""
        self.event_shape = (sum(self.sizes),)
        self.flow_shape = (len(self.columns),)
        self.gumbel = sum(self.sizes[i] for i in self.categorical)
        self._knots = {
            torch.device("cpu"): stacked([knots_of(c, k) for c, k in zip(self.columns, self.sizes, strict=True)])
        }

    def spec(self) -> dict[str, Any]:
        policy = {} if self.missing == "model" else {"missing": self.missing}
        return {"kind": self.kind, "columns": self.columns, **policy}

    # The columns' distributions

    def knots(self, device: torch.device) -> Knots:
        """The columns' distributions on a device."""
        if device not in self._knots:
            self._knots[device] = Knots(*(t.to(device) for t in self._knots[torch.device("cpu")]))
        return self._knots[device]

    def _rows(self, x: Num[Tensor, "batch _"]) -> Float[Tensor, "batch columns"]:
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise ValueError(f"expected rows of shape [n, {len(self.columns)}], got {list(x.shape)}")
        return x.double()

    def cells(self, x: Num[Tensor, "batch columns"]) -> Cells:
        """Where each value lies in its column's distribution.

        Raises:
            ValueError: If a category's index is out of range, or `x` has another number of columns.
        """
        rows, k = self._rows(x), self.knots(x.device)
        observed = ~torch.isnan(rows)
        self._check_categories(rows)
        value = torch.where(observed, rows, k.low).T.contiguous()  # [columns, n]
        half, low, high = k.half[:, None], k.low[:, None], k.high[:, None]
        inside = value.clamp(low, high)
        lower, _ = self._below(inside - half, k, right=False)
        upper, log_slope = self._below(inside + half, k, right=True)
        lower = torch.minimum(lower, upper)
        point = (upper - lower < 1e-12) & (half == 0)
        lower = torch.where(point, upper, lower)
        excess = ((value - high).clamp(min=0) - (low - value).clamp(min=0)) / k.scale[:, None]
        seen = observed.T
        whole = [
            torch.where(seen, lower, 0.0),
            torch.where(seen, upper, 1.0),
            log_slope,
            torch.where(seen, excess, 0.0),
        ]
        per_column = (t.expand_as(rows) for t in (k.scale, k.below, k.above))
        return Cells(*(t.T for t in whole), observed, *per_column)

    def _check_categories(self, rows: Float[Tensor, "batch columns"]) -> None:
        for index in self.categorical:
            wrong = (rows[:, index] < 0) | (rows[:, index] >= self.sizes[index]) | (rows[:, index] % 1 != 0)
            if bool((wrong & ~torch.isnan(rows[:, index])).any()):
                name, value = (
                    self.columns[index]["name"],
                    float(rows[:, index][wrong & ~torch.isnan(rows[:, index])][0]),
                )
                raise ValueError(
                    f"column {name!r}: category {value:g} is not an index from 0 to {self.sizes[index] - 1}"
                )

    @staticmethod
    def _below(value: Float[Tensor, "columns n"], k: Knots, *, right: bool) -> tuple[Tensor, Tensor]:
        """The distribution at (right) or just below (left) values within its range, and the log of its slope."""
        number = torch.searchsorted(k.x, value, right=right)
        last = k.knots[:, None] - 1
        index = number.clamp(min=1).minimum(last)
        x0, x1, u0, u1 = k.x.gather(1, index - 1), k.x.gather(1, index), k.u.gather(1, index - 1), k.u.gather(1, index)
        gap = (x1 - x0).clamp(min=1e-300)
        below = u0 + (u1 - u0) * ((value - x0) / gap).clamp(0, 1)
        below = torch.where(number > last, 1.0, torch.where(number == 0, 0.0, below))
        return below, (u1 - u0).log() - gap.log()

    def _value(self, u: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """The quantile function, before rounding."""
        k = self.knots(u.device)
        columns = u.T.contiguous()
        index = torch.searchsorted(k.u, columns, right=True).clamp(min=1).minimum(k.knots[:, None] - 1)
        x0, x1, u0, u1 = k.x.gather(1, index - 1), k.x.gather(1, index), k.u.gather(1, index - 1), k.u.gather(1, index)
        part = ((columns - u0) / (u1 - u0)).clamp(0, 1)
        return (x0 + (x1 - x0) * part).T

    def from_probit(self, y: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Standard normal scale to values: integers whole, categories indices, all in the columns' ranges."""
        y = torch.nan_to_num(y.double(), nan=0.0)
        k = self.knots(y.device)
        u = ((torch.special.ndtr(y) - k.below) / (1 - k.below - k.above)).clamp(0, 1)
        x = self._value(u)
        return torch.where(k.half > 0, x.round(), x).clamp(k.low, k.high)

    # Spaces

    def to_model(self, x: Num[Tensor, "batch columns"]) -> Float[Tensor, "batch dims"]:
        cells = self.cells(x)
        middle = torch.where(cells.observed, cells.middle, 0.0).to(torch.get_default_dtype())
        parts = []
        for index, size in enumerate(self.sizes):
            if index in self.categorical:
                known = cells.observed[:, index, None]
                code = torch.where(known[:, 0], x[:, index].double(), 0.0).long()
                parts.append(F.one_hot(code, size).to(middle.dtype) * known)
            else:
                parts.append(middle[:, index, None])
        return torch.cat(parts, dim=1)

    def to_data(self, y: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch columns"]:
        parts = full_precision(y).split(self.sizes, dim=1)
        probits = torch.cat([part[:, :1] for part in parts], dim=1)
        x = self.from_probit(probits)
        for index in self.categorical:
            x[:, index] = parts[index].argmax(1).double()
        for index in self.gap_shares:
            x[:, index] = torch.where(torch.isnan(probits[:, index]), torch.nan, x[:, index])
        return x

    def expand(self, observed: Bool[Tensor, "batch columns"]) -> Bool[Tensor, "batch dims"]:
        sizes = torch.tensor(self.sizes, device=observed.device)
        return observed.repeat_interleave(sizes, dim=1)

    # What a noise process runs over

    @property
    def resolution(self) -> float:
        """Categories are points, far apart, and no network resolves them below 0.2; numbers are smooth below 0.02."""
        return 0.2 if self.categorical else 0.02

    def density_noise(self, sigma_min: float) -> float:
        return max(sigma_min, self.resolution)

    def weigh_values(self, error: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        """Columns weigh alike, whatever their categories; the weights' mean is 1."""
        sizes = torch.tensor(self.sizes, device=error.device, dtype=torch.float64)
        weight = (sizes.sum() / (len(sizes) * sizes)).repeat_interleave(sizes.long())
        return error * weight.to(error.dtype)

    def spread(self, x: Num[Tensor, "batch columns"], generator: Streams) -> Float[Tensor, "batch dims"]:
        """Model space, numbers at a random place within their cells: so that every number is standard normal over the
        training data, whatever its ties. Missing cells are 0."""
        y = self.to_model(x)
        if self.numeric:
            flow, _ = self.dequantize(x, generator)
            y[:, self._numbers] = torch.where(self.observed(x), flow, 0.0)[:, self.numeric].to(y.dtype)
        return y

    @property
    def _numbers(self) -> list[int]:
        """Which dimensions of model space are the numbers."""
        return [self.starts[index] for index in self.numeric]

    def dequantized_point(self, x: Num[Tensor, "batch columns"], generator: Streams) -> DequantizedPoint:
        flow = self.dequantize(x, generator)[0].double()
        missing = ~self.observed(x)
        whole = torch.where(missing, self.quantize(flow), x.double())
        y = self.to_model(whole).double()
        y[:, self._numbers] = flow[:, self.numeric]
        numbers = self.log_det(self.cells(x), flow)[:, self.numeric].sum(1)
        cells = self.cells(whole)
        share = (cells.upper - cells.lower).clamp(min=1e-300).log()  # of a category in its marginal
        drawn = (share * missing)[:, self.categorical].sum(1)
        categories = tuple(slice(self.starts[i], self.starts[i] + self.sizes[i]) for i in self.categorical)
        return DequantizedPoint(y, numbers - drawn, categories, row=True)

    def rounding_nats(self, point: DequantizedPoint, sigma: float, generator: Streams) -> Float[Tensor, " batch"]:
        """Expected -log-density of the numbers and -log-probability of the categories."""
        numbers = point.y.shape[1] - point.corners
        noisy = point.y + sigma * generator.normal(*point.y.shape)
        density = 0.5 * numbers * math.log(2 * math.pi * math.e * sigma**2) - point.log_det
        return density + point.confusion(noisy, sigma)

    # Flow space

    def dequantize(
        self, x: Num[Tensor, "batch columns"], generator: Streams
    ) -> tuple[Float[Tensor, "batch columns"], Float[Tensor, " batch"]]:
        cells = self.cells(x)
        noise = generator.uniform(*cells.lower.shape).double()
        width = cells.upper - cells.lower
        y = torch.where(cells.excess == 0, cells.probit(cells.lower + noise * width), cells.middle)
        return y.to(torch.get_default_dtype()), self.log_det(cells, y).sum(1).to(torch.get_default_dtype())

    @staticmethod
    def log_det(cells: Cells, y: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """What makes of a log-density on the normal scale, at `y`, a cell's log-probability or a density in data units.

        Arguments:
            cells: Where the values lie in their columns' distributions.
            y: Their places on the normal scale.
        Returns:
            Nats to be added, float64, `[batch, columns]`.
        """
        width = (cells.upper - cells.lower).clamp(min=1e-300).log()
        inside = torch.where(cells.wide, width, cells.log_slope)
        inside = inside + (-cells.below - cells.above).log1p() + 0.5 * (y.square() + math.log(2 * math.pi))
        outside = -cells.scale.log() - cells.excess.abs().log1p()
        return torch.where(cells.excess == 0, inside, outside)

    def unit_log_jacobian(self, x: Num[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """What turns a number's log-density on the normal scale into its log-probability; 0 for categories, gaps."""
        cells = self.cells(x)
        log_det = torch.where(cells.observed, self.log_det(cells, cells.middle), 0.0)
        log_det[:, self.categorical] = 0.0
        return log_det.to(torch.get_default_dtype())

    def cell_center(self, x: Num[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        return self.cells(x).middle.to(torch.get_default_dtype())

    def quantize(self, y: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        return self.from_probit(y)

    # Likelihoods

    def likelihood(
        self, components: int, *, cells: str = "independent", classes: int = 0, width: int = 0
    ) -> Likelihood:
        """Each cell given those before it; or, independent given the outputs, Gaussian mixtures (on the normal scale)
        for numbers and categorical distributions for categories."""
        if cells == "given others":
            return RowLikelihood(self, classes, width=width)
        return MixedLikelihood(self, components)

    def reconstruction(self, *, cells: str = "independent", classes: int = 0, width: int = 0) -> Likelihood:
        """Of independent cells three Gaussians per number."""
        return self.likelihood(3, cells=cells, classes=classes, width=width)

    def generator_output(
        self, raw: Float[Tensor, "batch dims"], noise: Float[Tensor, "batch gumbel"], temperature: float = 0.3
    ) -> Float[Tensor, "batch dims"]:
        """Numbers bounded softly; categories drawn by the Gumbel-softmax trick (https://arxiv.org/abs/1611.01144)."""
        gumbel = -(-torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6).log()).log()
        parts, used = [], 0
        for index, part in enumerate(raw.split(self.sizes, dim=1)):
            if index in self.categorical:
                size = self.sizes[index]
                parts.append(((part + gumbel[:, used : used + size]) / temperature).softmax(1))
                used += size
            else:
                parts.append(4 * torch.tanh(part / 4))
        return torch.cat(parts, dim=1)

    def apply_masked(
        self, network: nn.Module, y: Float[Tensor, "batch dims"], observed: Bool[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch outputs"]:
        return network(y * self.expand(observed), observed)

    # Networks

    @property
    def cells_seen(self) -> int:
        """Cells whose being known encoders and critics are told."""
        return len(self.columns)

    def row_network(self, *, context: int, width: int, blocks: int = 2, parts: int = 128) -> RowNetwork:
        return RowNetwork(self, context=context, width=width, blocks=blocks, most=parts)

    def settler(self, classes: int, *, sigma: float, width: int) -> Settler | None:
        hidden = hidden_units(self.dimensions, width)
        return Settler(self, classes, sigma=sigma, width=width, hidden=hidden) if sigma else None


def _missing_share(column: Mapping[str, Any]) -> float:
    """Share of a column's training cells that are missing, as one more observation of both kinds would have it."""
    missing = column.get("missing") or 0
    known = sum(column.get("frequencies") or ()) if column["type"] == "categorical" else column.get("count", 0)
    return (missing + 1) / (missing + known + 2) if missing else 0.0


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

    def __init__(self, table: Table, components: int) -> None:
        self.table, self.components = table, components
        self.numbers = len(table.numeric) * 3 * components
        self.outputs = self.numbers + table.gumbel
        """Network outputs needed, in all."""
        self.category_sizes = [table.sizes[i] for i in table.categorical]

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
        """Means of the mixtures and probabilities of the categories, in model space."""
        log_weight, mean, _ = self._numbers(raw)
        categories = [logits.exp() for logits in self._logits(raw)] if self.category_sizes else []
        return self._assemble((log_weight.exp() * mean).sum(2), categories)

    def sample(self, raw: Float[Tensor, "batch outputs"], generator: Streams) -> Float[Tensor, "batch dims"]:
        """One draw in model space."""
        log_weight, mean, log_scale = self._numbers(raw)
        n = len(raw)
        chosen = generator.choice(log_weight)[..., None]
        scale = log_scale.gather(2, chosen)[..., 0].exp()
        numbers = mean.gather(2, chosen)[..., 0] + scale * generator.normal(n, mean.shape[1])
        categories = []
        for logits in self._logits(raw) if self.category_sizes else ():
            categories.append(F.one_hot(generator.choice(logits), logits.shape[1]).to(numbers.dtype))
        return self._assemble(numbers, categories)
