"""Categories in model space: one-hot, or out of many as two digits, one-hot each."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import Float, Int
from .many_categories import MANY


def digits_of(count: int) -> tuple[int, ...]:
    """Values of the digits that one of `count` categories is written with: its group and its place there, if many."""
    if count <= MANY:
        return (count,)
    size = math.isqrt(count - 1) + 1
    return -(-count // size), size


def corner_of(code: Int[Tensor, " batch"], digits: tuple[int, ...]) -> Int[Tensor, "batch size"]:
    """Categories in model space."""
    if len(digits) == 1:
        return F.one_hot(code, digits[0])
    return torch.cat([F.one_hot(code // digits[1], digits[0]), F.one_hot(code % digits[1], digits[1])], dim=1)


def category_of(part: Float[Tensor, "batch dims"], digits: tuple[int, ...], count: int) -> Int[Tensor, " batch"]:
    """The category whose digits are the likeliest, the first before the second."""
    if len(digits) == 1:
        return part.argmax(1)
    first, second = part.split(digits, dim=1)
    start = first.argmax(1) * digits[1]
    there = start[:, None] + torch.arange(digits[1], device=part.device) < count
    return start + second.masked_fill(~there, -torch.inf).argmax(1)
