"""Rounded numbers as cells of an axis on which they are spread evenly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..shapes import Float, Int


class Rounding:
    r"""The numbers that a column can hold, each an interval as long as it is frequent among its neighbours.

    Within a period of :math:`M` units a number that ends in :math:`r` has the interval :math:`[C(r), C(r + 1))` of it,

    .. math:: C(r) = \sum_z \frac{q_z}{M / 10^z} \left\lceil \frac{r}{10^z} \right\rceil
              + \sum_{z,d} \frac{s_{z,d}}{M / 10^{z+2}} \left\lceil \frac{r - 10^z d}{10^{z+2}} \right\rceil

    with :math:`q_z` the share of multiples of :math:`10^z` units and :math:`s_{z,d}` that of numbers that end in the
    digits :math:`d` and :math:`z` zeros. So a distribution that is smooth on this axis has numbers that end as the
    training data's do, and no number moves by more than a period.

    Arguments:
        rounding: What `data.rounding` found: the `unit` as a power of ten, and for each of the `ranges` of magnitudes
            the units it begins at (`least`), its `period`, and the shares `zeros` and `last`.
    """

    def __init__(self, rounding: Mapping[str, Any]) -> None:
        power = int(rounding["unit"])
        self._parts, self._units = 10 ** max(-power, 0), 10 ** max(power, 0)
        ranges = rounding["ranges"]
        self._least = torch.tensor([entry["least"] for entry in ranges[1:]], dtype=torch.float64)
        self._period = torch.tensor([entry["period"] for entry in ranges], dtype=torch.int64)
        steps = max(len(entry["zeros"]) for entry in ranges)
        self._zeros = torch.zeros(len(ranges), steps, dtype=torch.float64)
        self._below = torch.zeros(len(ranges), steps, 101, dtype=torch.float64)
        """Share of the frequent digits below each of 0 to 100."""
        for row, entry in enumerate(ranges):
            self._zeros[row, : len(entry["zeros"])] = torch.tensor(entry["zeros"], dtype=torch.float64)
            for power, level in enumerate(entry["last"]):
                for digits, share in level.items():
                    self._below[row, power, int(digits) + 1 :] += share

    def ends(self, value: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Both ends of the numbers' intervals; a number between two that can be is taken for the nearer."""
        unit = (value.abs() * self._parts / self._units).round()
        within = self._range(unit)
        period = self._period.to(value.device)[within]
        whole = unit.long()
        start, rest = (whole - whole % period).double(), whole % period
        below, above = (start + period * self._share(rest + more, within, period) for more in (0, 1))
        lower = torch.where(value < 0, -above, torch.where(unit == 0, -above, below))
        upper = torch.where(value < 0, torch.where(unit == 0, above, -below), above)
        return lower * self._units / self._parts, upper * self._units / self._parts

    def value(self, place: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The number in whose interval each place lies."""
        units = place.abs() * self._parts / self._units
        within = self._range(units)
        period = self._period.to(place.device)[within]
        start = torch.div(units, period, rounding_mode="floor")
        part = units / period - start
        low, high = torch.zeros_like(period), period
        while bool((high - low > 1).any()):  # `low` begins at or below the place, `high` beyond it
            middle = torch.div(low + high, 2, rounding_mode="floor")
            right = self._share(middle, within, period) <= part
            low, high = torch.where(right, middle, low), torch.where(right, high, middle)
        number = start * period + low
        return torch.where(place < 0, -number, number) * self._units / self._parts

    def _range(self, units: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        return torch.bucketize(units, self._least.to(units.device), right=True)

    def _share(
        self, rest: Int[Tensor, "*n"], within: Int[Tensor, "*n"], period: Int[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """The part of a period's numbers that end below `rest`."""
        zeros, below = self._zeros.to(rest.device), self._below.to(rest.device)
        total = torch.zeros(rest.shape, dtype=torch.float64, device=rest.device)
        for power in range(zeros.shape[1]):
            tens = torch.div(rest + (10**power - 1), 10**power, rounding_mode="floor")
            frequent = torch.div(tens, 100, rounding_mode="floor") * below[within, power, 100]
            frequent += below[within, power, tens % 100]
            total += (zeros[within, power] * tens + 100 * frequent) * 10**power / period
        return total
