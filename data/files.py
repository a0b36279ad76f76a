"""Files and folders written whole or not at all, and their digests.

A file or folder is written under a hidden name beside its own, `.<name>.<process>.tmp`, flushed to the disk and
renamed. Where a folder replaces another, the two change names in one step if the file system can; if it cannot,
the older one steps aside to `.<name>.<process>.old` for the moment between two renames, and a process that is
killed in that moment is made good by whoever opens or writes the folder next (`recover`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""From <fcntl.h> and <linux/fs.h>."""

LIBC = ctypes.CDLL(None, use_errno=True)

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What a file system answers that cannot sync a folder."""


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of a folder's files."""
    hashes = {path.name: sha256(path) for path in folder.iterdir()}
    return hashlib.sha256(canonical(hashes)).hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces (what digests are taken of)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def json_text(value: Any) -> str:
    """Indented JSON in the order given; NaN and infinity are refused.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def append(file: BinaryIO, values: NDArray[Any]) -> None:
    """Write an array's bytes; unlike `tofile`, says why when it cannot (a full disk).

    Raises:
        OSError: With the system's own error number.
    """
    file.write(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data if values.size else b"")


def fsync(path: Path) -> None:
    """Flush a file, or a folder's names, to the disk; a folder only where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Flush a file, or a folder and everything below it, to the disk."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            fsync(Path(folder, name))
        fsync(Path(folder))
    if not path.is_dir():
        fsync(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, of the same suffix, that takes its place when the block ends without an error.

    Raises:
        OSError: If it cannot be written; what `path` held before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        with _as_os_error(path):
            yield temporary
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def out_of_space(error: BaseException | None) -> bool:
    """Whether an error comes of a full disk, whatever libraries made of it."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or re.search("No space left|disk is full", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Turn what libraries make of an error of the operating system (a full disk, say) back into that error.

    Raises:
        OSError: With the system's own error number.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if not found:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: If the folder cannot be written; nothing is left behind.
    """
    with whole_file(Path(path)) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, json_text(content))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends without an error.

    What `folder` held before stays until the new content is complete and on the disk, and stays on failure.
    What an earlier, killed process left behind is removed first. At whichever instruction a process is
    killed, the older or the newer content is there for who calls `recover` before looking.

    Raises:
        OSError: If it cannot be written, or something else than a folder has its name, which stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    _remove_abandoned(folder)
    temporary = _beside(folder, "tmp")
    _delete(temporary)
    temporary.mkdir()
    try:
        with _as_os_error(folder):
            yield temporary
        fsync_tree(temporary)
        _replace(temporary, folder)
    finally:
        _delete(temporary)


def recover(folder: Path) -> None:
    """Put back a folder that a process, killed between two renames, had set aside; call it before opening one."""
    if os.path.lexists(folder) or not folder.parent.is_dir() or not _left(folder, "old"):
        return
    with _renaming(folder.parent):  # whoever has set it aside is dead, or done by now
        for old in _left(folder, "old"):
            if not os.path.lexists(folder):
                os.rename(old, folder)


def recover_all(parent: Path) -> None:
    """Put back every folder below `parent` that a killed process had set aside."""
    for path in parent.glob(".*.old"):
        if name := re.fullmatch(r"\.(.+)\.\d+\.old", path.name):
            recover(parent / name[1])


def remove_folder(folder: Path) -> None:
    """Remove a folder so that, killed in between, nothing of it is seen; what is missing already is no error.

    Raises:
        OSError: If it cannot be removed.
    """
    if folder.parent.is_dir():
        _remove_abandoned(folder)
    if folder.exists():
        doomed = _beside(folder, "tmp")
        _delete(doomed)
        os.rename(folder, doomed)
        shutil.rmtree(doomed)


def _replace(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; what that held before is then at `temporary`."""
    with _renaming(folder.parent):
        if not os.path.lexists(folder):
            os.rename(temporary, folder)
        elif not _exchange(temporary, folder):
            old = _beside(folder, "old")
            _delete(old)
            os.rename(folder, old)
            try:
                os.rename(temporary, folder)
            except OSError:
                os.rename(old, folder)
                raise
            fsync(folder.parent)
            os.rename(old, temporary)
    fsync(folder.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Let two names change places in one step; False where the system or the file system cannot."""
    rename = getattr(LIBC, "renameat2", None)
    return bool(rename and rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0)


@contextmanager
def _renaming(parent: Path) -> Iterator[None]:
    """Keep other processes from renaming in a folder, where the file system can lock one (NFS cannot)."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not, had another thread forked meanwhile
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    """The hidden name of this process beside a file or folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def _left(path: Path, kind: str) -> list[Path]:
    """What processes have left beside a file or folder under their hidden names."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.{kind}(\.[^.]*)?")
    return sorted(Path(path.parent, name) for name in os.listdir(path.parent) if pattern.fullmatch(name))


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that are no longer alive have left beside a file or folder that is whole or not there."""
    for left in (*_left(path, "tmp"), *_left(path, "old")):
        owner = int(left.name[len(path.name) + 2 :].split(".")[0])
        if owner != os.getpid() and not _alive(owner):
            _delete(left)


def _delete(path: Path) -> None:
    """Remove a file or a folder if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
