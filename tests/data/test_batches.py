"""The order of examples: a permutation per epoch, the same for every number of workers, sought at once."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Batches
from data.dataset import Split
from data.permutation import permuted
from data.shards import write_shard

SHARDS: dict[int, Split] = {}


def split_of(n: int, folder: Path) -> Split:
    """A split whose example number `i` holds `i`, in three shards."""
    if n not in SHARDS:
        entries = []
        for part, rows in enumerate(np.array_split(np.arange(n), min(3, n))):
            x = rows.astype("<u4").view(np.uint8).reshape(len(rows), 2, 2, 1)
            entries.append(write_shard(folder / f"s{n}-{part}.arrow", x, rows % 7, rows))
        SHARDS[n] = Split(folder, "train", entries)
    return SHARDS[n]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    SHARDS.clear()
    return tmp_path_factory.mktemp("shards")


def number(x: torch.Tensor) -> list[int]:
    return np.ascontiguousarray(x.numpy()).reshape(len(x), 4).view("<u4")[:, 0].tolist()


@given(n=st.integers(1, 5000), key=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_permuted_is_a_permutation(n: int, key: int) -> None:
    assert sorted(permuted(np.arange(n), n, key).tolist()) == list(range(n))


@given(n=st.integers(2**20, 2**40), start=st.integers(0, 2**20 - 64))
@settings(max_examples=30, deadline=None)
def test_permuted_seeks_in_constant_time(n: int, start: int) -> None:
    image = permuted(np.arange(start, start + 64), n, "k")
    assert len(set(image.tolist())) == 64
    assert (permuted([start + 5], n, "k") == image[5]).all()
    assert 0 <= image.min() <= image.max() < n


def test_permuted_looks_random() -> None:
    counts = np.zeros((10, 10))
    for key in range(4000):
        counts[np.arange(10), permuted(np.arange(10), 10, key)] += 1
    chi2 = ((counts - 400) ** 2 / 400).sum()
    assert chi2 < 81 + 5 * np.sqrt(2 * 81)
    image = permuted(np.arange(100_000), 100_000, "x")
    assert abs(np.corrcoef(image, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(image[1:], image[:-1])[0, 1]) < 0.02


@given(
    n=st.integers(1, 300),
    each=st.integers(1, 6),
    world=st.integers(1, 8),
    seed=st.integers(0, 1000),
    first=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_ledger(folder: Path, n: int, each: int, world: int, seed: int, first: int) -> None:
    """From any resume point the workers' slices join to the one global batch, and epochs are permutations, also where a
    batch holds more than one of them."""
    batch_size = each * world
    split = split_of(n, folder)
    one = Batches(split, batch_size, seed)
    fresh = Batches(split, batch_size, seed, memory="mapped")
    ids = one.ids(first)
    assert (fresh.ids(first) == ids).all()
    joined = [number(fresh.get(first, rank, world).x) for rank in range(world)]
    assert [i for part in joined for i in part] == ids.tolist() == number(one.get(first).x)
    assert one.get(first).label.tolist() == (ids % 7).tolist()
    assert one.epoch(first) == first * batch_size // n

    start = first * batch_size // n * n  # every epoch touched from here on is complete
    begin, end = start // batch_size, -(-(start + 2 * n) // batch_size)
    stream = np.concatenate([one.ids(step) for step in range(begin, end)])[start - begin * batch_size :]
    for epoch in range(2):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


@pytest.mark.parametrize("world", range(1, 9))
def test_global_batches_do_not_depend_on_the_workers(folder: Path, world: int) -> None:
    batches = Batches(split_of(1000, folder), 840, seed=3)
    for step in (0, 1, 7, 12345):
        parts = [number(batches.get(step, rank, world).x) for rank in range(world)]
        assert [i for part in parts for i in part] == batches.ids(step).tolist()


def test_seeds_and_epochs_differ(folder: Path) -> None:
    split = split_of(300, folder)
    first, second = Batches(split, 300, 0), Batches(split, 300, 1)
    assert (first.ids(0) != second.ids(0)).any()
    assert (first.ids(0) != first.ids(1)).any()


def test_refusals(folder: Path) -> None:
    split = split_of(10, folder)
    with pytest.raises(ValueError, match=r"3 workers cannot share a batch of 8.*\[1, 2, 4, 8\]"):
        Batches(split, 8).get(0, 0, 3)
    with pytest.raises(ValueError, match="rank must lie in 0 … 1"):
        Batches(split, 8).get(0, 2, 2)
    with pytest.raises(ValueError, match="negative"):
        Batches(split, 8).ids(-1)


def test_what_exceeds_the_process_s_own_limit_stays_on_the_disk(tmp_path: Path) -> None:
    x = np.zeros((30_000, 64, 64, 1), np.uint8)
    x[:, 0, 0, 0] = np.arange(len(x)) % 256
    entry = write_shard(tmp_path / "big.arrow", x, np.arange(len(x)), np.arange(len(x)))
    split = Split(tmp_path, "train", [entry])
    del x
    assert Batches(split, 64).resident
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + 200_000_000, hard))
    try:
        limited = Batches(split, 64)  # 123 MB are more than half of 200
        assert not limited.resident
        batch = limited.get(3)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert (batch.x[:, 0, 0, 0] == batch.label % 256).all()
