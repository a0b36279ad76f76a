"""Sources that are arrays already: scikit-learn's digits, IDX, NPY and NPZ files."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card
from data.decoding import level_table
from data.findings import Findings
from data.hashing import image_hashes
from data.reading import (
    SPLIT_NAMES,
    UNPUBLISHED,
    Chunk,
    Mapper,
    Reader,
    check_anomaly,
    class_codes,
    class_list,
    split_by_rows,
)
from data.streams import Readable, check_swelling, inflated

BLOCK_BYTES = 4 << 20
IDX_NAME = re.compile(r"^(.*?)(images|labels)([-.]idx[13][-.]ubyte)(\.gz)?$", re.IGNORECASE)


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


def open_digits(card: Card, path: Path, findings: Findings, mapper: Mapper) -> Reader:
    """scikit-learn's handwritten digits.

    Raises:
        ValueError: If the data that scikit-learn ships is not what the card says.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts, target = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    found = hashlib.sha256(counts.tobytes() + target.astype(np.uint8).tobytes()).hexdigest()
    if card.source.sha256 and card.source.sha256 != found:
        raise ValueError(
            f"scikit-learn's digits have SHA-256 {found}, the card {card.name!r} says {card.source.sha256}. "
            "Install the pinned scikit-learn, or mend source.sha256."
        )
    x = np.round(counts * (255 / 16)).astype(np.uint8)
    part = Part(name="digits", split=UNPUBLISHED, shape=x.shape, blocks=lambda: iter([x]), labels=target)
    return _reader(card, [part], findings)


def open_idx(card: Card, path: Path, findings: Findings, mapper: Mapper) -> Reader:
    """IDX files, the format of MNIST: a folder of images and labels files, or one images file."""
    return _reader(card, idx_parts(path), findings)


def open_npy(card: Card, path: Path, findings: Findings, mapper: Mapper) -> Reader:
    """Images in an NPY or NPZ file."""
    return _reader(card, npy_parts(path), findings)


def _reader(card: Card, parts: list[Part], findings: Findings) -> Reader:
    """The reader of images that come as arrays."""
    assert card.image is not None
    shape = (card.image.height, card.image.width, card.image.channels)
    for part in parts:
        found = part.shape[1:] if len(part.shape) == 4 else (*part.shape[1:], 1)
        if found != shape:
            raise ValueError(
                f"{part.name}: expected images of {shape} (height, width, channels) as the card says, got {found}. "
                "Mend image in the card."
            )
    codes = np.unique(np.concatenate([part.labels for part in parts if part.labels is not None] or [np.empty(0, int)]))
    labelled = any(part.labels is not None for part in parts)
    found_names = [str(code) for code in codes.tolist()]
    check_anomaly(card, found_names, parts[0].name)
    classes = class_list(card, found_names)
    unknown = sorted(set(found_names) - set(classes) - {card.anomaly.value if card.anomaly else ""})
    if card.classes and labelled and unknown:
        raise ValueError(f"{parts[0].name}: labels {unknown[:10]} are not among the card's classes. Mend classes.")

    def chunks() -> Iterator[Chunk]:
        start = 0
        table = class_codes(card, found_names, classes)
        for part in parts:
            done = 0
            for block in part.blocks():
                labels = None if part.labels is None else part.labels[done : done + len(block)]
                where = np.arange(start + done, start + done + len(block))
                done += len(block)
                yield _chunk(card, part, block.reshape(len(block), *shape), labels, where, codes, table, findings)
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
    findings: Findings,
) -> Chunk:
    if x.dtype == np.bool_:
        findings.convert("1-bit to 8-bit", part.name, len(x))
        x = x.astype(np.uint8) * np.uint8(255)
    good = _good(card, part, x, where, findings)
    x, where = x[good].astype(np.uint8), where[good]
    if labels is None:
        label, anomaly = np.full(len(x), -1, np.int64), np.zeros(len(x), np.bool_)
    else:
        index = np.searchsorted(codes, labels[good])
        label, anomaly = table[0][index], table[1][index]
    split = split_by_rows(card, where) if card.splits.rows else np.full(len(x), part.split, np.int8)
    return Chunk(x=x, label=label, split=split, anomaly=anomaly, content=image_hashes(x), source=where)


def _good(card: Card, part: Part, x: NDArray[Any], where: NDArray[np.int64], findings: Findings) -> NDArray[np.bool_]:
    """Which images hold only values that a pixel may take."""
    flat = x.reshape(len(x), -1)
    good = np.ones(len(x), np.bool_)
    if x.dtype != np.uint8:
        good = ((flat >= 0) & (flat <= 255) & (flat == np.floor(flat))).all(1)
    allowed = level_table(card.image.levels if card.image else 256)
    if allowed is not None:
        good[good] = allowed[flat[good].astype(np.uint8)].all(1)
    for index in np.flatnonzero(~good):
        findings.reject(
            f"{part.name}: image {where[index]} (from 0)",
            "pixel out of range",
            f"expected whole numbers on the card's levels from 0 to 255, got {flat[index].min()} … {flat[index].max()} "
            f"({flat.dtype}; scale and round to uint8)",
        )
    return good


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
        _check_shape(shape, str(file))
    return shape


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    """Make sure that an array can hold images.

    Raises:
        ValueError: If it cannot.
    """
    wanted = "expected images [n, height, width] or [n, height, width, 1 or 3]"
    if len(shape) not in (3, 4) or not all(shape):
        raise ValueError(f"{name}: {wanted}, got {list(shape)}. Save images, one after the other.")
    if len(shape) == 4 and shape[3] not in (1, 3):
        mend = "Transpose it: the channels come last." if shape[1] in (1, 3) else "Save grey or RGB images."
        raise ValueError(f"{name}: {wanted}, got {list(shape)}. {mend}")


def _idx_blocks(file: Path, shape: tuple[int, ...]) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    def blocks() -> Iterator[NDArray[np.uint8]]:
        with closing(inflated(file)) as stream:
            _idx_header(stream, file, (len(shape),))
            yield from _raw_blocks(stream, file, shape, np.dtype(np.uint8))
            if stream.read(1):
                raise ValueError(f"{file} is longer than its header says ({shape}). Fetch it again.")

    return blocks


def _raw_blocks(stream: Readable, file: Path | str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[NDArray[Any]]:
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


def _idx_all(file: Path, dimensions: int) -> NDArray[np.uint8]:
    shape = _idx_shape(file, (dimensions,))
    return np.concatenate(list(_idx_blocks(file, shape)()) or [np.empty(0, np.uint8)])


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
            check_swelling(path, sum(entry.file_size for entry in archive.infolist()), path.stat().st_size)
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
    _check_shape(shape, name)

    def blocks() -> Iterator[NDArray[Any]]:
        with _npy_stream(path, key) as stream:
            _parse_npy(stream, name)
            yield from _raw_blocks(stream, name, shape, dtype)
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
