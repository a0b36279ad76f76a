"""The stage `prepare`: a dataset card in, validated shards and a manifest out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.cards import load_card
from data.ingest.build import build
from data.ingest.parallel import in_processes
from data.readers.base import Mapper


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
    with naming_path(Path(out)):
        return build(card, root, Path(out), mapper)


@contextmanager
def naming_path(place: Path) -> Iterator[None]:
    """Says where, when the operating system refuses without a file's name (a full disk)."""
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename:
            raise
        raise type(error)(error.errno, error.strerror, str(place)) from error
