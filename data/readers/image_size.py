"""Choosing the one size that all images of a source are brought to."""

from __future__ import annotations

import re
from collections import Counter

from data.cards import ImageShape, Inspection

LOOKED_AT = 20_000
"""So many images are measured."""
LARGEST = 64
"""Pixels of the longer side that images are scaled down to unless a size is asked for."""


def image_shape(
    sizes: Counter[tuple[int, int]], modes: Counter[str], inspection: Inspection, size: str, fit: str
) -> ImageShape:
    """One shape for all images: the one asked for, else the most common, else a modest one; never a very large one.

    Arguments:
        sizes: How many images have each width and height.
        modes: How many images have each of Pillow's modes.
        inspection: Where it is said.
        size: `WIDTHxHEIGHT` or one number; empty to choose.
        fit: How images of other sizes are brought to it; empty to choose.
    """
    (width, height), same = sizes.most_common(1)[0]
    total = sum(sizes.values())
    grey = sum(modes[mode] for mode in ("L", "1", "I;16", "I;16B", "LA", "F", "I"))
    channels = 1 if grey == total else 3
    how = fit or "crop"
    if same < total:
        inspection.warnings.append(f"{len(sizes)} different sizes; {same} of {total} images are {width}×{height}")
    if size:
        width, height = parse_size(size)
    else:
        if same < 0.5 * total:
            shorter = sorted(min(size) for size in sizes.elements())[total // 2]
            width = height = max(8, min(LARGEST, shorter // 8 * 8))
        elif max(width, height) > LARGEST:
            scale = LARGEST / max(width, height)
            width, height = (max(8, round(side * scale / 8) * 8) for side in (width, height))
            inspection.warnings.append(
                f"images are scaled down to {width}×{height}, at most {LARGEST} pixels a side, which trains in minutes "
                "to hours on one machine; `--size` or `image` in the card sets another size"
            )
    resize = how if set(sizes) != {(width, height)} else "none"
    if resize != "none":
        words = {
            "crop": "scaled, and cropped in the middle,", "pad": "scaled, and padded at the edges,",
            "stretch": "stretched",
        }  # fmt: skip
        inspection.warnings.append(
            f"images of another size are {words[how]} to {width}×{height} (`resize: {how}`); `image` in the card sets "
            "another size or way (crop, pad, stretch)"
        )
    if 0 < grey < total:
        inspection.warnings.append(f"{grey} of {total} images are grey, the others colour: all become colour")
    if modes["P"]:
        inspection.warnings.append(
            f"{modes['P']} images have a palette and are taken as colour; channels: 1 if all are grey"
        )
    inspection.found.append(f"size {width}×{height}, {'grey' if channels == 1 else 'colour'}")
    return ImageShape(height=height, width=width, channels=channels, resize=resize)


def parse_size(size: str) -> tuple[int, int]:
    """Width and height.

    Raises:
        ValueError: If the text is neither `WIDTHxHEIGHT` nor a number.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", size)
    if found is None:
        raise ValueError(f"size must be WIDTHxHEIGHT in pixels (64x48) or one number, got {size!r}")
    return int(found[1]), int(found[2] or found[1])
