"""Rounded numbers of columns as cells of an axis on which they are spread evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from ..shapes import Float, Int


class Rounding:
    r"""The numbers that columns can hold, each an interval as long as it is frequent among its neighbours.

    Within a period of :math:`M` units a number that ends in :math:`r` has the interval :math:`[C(r), C(r + 1))` of it,

    .. math:: C(r) = \sum_z \frac{q_z}{M / 10^z} \left\lceil \frac{r}{10^z} \right\rceil
              + \sum_{z,d} \frac{s_{z,d}}{M / 10^{z+2}} \left\lceil \frac{r - 10^z d}{10^{z+2}} \right\rceil

    with :math:`q_z` the share of multiples of :math:`10^z` units and :math:`s_{z,d}` that of numbers that end in the
    digits :math:`d` and :math:`z` zeros. So a distribution that is smooth on this axis has numbers that end as the
    training data's do, and no number moves by more than a period.

    Arguments:
        roundings: Of each column what `data.rounding` found: the `unit` as a power of ten, and for each of the `ranges`
            of magnitudes the units it begins at (`least`), its `period`, and the shares `zeros` and `last`.
    """

    def __init__(self, roundings: Sequence[Mapping[str, Any]]) -> None:
        columns, ranges = len(roundings), max(len(rounding["ranges"]) for rounding in roundings)
        powers = max(len(entry["zeros"]) for rounding in roundings for entry in rounding["ranges"])
        exact = torch.float64
        parts = [[10 ** max(-rounding["unit"], 0), 10 ** max(rounding["unit"], 0)] for rounding in roundings]
        self._parts, self._units = torch.tensor(parts, dtype=exact).T[:, :, None]
        self._least = torch.full((columns, ranges - 1), math.inf, dtype=exact)
        self._period = torch.ones(columns, ranges, dtype=torch.int64)
        self._zeros = torch.zeros(columns, ranges, powers, dtype=exact)
        self._below = torch.zeros(columns, ranges, powers, 101, dtype=exact)
        """Share of the frequent digits below each of 0 to 100."""
        for column, rounding in enumerate(roundings):
            for row, entry in enumerate(rounding["ranges"]):
                self._least[column, row - 1 : row] = entry["least"]
                self._period[column, row] = entry["period"]
                self._zeros[column, row, : len(entry["zeros"])] = torch.tensor(entry["zeros"], dtype=exact)
                for power, level in enumerate(entry["last"]):
                    for digits, share in level.items():
                        self._below[column, row, power, int(digits) + 1 :] += share

    def of(self, column: int) -> Rounding:
        """The rounding of one column."""
        one = copy(self)
        for name, tensor in vars(self).items():
            setattr(one, name, tensor[column : column + 1])
        return one

    def ends(self, value: Float[Tensor, "columns n"]) -> tuple[Float[Tensor, "columns n"], Float[Tensor, "columns n"]]:
        """Both ends of the numbers' intervals; a number between two that can be is taken for the nearer."""
        units = (value.abs() * self._on("parts", value) / self._on("units", value)).round()
        within, period = self._range(units)
        whole = units.long()
        start, rest = (whole - whole % period).double(), whole % period
        share = self._share(within, period)
        below, above = (start + period * share(rest + more) for more in (0, 1))
        lower = torch.where(value < 0, -above, torch.where(units == 0, -above, below))
        upper = torch.where(value < 0, torch.where(units == 0, above, -below), above)
        scale = self._on("units", value) / self._on("parts", value)
        return lower * scale, upper * scale

    def value(self, place: Float[Tensor, "columns n"]) -> Float[Tensor, "columns n"]:
        """The number in whose interval each place lies."""
        units = place.abs() * self._on("parts", place) / self._on("units", place)
        within, period = self._range(units)
        share = self._share(within, period)
        start = torch.div(units, period, rounding_mode="floor")
        part = units / period - start
        low, high = torch.zeros_like(period), period
        while bool((high - low > 1).any()):  # `low` begins at or below the place, `high` beyond it
            middle = torch.div(low + high, 2, rounding_mode="floor")
            right = share(middle) <= part
            low, high = torch.where(right, middle, low), torch.where(right, high, middle)
        number = start * period + low
        return torch.where(place < 0, -number, number) * self._on("units", place) / self._on("parts", place)

    def _on(self, name: str, beside: Tensor) -> Tensor:
        return getattr(self, f"_{name}").to(beside.device)

    def _range(self, units: Float[Tensor, "columns n"]) -> tuple[Int[Tensor, "columns n"], Int[Tensor, "columns n"]]:
        """Which range each magnitude is in, and its period."""
        within = torch.searchsorted(self._on("least", units), units.contiguous(), right=True)
        return within, self._on("period", units).gather(1, within)

    def _share(
        self, within: Int[Tensor, "columns n"], period: Int[Tensor, "columns n"]
    ) -> Callable[[Int[Tensor, "columns n"]], Float[Tensor, "columns n"]]:
        """Given what ends numbers, the part of their period's numbers that end below it."""
        zeros, below = self._on("zeros", within), self._on("below", within)
        column = torch.arange(len(within), device=within.device)[:, None]
        place = (column * zeros.shape[1] + within) * zeros.shape[2]
        weights = []
        for power in range(zeros.shape[2]):
            frequent = bool(below[:, :, power].any())
            if frequent or bool(zeros[:, :, power].any()):
                weights.append((power, zeros.flatten()[place + power] * 10**power / period, frequent))
        scale, digits = 100 / period, below.flatten()

        def share(rest: Int[Tensor, "columns n"]) -> Float[Tensor, "columns n"]:
            total = torch.zeros(rest.shape, dtype=torch.float64, device=rest.device)
            for power, weight, frequent in weights:
                tens = torch.div(rest + (10**power - 1), 10**power, rounding_mode="floor")
                total += weight * tens
                if frequent:
                    first = (place + power) * 101
                    hundreds = torch.div(tens, 100, rounding_mode="floor")
                    seen = digits[first + 100] * hundreds + digits[first + tens - 100 * hundreds]
                    total += seen * (scale * 10**power)
            return total

        return share
