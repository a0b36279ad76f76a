"""Finding a card's source: built in, a local file or folder, or fetched; checked before it is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.cards import Card
from data.readers import BUILTIN
from data.sources.download import fetch
from data.sources.files import tree, tree_bytes, tree_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """A source that lies on this machine and has been checked.

    Arguments:
        name: What messages call it.
        path: Where it lies.
        facts: What the manifest says about it.
        stamp: Names, sizes and times of change of its files when they were checked.
    """

    name: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""

    def check_unchanged(self) -> None:
        """Make sure that what was checked is what was read.

        Raises:
            ValueError: If a file changed in between.
        """
        if self.stamp and stamp(self.path) != self.stamp:
            raise ValueError(f"{self.name} changed while it was being read. Run the command again when it is at rest.")


def stamp(path: Path) -> str:
    """A hash of the names, sizes and times of change of a file or of the files in a folder."""
    total = hashlib.sha256()
    for name, file in [("", path)] if path.is_file() else tree(path):
        status = file.stat()
        total.update(
            f"{name}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return total.hexdigest()


def locate(card: Card, root: Path) -> Located:
    """Find the source of a card, fetching it if need be, and check its SHA-256.

    Arguments:
        card: Of the dataset.
        root: The project's root, where relative paths start.
    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the card gives no SHA-256, or the source has another one.
    """
    source = card.source
    if source.builtin:
        if source.builtin not in BUILTIN:
            raise ValueError(
                f"source.builtin must be one of {', '.join(BUILTIN)}, got {source.builtin!r}. Fix the card."
            )
        return Located(name=source.builtin, path=Path(), facts={"builtin": source.builtin, "sha256": source.sha256})
    facts: dict[str, Any] = {}
    if source.url:
        path = fetch(source.url, root / "data" / "raw" / card.name, source.sha256)
        facts["url"] = source.url
    else:
        path = root / Path(source.path).expanduser()
        facts["path"] = source.path
        if not path.exists():
            raise FileNotFoundError(
                f"the source of dataset {card.name!r} is missing: {path} does not exist. Put it there, or fix "
                f"source.path in data/catalog/{card.name}.yaml (relative paths start at the project's root)."
            )
        facts["bytes"] = tree_bytes(path)
    before = stamp(path)
    found = tree_sha256(path)
    if not source.sha256:
        raise ValueError(
            f"data/catalog/{card.name}.yaml gives no SHA-256 of its source. If {path} is what you mean, "
            f"add `sha256: {found}` under source."
        )
    if found != source.sha256:
        raise ValueError(
            f"{path}: expected SHA-256 {source.sha256}, got {found}. Nothing was installed. Fetch it again, or, if the "
            + (
                f"data was meant to change, `fivefold data update {card.name}` says what is different and accepts it."
                if source.path
                else f"data was meant to change, fix source.sha256 in data/catalog/{card.name}.yaml."
            )
        )
    return Located(name=str(path), path=path, facts={**facts, "sha256": found}, stamp=before)
