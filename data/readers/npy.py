"""Images in NPY and NPZ files."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card, Inspection
from data.readers.base import SPLIT_NAMES, UNPUBLISHED, IngestReport, Mapper, Reader
from data.readers.image_arrays import Part, array_reader, check_shape, inspect_arrays, raw_blocks
from data.sources.streams import check_decompression_ratio


def open_npy(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Images in an NPY or NPZ file."""
    return array_reader(card, npy_parts(path), report)


def inspect_npy(card: Card, path: Path, size: str, fit: str) -> Inspection:
    """The card that fits NPY or NPZ files, whose images have one size."""
    return inspect_arrays(card, path, npy_parts(path))


def npy_parts(path: Path) -> list[Part]:
    """The images (and labels) in an NPY file, or in an NPZ file with keys such as `x_train` or `train_images`.

    Raises:
        ValueError: If the file is damaged, holds Python objects, or images and labels do not match.
    """
    if path.suffix.lower() == ".npy":
        shape, dtype = _npy_header(path, "")
        return [
            Part(
                name=str(path), split=UNPUBLISHED, shape=shape, blocks=_npy_blocks(path, "", shape, dtype), labels=None
            )
        ]
    try:
        with zipfile.ZipFile(path) as archive:
            check_decompression_ratio(path, sum(entry.file_size for entry in archive.infolist()), path.stat().st_size)
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not an NPZ file, or is damaged: {error}. Fetch it again.") from None
    roles = {key: _role(key) for key in keys}
    parts = []
    for key, (role, split) in roles.items():
        if role != "x":
            continue
        partner = next((other for other, found in roles.items() if found == ("y", split)), "")
        shape, dtype = _npy_header(path, key)
        labels = _npy_labels(path, partner) if partner else None
        if labels is not None and len(labels) != shape[0]:
            raise ValueError(f"{path}: {key!r} has {shape[0]} images, {partner!r} has {len(labels)} labels.")
        name = f"{path}[{key!r}]"
        blocks = _npy_blocks(path, key, shape, dtype)
        parts.append(Part(name=name, split=split, shape=shape, blocks=blocks, labels=labels))
    if not parts:
        raise ValueError(f"{path} holds no images: expected a key such as 'x', 'images' or 'x_train', got {keys}.")
    return parts


def _role(key: str) -> tuple[str, int]:
    """What an array of an NPZ file is (`x`, `y` or neither) and its split."""
    words = re.split(r"[-_.]", key.lower())
    split = next((SPLITS.index(SPLIT_NAMES[word]) for word in words if word in SPLIT_NAMES), UNPUBLISHED)
    if {"y", "label", "labels", "target", "targets"} & set(words):
        return "y", split
    if {"x", "image", "images", "img", "imgs", "data", "arr"} & set(words) or split >= 0:
        return "x", split
    return "", split


@contextmanager
def _npy_stream(path: Path, key: str) -> Iterator[Any]:
    """The bytes of an NPY file, or of one inside an NPZ file.

    Raises:
        ValueError: If the NPZ file is damaged.
    """
    if not key:
        with path.open("rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}[{key!r}] cannot be read: {error}. Save or fetch it again.") from None


def _npy_header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    name = f"{path}[{key!r}]" if key else str(path)
    with _npy_stream(path, key) as stream:
        shape, order, dtype = _parse_npy(stream, name)
    if order:
        raise ValueError(f"{name} is stored column by column (Fortran order). Save np.ascontiguousarray of it.")
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which only unpickling could read: refused. Save plain numbers.")
    if dtype.kind not in "uifb":
        raise ValueError(f"{name}: expected numbers, got {dtype}.")
    return shape, dtype


def _parse_npy(stream: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(stream)
    except (zipfile.BadZipFile, zlib.error):
        raise
    except Exception as error:  # numpy raises whatever a stranger's header makes its parser raise
        raise ValueError(f"{name} is not an NPY array, or is damaged: {' '.join(str(error).split())}") from None


def _npy_blocks(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], Iterator[NDArray[Any]]]:
    name = f"{path}[{key!r}]" if key else str(path)
    check_shape(shape, name)

    def blocks() -> Iterator[NDArray[Any]]:
        with _npy_stream(path, key) as stream:
            _parse_npy(stream, name)
            yield from raw_blocks(stream, name, shape, dtype)
            if stream.read(1):
                raise ValueError(f"{name} is longer than its header says ({shape}). Save it again.")

    return blocks


def _npy_labels(path: Path, key: str) -> NDArray[np.int64]:
    shape, dtype = _npy_header(path, key)
    with _npy_stream(path, key) as stream:
        _parse_npy(stream, key)
        body = stream.read()
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{path}[{key!r}]: its header says {shape} of {dtype}, it holds {len(body)} bytes. Save it again."
        )
    labels = np.frombuffer(body, dtype).reshape(shape)
    labels = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or (dtype.kind == "f" and not np.array_equal(labels, np.floor(labels))):
        raise ValueError(f"{path}[{key!r}]: expected one whole number per image, got {dtype} {shape}.")
    return labels.astype(np.int64)
