"""Accepting a source that was edited: what changed is named before the card takes its new checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cards import Card, find_card
from data.dataset import Dataset
from data.domains.source_table import source_table
from data.files import write_atomically
from data.formats import SourceTable
from data.readers import check_format, open_source
from data.readers.base import IngestReport, Mapper
from data.sources.files import tree_bytes, tree_sha256

ROWS = 4096
NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is different about a source.

    Arguments:
        sha256: Its new checksum; empty where it is what the card says.
        size: Its bytes now.
        examples: How many it has now.
        bad: How many of it are left out.
        compared: Whether prepared data were there to compare with.
        size_before: Its bytes as the card states it; 0 where that is not known.
        changed, added, removed: Positions of such examples in the source, from 0.
    """

    sha256: str = ""
    size: int = 0
    examples: int = 0
    bad: int = 0
    compared: bool = False
    size_before: int = 0
    changed: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()

    def lines(self) -> Iterator[str]:
        """What to say of them."""
        left_out = f", {self.bad} bad ones are left out" if self.bad else ""
        yield f"{self.examples} examples now{left_out}"
        yield f"{self.size:,} bytes{f' (were {self.size_before:,})' if self.size_before else ''}"
        if not self.compared:
            yield "what changed cannot be said: it was not prepared before"
        for what in ("changed", "added", "removed"):
            places = getattr(self, what)
            if places:
                shown = ", ".join(str(place + 1) for place in places[:NAMED]) + (", …" if len(places) > NAMED else "")
                yield f"{len(places)} {what}: number {shown}"
        if self.compared and not (self.changed or self.added or self.removed):
            yield "the same examples: only how they are written changed"


def changes(card: Card, root: Path, mapper: Mapper) -> Changes:
    """Read a source that may have been edited as `prepare` will, and compare it with what is prepared.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no file or folder here, or `prepare` would refuse it: what it would say.
    """
    source = card.source
    if not source.path:
        what = f"the built-in {source.builtin!r}" if source.builtin else source.url
        raise ValueError(
            f"{card.name!r} comes from {what}, which is not edited here. If a URL has new content, make a new card "
            "by `fivefold data add`."
        )
    path = root / Path(source.path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"the source of {card.name!r} is missing: {path} does not exist. Put it there.")
    check_format(card)
    found = tree_sha256(path)
    if found == source.sha256:
        return Changes()
    report = IngestReport(on_bad=card.on_bad, max_bad=card.max_bad)
    after: dict[int, int] = {}
    reader = open_source(card, path, report, mapper)
    for chunk in reader.chunks():
        full = chunk.x
        if reader.constraints:  # combinations are numbered as they come
            full = SourceTable(source=reader.table, columns=reader.columns, stated=reader.constraints).rows(chunk.x)
        after |= _hashes(chunk.source, full, chunk.label)
        report.read += len(chunk.x)
    report.close(str(path))
    folder = root / "data" / "prepared" / card.name
    before = _prepared(folder)
    told: dict[str, Any] = {"size": tree_bytes(path), "size_before": _size_before(card, folder)}
    if before is not None:
        told |= {
            "changed": tuple(sorted(place for place in after if place in before and after[place] != before[place])),
            "added": tuple(sorted(after.keys() - before.keys())),
            "removed": tuple(sorted(before.keys() - after.keys())),
        }
    return Changes(sha256=found, examples=report.read, bad=report.dropped, compared=before is not None, **told)


def require_stated(card: Card, root: Path, mapper: Mapper) -> None:
    """Refuse a source that is not what its card states, and name what changed.

    Arguments:
        card: Of the dataset.
        root: The project's root.
        mapper: Where decoding happens.
    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it was edited, or is no file or folder here.
    """
    try:
        found = changes(card, root, mapper)
    except ValueError as error:
        if not card.source.path or not card.source.sha256:
            raise
        raise ValueError(
            f"{card.source.path} is not what data/catalog/{card.name}.yaml states, and `prepare` would refuse it: "
            f"{str(error).rstrip('.')}. Mend it or put back what was there; nothing is trained on it"
        ) from error
    if found.sha256:
        raise ValueError(
            f"{card.source.path} is not what data/catalog/{card.name}.yaml states: {'; '.join(found.lines())}; SHA-256 "
            f"{found.sha256[:12]}… (stated {card.source.sha256[:12]}…). Nothing is trained on it until `fivefold data "
            f"update {card.name}` accepts it; or put back what was there"
        )


def accept(card: Card, root: Path, sha256: str) -> Path:
    """Write the new checksum into the card, and nothing else.

    Returns:
        The card's path.
    Raises:
        ValueError: If the card states its checksum in no way that can be replaced.
    """
    path = find_card(card.name, root)
    text = path.read_text(encoding="utf-8")
    if not card.source.sha256 or text.count(card.source.sha256) != 1:
        raise ValueError(f"{path} does not state its source's SHA-256 once. Set source.sha256: {sha256} there.")
    write_atomically(path, text.replace(card.source.sha256, sha256))
    return path


def _hashes(places: NDArray[np.int64], x: NDArray[Any], label: NDArray[np.int64]) -> dict[int, int]:
    rows = zip(places.tolist(), x, label.tolist(), strict=True)
    return {place: zlib.crc32(np.ascontiguousarray(row).tobytes(), code & 0xFFFFFFFF) for place, row, code in rows}


def _size_before(card: Card, folder: Path) -> int:
    """Bytes of what the card states, if it is that which is prepared."""
    try:
        source = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["source"]
        return int(source.get("bytes", 0)) if source["sha256"] == card.source.sha256 else 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _prepared(folder: Path) -> dict[int, int] | None:
    """Hashes of what is prepared by its position in the source; `None` where nothing is."""
    if not (folder / "manifest.json").exists():
        return None
    dataset, found = Dataset.open(folder), {}
    table = source_table(dataset.manifest) if dataset.manifest.get("constraints") else None
    for split in map(dataset.split, dataset.splits):
        places = split.sources.numpy()
        for start in range(0, len(split), ROWS):
            part = split.slice(start, start + ROWS)
            x = part.x.numpy() if table is None else table.rows(part.x.numpy())
            found |= _hashes(places[start : start + ROWS], x, part.label.numpy())
    return found
