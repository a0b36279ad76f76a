"""The verb `sample`: draw from a registered model into pictures, an array or a table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
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
    label: Annotated[
        str | None, typer.Option(metavar="K", help="Class of the draws, by name or number (default: any).")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="The same seed draws the same; -1 draws anew.")
    ] = 0,
    steps: Annotated[
        int, typer.Option(metavar="N", parser=whole_number, help="Sampler steps; 0 for the model's own.")
    ] = 0,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Of diffusion: weight of the class wanted; 1 for the model itself."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="X", help="Of flows: below 1 likelier draws, and less varied ones.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=X", help="Any setting of the family's section `sampling`; repeatable."),
    ] = None,
    given: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help='Of a table: columns and values, {"city": "Oslo", "age": [30, 40]}: ranges, lists of categories.',
        ),
    ] = "{}",
    safe_csv: Annotated[
        bool, typer.Option("--safe-csv", help="Put ' before texts that a spreadsheet would run as formulas.")
    ] = False,
) -> Path:
    """Draw from a registered model and write what was drawn.

    Arguments:
        name_or_uri: A dataset (its model for the job `generation`), `<dataset>@<job>`, or any
            `models:/…` URI.
        out: Images: `*.png` for a grid, `*.npy` for an array `[n, height, width, channels]`, anything
            else is a folder for one PNG each. Tables: `*.csv` or `*.parquet`.
        n: How many.
        label: Class to draw, by its number, its name or its value in the source; `None` or -1 for any.
        seed: The same seed draws the same; -1 draws anew at every call.
        steps: Steps of an iterative sampler; 0 for the model's own.
        guidance: Weight of classifier-free guidance.
        temperature: Standard deviation of a flow's latent draws.
        setting: Settings of the family's section `sampling` as `name=value`; `None` leaves the model's own.
        given: Of a table: columns and their values as JSON; the others are drawn given these. Of numbers and dates
            also a range `[least, most]` (`null` for an open end), of categories a list of those that may be.
        safe_csv: Into CSV, put an apostrophe before texts that a spreadsheet would run as formulas.
    Returns:
        Where it was written.
    Raises:
        ValueError: If there is no such model, or it cannot draw that.
        ConnectionError: If MLflow is away.
        OSError: If `out` cannot be written.
    """
    import numpy as np

    from pipelines import tracking
    from pipelines.serving.params import checked

    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    out = Path(out)
    _check_ending(out)
    params = {"task": "sample", "n": n, "seed": seed, "steps": steps, "given": given}
    checked(params, (), 0)
    sampling = _named({"guidance": guidance, "temperature": temperature}, setting or ())
    uri = model_uri(name_or_uri)
    _check_registered(uri)
    model = tracking.load_served(uri)
    wanted = -1 if label is None else label  # "-1", which a person types, may be the name of a class
    if sampling:
        _require_known(sampling, model.predict(None, params={"task": "describe"}))
    drawn = model.predict(np.zeros((0,), np.uint8), params=params | {"label": wanted} | sampling)
    table = not isinstance(drawn, np.ndarray)
    if table != (out.suffix.lower() in TABLES):
        expected = (
            "a table: give a name that ends in .csv or .parquet" if table else "images: give .png, .npy or a folder"
        )
        raise ValueError(f"{out} does not fit: {name_or_uri} draws {expected}.")
    if table and out.suffix.lower() == ".csv":
        from pipelines.cli.spreadsheet import without_formulas

        described = model.predict(None, params={"task": "describe"})
        drawn, titles = _as_source(drawn, described["columns"]), described.get("titles", {})
        drawn = drawn.set_axis([titles.get(name, name) for name in drawn.columns], axis=1)
        drawn = without_formulas(drawn) if safe_csv else drawn
    _write(drawn, out, table=table)
    print(f"wrote {out}{'/' if out.is_dir() else ''}: {n} {_unit(n, table=table)} of {name_or_uri}")
    return out


def _named(options: Mapping[str, float | None], pairs: Sequence[str]) -> dict[str, Any]:
    """Settings by name, of options and of `name=value`, where numbers and true or false are what they look like.

    Raises:
        ValueError: If a pair has no name or no value, or a setting is given twice.
    """
    found: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not (name and equals and text):
            raise ValueError(f"--set takes NAME=X, such as --set steps=16, got {pair!r}.")
        if name in found:
            raise ValueError(f"{name} is set twice. Leave one out.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _require_known(sampling: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Refuse settings that the model does not have.

    Raises:
        ValueError: Names those it has.
    """
    known = described.get("sampling", {})
    if unknown := sorted(sampling.keys() - known.keys()):
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"this model ({described['family']}) has no setting {', '.join(unknown)}; {has}.")


def _check_ending(out: Path) -> None:
    """Refuse, before anything is drawn, what cannot be written or would lie among other things.

    Raises:
        ValueError: If the name ends in something else, or a folder is meant and there is a file, or the other way.
    """
    above = next((folder for folder in out.parents if folder.exists()), Path())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be written: {above} is a file, not a folder. Give another name.")
    if out.suffix.lower() in (*IMAGES, *TABLES):
        if out.is_dir():
            raise ValueError(f"{out} is a folder: give the name of a file, or of a folder without {out.suffix}.")
    elif out.is_file():
        raise ValueError(f"{out} is a file: give a name that ends in .png, .npy, .csv or .parquet, or a folder.")
    elif out.is_dir():
        others = [path.name for path in out.iterdir() if not re.fullmatch(r"\d+\.png", path.name)]
        if others:
            raise ValueError(f"the folder {out} holds other things ({sorted(others)[0]}): give a new one, or a file.")
    elif out.suffix:
        raise ValueError(
            f"{out} ends in {out.suffix}, which is not written. Give a name that ends in .png or .npy (images), "
            ".csv or .parquet (tables), or a folder's name, without a dot."
        )


def _check_registered(uri: str) -> None:
    """Say which models, versions and jobs there are where one is asked for that there is not.

    Raises:
        ValueError: If a `models:/` URI names none of them.
    """
    from data.schema import check_name, nearest
    from pipelines import tracking

    named = re.fullmatch(r"models:/([^/@]+)(?:@(.+)|/(\d+))", uri)
    if named is None:
        if uri.startswith("models:"):
            raise ValueError(
                f"{uri} names no registered model: expected a dataset's name such as digits, a job of it "
                "(digits@density), or models:/digits/3 for a version. `fivefold models` lists them."
            )
        return
    if not tracking.store_exists():
        raise ValueError(f"{uri} cannot be loaded: no model is registered here yet. Run `dvc repro` first.")
    tracking.connect()
    name, job, number = named.groups()
    known = tracking.model_names()
    if name not in known:
        hint = nearest(name, known) if known else "; none is registered yet. Run `dvc repro` first."
        raise ValueError(f"{uri} cannot be loaded: there is no registered model {name!r}{hint}")
    check_name(name)
    versions = [str(version.number) for version in tracking.versions(name)]
    if job and job not in (jobs := sorted(tracking.aliases(name))):
        if why := tracking.why_absent(name, job):
            raise ValueError(f"{uri} cannot be loaded: {why}. `fivefold pin` gives it to a version that you choose.")
        raise ValueError(f"{uri} cannot be loaded: no version of {name} holds the job {job!r}{nearest(job, jobs)}")
    if number and str(int(number)) not in versions:
        raise ValueError(f"{uri} cannot be loaded: {name} has no version {number}; it has {', '.join(versions)}")


def _as_source(frame: Any, columns: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as `data export` writes them: with the source's decimals, and its mark where a cell is missing."""
    from data.formats import as_text

    for column in columns:
        entry = {"role": column["type"], "dtype": column["dtype"], "pattern": column.get("format", ""),
                 "mark": column.get("missing", ""), "marks": column.get("marks", {})}  # fmt: skip
        marked = entry["mark"] or entry["marks"]
        if column["name"] in frame and (marked or (entry["role"] == "number" and entry["pattern"])):
            cells = frame[column["name"]]
            known = [None if gap else cell for cell, gap in zip(cells.tolist(), cells.isna(), strict=True)]
            frame = frame.assign(**{column["name"]: as_text(known, entry)})
    return frame


def _write(drawn: Any, out: Path, *, table: bool) -> None:
    """What was drawn, in the form that the name asks for."""
    import numpy as np

    from data.files import whole_file, write_atomically
    from data.image_grid import grid, png

    if table:
        with whole_file(out) as path:
            TABLES[out.suffix.lower()](drawn, path)
    elif out.suffix.lower() == ".npy":
        with whole_file(out) as path:
            np.save(path, drawn)
    elif out.suffix.lower() == ".png":
        write_atomically(out, png(grid(drawn, math.ceil(math.sqrt(len(drawn))))))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(drawn):
            write_atomically(out / f"{index:0{len(str(len(drawn) - 1))}d}.png", png(image))


def _unit(n: int, *, table: bool) -> str:
    units = "rows" if table else "images"
    return units if n != 1 else units.removesuffix("s")


def model_uri(name_or_uri: str) -> str:
    """The URI of what a person typed: `digits`, `digits@density`, or a URI already."""
    if "/" in name_or_uri:
        return name_or_uri
    return f"models:/{name_or_uri}" if "@" in name_or_uri else f"models:/{name_or_uri}@generation"
