"""From a card to a prepared dataset: read once, divide, shuffle, write shards, describe.

Memory stays flat: examples wait in a spool on the disk while only one byte per example is kept in
memory. Every split is shuffled on the way from the spool to its shards (each shard's rows are first
gathered in a file of their own), so any prefix of a split is a fair sample of it.
"""

from __future__ import annotations

import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import Card
from data.domains import KINDS
from data.domains.base import Accumulator
from data.files import append, whole_folder, write_json
from data.ingest.datasheet import write_summary
from data.ingest.locate import locate
from data.ingest.splits import NAMES, SplitAssignment, SplitIndex, divide
from data.permutation import permuted
from data.readers import check_format, open_source
from data.readers.base import IngestReport, Mapper, Reader
from data.shards import SCHEMA, content_digest, rows_per_shard, write_shard

log = logging.getLogger(__name__)

WORD_SECONDS = 10.0
"""Seconds between lines of the log that say how many examples were read."""
BLOCK_BYTES = 4 << 20
SHARD_WRITERS = 2


def build(card: Card, root: Path, out: Path, mapper: Mapper) -> dict[str, Any]:
    """Prepare a dataset.

    Arguments:
        card: What to prepare.
        root: The project's root, where relative paths start.
        out: The folder to write; whole or untouched.
        mapper: Applies a function to items, on as many cores or machines as it likes, in order.
    Returns:
        The manifest.
    Raises:
        ValueError: If the source is not what the card says, or holds what it must not.
        OSError: If the source cannot be read or the output not written.
    """
    check_format(card)
    located = locate(card, root)
    ingest_report = IngestReport(on_bad=card.on_bad, max_bad=card.max_bad)
    with whole_folder(out) as folder, _working_folder(folder) as work:
        log.info("%s: reading %s …", card.name, located.name)
        reader = open_source(card, located.path, ingest_report, mapper)
        split_index = _spool(reader, ingest_report, work)
        ingest_report.close(located.name)
        located.check_unchanged()
        rows = ingest_report.read + ingest_report.dropped
        for name, (first, end) in card.splits.rows.items():
            if end > rows:
                raise ValueError(
                    f"splits.rows.{name} is [{first}, {end}], but {located.name} has {rows} rows. Fix the card."
                )
        assignment = divide(card, split_index, located.name)
        for name in sorted(
            {"train", "val", "test"} - {NAMES[code] for code in np.unique(assignment.split) if code >= 0}
        ):
            if getattr(card.splits, name):
                ingest_report.warn(
                    f"split {name} is empty: {ingest_report.read} examples are too few for the shares in the card"
                )
        splits, statistics = _write_splits(card, reader, split_index, assignment, work, folder)
        manifest = _manifest(card, reader, splits, statistics, located.facts, assignment)
        shutil.rmtree(work)
        write_summary(folder, card, manifest, ingest_report, assignment)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _spool(reader: Reader, ingest_report: IngestReport, work: Path) -> SplitIndex:
    """Read the whole source onto the disk, in its order."""
    with (
        closing(SplitIndex(work)) as split_index,
        (work / "spool").open("wb") as spool,
        (work / "sources").open("wb") as sources,
    ):
        said = time.monotonic()
        for chunk in reader.chunks():
            append(spool, chunk.x)
            append(sources, chunk.source.astype("<i8"))
            split_index.add(chunk)
            ingest_report.read += len(chunk.x)
            if time.monotonic() - said >= WORD_SECONDS:
                said = time.monotonic()
                log.info("%s examples read", f"{ingest_report.read:,}")
    return split_index


class _working_folder:
    """A folder for what is needed only while preparing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "work"

    def __enter__(self) -> Path:
        self.path.mkdir()
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _manifest(
    card: Card,
    reader: Reader,
    splits: dict[str, Any],
    statistics: dict[str, Any],
    source: dict[str, Any],
    assignment: SplitAssignment,
) -> dict[str, Any]:
    domain = KINDS[card.kind].domain(card, reader.event_shape, reader.columns, statistics)
    manifest = {
        "schema": SCHEMA,
        "name": card.name,
        "title": card.title,
        "kind": card.kind,
        "domain": domain,
        "class_names": reader.class_names,
        "splits": splits,
        "published_splits": assignment.published,
        "digest": "",
        "source": source,
        "licence": card.licence,
        "citation": card.citation,
        "statistics": statistics,
    }
    if reader.table:
        manifest["table"] = reader.table
        manifest["missing"] = card.missing
    if reader.constraints:
        manifest["constraints"] = reader.constraints
    manifest["digest"] = content_digest(manifest)
    return manifest


def _write_splits(
    card: Card, reader: Reader, split_index: SplitIndex, assignment: SplitAssignment, work: Path, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shuffle the spool into shards; returns the manifest's splits and the training statistics."""
    row = np.dtype([("place", "<i8"), ("source", "<i8"), ("label", "<i8"), ("x", reader.dtype, reader.event_shape)])
    per_shard = rows_per_shard(row["x"].itemsize, split_index.size)
    counts = {name: int((assignment.split == code).sum()) for code, name in enumerate(NAMES)}
    _scatter(card, reader, split_index, assignment, work, row, per_shard, counts)
    splits: dict[str, Any] = {}
    moments = KINDS[card.kind].accumulator()
    with ThreadPoolExecutor(SHARD_WRITERS) as writers:
        for name, count in counts.items():
            if not count:
                continue
            files = [work / f"{name}-{index:05}" for index in range(-(-count // per_shard))]
            counted = moments if name == "train" else None
            written = list(writers.map(partial(_shard, folder, row, len(reader.class_names), counted), files))
            splits[name] = {"count": count, "shards": [entry for entry, _ in written]}
            if reader.class_names:
                unlabelled, *labels = sum(frequencies for _, frequencies in written).tolist()
                splits[name]["labels"] = dict(zip(reader.class_names, labels, strict=True))
                splits[name]["unlabelled"] = unlabelled
    if moments is not None:
        return splits, moments.as_dict()
    return splits, KINDS[card.kind].statistics(folder, splits, reader.columns)


def _shard(
    folder: Path, row: np.dtype[Any], classes: int, moments: Accumulator | None, gathered: Path
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Put the gathered rows of a shard in order and write it; returns its entry and how often each label occurs."""
    rows = np.fromfile(gathered, row)
    gathered.unlink()
    order = np.argsort(rows["place"])
    x, label, source = (rows[column][order] for column in ("x", "label", "source"))
    del rows
    if moments is not None:
        moments.add(x)
    entry = write_shard(folder / f"{gathered.name}.arrow", x, label, source)
    return entry, np.bincount(label + 1, minlength=classes + 1)


def _scatter(
    card: Card,
    reader: Reader,
    split_index: SplitIndex,
    assignment: SplitAssignment,
    work: Path,
    row: np.dtype[Any],
    per_shard: int,
    counts: dict[str, int],
) -> None:
    """Append every row of the spool to the file of the shard it belongs to."""
    ranks = dict.fromkeys(counts, 0)
    event = np.dtype((reader.dtype, reader.event_shape))
    block = max(1, BLOCK_BYTES // max(1, event.itemsize), per_shard // 2)
    with (
        (work / "spool").open("rb") as spool,
        (work / "labels").open("rb") as labels,
        (work / "sources").open("rb") as sources,
    ):
        for start in range(0, split_index.size, block):
            x = np.fromfile(spool, event, block)
            split = assignment.split[start : start + len(x)]
            label, source = np.fromfile(labels, "<i4", len(x)), np.fromfile(sources, "<i8", len(x))
            for code, name in enumerate(NAMES):
                mine = np.flatnonzero(split == code)
                if not len(mine):
                    continue
                rank = np.arange(ranks[name], ranks[name] + len(mine))
                ranks[name] += len(mine)
                place = permuted(rank, counts[name], "shuffle", card.splits.seed, name)
                shard = place // per_shard
                for index in np.unique(shard):
                    here = mine[shard == index]
                    rows = np.empty(len(here), row)
                    rows["place"], rows["x"] = place[shard == index], x[here]
                    rows["label"], rows["source"] = label[here], source[here]
                    with (work / f"{name}-{index:05}").open("ab") as file:
                        append(file, rows)
    (work / "spool").unlink()
