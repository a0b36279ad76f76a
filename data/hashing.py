"""64-bit content hashes, by which copies of an example are found."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.order import mixed


def image_hashes(x: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes of images by their pixels, `[n]`."""
    flat = np.ascontiguousarray(x).reshape(len(x), -1) if len(x) else x
    digests = b"".join([hashlib.blake2b(row, digest_size=8).digest() for row in flat])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def row_hashes(x: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Hashes of a table's rows by their cells, missing ones included, `[n]`.

    Arguments:
        x: `[n, columns]`.
    """
    bits = np.where(np.isnan(x), np.nan, x + 0.0).view(np.uint64)  # one NaN, no negative zero
    total: NDArray[Any] = np.full(len(x), 0x9E3779B97F4A7C15, np.uint64)
    for column in range(x.shape[1]):
        total = mixed(total ^ mixed(bits[:, column] + np.uint64(column + 1)))
    return total
