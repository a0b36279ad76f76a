"""Where examples lie in model space: pixels and numbers spread over their cells, categories as points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..domains.base import DequantizedPoint, Domain
from ..domains.grid import Image
from ..domains.table import Table
from ..rng import Streams
from ..shapes import Float, Num


def spread(domain: Domain, x: Num[Tensor, "batch *data"], generator: Streams) -> Float[Tensor, "batch *event"]:
    """Model space, a table's numbers at a random place within their cells: so that every number is
    standard normal over the training data, whatever its ties. Missing cells are 0."""
    y = domain.to_model(x)
    if isinstance(domain, Table) and domain.numeric:
        flow, _ = domain.dequantize(x, generator)
        y[:, _columns(domain)] = torch.where(domain.observed(x), flow, 0.0)[:, domain.numeric].to(y.dtype)
    return y


def _columns(table: Table) -> list[int]:
    """Which dimensions of model space are the numbers."""
    return [table.starts[index] for index in table.numeric]


def dequantized_point(domain: Domain, x: Num[Tensor, "batch *data"], generator: Streams) -> DequantizedPoint:
    """Dequantize an example in model space; the density of what was drawn for missing cells is divided out."""
    if isinstance(domain, Table):
        return _of_row(domain, x, generator)
    assert isinstance(domain, Image)
    y = (domain.uniform_dequantize(x, generator) * 2 - 1).double() * (domain.spacing * domain.levels / 2)
    cell = torch.full((len(x),), domain.dimensions * math.log(domain.spacing), dtype=torch.float64, device=x.device)
    return DequantizedPoint(y, cell)


def _of_row(table: Table, x: Tensor, generator: Streams) -> DequantizedPoint:
    flow = table.dequantize(x, generator)[0].double()
    missing = ~table.observed(x)
    whole = torch.where(missing, table.quantize(flow), x.double())
    y = table.to_model(whole).double()
    y[:, _columns(table)] = flow[:, table.numeric]
    numbers = table.log_det(table.cells(x), flow)[:, table.numeric].sum(1)
    cells = table.cells(whole)
    share = (cells.upper - cells.lower).clamp(min=1e-300).log()  # of a category in its marginal
    drawn = (share * missing)[:, table.categorical].sum(1)
    categories = tuple(slice(table.starts[i], table.starts[i] + table.sizes[i]) for i in table.categorical)
    return DequantizedPoint(y, numbers - drawn, categories, row=True)
