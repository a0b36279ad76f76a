"""Which split every example belongs to: published, or deterministic, stratified and free of leaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card
from data.files import append
from data.permutation import permuted
from data.readers.base import UNPUBLISHED, Chunk

ANOMALY = len(SPLITS)
UNUSED = -2
NAMES = (*SPLITS, "anomaly")
PARTITIONS = 64
BLOCK = 1 << 16
HASHED = np.dtype([("content", "<u8"), ("row", "<i8"), ("label", "<i4")])


class SplitIndex:
    """One byte of memory per example; labels and content hashes wait on the disk.

    Arguments:
        folder: Where to keep them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = 0
        self._published: list[NDArray[np.int8]] = []
        self._labels = (folder / "labels").open("wb")
        self._hashes = [(folder / f"hashes-{part:02}").open("wb") for part in range(PARTITIONS)]

    def add(self, chunk: Chunk) -> None:
        """Note the examples of a chunk."""
        split = chunk.split.astype(np.int8, copy=True)
        split[chunk.anomaly] = ANOMALY
        self._published.append(split)
        append(self._labels, chunk.label.astype("<i4"))
        rows = np.empty(len(split), HASHED)
        rows["content"], rows["label"] = chunk.content, chunk.label
        rows["row"] = np.arange(self.size, self.size + len(split))
        part = (chunk.content >> np.uint64(58)).astype(np.intp)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(PARTITIONS + 1))
        for index in np.unique(part):
            append(self._hashes[index], rows[order[bounds[index] : bounds[index + 1]]])
        self.size += len(split)

    def close(self) -> None:
        """Finish writing."""
        for file in (self._labels, *self._hashes):
            file.close()

    def published(self, *, keep: bool = False) -> NDArray[np.int8]:
        """The published split of every example (or -1, or `ANOMALY`), `[size]`; may be asked for once unless kept."""
        parts = self._published
        self._published = parts if keep else []
        return np.concatenate(parts) if parts else np.empty(0, np.int8)

    def labels(self) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """The labels, block by block, each with the row it starts at."""
        with (self.folder / "labels").open("rb") as file:
            start = 0
            while len(block := np.fromfile(file, "<i4", BLOCK)):
                yield start, block
                start += len(block)

    def duplicates(self) -> Iterator[NDArray[Any]]:
        """Examples whose content occurs more than once, sorted by content, then row; part by part."""
        for part in range(PARTITIONS):
            rows = np.fromfile(self.folder / f"hashes-{part:02}", HASHED)
            rows = rows[np.lexsort((rows["row"], rows["content"]))]
            same = rows["content"][1:] == rows["content"][:-1]
            duplicate = np.zeros(len(rows), np.bool_)
            duplicate[1:] |= same
            duplicate[:-1] |= same
            if duplicate.any():
                yield rows[duplicate]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitAssignment:
    """Where every example goes.

    Arguments:
        split: Index into `NAMES`, or `UNUSED`, `[examples]`.
        published: Whether the source's own splits were honoured.
        facts: What was found about duplicates, for the report.
    """

    split: NDArray[np.int8]
    published: bool
    facts: dict[str, Any]


def divide(card: Card, split_index: SplitIndex, source: str, *, keep: bool = False) -> SplitAssignment:
    """Assign every example to a split.

    Arguments:
        card: Says how.
        split_index: What is known of the examples.
        source: What messages call the source.
        keep: Whether the ledger will be asked again.
    Raises:
        ValueError: If published splits are unusable, duplicates cross splits and must not, or none is for training.
    """
    split = split_index.published(keep=keep)
    present = {name for code, name in enumerate(SPLITS) if (split == code).any()}
    if not card.splits.published or not present - {"train"}:
        split[(split != ANOMALY)] = UNPUBLISHED
        published = False
    else:
        published = True
        _check_published(card, split, present, source)
    free = _free(split, present, published)
    _assign(card, split_index, split, free, published)
    facts = _separate(card, split_index, split, free, source)
    if not (split == SPLITS.index("train")).any():
        raise ValueError(
            f"{source}: none of its {split_index.size} examples belongs to the training split. "
            "Fix anomaly or splits in the card, or give more data."
        )
    return SplitAssignment(split=split, published=published, facts=facts)


def _check_published(card: Card, split: NDArray[np.int8], present: set[str], source: str) -> None:
    if "train" not in present:
        raise ValueError(
            f"{source} publishes {', '.join(sorted(present))} but no train split. "
            "Add the training examples, or set `splits: {published: false}` in the card to divide what is there."
        )
    unassigned = np.flatnonzero(split == UNPUBLISHED)
    if len(unassigned):
        raise ValueError(
            f"{source} publishes splits, but {len(unassigned)} examples belong to none, the first at position "
            f"{unassigned[0]} (from 0). Fix splits in the card (rows, column), or set `splits: {{published: false}}`."
        )


def _free(split: NDArray[np.int8], present: set[str], published: bool) -> NDArray[np.bool_]:
    """Which examples may be assigned: all, or those a missing validation or test split is cut from."""
    if not published:
        return split == UNPUBLISHED
    if present >= {"val", "test"}:
        return np.zeros(len(split), np.bool_)
    return split == SPLITS.index("train")


def _shares(card: Card, split: NDArray[np.int8], published: bool) -> tuple[float, float]:
    """Shares of the free examples that become validation and test."""
    plan = card.splits
    if not published:
        return plan.val, plan.test
    has_val, has_test = ((split == SPLITS.index(name)).any() for name in ("val", "test"))
    return (0.0 if has_val else plan.val), (0.0 if has_test else plan.test)


def _assign(
    card: Card, split_index: SplitIndex, split: NDArray[np.int8], free: NDArray[np.bool_], published: bool
) -> None:
    """Divide the free examples, stratified by label: exact in total, within one example per class."""
    if not free.any():
        return
    val, test = _shares(card, split, published)
    train = 1 - val - test if published else card.splits.train
    counts: dict[int, int] = {}
    for start, labels in split_index.labels():
        names, found = np.unique(labels[free[start : start + len(labels)]], return_counts=True)
        for name, count in zip(names.tolist(), found.tolist(), strict=True):
            counts[name] = counts.get(name, 0) + count
    edges: dict[int, tuple[int, int, int]] = {}
    before = 0
    for name in sorted(counts):
        after = before + counts[name]
        test_n, val_n, train_n = (round(after * share) - round(before * share) for share in (test, val, train))
        edges[name] = (test_n, test_n + val_n, min(counts[name], test_n + val_n + train_n))
        if abs(train + val + test - 1) < 1e-9:
            edges[name] = (*edges[name][:2], counts[name])
        before = after
    ranks = dict.fromkeys(counts, 0)
    order = [SPLITS.index("test"), SPLITS.index("val"), SPLITS.index("train"), UNUSED]
    for start, labels in split_index.labels():
        mine = free[start : start + len(labels)]
        for name in np.unique(labels[mine]).tolist():
            rows = start + np.flatnonzero(mine & (labels == name))
            rank = np.arange(ranks[name], ranks[name] + len(rows))
            ranks[name] += len(rows)
            place = permuted(rank, counts[name], "split", card.splits.seed, name)
            split[rows] = np.array(order, np.int8)[np.searchsorted(edges[name], place, side="right")]


def _separate(
    card: Card, split_index: SplitIndex, split: NDArray[np.int8], free: NDArray[np.bool_], source: str
) -> dict[str, Any]:
    """Find content that occurs in more than one split and, by the card's policy, keep it apart."""
    facts = _crossings(split_index, split, free)
    facts["policy"] = card.duplicates
    if card.duplicates == "fail" and facts["across_splits"]:
        raise ValueError(
            f"{source}: {facts['across_splits']} contents occur in more than one split, for example at positions "
            f"{facts['first_positions']} (from 0), and the card says `duplicates: fail`. Remove the copies, or set "
            "`duplicates: separate` (keep copies together, published test data intact) or `keep` (only count them)."
        )
    if card.duplicates != "separate" or not facts["across_splits"]:
        return facts
    before = np.bincount(split[split >= 0], minlength=len(NAMES))
    original = split.copy()
    facts["dropped"], facts["moved"] = _resolve(split_index, split, free)
    after = np.bincount(split[split >= 0], minlength=len(NAMES))
    limit = card.max_bad * max(1, int((split != ANOMALY).sum()))
    if facts["dropped"] > max(limit, 1):
        raise ValueError(
            f"{source}: {facts['dropped']} examples of the training data also occur in a published validation or test "
            f"split, more than `max_bad: {card.max_bad:g}` allows to leave out. If such repeats are natural, set "
            "`duplicates: keep` in the card; otherwise fix the splits, or raise max_bad."
        )
    if (np.abs(after - before) > 0.1 * before + 1).any():
        split[:] = original
        facts.update(policy="keep", dropped=0, moved=0, note="content repeats too often to be kept in one split")
    return facts


def _crossings(split_index: SplitIndex, split: NDArray[np.int8], free: NDArray[np.bool_]) -> dict[str, Any]:
    """Count contents that occur more than once, in more than one split, or under more than one label."""
    repeated = extra = across = conflicts = 0
    first: list[list[int]] = []
    for rows in split_index.duplicates():
        _, group = np.unique(rows["content"], return_inverse=True)
        groups = int(group[-1]) + 1
        repeated += groups
        extra += len(rows) - groups
        code = split[rows["row"]].astype(np.int64)
        crossing = _differs(group, np.where(code == ANOMALY, UNUSED, code), groups, ignore=UNUSED)
        across += int(crossing.sum())
        conflicts += int(_differs(group, rows["label"].astype(np.int64), groups, ignore=UNPUBLISHED).sum())
        for index in np.flatnonzero(crossing)[: 3 - len(first)]:
            first.append(rows["row"][group == index][:4].tolist())
    return {
        "contents_repeated": repeated, "extra_copies": extra, "across_splits": across,
        "conflicting_labels": conflicts, "first_positions": first, "dropped": 0, "moved": 0,
    }  # fmt: skip


def _differs(group: NDArray[np.intp], value: NDArray[np.int64], groups: int, ignore: int) -> NDArray[np.bool_]:
    """Which groups hold more than one value, those to ignore aside, `[groups]`."""
    kept = value != ignore
    low = np.full(groups, np.iinfo(np.int64).max)
    high = np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(low, group[kept], value[kept])
    np.maximum.at(high, group[kept], value[kept])
    return low < high


def _resolve(split_index: SplitIndex, split: NDArray[np.int8], free: NDArray[np.bool_]) -> tuple[int, int]:
    """Keep every content in one split: published test and validation data stay, the rest yields."""
    dropped = moved = 0
    for rows in split_index.duplicates():
        _, first, group = np.unique(rows["content"], return_index=True, return_inverse=True)
        row = rows["row"]
        code, movable = split[row], free[row]
        rank = np.where((code >= 0) & (code < ANOMALY) & ~movable, code, UNPUBLISHED).astype(np.int64)
        fixed = np.full(len(first), UNPUBLISHED, np.int64)
        np.maximum.at(fixed, group, rank)  # SPLITS are in the order train < val < test
        leaves = (code >= 0) & (code < ANOMALY) & (fixed[group] >= 0) & (movable | (code < fixed[group]))
        split[row[leaves]] = UNUSED
        dropped += int(leaves.sum())
        leader = _leaders(group, movable & (code != UNUSED), len(first))
        follows = movable & (fixed[group] < 0) & (leader[group] >= 0)
        target = split[row[np.maximum(leader[group], 0)]]
        moved += int((follows & (target != code)).sum())
        split[row[follows]] = target[follows]
    return dropped, moved


def _leaders(group: NDArray[np.intp], eligible: NDArray[np.bool_], groups: int) -> NDArray[np.int64]:
    """Index of the first eligible member of every group, -1 where there is none, `[groups]`."""
    leader = np.full(groups, -1, np.int64)
    candidates = np.flatnonzero(eligible)[::-1]
    leader[group[candidates]] = candidates
    return leader
