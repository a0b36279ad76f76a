"""Preparing images: hashes, statistics, preview, export, lines of the card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data import image_grid
from data.cards import Card, Inspection
from data.domains.base import DataKind, Parts, class_arrays, class_fields, first_rows
from data.image_grid import grid, png
from data.quoting import quoted


def image_lines(card: Card) -> list[str]:
    """The card's lines on images."""
    assert card.image is not None
    lines = [
        "image:",
        f"  height: {card.image.height}",
        f"  width: {card.image.width}",
        f"  channels: {card.image.channels}  # 1 grey, 3 colour",
        f"  levels: {card.image.levels}",
        f"  resize: {card.image.resize}  # another size is a fault; stretch or crop bring all to this one",
        f"  alpha: {card.image.alpha}  # what shows through transparent pixels",
    ]
    if card.classes:
        lines.append("classes: [" + ", ".join(map(quoted, card.classes)) + "]")
    return lines


SHEET = 10


def contact_sheet(folder: Path, manifest: dict[str, Any]) -> NDArray[np.uint8]:
    """A picture of the first training images: a row per class, or a square of them when there are no classes."""
    x, label = first_rows(folder, manifest, "train", 4096)
    if manifest["class_names"]:
        rows = [np.flatnonzero(label == code)[:SHEET] for code in range(min(len(manifest["class_names"]), 2 * SHEET))]
        rows = [row for row in rows if len(row)]
    else:
        rows = np.array_split(np.arange(min(len(x), SHEET * SHEET)), -(-min(len(x), SHEET * SHEET) // SHEET))
    sheet = np.full((max(1, len(rows)), SHEET, *x.shape[1:]), 255, np.uint8)
    for down, row in enumerate(rows):
        sheet[down, : len(row)] = x[row]
    return grid(sheet.reshape(-1, *x.shape[1:]), SHEET)


def images_as_text(x: NDArray[Any]) -> str:
    """Images side by side in shades of text, at most 32 characters wide each."""
    shades = " .:-=+*#%@"
    step = max(1, -(-x.shape[2] // 32))
    grey = x[:, ::step, ::step].astype(float).mean(-1)
    codes = (grey * (len(shades) - 1) / 255).round().astype(int)
    return "\n".join(
        "   ".join("".join(shades[v] * 2 for v in row) for row in codes[:, y]) for y in range(codes.shape[1])
    )


def image_hashes(x: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes of images by their pixels, `[n]`."""
    flat = np.ascontiguousarray(x).reshape(len(x), -1) if len(x) else x
    digests = b"".join([hashlib.blake2b(row, digest_size=8).digest() for row in flat])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


EXACT_ROWS = 256
"""So many squares of 8-bit values sum to less than 2^24: exact in float32, in which summing is fastest."""


class ImageMoments:
    """Mean and standard deviation per channel, by exact integer sums; may be fed from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0
        self.sums: list[int] = []
        self.squares: list[int] = []

    def add(self, x: NDArray[np.uint8]) -> None:
        """Note images, `[n, height, width, channels]`."""
        flat = x.reshape(len(x), -1)
        sums, squares = np.zeros((2, flat.shape[1]), np.uint64)
        for start in range(0, len(flat), EXACT_ROWS):
            block = flat[start : start + EXACT_ROWS].astype(np.float32)
            sums += block.sum(0).astype(np.uint64)
            block *= block
            squares += block.sum(0).astype(np.uint64)
        channels = x.shape[-1]
        per_channel = [values.reshape(-1, channels).sum(0).tolist() for values in (sums, squares)]
        with self._lock:
            self.sums = [a + b for a, b in zip(self.sums or [0] * channels, per_channel[0], strict=True)]
            self.squares = [a + b for a, b in zip(self.squares or [0] * channels, per_channel[1], strict=True)]
            self.count += flat.size // channels

    def as_dict(self) -> dict[str, Any]:
        """Mean and standard deviation of each channel on the scale 0 … 255."""
        means = [total / self.count for total in self.sums] if self.count else []
        variances = [
            max(0.0, square / self.count - mean**2) for square, mean in zip(self.squares, means, strict=bool(means))
        ]
        return {"mean": means, "std": [variance**0.5 for variance in variances], "pixels": self.count}


class Images(DataKind):
    """Images of 8-bit pixels."""

    def accumulator(self) -> ImageMoments:
        return ImageMoments()

    def domain(
        self, card: Card, event_shape: tuple[int, ...], columns: list[dict[str, Any]], statistics: dict[str, Any]
    ) -> dict[str, Any]:
        height, width, channels = event_shape
        levels = card.image.levels if card.image else 256
        return {"kind": "image", "channels": channels, "height": height, "width": width, "levels": levels}

    def card_lines(self, card: Card, inspection: Inspection) -> list[str]:
        return image_lines(card)

    def write_preview(self, folder: Path, manifest: dict[str, Any]) -> None:
        image_grid.write(folder / "contact.png", contact_sheet(folder, manifest))

    def section(self, manifest: dict[str, Any]) -> str:
        statistics = manifest["statistics"]
        channels = zip(statistics["mean"], statistics["std"], strict=True)
        return "## Images\n\n![The first training images, a row per class](contact.png)\n\n" + "\n".join(
            f"- channel {i}: mean {mean:.2f}, std {std:.2f}" for i, (mean, std) in enumerate(channels)
        )

    def as_text(self, folder: Path, manifest: dict[str, Any], x: NDArray[Any], label: NDArray[Any]) -> str:
        return f"{images_as_text(x[:4])}\ncontact sheet: {folder / 'contact.png'}"

    def fields(self, manifest: Mapping[str, Any], label: str) -> list[pa.Field]:
        return [pa.field("image", pa.binary()), *class_fields(manifest, label)]

    def arrays(
        self, manifest: Mapping[str, Any], split: str, parts: Parts, schema: pa.Schema
    ) -> Iterator[list[pa.Array]]:
        for x, codes in parts:
            pictures = pa.array([png(image, smallest=False) for image in x], pa.binary())
            yield [pictures, *class_arrays(manifest, codes)]
