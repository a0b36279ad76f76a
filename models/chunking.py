"""A large batch in parts, so that memory stays bounded whatever the size of an example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

VALUES = 1 << 20
"""Values of examples that are worked on at once."""


def chunk_size(values: int) -> int:
    """How many examples of so many values are worked on at once."""
    return max(1, VALUES // max(1, values))


def map_chunks(function: Callable[[Tensor], Tensor], x: Tensor, values: int) -> Tensor:
    """`function` of a batch, row by row the same, a bounded number of examples at a time.

    Arguments:
        function: Of a part of the batch.
        x: The batch: examples, or codes of them.
        values: Values of one example.
    """
    return torch.cat([function(part) for part in x.split(chunk_size(values))])
