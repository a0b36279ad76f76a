"""The verbs `data add`, `data show`, `data update` and `data export`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

from data.cards import CATALOG, Card, Inspection, load_card
from data.domains import KINDS
from data.domains.base import first_rows
from data.files import write_atomically
from data.ingest.datasheet import account
from data.ingest.inspect import inspect, write_card
from data.ingest.parallel import in_processes
from data.quoting import printable
from data.readers.base import Mapper
from data.schema import LONGEST_NAME, check_name
from data.sources.files import tree_sha256
from pipelines.cli.recipes import recipe_text, training_time
from pipelines.cli.watching import STAGES, place, watch, watched
from pipelines.defaults import Facts, machine_facts
from pipelines.stages.prepare import naming_path


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

    A recipe is written beside it, which says the settings that suit the data.

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
    check_name(name)
    options = {"size": size or "", "fit": fit or "", "query": query or "", "sheet": sheet or ""}
    with naming_path(Path(source)):
        inspection = inspect(source, name, root, label=label or "", anomaly=anomaly or "", mapper=mapper, **options)
    _check_used(source, inspection.card, options)
    path = write_card(inspection, root)
    watch(inspection.card, root)
    recipe, facts = root / "recipes" / f"{name}.yaml", facts_found(inspection)
    if not recipe.exists():  # DVC knows no optional dependencies
        recipe.parent.mkdir(exist_ok=True)
        write_atomically(recipe, recipe_text(name, facts))
    if not quiet:
        print(f"wrote {path}")
        for line in inspection.found:
            print(f"  found   {printable(line)}")
        for line in inspection.warnings:
            print(f"  unsure  {printable(line)}")
        print(f"  takes   about {training_time(facts)} to train; `budget: 5m` in params.yaml asks for another time")
        print(f"next: look at the card, then `fivefold prepare --dataset {name}`")
    return path


def name_of(source: str) -> str:
    """What a dataset is called after its source: the last part of the path, without endings and odd characters.

    Raises:
        ValueError: If nothing is left of it.
    """
    path = unquote(urlsplit(source).path) if "://" in source else os.path.abspath(source)
    stem = PurePath(path).name.lstrip(".").partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:LONGEST_NAME]
    if not name:
        raise ValueError(f"{source} suggests no name for the dataset. Give one with --name.")
    return name


def _check_used(source: str, card: Card, options: dict[str, str]) -> None:
    """Refuse an option that nothing would come of.

    Raises:
        ValueError: Naming the option and what it is for.
    """
    form = f"{source} is {card.source.format} ({card.kind} data)"
    for name in ("size", "fit"):
        if options[name] and card.image is None:
            raise ValueError(f"--{name} is for images, but {form}. Leave it out.")
    if options["query"] and card.source.format != "sql":
        raise ValueError(f"--query is for databases (SQLite, DuckDB), but {form}. Leave it out.")
    if options["sheet"] and card.source.format != "excel":
        raise ValueError(f"--sheet is for workbooks (Excel, OpenDocument), but {form}. Leave it out.")


LEARNED = {"continuous": 1, "integer": 1, "categorical": 1, "datetime": 3, "duration": 1, "several": 2}
"""Columns that a model learns for one of a table's."""


def facts_found(inspection: Inspection) -> Facts:
    """What is known of a source before it is prepared."""
    card = inspection.card
    shape = (card.image.height, card.image.width, card.image.channels) if card.image else ()
    label = next((column for column in card.columns if column.name == card.label), None)
    return Facts(
        kind=card.kind,
        shape=shape,
        columns=sum(LEARNED.get(column.type, 0) for column in card.columns if column is not label),
        examples=inspection.training,
        classes=len(card.classes or (label.categories if label else ())),
        **machine_facts(),
    )


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
    print(printable((root / CATALOG / f"{name}.yaml").read_text(encoding="utf-8").rstrip()))
    folder = root / "data" / "prepared" / name
    if not (folder / "manifest.json").exists():
        print(f"\nnot prepared yet: run `fivefold prepare --dataset {name}`")
        return
    manifest, report = _prepared(folder, "manifest.json"), _prepared(folder, "report.json")
    print(f"\nprepared at {folder}\ndigest {manifest['digest']}")
    for split, facts in manifest["splits"].items():
        print(f"  {split:8} {facts['count']:>9} examples")
    for line in account(report):
        print(f"  {printable(line)}")
    x, label = first_rows(folder, manifest, "train", rows)
    print(printable(KINDS[card.kind].as_text(folder, manifest, x, label)))


def _prepared(folder: Path, name: str) -> dict[str, Any]:
    """What a file of a prepared dataset says.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / name} is missing or damaged ({error}). Run `fivefold prepare --dataset {folder.name}` again."
        ) from None


def as_dict(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """A dataset's card and, once it is prepared, its digest and counts, for programs.

    Arguments:
        name: Name of the dataset.
        root: The project's root, the working directory when not given.
    Raises:
        FileNotFoundError: If there is no such card.
    """
    root = root or Path.cwd()
    card = dataclasses.asdict(load_card(name, root))
    folder = root / "data" / "prepared" / name
    ready = (folder / "manifest.json").exists()
    manifest = _prepared(folder, "manifest.json") if ready else {"digest": "", "splits": {}}
    counts = {split: facts["count"] for split, facts in manifest["splits"].items()}
    return {"card": card, "prepared": counts, "digest": manifest["digest"]}


def check(name: str, *, root: Path | None = None, mapper: Mapper = in_processes) -> None:
    """Check that a source is what its card states; a line says so.

    Arguments:
        name: Name of the dataset.
        root: The project's root, the working directory when not given.
        mapper: Where decoding happens.
    Raises:
        FileNotFoundError: If there is no such card, or its source is missing.
        ValueError: If the source was edited, with what changed, or if DVC watches another place.
    """
    root = root or Path.cwd()
    card = load_card(name, root)
    if not card.source.path:
        print(f"{name} is no file or folder here that could be edited; `fivefold prepare` checks what it gets")
        return
    if (there := watched(root).get(name, place(card))) != place(card):
        raise ValueError(
            f"{STAGES} watches {there}, but the source of {name!r} is {card.source.path}. Run `fivefold data update "
            f"{name}`, which has that watched."
        )
    path = root / place(card)
    with naming_path(path):
        if not path.exists() or tree_sha256(path) != card.source.sha256:
            from data.ingest.update import require_stated  # imports torch

            require_stated(card, root, mapper)
    print(f"{card.source.path} is what data/catalog/{name}.yaml states")


def update(name: str, *, root: Path | None = None, mapper: Mapper = in_processes) -> None:
    """Accept a source that was edited; prints what changed.

    Arguments:
        name: Name of the dataset.
        root: The project's root, the working directory when not given.
        mapper: Where decoding happens.
    Raises:
        FileNotFoundError: If there is no such card, or its source is missing.
        ValueError: If `prepare` would refuse the source as it is now.
    """
    from data.ingest.update import accept, changes  # imports torch, which the other verbs do without

    root = root or Path.cwd()
    card = load_card(name, root)
    with naming_path(root / card.source.path):
        found = changes(card, root, mapper)
    watch(card, root)
    if not found.sha256:
        print(f"{card.source.path} is what the card says: nothing to accept")
        return
    path = accept(card, root, found.sha256)
    print(f"wrote {path}: {card.source.path} has SHA-256 {found.sha256}")
    for line in found.lines():
        print(f"  {line}")
    print("next: `dvc repro`, which prepares it again")


def export(name: str, to: Path, form: str = "parquet", *, root: Path | None = None) -> None:
    """Write prepared data as files, one per split; see `data.export`.

    Arguments:
        name: Name of the dataset.
        to: The folder to write.
        form: `parquet`; of tables also `csv` or `jsonl`, every cell as its source has it.
        root: The project's root, the working directory when not given.
    Raises:
        FileNotFoundError: If the dataset is not prepared.
        FileExistsError: If the folder holds something else than an earlier export.
    """
    from data.dataset import Dataset  # imports torch, which the other verbs do without
    from data.export import export_parquet, export_text

    root = root or Path.cwd()
    card = load_card(name, root)
    with naming_path(root / to):
        dataset = Dataset.open(root / "data" / "prepared" / name)
        if form == "parquet":
            counts = export_parquet(dataset, root / to)
        else:
            counts = export_text(dataset, root / to, form, card.source)
    print(f"wrote {root / to}: " + ", ".join(f"{split}.{form} with {n} rows" for split, n in counts.items()))
