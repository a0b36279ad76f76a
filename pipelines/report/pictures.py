"""Pictures that together fit into a page: large ones are made smaller, small ones stay as they are."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

MOST_BYTES = 6_000_000
"""All pictures of a page together, before the third that text adds to bytes: 8 MB of the page."""
QUALITIES = (85, 70, 50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture file.

    Arguments:
        content: The file.
        width: In pixels.
        height: In pixels.
        kind: `png` or `webp`.
    """

    content: bytes
    width: int
    height: int
    kind: str = "png"

    @property
    def source(self) -> str:
        """The file as a `data:` address."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.content).decode()}"


def fitted(pictures: Iterable[Picture], most: int = MOST_BYTES) -> dict[bytes, Picture]:
    """By the content of each picture, the picture to show, so that all together have at most so many bytes.

    Only what is larger than an equal share of what the smaller ones leave is made smaller.
    """
    found = {picture.content: picture for picture in pictures}
    limit = fair_limit([len(content) for content in found], most)
    return {content: p if len(content) <= limit else reduced(p, limit) for content, p in found.items()}


def fair_limit(sizes: Iterable[int], most: int) -> int:
    """The largest number to which larger sizes can be cut so that the sum is at most `most`."""
    ordered = sorted(sizes)
    for i, size in enumerate(ordered):
        share = most // (len(ordered) - i)
        if size > share:
            return share
        most -= size
    return max(ordered, default=0)


def reduced(picture: Picture, limit: int) -> Picture:
    """The picture as WebP of at most `limit` bytes: first at lower quality, then of fewer pixels."""
    with Image.open(io.BytesIO(picture.content)) as opened:
        image = opened.convert("RGB")
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            image.save(file, "WEBP", quality=quality)
            if len(file.getvalue()) <= limit or max(image.size) == 1:
                size = {"width": image.width, "height": image.height}
                return Picture(content=file.getvalue(), kind="webp", **size)
        image = image.resize((max(image.width // 2, 1), max(image.height // 2, 1)), Image.Resampling.BOX)
