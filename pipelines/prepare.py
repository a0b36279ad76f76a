"""The stage `prepare`: a dataset card in, validated shards and a manifest out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data.building import build
from data.cards import load_card
from data.inspecting import inspect, write_card
from data.parallel import in_processes
from data.reading import Mapper


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
    return build(card, root, Path(out), mapper)


def add(
    source: str, name: str, label: str = "", anomaly: str = "", *, root: Path | None = None, quiet: bool = False
) -> Path:
    """Look at a source and write its card; prints what was found and what is doubtful.

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
    load_card(name, root)
    if not quiet:
        print(f"wrote {path}")
        for line in inspection.found:
            print(f"  found   {line}")
        for line in inspection.doubts:
            print(f"  unsure  {line}")
        print(f"next: look at the card, then `fivefold prepare --dataset {name}`")
    return path
