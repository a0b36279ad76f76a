"""Files and folders written whole or not at all, and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(file: BinaryIO, values: NDArray[Any]) -> None:
    """Write an array's bytes; unlike `tofile`, says why when it cannot (a full disk).

    Raises:
        OSError: With the system's own error number.
    """
    file.write(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data if values.size else b"")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a temporary name in the same folder, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends without an error.

    What an earlier, killed run left behind is removed first; what `out` held before stays until the
    new content is complete and on disk.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    temporary = out.parent / f".{out.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            sync(path)
        sync(temporary)
        previous = out.parent / f".{out.name}.{os.getpid()}.old"
        if out.exists():
            out.rename(previous)
        temporary.rename(out)
        sync(out.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(out: Path) -> None:
    """Remove temporary folders of runs that are no longer alive; put back what one had set aside."""
    for kind in ("old", "tmp"):
        for path in out.parent.glob(f".{out.name}.*.{kind}"):
            owner = path.suffixes[-2][1:]
            if not owner.isdigit() or (int(owner) != os.getpid() and _alive(int(owner))):
                continue
            if kind == "old" and not out.exists() and (path / "manifest.json").exists():
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces (what digests are taken of)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all: temporary name in the same folder, fsync, rename.

    Raises:
        OSError: If the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def fsync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the file system can."""
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        fsync(folder)
