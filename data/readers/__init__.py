"""Readers: a file per format, and the table that opens a source by its format."""

from __future__ import annotations

from pathlib import Path

from data.cards import Card
from data.readers.base import IngestReport, Mapper, Opener, Reader
from data.readers.digits import open_digits
from data.readers.idx import open_idx
from data.readers.image_folder import open_images
from data.readers.image_parquet import open_image_parquet
from data.readers.npy import open_npy
from data.readers.suffixes import SUFFIXES
from data.readers.table import open_table

BUILTIN: dict[str, Opener] = {"digits": open_digits}
OPENERS: dict[tuple[str, str], Opener] = {
    ("image", "images"): open_images,
    ("image", "idx"): open_idx,
    ("image", "npy"): open_npy,
    ("image", "npz"): open_npy,
    ("image", "parquet"): open_image_parquet,
    **{("table", form): open_table for form in SUFFIXES},
}


def open_source(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at a source and return its reader.

    Raises:
        ValueError: If the format does not go with the kind of data, or the source is faulty.
    """
    if card.source.builtin:
        return BUILTIN[card.source.builtin](card, path, report, mapper)
    opener = OPENERS.get((card.kind, card.source.format))
    if opener is None:
        known = ", ".join(form for kind, form in OPENERS if kind == card.kind)
        raise ValueError(f"source.format of {card.kind} data must be one of {known}, got {card.source.format!r}.")
    return opener(card, path, report, mapper)
