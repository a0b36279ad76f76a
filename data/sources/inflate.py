"""A file as a stream of what it holds: decompressed, and of an archive the text file that is its table."""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from data.sources.archive import TAR_SUFFIXES
from data.sources.streams import Checked, Inflating, decompressed

PLAIN_TEXT = (".csv", ".tsv", ".txt", ".tab", ".data", ".dat", ".jsonl", ".ndjson", ".json", ".arff")
"""Endings of text files that hold tables."""
ABOUT = re.compile(
    r"(?i)(^|/)((readme|licen[cs]e|changelog|citation|notes?|about|terms|data_?descriptions?)[^/]*\.(txt|json)|"
    r"(sample|gender)_?submission[^/]*\.csv|metadata[^/]*\.(csv|json|txt)|index\.txt)$"
)
"""Files that lie beside a table and are about it, or an example of what is to be handed in."""
TRAINING = re.compile(r"(?i)(^|[^a-z])train(ing)?([^a-z]|$)")
FIRST = 1 << 16


@dataclass(frozen=True, slots=True)
class Archived:
    """The table of an archive.

    Arguments:
        name: Of the file that holds it, empty if none does.
        others: Further tables.
    """

    name: str = ""
    others: tuple[str, ...] = ()


def archived_table(path: Path) -> Archived:
    """The text file of a zip or tar archive that is its table: the one for training, else the largest.

    Raises:
        ValueError: If there are several with the same header: they are parts of one table.
    """
    return _archived_table(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _archived_table(path: Path, changed: int) -> Archived:
    try:
        with _opened(path) as archive:
            listed = dict(_listed(archive))
            sizes = {name: size for name, size in listed.items() if name.lower().endswith(PLAIN_TEXT)}
            if len(listed) == 1 and not sizes and _is_text(archive, next(iter(listed))):  # named by pandas
                sizes = listed
            names = [name for name in sizes if not ABOUT.search(name)] or list(sizes)
            names.sort(key=lambda name: (TRAINING.search(name) is None, -sizes[name]))
            if not names:
                return Archived()
            if len(names) > 1 and not TRAINING.search(names[0]):
                _check_parts(path, {name: _first_line(archive, name) for name in names[:20]})
            return Archived(names[0], tuple(names[1:]))
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError):
        return Archived()


def _opened(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    return zipfile.ZipFile(path) if path.name.lower().endswith(".zip") else tarfile.open(path)


def _listed(archive: zipfile.ZipFile | tarfile.TarFile) -> list[tuple[str, int]]:
    if isinstance(archive, zipfile.ZipFile):
        found = [(item.filename, item.file_size) for item in archive.infolist()]
    else:
        found = [(item.name, item.size) for item in archive if item.isfile()]
    hidden = re.compile(r"(^|/)(__MACOSX/|\._)")
    return [(name, size) for name, size in found if not hidden.search(name)]


def _member(archive: zipfile.ZipFile | tarfile.TarFile, name: str) -> Any:
    return archive.open(name) if isinstance(archive, zipfile.ZipFile) else archive.extractfile(name)


def _is_text(archive: zipfile.ZipFile | tarfile.TarFile, name: str) -> bool:
    """Whether a file begins with lines of text."""
    with _member(archive, name) as file:
        head = file.read(FIRST).decode("utf-8", "replace")
    return "\n" in head and not re.search(r"[\0-\x08\x0e-\x1f\ufffd]", head[:-4])


def _first_line(archive: zipfile.ZipFile | tarfile.TarFile, name: str) -> bytes:
    with _member(archive, name) as file:
        return file.read(FIRST).partition(b"\n")[0].strip()


def _check_parts(path: Path, lines: dict[str, bytes]) -> None:
    first, line = next(iter(lines.items()))
    same = [name for name, other in lines.items() if other == line]
    if len(same) > 1 and not re.search(rb"(^|[,;\t| ])[\d.]+($|[,;\t| ])", line) and not first.endswith("json"):
        raise ValueError(
            f"{path} holds {len(same)} tables with the same header ({', '.join(same[:3])}). Unpack it, and give the "
            "folder if they are one table, or a file."
        )


def inflated(path: Path) -> BinaryIO | Inflating | Checked:
    """A file as a stream, decompressed if its name says so; of an archive the text file that is its table."""
    name = path.name.lower()
    if name.endswith((".zip", *TAR_SUFFIXES)):
        member = archived_table(path).name
        if not member:
            raise ValueError(
                f"{path} holds no table: expected one file named {', '.join('*' + s for s in PLAIN_TEXT)}."
            )
        return Checked(_member(_opened(path), member), path)
    return decompressed(path)
