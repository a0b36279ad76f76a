"""Images that are arrays already: what the readers of IDX, NPY and digits share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import Card, ImageShape, Inspection
from data.domains.image import image_hashes
from data.readers.base import (
    Chunk,
    IngestReport,
    Reader,
    check_anomaly,
    check_no_label,
    class_codes,
    class_list,
    natural_sorted,
    split_by_rows,
)
from data.readers.image_decoding import level_table
from data.sources.streams import Readable

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Images of one published split (or of all of the data) and their labels.

    Arguments:
        name: What messages call it.
        split: Index into `SPLITS`, -1 where none is published.
        shape: Of the array, `(n, height, width[, channels])`.
        blocks: Reads the images, block by block along the first axis.
        labels: `[n]`, or `None`.
    """

    name: str
    split: int
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[NDArray[Any]]]
    labels: NDArray[np.int64] | None


def inspect_arrays(card: Card, path: Path, parts: list[Part]) -> Inspection:
    """The card that fits images which are arrays already."""
    check_no_label(card, path)
    shape = parts[0].shape
    channels = shape[3] if len(shape) == 4 else 1
    found = {str(code) for part in parts if part.labels is not None for code in set(part.labels.tolist())}
    anomalous = card.anomaly.value if card.anomaly else None
    if anomalous is not None and anomalous not in found:
        raise ValueError(f"{path}: no image has the label {anomalous!r}; found {', '.join(natural_sorted(found)[:20])}")
    classes = tuple(name for name in natural_sorted(found) if name != anomalous)
    image = ImageShape(height=shape[1], width=shape[2], channels=channels)
    inspection = Inspection(card=replace(card, image=image, classes=classes))
    for part in parts:
        labels = "no labels" if part.labels is None else f"{len(set(part.labels.tolist()))} labels"
        inspection.found.append(f"{part.name}: {part.shape[0]} images of {part.shape[1:]}, {labels}")
    return inspection


def array_reader(card: Card, parts: list[Part], report: IngestReport) -> Reader:
    """The reader of images that come as arrays."""
    assert card.image is not None
    shape = (card.image.height, card.image.width, card.image.channels)
    for part in parts:
        found = part.shape[1:] if len(part.shape) == 4 else (*part.shape[1:], 1)
        if found != shape:
            raise ValueError(
                f"{part.name}: expected images of {shape} (height, width, channels) as the card says, got {found}. "
                "Fix image in the card."
            )
    codes = np.unique(np.concatenate([part.labels for part in parts if part.labels is not None] or [np.empty(0, int)]))
    labelled = any(part.labels is not None for part in parts)
    found_names = [str(code) for code in codes.tolist()]
    check_anomaly(card, found_names, parts[0].name)
    classes = class_list(card, found_names)
    unknown = sorted(set(found_names) - set(classes) - {card.anomaly.value if card.anomaly else ""})
    if card.classes and labelled and unknown:
        raise ValueError(f"{parts[0].name}: labels {unknown[:10]} are not among the card's classes. Fix classes.")

    def chunks() -> Iterator[Chunk]:
        start = 0
        table = class_codes(card, found_names, classes)
        for part in parts:
            done = 0
            for block in part.blocks():
                labels = None if part.labels is None else part.labels[done : done + len(block)]
                where = np.arange(start + done, start + done + len(block))
                done += len(block)
                yield _chunk(card, part, block.reshape(len(block), *shape), labels, where, codes, table, report)
            start += done

    return Reader(event_shape=shape, dtype="uint8", class_names=classes if labelled else [], chunks=chunks)


def _chunk(
    card: Card,
    part: Part,
    x: NDArray[Any],
    labels: NDArray[np.int64] | None,
    where: NDArray[np.int64],
    codes: NDArray[np.int64],
    table: tuple[NDArray[np.int64], NDArray[np.bool_]],
    report: IngestReport,
) -> Chunk:
    if x.dtype == np.bool_:
        report.convert("1-bit to 8-bit", part.name, len(x))
        x = x.astype(np.uint8) * np.uint8(255)
    good = _good(card, part, x, where, report)
    x, where = x[good].astype(np.uint8), where[good]
    if labels is None:
        label, anomaly = np.full(len(x), -1, np.int64), np.zeros(len(x), np.bool_)
    else:
        index = np.searchsorted(codes, labels[good])
        label, anomaly = table[0][index], table[1][index]
    split = split_by_rows(card, where) if card.splits.rows else np.full(len(x), part.split, np.int8)
    return Chunk(x=x, label=label, split=split, anomaly=anomaly, content=image_hashes(x), source=where)


def _good(card: Card, part: Part, x: NDArray[Any], where: NDArray[np.int64], report: IngestReport) -> NDArray[np.bool_]:
    """Which images hold only values that a pixel may take."""
    flat = x.reshape(len(x), -1)
    good = np.ones(len(x), np.bool_)
    if x.dtype != np.uint8:
        good = ((flat >= 0) & (flat <= 255) & (flat == np.floor(flat))).all(1)
    allowed = level_table(card.image.levels if card.image else 256)
    if allowed is not None:
        good[good] = allowed[flat[good].astype(np.uint8)].all(1)
    for index in np.flatnonzero(~good):
        report.reject(
            f"{part.name}: image {where[index]} (from 0)",
            "pixel out of range",
            f"expected whole numbers on the card's levels from 0 to 255, got {flat[index].min()} … {flat[index].max()} "
            f"({flat.dtype}; scale and round to uint8)",
        )
    return good


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Make sure that an array can hold images.

    Raises:
        ValueError: If it cannot.
    """
    wanted = "expected images [n, height, width] or [n, height, width, 1 or 3]"
    if len(shape) not in (3, 4) or not all(shape):
        raise ValueError(f"{name}: {wanted}, got {list(shape)}. Save images, one after the other.")
    if len(shape) == 4 and shape[3] not in (1, 3):
        fix = "Transpose it: the channels come last." if shape[1] in (1, 3) else "Save grey or RGB images."
        raise ValueError(f"{name}: {wanted}, got {list(shape)}. {fix}")


def raw_blocks(stream: Readable, file: Path | str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[NDArray[Any]]:
    """The examples of a row-major array in a stream, block by block.

    Raises:
        ValueError: If the stream ends early.
    """
    size = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, BLOCK_BYTES // max(1, size))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        body = _exactly(stream, count * size)
        if len(body) < count * size:
            raise ValueError(
                f"{file} ends early: its header says {shape[0]} entries, it holds {start + len(body) // max(1, size)}. "
                "Fetch it again."
            )
        yield np.frombuffer(body, dtype).reshape(count, *shape[1:])


def _exactly(stream: Readable, size: int) -> bytes:
    """So many bytes, fewer only at the end of the stream."""
    pieces: list[bytes] = []
    while size > 0 and (piece := stream.read(min(size, BLOCK_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
