"""The verb `sample`: draw from a registered model into pictures, an array or a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import whole_number

IMAGES = (".png", ".npy")
"""Endings of the files that images are written to."""
TABLES: dict[str, Callable[[Any, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}
"""How a DataFrame is written, by the ending of the file's name."""


def sample(
    name_or_uri: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A dataset's name (its best generator) or a URI such as models:/digits@density."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="PATH", help=".png, .npy or a folder of PNGs; .csv or .parquet."),
    ] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", metavar="N", parser=whole_number, help="How many.")] = 16,
    label: Annotated[str, typer.Option(metavar="K", help="Class of the draws, by name or number; -1 for any.")] = "-1",
    seed: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="The same seed draws the same; -1 draws anew.")
    ] = 0,
    steps: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="Sampler steps; 0 for the model's own.")
    ] = 0,
    given: Annotated[
        str, typer.Option(metavar="JSON", help='Of a table: columns and their values, {"city": "Oslo"}.')
    ] = "{}",
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
    import numpy as np

    from pipelines import tracking

    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    out = Path(out)
    _check_ending(out)
    model = tracking.load_served(model_uri(name_or_uri))
    params = {"task": "sample", "n": n, "label": label, "seed": seed, "steps": steps, "given": given}
    drawn = model.predict(np.zeros((0,), np.uint8), params=params)
    table = not isinstance(drawn, np.ndarray)
    if table != (out.suffix in TABLES):
        expected = (
            "a table: give a name that ends in .csv or .parquet" if table else "images: give .png, .npy or a folder"
        )
        raise ValueError(f"{out} does not fit: {name_or_uri} draws {expected}.")
    _write(drawn, out, table=table)
    print(f"wrote {out}{'/' if out.is_dir() else ''}: {n} {_unit(n, table=table)} of {name_or_uri}")
    return out


def _check_ending(out: Path) -> None:
    """Refuse, before anything is drawn, what is no kind of file that can be written.

    Raises:
        ValueError: If the name ends in something else, or a folder is meant and there is a file, or the other way.
    """
    known = (*IMAGES, *TABLES)
    if out.suffix in known:
        if out.is_dir():
            raise ValueError(f"{out} is a folder: give the name of a file, or of a folder without {out.suffix}.")
        return
    if out.is_file():
        raise ValueError(f"{out} is a file: give a name that ends in .png, .npy, .csv or .parquet, or a folder.")
    if out.suffix and not out.is_dir():
        from data.schema import nearest

        hint = nearest(out.suffix, known)
        raise ValueError(
            f"{out} ends in {out.suffix}, which is not written{hint if 'mean' in hint else ''}. Give a name that ends"
            " in .png or .npy (images), .csv or .parquet (tables), or a folder's name, without a dot."
        )


def _write(drawn: Any, out: Path, *, table: bool) -> None:
    """What was drawn, in the form that the name asks for."""
    import numpy as np

    from data.files import whole_file, write_atomically
    from data.image_grid import grid, png

    if table:
        with whole_file(out) as path:
            TABLES[out.suffix](drawn, path)
    elif out.suffix == ".npy":
        with whole_file(out) as path:
            np.save(path, drawn)
    elif out.suffix == ".png":
        write_atomically(out, png(grid(drawn, math.ceil(math.sqrt(len(drawn))))))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(drawn):
            write_atomically(out / f"{index:0{len(str(len(drawn) - 1))}d}.png", png(image))


def _unit(n: int, *, table: bool) -> str:
    return ("row" if table else "image") + ("s" if n != 1 else "")


def model_uri(name_or_uri: str) -> str:
    """The URI of what a person typed: `digits`, `digits@density`, or a URI already."""
    if "/" in name_or_uri:
        return name_or_uri
    return f"models:/{name_or_uri}" if "@" in name_or_uri else f"models:/{name_or_uri}@generation"
