"""Untrusted input streams: what a member of an archive is, and decompression that cannot swell without end."""

from __future__ import annotations

import bz2
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

MEMBER_LIMIT = 512 << 20
RATIO_FREE_BYTES = 256 << 20
MOST_RATIO = 200
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a folder or archive.

    Arguments:
        name: Path inside it, with `/`.
        fault: Why it must not be used, empty when it may be.
        read: Its content, valid only until the next member is asked for.
    """

    name: str
    fault: str
    read: Callable[[], bytes]


class Readable(Protocol):
    """What a stream of bytes must offer."""

    def read(self, size: int = -1, /) -> bytes: ...


def unsafe(name: str) -> str:
    """Why a member's name must not be used, empty when it may be."""
    if ".." not in name and ":" not in name and "\\" not in name and "\0" not in name and name[:1] != "/":
        return ""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or parts[0].endswith(":") or "\0" in name:
        return "its name leads out of the archive"
    return ""


def is_utf8(name: str) -> bool:
    """Whether a name came from bytes that are valid UTF-8 (others become lone surrogates)."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in name)


def leads_to_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a file, or a link that ends at one."""
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


class Inflating:
    """A gzip file as a stream of its content, checked against swelling and truncation.

    Arguments:
        path: The file; may consist of several gzip members.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._inflate = zlib.decompressobj(31)
        self._pending = b""
        self._ready = bytearray()
        self._offset = 0
        self.taken = self.given = 0
        self.closed = False

    def readable(self) -> bool:
        """True: this is a stream to read."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self.closed = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, fewer only at the end.

        Raises:
            ValueError: If the file is damaged, ends early or swells beyond reason.
        """
        while (size < 0 or len(self._ready) - self._offset < size) and self._more():
            pass
        stop = len(self._ready) if size < 0 else min(len(self._ready), self._offset + size)
        piece = bytes(memoryview(self._ready)[self._offset : stop])
        self._offset = stop
        if self._offset > 4 * PIECE or self._offset == len(self._ready):
            del self._ready[: self._offset]
            self._offset = 0
        return piece

    def _more(self) -> bool:
        if not self._pending:
            self._pending = self._file.read(PIECE)
            self.taken += len(self._pending)
            if not self._pending:
                if not self._inflate.eof and self.taken:
                    raise ValueError(f"{self.path} ends early: it is a truncated gzip file. Fetch it again.")
                return False
        if self._inflate.eof:
            self._pending = self._pending.lstrip(b"\0")
            if not self._pending:
                return True
            self._inflate = zlib.decompressobj(31)
        try:
            piece = self._inflate.decompress(self._pending, 4 * PIECE)
        except zlib.error as error:
            raise ValueError(f"{self.path} is damaged: {error}. Fetch it again.") from None
        self._pending = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        self._ready += piece
        self.given += len(piece)
        check_decompression_ratio(self.path, self.given, self.taken)
        return True


def check_decompression_ratio(path: Path, given: int, taken: int) -> None:
    """Refuse content that is out of proportion to the file it comes from.

    Raises:
        ValueError: If it is.
    """
    if given > RATIO_FREE_BYTES and given > MOST_RATIO * max(1, taken):
        raise ValueError(
            f"{path} swells to more than {given >> 20} MiB from {taken >> 10} KiB read: an expansion bomb? "
            f"More than {MOST_RATIO} times is refused; if it is real data, unpack it and give the folder."
        )


class Checked:
    """A decompressed stream, checked against swelling and damage.

    Arguments:
        stream: What is read.
        path: The compressed file.
    """

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self.path, self._size = stream, path, path.stat().st_size
        self.given = 0
        self.closed = False

    def readable(self) -> bool:
        """True: this is a stream to read."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self.closed = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, fewer only at the end.

        Raises:
            ValueError: If the file is damaged or swells beyond reason.
        """
        pieces = b""
        while size < 0 or len(pieces) < size:
            try:
                piece = self._stream.read(4 * PIECE if size < 0 else size - len(pieces))
            except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, TarError) as error:
                raise ValueError(f"{self.path} is damaged or ends early: {error}. Fetch it again.") from None
            if not piece:
                break
            pieces += piece
            self.given += len(piece)
            check_decompression_ratio(self.path, self.given, self._size)
        return pieces


def decompressed(path: Path) -> BinaryIO | Inflating | Checked:
    """A file as a stream, decompressed if its name says so (gz, bz2, xz, zst)."""
    name = path.name.lower()
    if name.endswith((".gz", ".tgz")):
        return Inflating(path)
    if name.endswith((".bz2", ".tbz2")):
        return Checked(bz2.BZ2File(path), path)
    if name.endswith((".xz", ".txz")):
        return Checked(lzma.LZMAFile(path), path)
    if name.endswith(".zst"):
        return Checked(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), path)
    return path.open("rb", buffering=PIECE)
