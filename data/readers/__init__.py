"""Readers: a file per format, and the table that opens a source by its format."""

from __future__ import annotations

from pathlib import Path

from data.cards import Card
from data.readers.base import IngestReport, Mapper, Opener, Reader
from data.readers.digits import open_digits
from data.readers.idx import open_idx
from data.readers.image_folder import open_images
from data.readers.npy import open_npy
from data.readers.table import open_table

BUILTIN: dict[str, Opener] = {"digits": open_digits}
OPENERS: dict[tuple[str, str], Opener] = {
    ("image", "images"): open_images,
    ("image", "idx"): open_idx,
    ("image", "npy"): open_npy,
    ("image", "npz"): open_npy,
    ("table", "csv"): open_table,
    ("table", "parquet"): open_table,
}


def check_format(card: Card) -> None:
    """Make sure that the source's format goes with the kind of data.

    Raises:
        ValueError: If it does not.
    """
    known = [form for kind, form in OPENERS if kind == card.kind]
    if not card.source.builtin and card.source.format not in known:
        raise ValueError(
            f"source.format of {card.kind} data must be one of {', '.join(known)}, got {card.source.format!r}. "
            "Fix the card."
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
