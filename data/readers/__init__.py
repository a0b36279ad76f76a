"""Readers: a file per format, and the table that opens a source by its format."""

from __future__ import annotations

from pathlib import Path

from data.cards import Card
from data.readers.base import IngestReport, Inspector, Mapper, Opener, Reader
from data.readers.digits import open_digits
from data.readers.idx import inspect_idx, open_idx
from data.readers.image_folder import inspect_folders, open_images
from data.readers.image_parquet import image_columns, inspect_image_parquet, open_image_parquet
from data.readers.npy import inspect_npy, open_npy
from data.readers.suffixes import SUFFIXES
from data.readers.table import open_table
from data.readers.table_inspection import inspect_table
from data.schema import closest

BUILTIN: dict[str, Opener] = {"digits": open_digits}
OPENERS: dict[tuple[str, str], Opener] = {
    ("image", "images"): open_images,
    ("image", "idx"): open_idx,
    ("image", "npy"): open_npy,
    ("image", "npz"): open_npy,
    ("image", "parquet"): open_image_parquet,
    **{("table", form): open_table for form in SUFFIXES},
}
INSPECTORS: dict[tuple[str, str], Inspector] = {
    ("image", "images"): inspect_folders,
    ("image", "idx"): inspect_idx,
    ("image", "npy"): inspect_npy,
    ("image", "npz"): inspect_npy,
    ("image", "parquet"): inspect_image_parquet,
    **{("table", form): inspect_table for form in SUFFIXES},
}
"""What writes a card for a source of each kind of data and format."""


def kind_of(path: Path, form: str) -> str:
    """The kind of data in a source of a format."""
    kinds = [kind for kind, known in INSPECTORS if known == form]
    return kinds[0] if len(kinds) == 1 else "image" if image_columns(path) else "table"


def check_format(card: Card) -> None:
    """Make sure that the source's format goes with the kind of data.

    Raises:
        ValueError: If it does not.
    """
    known = [form for kind, form in OPENERS if kind == card.kind]
    if not card.source.builtin and card.source.format not in known:
        raise ValueError(
            f"source.format of {card.kind} data must be one of {', '.join(known)}, got {card.source.format!r}"
            f"{f'; did you mean {near}?' if (near := closest(card.source.format, known)) else '.'} Fix the card."
        )


def open_source(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at a source and return its reader.

    Raises:
        ValueError: If the format does not go with the kind of data, or the source is faulty.
    """
    if card.source.builtin:
        return BUILTIN[card.source.builtin](card, path, report, mapper)
    check_format(card)
    return OPENERS[card.kind, card.source.format](card, path, report, mapper)
