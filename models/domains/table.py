"""Tables of numeric and categorical columns with missing cells, brought to a common scale by their quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.embeddings import full_precision
from ..networks.mlp import hidden_units
from ..rng import Streams
from ..shapes import Bool, Float, Num
from .base import DequantizedPoint, Domain, Likelihood
from .digits import category_of, corner_of, digits_of
from .rounding import Rounding
from .row_network import RowNetwork
from .table_likelihood import MixedLikelihood
from .table_quantiles import Cells, Knots, knots_of, stacked
from .table_rows import RowLikelihood, Settler


class Table(Domain):
    r"""Rows of continuous, integer and categorical cells, any of them missing.

    Data space is float64 `[n, columns]`: a number or a category's index, NaN where missing.

    Every column has the distribution :math:`F` of its training data, piecewise linear between some
    stored quantiles (the more rows, the more), and a value is a cell of it: a continuous one a
    point, unless it occurs in bulk, then all of its jump; an integer `k` all between k - ½ and
    k + ½; a number of a column that is rounded an interval as long as such numbers are frequent; a
    category its part of the whole. The probit of (a point in) the cell is standard normal over the
    training data, whatever the column's scale, ties or tails. Beyond the training data's range the
    scale goes on as :math:`\pm(3.29 + \ln(1 + e))`, `e` the excess in standard deviations, so that
    outliers stay outliers, and finite.

    Model space has one dimension for a number (the probit of its cell's middle; 0 if missing) and
    one per category (one-hot; all 0 if missing; NaN if drawn as missing). A category out of more than `MANY` is two
    digits, each one-hot: its group and its place in that, of about the square root of their number each. So a network's
    first layer looks up a vector per digit and adds them, and its last shares what it says of a group.
    Flow space has one dimension per column.

    Arguments:
        columns: As a prepared dataset's manifest lists them: `name`, `type` (`continuous`, `integer`,
            `categorical`), `categories` and `frequencies`, or `count`, `min`, `max`, `mean`, `std`, `quantiles`,
            `tails` where fitted, `grid` (`start`, `step`, `parts`) where all are `(start + k * step) / parts` and
            draws are, too, and `rounding` (see `Rounding`) where many are rounded further than others; and how many
            training cells are `missing`.
        missing: `model`: where training cells are missing, drawn ones may be; `fill`: every drawn cell has a value.

    References:
        | Compositional embeddings using complementary partitions (Shi et al., 2020), section 3 (digits)
        | https://arxiv.org/abs/1909.02107
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
        self.counts: list[int] = []
        """Categories of each column; 1 of a column of numbers."""
        for column in self.columns:
            if column["type"] not in ("continuous", "integer", "categorical"):
                raise ValueError(
                    f"column {column['name']!r}: expected type continuous, integer or categorical, "
                    f"got {column['type']!r}"
                )
            categorical = column["type"] == "categorical"
            self.counts.append(max(len(column.get("categories") or ()), 1) if categorical else 1)
        self.digits = [digits_of(count) for count in self.counts]
        """Values of each digit that a category is written with."""
        self.sizes = [sum(digits) for digits in self.digits]
        """Dimensions of each column in model space."""
        kinds = [column["type"] for column in self.columns]
        self.numeric = [i for i, kind in enumerate(kinds) if kind != "categorical"]
        self.categorical = [i for i, kind in enumerate(kinds) if kind == "categorical"]
        self.grids = {i: column["grid"] for i, column in enumerate(self.columns) if column.get("grid")}
        """Steps of the columns of numbers whose values all are multiples of one."""
        self.rounded = [i for i, column in enumerate(self.columns) if column.get("rounding")]
        """Columns of numbers that are rounded by hand."""
        self.rounding = Rounding([self.columns[i]["rounding"] for i in self.rounded]) if self.rounded else None
        self.whole = [i for i, kind in enumerate(kinds) if kind == "integer"]
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        shares = {i: _missing_share(column) for i, column in enumerate(self.columns)}
        self.missing_shares = {i: share for i, share in shares.items() if share}
        """Share of missing cells of the columns that have any in the training data."""
        self.gap_shares = self.missing_shares if missing == "model" else {}
        """The same of the columns whose drawn cells may be missing."""
        self.event_shape = (sum(self.sizes),)
        self.flow_shape = (len(self.columns),)
        self.cells_seen = len(self.columns)
        self.gumbel = sum(self.sizes[i] for i in self.categorical)
        self._knots = {
            torch.device("cpu"): stacked([knots_of(c, k) for c, k in zip(self.columns, self.counts, strict=True)])
        }

    @property
    def facts(self) -> int:
        """Dimensions of model space, a category in digits counted by the bits of its number."""
        return sum(
            size if size == count else (count - 1).bit_length()
            for size, count in zip(self.sizes, self.counts, strict=True)
        )

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
        rows = self._rows(x)
        if self._checked:
            self._check_categories(rows)
        return self._located(rows, self.knots(x.device), self.rounded, self.rounding)

    def cells_of(self, column: int, value: Float[Tensor, " batch"]) -> Cells:
        """The same of the values of one column."""
        return self._located(value[:, None], self.knots(value.device).of(column), *self._rounding_of(column))

    def _rounding_of(self, column: int) -> tuple[list[int], Rounding | None]:
        """Of one column, as of the first of a table: whether it is rounded, and how."""
        if column not in self.rounded or self.rounding is None:
            return [], None
        return [0], self.rounding.of(self.rounded.index(column))

    def _located(
        self, rows: Float[Tensor, "batch columns"], k: Knots, rounded: list[int], rounding: Rounding | None
    ) -> Cells:
        observed = ~torch.isnan(rows)
        value = torch.where(observed, rows, k.low).T.contiguous()  # [columns, n]
        half, low, high = k.half[:, None], k.low[:, None], k.high[:, None]
        inside = value.clamp(low, high)
        first, last = inside - half, inside + half
        if rounding is not None:
            first[rounded], last[rounded] = rounding.ends(inside[rounded])
        lower, _ = self._below(first, k, right=False)
        upper, log_slope = self._below(last, k, right=True)
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
            wrong = (rows[:, index] < 0) | (rows[:, index] >= self.counts[index]) | (rows[:, index] % 1 != 0)
            if bool((wrong & ~torch.isnan(rows[:, index])).any()):
                name, value = (
                    self.columns[index]["name"],
                    float(rows[:, index][wrong & ~torch.isnan(rows[:, index])][0]),
                )
                raise ValueError(
                    f"column {name!r}: category {value:g} is not an index from 0 to {self.counts[index] - 1}"
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

    @staticmethod
    def _value(u: Float[Tensor, "batch columns"], k: Knots) -> Float[Tensor, "batch columns"]:
        """The quantile function, before rounding."""
        columns = u.T.contiguous()
        index = torch.searchsorted(k.u, columns, right=True).clamp(min=1).minimum(k.knots[:, None] - 1)
        x0, x1, u0, u1 = k.x.gather(1, index - 1), k.x.gather(1, index), k.u.gather(1, index - 1), k.u.gather(1, index)
        part = ((columns - u0) / (u1 - u0)).clamp(0, 1)
        return (x0 + (x1 - x0) * part).T

    def from_probit(self, y: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Standard normal scale to values: integers whole, categories indices, all in the columns' ranges, on their
        grids and rounded as the data are."""
        return self._values(y, self.knots(y.device), self.rounded, self.rounding, self.grids)

    def values_of(self, column: int, y: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The same of one column."""
        k = self.knots(y.device).of(column)
        grids = {0: self.grids[column]} if column in self.grids else {}
        return self._values(y[:, None], k, *self._rounding_of(column), grids)[:, 0]

    def _values(
        self,
        y: Float[Tensor, "batch columns"],
        k: Knots,
        rounded: list[int],
        rounding: Rounding | None,
        grids: Mapping[int, Mapping[str, int]],
    ) -> Float[Tensor, "batch columns"]:
        y = torch.nan_to_num(y.double(), nan=0.0)
        u = ((torch.special.ndtr(y) - k.below) / (1 - k.below - k.above)).clamp(0, 1)
        place = self._value(u, k)
        x = torch.where(k.half > 0, place.round(), place)
        if rounding is not None:
            x[:, rounded] = rounding.value(place[:, rounded].T).T
        x = x.clamp(k.low, k.high)
        for column, grid in grids.items():
            start, step, parts = (grid[key] for key in ("start", "step", "parts"))
            x[:, column] = (start + step * ((x[:, column] * parts - start) / step).round()) / parts
        return x + 0.0  # no negative zeros

    # Spaces

    def to_model(self, x: Num[Tensor, "batch columns"]) -> Float[Tensor, "batch dims"]:
        cells = self.cells(x)
        middle = torch.where(cells.observed, cells.middle, 0.0).to(torch.get_default_dtype())
        parts = []
        for index in range(len(self.columns)):
            if index in self.categorical:
                known = cells.observed[:, index, None]
                code = torch.where(known[:, 0], x[:, index].double(), 0.0).long()
                parts.append(corner_of(code, self.digits[index]).to(middle.dtype) * known)
            else:
                parts.append(middle[:, index, None])
        return torch.cat(parts, dim=1)

    def to_data(self, y: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch columns"]:
        parts = full_precision(y).split(self.sizes, dim=1)
        probits = torch.cat([part[:, :1] for part in parts], dim=1)
        x = self.from_probit(probits)
        for index in self.categorical:
            x[:, index] = category_of(parts[index], self.digits[index], self.counts[index]).double()
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

    @property
    def density_noise(self) -> float:
        return self.resolution

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
        ends = [
            (self.starts[i] + sum(self.digits[i][: k + 1]), size)
            for i in self.categorical
            for k, size in enumerate(self.digits[i])
        ]
        categories = tuple(slice(end - size, end) for end, size in ends)
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
        self, components: int, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        """Each cell given those before it; or, independent given the outputs, Gaussian mixtures (on the normal scale)
        for numbers and categorical distributions for categories."""
        if cells == "given others":
            return RowLikelihood(self, classes, width=width, dropout=dropout)
        return MixedLikelihood(self, components)

    def reconstruction(
        self, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        """Of independent cells three Gaussians per number."""
        return self.likelihood(3, cells=cells, classes=classes, width=width, dropout=dropout)

    def generator_output(
        self, raw: Float[Tensor, "batch dims"], noise: Float[Tensor, "batch gumbel"], temperature: float = 0.3
    ) -> Float[Tensor, "batch dims"]:
        """Numbers bounded softly; categories drawn by the Gumbel-softmax trick (https://arxiv.org/abs/1611.01144)."""
        gumbel = -(-torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6).log()).log()
        parts, used = [], 0
        for index, part in enumerate(raw.split(self.sizes, dim=1)):
            if index in self.categorical:
                chosen = (part + gumbel[:, used : used + self.sizes[index]]) / temperature
                parts += [digit.softmax(1) for digit in chosen.split(self.digits[index], dim=1)]
                used += self.sizes[index]
            else:
                parts.append(4 * torch.tanh(part / 4))
        return torch.cat(parts, dim=1)

    def apply_masked(
        self,
        network: nn.Module,
        y: Float[Tensor, "batch dims"],
        observed: Bool[Tensor, "batch columns"],
        gaps: Bool[Tensor, "batch columns"] | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        state = observed.to(y.dtype)
        return network(y * self.expand(observed), state if gaps is None else state - (gaps & ~observed).to(y.dtype))

    # Networks

    def row_network(
        self, *, context: int, width: int, blocks: int = 2, parts: int = 128, dropout: float = 0.0
    ) -> RowNetwork:
        return RowNetwork(self, context=context, width=width, blocks=blocks, parts=parts, dropout=dropout)

    def settler(self, classes: int, *, sigma: float, width: int, dropout: float = 0.0) -> Settler | None:
        hidden = hidden_units(self.facts, width)
        return Settler(self, classes, sigma=sigma, width=width, hidden=hidden, dropout=dropout) if sigma else None


def _missing_share(column: Mapping[str, Any]) -> float:
    """Share of a column's training cells that are missing, as one more observation of both kinds would have it."""
    missing = column.get("missing") or 0
    known = sum(column.get("frequencies") or ()) if column["type"] == "categorical" else column.get("count", 0)
    return (missing + 1) / (missing + known + 2) if missing else 0.0
