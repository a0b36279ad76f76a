"""The files of a local source, and one digest over them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from data.files import sha256
from data.sources.streams import leads_to_file


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, over its files' names and contents in the order of their names."""
    if path.is_file():
        return sha256(path)
    total = hashlib.sha256()
    for name, file in tree(path):
        total.update(f"{name}\0{sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def tree_bytes(path: Path) -> int:
    """Size of a file; of a folder, of its files together."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for _, file in tree(path))


def tree(path: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The files below a folder in the order of their names, hidden ones aside."""
    with os.scandir(path) as found:
        entries = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False), leads_to_file(entry))
            for entry in found
            if not entry.name.startswith(".")
        )
    for name, is_folder, is_file in entries:
        if is_folder:
            yield from tree(path / name, f"{prefix}{name}/")
        elif is_file:
            yield prefix + name, path / name
