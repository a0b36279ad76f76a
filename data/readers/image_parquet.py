"""Parquet files whose rows are images: their bytes in one column, their class in another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.cards import SPLITS, Card, ImageShape, Inspection, listed
from data.readers.base import (
    Chunk,
    IngestReport,
    Mapper,
    Reader,
    check_anomaly,
    class_codes,
    class_list,
    natural_sorted,
    split_by_rows,
)
from data.readers.columns import as_text
from data.readers.image_decoding import Encoded, Fault, decode_batch, image_format, opened, upright_size
from data.readers.image_size import LOOKED_AT, image_shape
from data.readers.raw_table import one_line, splits_of, table_files
from data.readers.suffixes import PARQUET_SUFFIXES

ROWS = 256
LABELS = ("label", "labels", "class", "category", "target", "fine_label")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageColumns:
    """The columns of a Parquet file with images.

    Arguments:
        image: The one that holds bytes, or a struct of `bytes` and `path`.
        label: The one that holds the class, empty for none.
        others: All but the image.
        names: Names of the classes by their codes, where the file's metadata states them.
    """

    image: str
    label: str
    others: tuple[str, ...]
    names: tuple[str, ...] = ()


def image_columns(path: Path) -> ImageColumns | None:
    """The columns of a source of Parquet files, `None` if it holds no images."""
    file = table_files(path, PARQUET_SUFFIXES)[0]
    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            held = [field.name for field in schema if _bytes_of(field.type)]
            first = next(opened.iter_batches(8, columns=held), None) if held else None
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError):
        return None  # what is wrong is said by whoever reads it as a table
    for name in held:
        cells = [cell for cell in (_blobs(first[name]) if first is not None else []) if cell]
        if cells and all(image_format(cell[:64]) for cell in cells):
            others = tuple(other for other in schema.names if other != name)
            label = next((key for key in LABELS if key in others), "")
            return ImageColumns(image=name, label=label, others=others, names=_class_names(schema, label))
    return None


def _bytes_of(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _blobs(column: pa.Array) -> list[bytes | None]:
    return (pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column).to_pylist()


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names that Hugging Face's metadata gives the codes of a label."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, ValueError, TypeError):
        return ()


def raw_images(path: Path, columns: ImageColumns) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes and the class of every image."""
    for _, _, blobs, labels in _batches(path, columns):
        yield from zip(blobs, labels, strict=True)


def _batches(path: Path, columns: ImageColumns) -> Iterator[tuple[Path, int, list[bytes | None], list[str | None]]]:
    """File, published split, images and classes, some hundred rows at a time."""
    files = table_files(path, PARQUET_SUFFIXES)
    for file, split in zip(files, splits_of(path, files), strict=True):
        try:
            with pq.ParquetFile(file, page_checksum_verification=True, memory_map=False, pre_buffer=False) as opened:
                found = opened.schema_arrow.names
                wanted = [name for name in (columns.image, columns.label) if name and name in found]
                if columns.image not in found:
                    raise ValueError(f"{file} has no column {columns.image!r}. Fix source.image in the card.")
                for batch in opened.iter_batches(ROWS, columns=wanted, use_threads=False):
                    labels: list[str | None] = [None] * batch.num_rows
                    if columns.label in wanted:
                        labels = as_text(batch[columns.label]).to_pylist()
                        if columns.names:
                            labels = [
                                columns.names[int(code)] if code and code.isdigit() and int(code) < len(columns.names)
                                else None
                                for code in labels
                            ]  # fmt: skip
                    yield file, split, _blobs(batch[columns.image]), labels
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise ValueError(f"{file} is damaged: {one_line(error)} Fetch it again.") from None


def open_image_parquet(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at Parquet files with images and return their reader."""
    assert card.image is not None
    target = card.image
    found = image_columns(path)
    if found is None:
        raise ValueError(f"{path} holds no column of images (bytes of PNG, JPEG, …). Fix kind in the card.")
    columns = ImageColumns(
        image=card.source.image or found.image, label=card.source.label, others=found.others,
        names=found.names if card.source.label == found.label else (),
    )  # fmt: skip
    labels = {label for _, label in raw_images(path, columns) if label is not None} if columns.label else set()
    check_anomaly(card, labels, str(path))
    classes = class_list(card, labels) if labels else []
    known = [*classes, *([card.anomaly.value] if card.anomaly else [])]
    codes, anomalous = class_codes(card, known, classes)
    index = {name: place for place, name in enumerate(known)}

    def encoded() -> Iterator[Encoded]:
        position = 0
        for file, split, blobs, names in _batches(path, columns):
            kept = []
            for place, (blob, name) in enumerate(zip(blobs, names, strict=True)):
                where = f"{file}: row {position + place + 1}"
                if blob is None:
                    report.reject(where, "no image", f"expected bytes in column {columns.image!r}, got none")
                elif name is not None and name not in index:
                    report.reject(where, "unknown label", f"expected one of the card's classes, got {name!r}")
                else:
                    kept.append((where, blob, -1 if name is None else index[name], position + place))
            position += len(blobs)
            if kept:
                wheres, data, label, source = zip(*kept, strict=True)
                yield Encoded(
                    target=target, names=wheres, blobs=data, label=np.array(label, np.int64),
                    split=np.full(len(kept), split, np.int8), source=np.array(source, np.int64),
                )  # fmt: skip

    def chunks() -> Iterator[Chunk]:
        size = sum(file.stat().st_size for file in table_files(path, PARQUET_SUFFIXES))
        for decoded in mapper(decode_batch, encoded(), size):
            for what, where in decoded.conversions:
                report.convert(what, where)
            for where, reason, detail in decoded.faults:
                report.reject(where, reason, detail)
            without = decoded.label < 0
            report.unlabelled += int(without.sum()) if classes else 0
            label = np.where(without, -1, codes[decoded.label]) if known else decoded.label
            odd = ~without & anomalous[decoded.label] if known else np.zeros(len(decoded.x), np.bool_)
            split = split_by_rows(card, decoded.source) if card.splits.rows else decoded.split
            yield Chunk(
                x=decoded.x, label=label, split=split, anomaly=odd, content=decoded.content, source=decoded.source
            )

    assert len(SPLITS) == 3
    return Reader(event_shape=target.shape, dtype="uint8", class_names=classes, chunks=chunks)


def inspect_image_parquet(card: Card, path: Path, size: str, fit: str) -> Inspection:
    """The card that fits Parquet files with a column of images."""
    columns = image_columns(path)
    if columns is None:
        raise ValueError(f"{path} holds no column of images (bytes of PNG, JPEG, …). Give another source.")
    inspection = Inspection(card=card)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    if card.label and card.label not in columns.others:
        raise ValueError(f"{path}: label names no column: {card.label!r}; beside the image are {columns.others}")
    columns = replace(columns, label=card.label or columns.label)
    seen = 0
    for blob, label in raw_images(path, columns):
        seen += 1
        if label is not None:
            classes[label] += 1
        if seen > LOOKED_AT:
            continue
        try:
            image = opened(blob or b"", ImageShape.__dataclass_fields__["max_pixels"].default)
        except Fault:
            continue
        sizes[upright_size(image)] += 1
        modes[image.mode] += 1
    if not sizes:
        raise ValueError(f"{path}: none of its {seen} images can be read. Give another source.")
    shape = image_shape(sizes, modes, inspection, size, fit)
    anomalous = card.anomaly.value if card.anomaly else None
    names = tuple(name for name in natural_sorted(classes) if name != anomalous)
    source = replace(card.source, image=columns.image, label=columns.label)
    inspection.card = replace(card, label="", image=shape, classes=names, source=source)
    labels = f"labels in column {columns.label!r}" if columns.label else "no labels"
    inspection.found.append(f"{seen} images in column {columns.image!r}, {labels}, {listed(names, 'classes')}")
    aside = [name for name in columns.others if name != columns.label]
    if aside:
        inspection.warnings.append(f"columns beside the image and its label are left out: {', '.join(aside)}")
    return inspection
