"""Images in IDX files, as MNIST is published."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card, Inspection
from data.readers.base import SPLIT_NAMES, UNPUBLISHED, IngestReport, Mapper, Reader
from data.readers.image_arrays import Part, array_reader, check_shape, inspect_arrays, raw_blocks
from data.sources.inflate import inflated
from data.sources.streams import Readable

IDX_NAME = re.compile(r"^(.*?)(images|labels)([-.]idx[13][-.]ubyte)(\.gz)?$", re.IGNORECASE)


def open_idx(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """IDX files, the format of MNIST: a folder of images and labels files, or one images file."""
    return array_reader(card, idx_parts(path), report)


def inspect_idx(card: Card, path: Path, size: str, fit: str) -> Inspection:
    """The card that fits IDX files, whose images have one size."""
    return inspect_arrays(card, path, idx_parts(path))


def idx_parts(path: Path) -> list[Part]:
    """The images (and labels) in a folder of IDX files, or in one.

    Raises:
        ValueError: If a file is damaged, or images and labels do not match.
    """
    images = [path] if path.is_file() else sorted(file for file in path.iterdir() if _is_idx(file, "images"))
    if not images:
        raise ValueError(f"{path} holds no IDX files of images (…images-idx3-ubyte, .gz). Give another source.")
    parts = []
    for file in images:
        match = IDX_NAME.match(file.name)
        words = re.split(r"[-_.]", match.group(1).lower()) if match else []
        splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
        labels, beside = None, []
        if match and path.is_dir():
            beside = [other for other in path.iterdir() if _is_idx(other, "labels") and _stem(other) == match.group(1)]
            labels = _idx_all(beside[0], 1).astype(np.int64) if beside else None
        shape = _idx_shape(file, (3, 4))
        if labels is not None and len(labels) != shape[0]:
            raise ValueError(
                f"{file} has {shape[0]} images, {beside[0].name} has {len(labels)} labels. Fetch them again."
            )
        split = SPLITS.index(splits[-1]) if splits and len(images) > 1 else UNPUBLISHED
        parts.append(Part(name=str(file), split=split, shape=shape, blocks=_idx_blocks(file, shape), labels=labels))
    return parts


def _is_idx(file: Path, what: str) -> bool:
    match = IDX_NAME.match(file.name)
    return bool(match and match.group(2).lower() == what)


def _stem(file: Path) -> str:
    match = IDX_NAME.match(file.name)
    return match.group(1) if match else ""


def _idx_shape(file: Path, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    with closing(inflated(file)) as stream:
        return _idx_header(stream, file, dimensions)


def _idx_header(stream: Readable, file: Path, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(f"{file} is not an IDX file: expected it to start with two zero bytes, got {magic[:4]!r}.")
    if magic[2] != 8:
        raise ValueError(f"{file}: expected unsigned bytes (IDX type 8), got type {magic[2]}. Convert it to uint8.")
    if magic[3] not in dimensions:
        raise ValueError(f"{file}: expected {' or '.join(map(str, dimensions))} dimensions, got {magic[3]}.")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{file} ends early, inside its header. Fetch it again.")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    if magic[3] > 1:
        check_shape(shape, str(file))
    return shape


def _idx_blocks(file: Path, shape: tuple[int, ...]) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    def blocks() -> Iterator[NDArray[np.uint8]]:
        with closing(inflated(file)) as stream:
            _idx_header(stream, file, (len(shape),))
            yield from raw_blocks(stream, file, shape, np.dtype(np.uint8))
            if stream.read(1):
                raise ValueError(f"{file} is longer than its header says ({shape}). Fetch it again.")

    return blocks


def _idx_all(file: Path, dimensions: int) -> NDArray[np.uint8]:
    shape = _idx_shape(file, (dimensions,))
    return np.concatenate(list(_idx_blocks(file, shape)()) or [np.empty(0, np.uint8)])
