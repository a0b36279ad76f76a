"""Permutations that are pure functions of a key, with constant-time access to any position.

A Feistel network permutes the integers below a power of two; walking its cycles until the image
falls below `n` restricts it to a permutation of `0 … n-1` (Black & Rogaway, 2002, "Ciphers with
Arbitrary Finite Domains", §3). Nothing is stored, so the order of a billion examples costs as much
memory as the batch that is asked for.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finalizer: an invertible hash of 64-bit integers (Steele et al., 2014)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def permuted(positions: ArrayLike, n: int, *key: int | str) -> NDArray[np.int64]:
    """Where a keyed permutation of `0 … n-1` sends each position.

    Arguments:
        positions: Integers from 0 to `n` - 1, `[count]`.
        n: Size of the permuted set, at least 1.
        key: What selects the permutation; the same key always gives the same one.
    Returns:
        Images of the positions, `[count]`.
    Raises:
        ValueError: If a position lies outside `0 … n-1`.
    """
    positions = np.asarray(positions, dtype=np.int64)
    if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < n:
        raise ValueError(f"positions must lie in 0 … {n - 1}, got {positions.min()} … {positions.max()}")
    bits = max(2, (n - 1).bit_length())
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    start = int.from_bytes(digest, "little")
    keys = mixed(np.uint64(start) + np.arange(ROUNDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    image = _feistel(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(image >= n)
    while len(outside):
        walked = _feistel(image[outside], bits, keys)
        image[outside] = walked
        outside = outside[walked >= n]
    return image.astype(np.int64)


def _feistel(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of the integers below `2 ** bits`."""
    low = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    left, right = values >> low, values & low_mask
    for index, key in enumerate(keys):
        if index % 2:
            right = right ^ (_round(left, key) & low_mask)
        else:
            left = left ^ (_round(right, key) & high_mask)
    return (left << low) | right


def _round(half: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """The round function: a keyed hash of one half."""
    values = (half + key) * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(29)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(32)
    return values
