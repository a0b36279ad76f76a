"""Looking at an unknown source and writing the card that fits it, with what is doubtful said."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from data.cards import CATALOG, Anomaly, Card, Inspection, Source, parse_card
from data.domains import KINDS
from data.files import write_atomically
from data.ingest.recognition import source_format
from data.ingest.rehearsal import rehearse
from data.quoting import one_line, quoted
from data.readers import INSPECTORS, kind_of
from data.readers.base import Mapper, here
from data.sources.download import fetch
from data.sources.files import tree_sha256
from data.sources.streams import is_utf8

__all__ = ["Inspection", "card_text", "inspect", "source_format", "write_card"]


def inspect(
    source: str, name: str, root: Path, *, label: str = "", anomaly: str = "", size: str = "", query: str = "",
    fit: str = "", sheet: str = "", mapper: Mapper = here,
) -> Inspection:  # fmt: skip
    """Look at a source and describe it.

    Arguments:
        source: Path or URL.
        name: What to call the dataset.
        root: The project's root.
        label: The column that names the class of a row.
        anomaly: `COLUMN=VALUE`, rows with this value are anomalies (`class=NAME` for images).
        size: `WIDTHxHEIGHT` (or one number), what images are brought to.
        fit: How images of other sizes are brought to it: `crop`, `pad` or `stretch`.
        query: What is asked of a database.
        sheet: Of a workbook.
        mapper: Where decoding happens.
    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the source cannot be read, or is of an unknown kind.
    """
    path, place = _obtain(source, name, root)
    column, equals, value = anomaly.partition("=")
    if anomaly and not (column and equals):
        raise ValueError(f"anomaly must be COLUMN=VALUE (for images class=NAME), got {anomaly!r}")
    form = source_format(path)
    if fit not in ("", "crop", "pad", "stretch"):
        raise ValueError(f"fit must be crop, pad or stretch, got {fit!r}")
    kind = kind_of(path, form)
    base = Card(
        name=name, kind=kind, source=replace(place, sha256=tree_sha256(path), format=form, query=query, sheet=sheet),
        label=label, anomaly=Anomaly(column=column, value=value) if anomaly else None,
    )  # fmt: skip
    inspection = INSPECTORS[kind, form](base, path, size, fit)
    inspection.card, inspection.training = rehearse(
        inspection.card, path, mapper, inspection.warnings.append, inspection.found.append
    )
    return inspection


def _obtain(source: str, name: str, root: Path) -> tuple[Path, Source]:
    """The source on this machine, and how the card refers to it."""
    if "://" in source:
        if urlsplit(source).query or "@" in urlsplit(source).netloc:
            raise ValueError(
                f"{source}: a URL with a query or a password does not belong in a card. "
                "Fetch the file and give its path."
            )
        raw = root / "data" / "raw" / name
        try:
            return fetch(source, raw, ""), Source(url=source)
        except (ValueError, OSError):
            with suppress(OSError):  # not empty: what came will be gone on with
                raw.rmdir()
            raise
    if not source:
        raise ValueError("the source is empty: give the path or URL of images or of a table.")
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
    if source.format == "csv" or source.header != "first":
        lines.append(f"  header: {source.header}  # first: the first row names the columns; none: they are numbered")
    if source.format in ("csv", "excel"):
        for key, what in (("skip", "before the table"), ("below", "below the header"), ("footer", "after the table")):
            lines += [f"  {key}: {count}  # lines {what}"] if (count := getattr(source, key)) else []
        lines += ["  trim: true  # blanks before a quotation mark are none of its cell"] if source.trim else []
        lines += ["  literal: true  # quotation marks quote nothing"] if source.literal else []
        lines += [f"  widths: {list(source.widths)}  # of its columns, in characters"] if source.widths else []
        lines += ["  pad: true  # rows with fewer cells than the header end in missing ones"] if source.pad else []
    if source.format in ("csv", "jsonl", "arff"):
        lines.append(f"  encoding: {source.encoding}")
    lines += [
        f"  {key}: {quoted(value)}" for key in ("sheet", "query", "image", "label") if (value := getattr(source, key))
    ]
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
    write_atomically(path, text)
    return path
