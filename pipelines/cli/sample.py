"""The verb `sample`: draw from a registered model into pictures, an array or a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.files import whole_file, write_atomically
from data.image_grid import grid, png
from pipelines import tracking
from pipelines.cli.spreadsheet import without_formulas

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
    *,
    safe_csv: bool = False,
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
        safe_csv: Into CSV, put an apostrophe before texts that a spreadsheet would run as formulas.
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
        drawn = without_formulas(drawn) if safe_csv and out.suffix == ".csv" else drawn
        with whole_file(out) as path:
            TABLES[out.suffix](drawn, path)
    elif out.suffix == ".npy":
        with whole_file(out) as path:
            np.save(path, drawn)
    elif out.suffix == ".png":
        write_atomically(out, png(grid(drawn, math.ceil(math.sqrt(n)))))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(drawn):
            write_atomically(out / f"{index:0{len(str(n - 1))}d}.png", png(image))
    return out


def model_uri(name_or_uri: str) -> str:
    """The URI of what a person typed: `digits`, `digits@density`, or a URI already."""
    if "/" in name_or_uri:
        return name_or_uri
    return f"models:/{name_or_uri}" if "@" in name_or_uri else f"models:/{name_or_uri}@generation"
