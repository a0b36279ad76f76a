"""Pictures of what was measured, as PNG files that need no viewer's smoothing."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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


class Gallery(ABC):
    """What one model did, to be looked at: collected, then written into a folder."""

    @abstractmethod
    def samples(self, drawn: Tensor, label: Tensor | None) -> None:
        """Samples, with the labels that were asked for."""

    @abstractmethod
    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each with its nearest training example."""

    @abstractmethod
    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each with its reconstruction."""

    @abstractmethod
    def interpolations(self, codes: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
        """From one example to another through their codes."""

    @abstractmethod
    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous examples, the strangest first."""

    @abstractmethod
    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor) -> None:
        """Examples with hidden cells, and what was drawn for these."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write everything collected."""


def between(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Codes from each first to each last, both included, `[pairs, steps, code]`.

    The length of a code goes linearly from one to the other too: halfway between two Gaussian codes
    lies a point too near the origin to be typical.
    """
    start, end = first[:, None], last[:, None]
    part = torch.linspace(0, 1, steps)[None, :, None]
    path = start + part * (end - start)
    length = start.norm(dim=2, keepdim=True) * (1 - part) + end.norm(dim=2, keepdim=True) * part
    return path * length / path.norm(dim=2, keepdim=True).clamp(min=1e-12)


class ImageGallery(Gallery):
    """PNG files of one model's doings.

    Arguments:
        class_names: Names of the classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.classes = len(class_names)
        self.pictures: dict[str, np.ndarray] = {}

    def samples(self, drawn: Tensor, label: Tensor | None, *, rows: int = 8, columns: int = 10) -> None:
        """A grid of samples, one column per class where labels were asked for (the first 10 classes)."""
        if label is not None:
            by_class = [drawn[label == c][:rows] for c in range(min(self.classes, columns))]
            full = [images for images in by_class if len(images) == rows]
            if full:
                self.pictures["samples"] = grid(torch.stack(full, 1).flatten(0, 1), len(full))
                return
        self.pictures["samples"] = grid(drawn[: rows * columns], columns)

    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each over its nearest training image."""
        self.pictures["nearest"] = paired(drawn[:20], neighbours[:20], 10)

    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each over its reconstruction."""
        self.pictures["reconstructions"] = paired(x[:20], rebuilt[:20], 10)

    def interpolations(
        self, codes: Tensor, decode: Callable[[Tensor], Tensor], *, rows: int = 6, steps: int = 9
    ) -> None:
        """From one example to another through their codes, a row per pair."""
        rows = min(rows, len(codes) // 2)
        path = between(codes[:rows], codes[rows : 2 * rows], steps)
        self.pictures["interpolations"] = grid(decode(path.flatten(0, 1)), steps)

    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous examples, the strangest first."""
        order = np.argsort(-score, kind="stable")[:20]
        self.pictures["anomalies"] = grid(x[torch.from_numpy(order)], 10)

    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor, *, columns: int = 10) -> None:
        """From top to bottom an image, the image with its hidden part in grey, and draws of that part."""
        columns = min(columns, len(x))
        rows = [x[:columns], x[:columns].masked_fill(hidden[:columns], 128), *draws[:3, :columns]]
        self.pictures["imputations"] = grid(torch.cat(rows), columns)

    def write(self, folder: Path) -> None:
        """Write every picture into `folder` as PNG."""
        for name, canvas in self.pictures.items():
            write(folder / f"{name}.png", canvas)
