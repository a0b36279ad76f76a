"""The verb `sample`: draw from a registered model into pictures, an array or a table."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines import tracking

SMALLEST_SIDE = 32
"""Pixels: smaller images are enlarged in a grid, by whole factors."""
TABLES: dict[str, Callable[[Any, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}
"""How a DataFrame is written, by the ending of the file's name."""


def sample(
    name_or_uri: str,
    out: str | Path,
    n: int = 16,
    label: int | str = -1,
    seed: int = 0,
    steps: int = 0,
    given: str = "{}",
) -> Path:
    """Draw from a registered model and write what was drawn.

    Arguments:
        name_or_uri: A dataset (its model for the job `generation`), `<dataset>@<job>`, or any
            `models:/…` URI.
        out: Images: `*.png` for a grid, `*.npy` for an array `[n, height, width, channels]`, anything
            else is a folder for one PNG each. Tables: `*.csv` or `*.parquet`.
        n: How many.
        label: Class to draw, by its number, its name or its value in the source; -1 for any.
        seed: The same seed draws the same; -1 draws anew at every call.
        steps: Steps of an iterative sampler; 0 for the model's own.
        given: Of a table: columns and their values as JSON; the others are drawn given these.
    Returns:
        Where it was written.
    Raises:
        ValueError: If there is no such model, or it cannot draw that.
        ConnectionError: If MLflow is away.
        OSError: If `out` cannot be written.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    out = Path(out)
    if out.suffix not in (".png", ".npy", *TABLES) and out.is_file():
        raise ValueError(f"{out} is a file: give a name that ends in .png, .npy, .csv or .parquet, or a folder.")
    model = tracking.load_served(model_uri(name_or_uri))
    params = {"task": "sample", "n": n, "label": label, "seed": seed, "steps": steps, "given": given}
    drawn = model.predict(np.zeros((0,), np.uint8), params=params)
    table = not isinstance(drawn, np.ndarray)
    if table != (out.suffix in TABLES):
        expected = (
            "a table: give a name that ends in .csv or .parquet" if table else "images: give .png, .npy or a folder"
        )
        raise ValueError(f"{out} does not fit: {name_or_uri} draws {expected}.")
    if table:
        _write(out, lambda path: TABLES[out.suffix](drawn, path))
    elif out.suffix == ".npy":
        _write(out, lambda path: np.save(path, drawn))
    elif out.suffix == ".png":
        _write(out, lambda path: picture(grid(drawn)).save(path))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(drawn):
            file = out / f"{index:0{len(str(n - 1))}d}.png"
            _write(file, lambda path, image=image: picture(image).save(path))
    return out


def model_uri(name_or_uri: str) -> str:
    """The URI of what a person typed: `digits`, `digits@density`, or a URI already."""
    if "/" in name_or_uri:
        return name_or_uri
    return f"models:/{name_or_uri}" if "@" in name_or_uri else f"models:/{name_or_uri}@generation"


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images side by side in a square or nearly so, one pixel apart.

    Arguments:
        images: `[n, height, width, channels]`.
    Returns:
        `[height, width, channels]`; small images enlarged by a whole factor.
    """
    factor = max(1, math.ceil(SMALLEST_SIDE / min(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 128, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    return sheet


def picture(image: NDArray[np.uint8]) -> Image.Image:
    """One image, `[height, width, 1 or 3]`, for Pillow."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _write(path: Path, save) -> None:  # noqa: ANN001 - any writer
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
