"""The stage `prepare`: a dataset card in, validated shards and a manifest out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data.building import build
from data.cards import CATALOG, load_card
from data.inspecting import inspect, write_card
from data.parallel import in_processes
from data.reading import Mapper
from data.summary import account, first_rows
from pipelines.recipes import recipe_text


def prepare(
    dataset: str, out: Path | None = None, *, root: Path | None = None, mapper: Mapper = in_processes
) -> dict[str, Any]:
    """Prepare a dataset: read, validate, divide, shuffle and write it.

    Arguments:
        dataset: Name of a card in `data/catalog/`.
        out: The folder to write, `data/prepared/<dataset>` when not given.
        root: The project's root, the working directory when not given.
        mapper: Where decoding happens; processes on this machine when not given.
    Returns:
        The manifest.
    Raises:
        ValueError: If the card or the source is faulty.
        OSError: If the source cannot be read or the output not written.
    """
    root = root or Path.cwd()
    card = load_card(dataset, root)
    out = out or root / "data" / "prepared" / dataset
    with at(Path(out)):
        return build(card, root, Path(out), mapper)


@contextmanager
def at(place: Path) -> Iterator[None]:
    """Says where, when the operating system refuses without a file's name (a full disk)."""
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename:
            raise
        raise type(error)(error.errno, error.strerror, str(place)) from error


def add(
    source: str,
    name: str,
    label: str = "",
    anomaly: str = "",
    *,
    size: str = "",
    fit: str = "",
    query: str = "",
    sheet: str = "",
    root: Path | None = None,
    quiet: bool = False,
    mapper: Mapper = in_processes,
) -> Path:
    """Look at a source and write its card; prints what was found and what is doubtful.

    A recipe is written beside it, with settings that suit the kind of data.

    Arguments:
        source: Path or URL of the data.
        name: What to call the dataset.
        label: The column that names the class of a row (tables).
        anomaly: `COLUMN=VALUE`: rows with this value are anomalies (`class=NAME` for images).
        size: `WIDTHxHEIGHT` (or one number) that images are brought to.
        fit: How images of other sizes are brought to it: `crop`, `pad` or `stretch`.
        query: What is asked of a database.
        sheet: Of a workbook.
        root: The project's root, the working directory when not given.
        quiet: Print nothing.
        mapper: Where decoding happens.
    Returns:
        The card's path.
    Raises:
        FileExistsError: If another card has this name.
        ValueError: If the source cannot be read.
    """
    root = root or Path.cwd()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name must consist of letters, digits, '-', '_' and '.', got {name!r}")
    options = {"size": size or "", "fit": fit or "", "query": query or "", "sheet": sheet or ""}
    inspection = inspect(source, name, root, label=label or "", anomaly=anomaly or "", mapper=mapper, **options)
    path = write_card(inspection, root)
    recipe = root / "recipes" / f"{name}.yaml"
    if not recipe.exists():  # DVC knows no optional dependencies
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text(recipe_text(name, inspection.card.kind), encoding="utf-8")
    if not quiet:
        print(f"wrote {path}")
        for line in inspection.found:
            print(f"  found   {line}")
        for line in inspection.doubts:
            print(f"  unsure  {line}")
        print(f"next: look at the card, then `fivefold prepare --dataset {name}`")
    return path


def show(name: str, *, root: Path | None = None, rows: int = 8) -> None:
    """Print a dataset: its card and, once it is prepared, counts, findings and a few rows or images.

    Arguments:
        name: Name of the dataset.
        root: The project's root, the working directory when not given.
        rows: How many rows (or images) to print.
    Raises:
        FileNotFoundError: If there is no such card.
    """
    root = root or Path.cwd()
    card = load_card(name, root)
    print((root / CATALOG / f"{name}.yaml").read_text(encoding="utf-8").rstrip())
    folder = root / "data" / "prepared" / name
    if not (folder / "manifest.json").exists():
        print(f"\nnot prepared yet: run `fivefold prepare --dataset {name}`")
        return
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    print(f"\nprepared at {folder}\ndigest {manifest['digest']}")
    for split, facts in manifest["splits"].items():
        print(f"  {split:8} {facts['count']:>9} examples")
    for line in account(report):
        print(f"  {line}")
    x, label = first_rows(folder, manifest, "train", rows)
    if card.kind == "table":
        print(_rows_as_text(manifest, x, label))
    else:
        print(_images_as_text(x[:4]))
        print(f"contact sheet: {folder / 'contact.png'}")


def export(name: str, to: Path, form: str = "parquet", *, root: Path | None = None) -> None:
    """Write prepared data as files, one per split; see `data.exporting`.

    Arguments:
        name: Name of the dataset.
        to: The folder to write.
        form: `parquet`; of tables also `csv` or `jsonl`, every cell as its source has it.
        root: The project's root, the working directory when not given.
    Raises:
        FileNotFoundError: If the dataset is not prepared.
        FileExistsError: If the folder holds something else than an earlier export.
    """
    from data.exporting import export_parquet, export_text
    from data.shards import Dataset  # imports torch, which the other verbs do without

    root = root or Path.cwd()
    card = load_card(name, root)
    with at(root / to):
        dataset = Dataset.open(root / "data" / "prepared" / name)
        if form == "parquet":
            counts = export_parquet(dataset, root / to)
        else:
            counts = export_text(dataset, root / to, form, card.source)
    print(f"wrote {root / to}: " + ", ".join(f"{split}.{form} with {n} rows" for split, n in counts.items()))


def _rows_as_text(manifest: dict[str, Any], x: NDArray[Any], label: NDArray[Any]) -> str:
    """The first rows of a table, aligned."""
    columns, classes = manifest["domain"]["columns"], manifest["class_names"]
    lines = [[column["name"] for column in columns] + (["label"] if classes else [])]
    for row, code in zip(x, label, strict=True):
        cells = [_cell_as_text(value, column) for value, column in zip(row, columns, strict=True)]
        lines.append(cells + ([classes[code] if code >= 0 else ""] if classes else []))
    widths = [min(16, max(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    return "\n".join(
        "  " + "  ".join(cell[:width].ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def _cell_as_text(value: float, column: dict[str, Any]) -> str:
    if value != value:
        return ""
    if column["type"] == "categorical":
        return column["categories"][int(value)]
    return str(int(value)) if column["type"] == "integer" else f"{value:.6g}"


def _images_as_text(x: NDArray[Any]) -> str:
    """Images side by side in shades of text, at most 32 characters wide each."""
    shades = " .:-=+*#%@"
    step = max(1, -(-x.shape[2] // 32))
    grey = x[:, ::step, ::step].astype(float).mean(-1)
    codes = (grey * (len(shades) - 1) / 255).round().astype(int)
    return "\n".join(
        "   ".join("".join(shades[v] * 2 for v in row) for row in codes[:, y]) for y in range(codes.shape[1])
    )
