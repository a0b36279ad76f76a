"""The verbs `data add`, `data show` and `data export`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from data.cards import CATALOG, load_card
from data.domains.base import first_rows
from data.domains.image import images_as_text
from data.domains.table import rows_as_text
from data.ingest.datasheet import account
from data.ingest.inspect import inspect, write_card
from pipelines.cli.recipes import recipe_text
from pipelines.stages.prepare import at


def add(
    source: str, name: str, label: str = "", anomaly: str = "", *, root: Path | None = None, quiet: bool = False
) -> Path:
    """Look at a source and write its card; prints what was found and what is doubtful.

    A recipe is written beside it, with settings that suit the kind of data.

    Arguments:
        source: Path or URL of the data.
        name: What to call the dataset.
        label: The column that names the class of a row (tables).
        anomaly: `COLUMN=VALUE`: rows with this value are anomalies (`class=NAME` for images).
        root: The project's root, the working directory when not given.
        quiet: Print nothing.
    Returns:
        The card's path.
    Raises:
        FileExistsError: If another card has this name.
        ValueError: If the source cannot be read.
    """
    root = root or Path.cwd()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name must consist of letters, digits, '-', '_' and '.', got {name!r}")
    inspection = inspect(source, name, root, label=label or "", anomaly=anomaly or "")
    path = write_card(inspection, root)
    recipe = root / "recipes" / f"{name}.yaml"
    if not recipe.exists():  # DVC knows no optional dependencies
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text(recipe_text(name, inspection.card.kind), encoding="utf-8")
    if not quiet:
        print(f"wrote {path}")
        for line in inspection.found:
            print(f"  found   {line}")
        for line in inspection.warnings:
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
        print(rows_as_text(manifest, x, label))
    else:
        print(images_as_text(x[:4]))
        print(f"contact sheet: {folder / 'contact.png'}")


def export(name: str, to: Path, *, root: Path | None = None) -> None:
    """Write prepared data as Parquet, a file per split; see `data.export`.

    Arguments:
        name: Name of the dataset.
        to: The folder to write.
        root: The project's root, the working directory when not given.
    Raises:
        FileNotFoundError: If the dataset is not prepared.
        FileExistsError: If the folder holds something else than an earlier export.
    """
    from data.dataset import Dataset  # imports torch, which the other verbs do without
    from data.export import export_parquet

    root = root or Path.cwd()
    card = load_card(name, root)
    with at(root / to):
        counts = export_parquet(Dataset.open(root / "data" / "prepared" / name), root / to, card.label or "label")
    print(f"wrote {root / to}: " + ", ".join(f"{split}.parquet with {n} rows" for split, n in counts.items()))
