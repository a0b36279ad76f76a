"""Looking at an unknown source and writing the card that fits it, with what is doubtful said."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from data.cards import CATALOG, Anomaly, Card, ImageShape, Inspection, Source, one_line, parse_card, quoted
from data.domains import KINDS
from data.files import write_text
from data.readers.base import natural_sorted
from data.readers.csv import CSV_SUFFIXES
from data.readers.idx import IDX_NAME, idx_parts
from data.readers.image_arrays import Part
from data.readers.image_folder import inspect_folders, is_image
from data.readers.npy import npy_parts
from data.readers.parquet import PARQUET_SUFFIXES
from data.readers.table import inspect_table
from data.sources.archive import is_archive
from data.sources.download import fetch
from data.sources.files import tree, tree_sha256
from data.sources.streams import is_utf8

__all__ = ["Inspection", "card_text", "inspect", "source_format", "write_card"]


def inspect(source: str, name: str, root: Path, *, label: str = "", anomaly: str = "") -> Inspection:
    """Look at a source and describe it.

    Arguments:
        source: Path or URL.
        name: What to call the dataset.
        root: The project's root.
        label: The column that names the class of a row.
        anomaly: `COLUMN=VALUE`, rows with this value are anomalies (`class=NAME` for images).
    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the source cannot be read, or is of an unknown kind.
    """
    path, place = _obtain(source, name, root)
    column, equals, value = anomaly.partition("=")
    if anomaly and not (column and equals):
        raise ValueError(f"anomaly must be COLUMN=VALUE (for images class=NAME), got {anomaly!r}")
    form = source_format(path)
    kind = "table" if form in ("csv", "parquet") else "image"
    base = Card(
        name=name, kind=kind, source=replace(place, sha256=tree_sha256(path), format=form),
        label=label, anomaly=Anomaly(column=column, value=value) if anomaly else None,
    )  # fmt: skip
    if kind == "table":
        return inspect_table(base, path)
    if label:
        raise ValueError(f"label names a column of a table; {path} holds images, whose class is their folder's name")
    return inspect_folders(base, path) if form == "images" else _arrays(base, path)


def _obtain(source: str, name: str, root: Path) -> tuple[Path, Source]:
    """The source on this machine, and how the card refers to it."""
    if "://" in source:
        if urlsplit(source).query or "@" in urlsplit(source).netloc:
            raise ValueError(
                f"{source}: a URL with a query or a password does not belong in a card. "
                "Fetch the file and give its path."
            )
        return fetch(source, root / "data" / "raw" / name, ""), Source(url=source)
    if not is_utf8(source):
        raise ValueError(f"the source's name is not valid UTF-8: {source!r}. Rename it.")
    given = Path(source).expanduser()
    path = root / given
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {source} (looked at {path}). Give an existing path, or a URL.")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{source} is neither a file nor a folder. Give another source.")
    if given.is_absolute():
        inside = os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)
        given = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(root))) if inside else given
    return path, Source(path=given.as_posix())


def source_format(path: Path) -> str:
    """The format of a source by the names of its files.

    Raises:
        ValueError: If it is none of those read here.
    """
    name = path.name.lower()
    if path.is_file():
        if is_archive(path):
            return "images"
        for form, suffixes in (
            ("csv", CSV_SUFFIXES),
            ("parquet", PARQUET_SUFFIXES),
            ("npy", (".npy",)),
            ("npz", (".npz",)),
        ):
            if name.endswith(suffixes):
                return form
        if IDX_NAME.match(path.name):
            return "idx"
        raise ValueError(
            f"{path}: unknown kind of file. Read are: a folder, zip or tar of images; IDX; NPY, NPZ; CSV, TSV; Parquet."
        )
    kinds: Counter[str] = Counter()
    for inside, file in tree(path):
        lowered = file.name.lower()
        if is_image(inside):
            kinds["images"] += 1
        elif IDX_NAME.match(file.name):
            kinds["idx"] += 1
        elif lowered.endswith(PARQUET_SUFFIXES):
            kinds["parquet"] += 1
        elif lowered.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
            kinds["csv"] += 1
    if not kinds:
        raise ValueError(
            f"{path} holds no images (png, jpg, webp, bmp, gif), IDX, Parquet or CSV files (links to folders are not "
            "followed). Give another source."
        )
    return kinds.most_common(1)[0][0]


def _arrays(card: Card, path: Path) -> Inspection:
    parts: list[Part] = idx_parts(path) if card.source.format == "idx" else npy_parts(path)
    shape = parts[0].shape
    channels = shape[3] if len(shape) == 4 else 1
    found = {str(code) for part in parts if part.labels is not None for code in set(part.labels.tolist())}
    anomalous = card.anomaly.value if card.anomaly else None
    if anomalous is not None and anomalous not in found:
        raise ValueError(f"{path}: no image has the label {anomalous!r}; found {', '.join(natural_sorted(found)[:20])}")
    classes = tuple(name for name in natural_sorted(found) if name != anomalous)
    image = ImageShape(height=shape[1], width=shape[2], channels=channels)
    inspection = Inspection(card=replace(card, image=image, classes=classes))
    for part in parts:
        labels = "no labels" if part.labels is None else f"{len(set(part.labels.tolist()))} labels"
        inspection.found.append(f"{part.name}: {part.shape[0]} images of {part.shape[1:]}, {labels}")
    return inspection


def card_text(inspection: Inspection) -> str:
    """The card as YAML that a person can read and edit."""
    card = inspection.card
    source = card.source
    title = card.title or f"{card.name}: {inspection.found[0] if inspection.found else card.kind}"
    lines = [
        f"# Dataset card, written by `fivefold data add`. Edit freely; then `fivefold prepare --dataset {card.name}`.",
        *(f"# Found: {one_line(line)}" for line in inspection.found),
        *(f"# Unsure: {one_line(line)}" for line in inspection.warnings),
        f"name: {card.name}",
        f"title: {quoted(title)}",
        f"kind: {card.kind}",
        'licence: ""  # what may be done with the data',
        'citation: ""  # whom to name',
        "source:",
        f"  url: {quoted(source.url)}" if source.url else f"  path: {quoted(source.path)}",
        f"  sha256: {source.sha256}",
        f"  format: {source.format}",
    ]
    if source.format == "csv":
        lines.append(f"  delimiter: {quoted(source.delimiter)}")
    lines += KINDS[card.kind].card_lines(card, inspection)
    if card.anomaly:
        lines.append("anomaly:  # kept out of training, used to measure detection")
        lines += [f"  column: {quoted(card.anomaly.column)}", f"  value: {quoted(card.anomaly.value)}"]
    plan = card.splits
    lines += [
        "splits:  # shares where the source publishes none; `rows: {train: [0, 1000], test: [1000, 1500]}` states some",
        f"  train: {plan.train}",
        f"  val: {plan.val}  # also the share cut from published training data when no val split is published",
        f"  test: {plan.test}",
        f"  seed: {plan.seed}",
        f"  published: {str(plan.published).lower()}  # honour splits that the source publishes",
        f"duplicates: {card.duplicates}  # no content in two splits; or fail, or keep",
        f"on_bad: {card.on_bad}  # stop at a bad example; drop leaves it out and counts it",
        f"max_bad: {card.max_bad}  # the share of bad examples above which drop stops, too",
    ]
    return "\n".join(lines) + "\n"


def write_card(inspection: Inspection, root: Path) -> Path:
    """Write the card into the catalog.

    Raises:
        FileExistsError: If there is another card of this name.
        ValueError: If the source calls for a card that is not valid; nothing is written then.
    """
    path = root / CATALOG / f"{inspection.card.name}.yaml"
    text = card_text(inspection)
    parse_card(text, path)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise FileExistsError(f"{path} exists already. Choose another --name, or remove that card first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path
