"""Images on a grid, as PNG files that need no viewer's smoothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 32
"""Fewest pixels an image is drawn with, on its shorter side."""


def grid(
    images: UInt8[np.ndarray | Tensor, "n height width channels"],
    columns: int,
    *,
    gap: int = 2,
    row_gaps: tuple[int, ...] = (),
    smallest: int = SMALLEST,
) -> UInt8[np.ndarray, "h w c"]:
    """Images row by row on white, every pixel a square block.

    Arguments:
        images: What to show, the first row first.
        columns: Images in a row.
        gap: White pixels between images.
        row_gaps: Rows after which the white is wider (between pairs of rows, say).
        smallest: Fewest pixels an image is drawn with, on its shorter side.
    """
    height, width = images.shape[1:3]
    block = max(-(-smallest // min(height, width)), 1)
    large = np.asarray(images).repeat(block, 1).repeat(block, 2)
    rows = -(-len(images) // columns)
    extra = 4 * gap
    tops = [r * (height * block + gap) + sum(extra for after in row_gaps if after <= r) for r in range(rows)]
    canvas = np.full((tops[-1] + height * block, columns * (width * block + gap) - gap, images.shape[3]), 255, np.uint8)
    for i, image in enumerate(large):
        top, left = tops[i // columns], (i % columns) * (width * block + gap)
        canvas[top : top + height * block, left : left + width * block] = image
    return canvas


def paired(
    above: UInt8[Tensor, "n height width channels"], below: UInt8[Tensor, "n height width channels"], columns: int
) -> UInt8[np.ndarray, "h w c"]:
    """Each image over its partner, `columns` pairs a row; an incomplete row is left out."""
    columns = min(columns, len(above))
    rows: list[Tensor] = []
    for start in range(0, len(above) - columns + 1, columns):
        rows += [above[start : start + columns], below[start : start + columns]]
    return grid(np.concatenate(rows), columns, row_gaps=tuple(range(2, len(rows), 2)))


def picture(image: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """One image of 1 or 3 channels, for Pillow."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def png(image: UInt8[np.ndarray, "height width channels"], *, smallest: bool = True) -> bytes:
    """A PNG file's bytes, the same for the same picture; `smallest` takes more time."""
    file = io.BytesIO()
    picture(image).save(file, "PNG", optimize=smallest)
    return file.getvalue()


def write(path: Path, canvas: UInt8[np.ndarray, "height width channels"]) -> None:
    """Write a picture."""
    path.write_bytes(png(canvas))
