"""Images on a grid, as PNG files that need no viewer's smoothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

SMALLEST = 32
"""Fewest pixels an image is drawn with, on its shorter side."""

Images = UInt8[Tensor, "n height width channels"]


def grid(images: Images, columns: int, *, gap: int = 2, row_gaps: tuple[int, ...] = ()) -> UInt8[np.ndarray, "h w c"]:
    """Images row by row on white, every pixel a square block.

    Arguments:
        images: What to show, the first row first.
        columns: Images in a row.
        gap: White pixels between images.
        row_gaps: Rows after which the white is wider (between pairs of rows, say).
    """
    height, width = images.shape[1:3]
    block = max(-(-SMALLEST // min(height, width)), 1)
    large = images.repeat_interleave(block, 1).repeat_interleave(block, 2).numpy()
    rows = -(-len(images) // columns)
    extra = 4 * gap
    tops = [r * (height * block + gap) + sum(extra for after in row_gaps if after <= r) for r in range(rows)]
    canvas = np.full((tops[-1] + height * block, columns * (width * block + gap) - gap, images.shape[3]), 255, np.uint8)
    for i, image in enumerate(large):
        top, left = tops[i // columns], (i % columns) * (width * block + gap)
        canvas[top : top + height * block, left : left + width * block] = image
    return canvas


def paired(above: Images, below: Images, columns: int) -> UInt8[np.ndarray, "h w c"]:
    """Each image over its partner, `columns` pairs a row; an incomplete row is left out."""
    columns = min(columns, len(above))
    rows = []
    for start in range(0, len(above) - columns + 1, columns):
        rows += [above[start : start + columns], below[start : start + columns]]
    return grid(torch.cat(rows), columns, row_gaps=tuple(range(2, len(rows), 2)))


def png(canvas: UInt8[np.ndarray, "h w c"]) -> bytes:
    """A PNG file, the same bytes for the same picture."""
    file = io.BytesIO()
    Image.fromarray(canvas[:, :, 0] if canvas.shape[2] == 1 else canvas).save(file, "PNG", optimize=True)
    return file.getvalue()


def write(path: Path, canvas: UInt8[np.ndarray, "h w c"]) -> None:
    """Write a picture."""
    path.write_bytes(png(canvas))
