"""Files inside folders, zip and tar archives, read as streams: nothing is ever unpacked to the disk.

Archives come from strangers. Names that leave the archive, links and devices are faults; how much an
archive may swell is bounded before anything of it is kept; and memory does not grow with the number
of files, which is why the tables of contents are read here entry by entry instead of as a list.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

MEMBER_LIMIT = 512 << 20
SWELL_FREE = 256 << 20
SWELL_RATIO = 200
PIECE = 1 << 20
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


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


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive this module reads."""
    name = path.name.lower()
    return name.endswith(".zip") or name.endswith(TAR_SUFFIXES)


def members(path: Path, keep: Callable[[str], bool] = lambda name: True) -> Iterator[Member]:
    """The files of a folder (in the order of their names) or archive (in its own order).

    Arguments:
        path: Folder or archive.
        keep: Only files whose name passes are yielded; the content of others is not looked at.
    Raises:
        ValueError: If the archive is damaged, or would swell beyond reason.
    """
    if path.is_dir():
        return _folder(path, keep)
    if path.name.lower().endswith(".zip"):
        return _zip(path, keep)
    return _tar(path, keep)


def unsafe(name: str) -> str:
    """Why a member's name must not be used, empty when it may be."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or parts[0].endswith(":") or "\0" in name:
        return "its name leads out of the archive"
    return ""


def _folder(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
    def walk(folder: Path, prefix: str) -> Iterator[Member]:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file()) for entry in found)
        for name, is_folder, is_file in entries:
            if is_folder:
                yield from walk(folder / name, f"{prefix}{name}/")
            elif keep(prefix + name):
                fault = "" if is_file else "it is neither a file nor a folder (a broken link?)"
                yield Member(prefix + name, fault, lambda file=folder / name: _read_file(file))

    return walk(path, "")


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MEMBER_LIMIT:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MEMBER_LIMIT}")
    return path.read_bytes()


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
        check_swelling(self.path, self.given, self.taken)
        return True


def check_swelling(path: Path, given: int, taken: int) -> None:
    """Refuse content that is out of proportion to the file it comes from.

    Raises:
        ValueError: If it is.
    """
    if given > SWELL_FREE and given > SWELL_RATIO * max(1, taken):
        raise ValueError(
            f"{path} swells to more than {given >> 20} MiB from {taken >> 10} KiB read: an expansion bomb? "
            f"More than {SWELL_RATIO} times is refused; if it is real data, unpack it and give the folder."
        )


def inflated(path: Path) -> BinaryIO | Inflating:
    """A file as a stream, decompressed if its name says so (gz, bz2, xz)."""
    name = path.name.lower()
    if name.endswith((".gz", ".tgz")):
        return Inflating(path)
    if name.endswith((".bz2", ".tbz2")):
        return io.BufferedReader(bz2.BZ2File(path), PIECE)  # type: ignore[arg-type]
    if name.endswith((".xz", ".txz")):
        return io.BufferedReader(lzma.LZMAFile(path), PIECE)  # type: ignore[arg-type]
    return path.open("rb", buffering=PIECE)


def _tar(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
    """POSIX ustar and pax, GNU long names; every other type of member is a fault."""
    stream = inflated(path)
    compressed = path.suffix.lower() != ".tar"
    size_of_file = path.stat().st_size
    given = 0
    named = ""
    ended = False
    try:
        while len(header := _tar_read(stream, 512, path)) == 512:
            if not header.strip(b"\0"):
                ended = True
                break
            name, kind, size = _tar_header(header, path)
            padded = (size + 511) // 512 * 512
            if compressed:
                given += 512 + padded
                check_swelling(path, given, size_of_file)
            if kind in b"xgLK":
                body = _tar_read(stream, padded, path)[:size] if size < PIECE else _tar_skip(stream, padded, path)
                if kind in b"xL":
                    named = _long_name(body, chr(kind)) or named
                continue
            name, named = named or name, ""
            if kind == ord("5"):
                _tar_skip(stream, padded, path)
                continue
            fault = unsafe(name)
            if kind in b"12":
                fault = "it is a link, and links are never followed"
            elif kind not in b"07\0":
                fault = f"it is not a plain file (tar type {chr(kind)!r})"
            elif size > MEMBER_LIMIT:
                fault = f"it has {size} bytes, more than {MEMBER_LIMIT}"
            if fault or not keep(name):
                _tar_skip(stream, 0 if kind in b"12346" else padded, path)
                if fault:
                    yield Member(name, fault, lambda: b"")
                continue
            body = _tar_read(stream, padded, path)
            if len(body) < padded and len(body) < size:
                raise ValueError(f"{path} ends early, inside {name!r}: it is truncated. Fetch it again.")
            yield Member(name, "", lambda body=body, size=size: body[:size])
        if not ended and header:
            raise ValueError(f"{path} ends early, inside a header: it is truncated. Fetch it again.")
    finally:
        stream.close()


def _plain(raw: bytes) -> str:
    """A member's name as text, without the `./` that tar puts before it."""
    return raw.decode("utf-8", "surrogateescape").removeprefix("./")


def _tar_read(stream: Readable, size: int, path: Path) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged: {error}. Fetch it again.") from None


def _tar_skip(stream: Readable, size: int, path: Path) -> bytes:
    while size > 0:
        piece = len(_tar_read(stream, min(size, PIECE), path))
        if not piece:
            raise ValueError(f"{path} ends early: it is truncated. Fetch it again.")
        size -= piece
    return b""


def _tar_header(header: bytes, path: Path) -> tuple[str, int, int]:
    """Name, type and size of a tar member, its checksum verified."""
    try:
        stated = int(header[148:156].strip(b" \0") or b"0", 8)
        raw = header[124:136]
        size = int.from_bytes(raw[1:], "big") if raw[0] & 0x80 else int(raw.strip(b" \0") or b"0", 8)
    except ValueError:
        stated, size = -1, 0
    if stated != sum(header) - sum(header[148:156]) + 256:
        raise ValueError(f"{path} is not a tar archive, or is damaged (a header's checksum is wrong). Fetch it again.")
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    full = prefix + b"/" + name if prefix else name
    return _plain(full), header[156], size


def _long_name(body: bytes, kind: str) -> str:
    """The name in a GNU long-name member or a pax header, empty when it has none."""
    if kind == "L":
        return _plain(body.split(b"\0", 1)[0])
    while body:
        length, _, _rest = body.partition(b" ")
        if not length.isdigit() or int(length) <= len(length) + 1:
            break
        key, _, value = body[len(length) + 1 : int(length)].partition(b"=")
        if key == b"path":
            return _plain(value.removesuffix(b"\n"))
        body = body[int(length) :]
    return ""


def _zip(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
    """Stored and deflated members, zip64 included, in the order of the central directory."""
    size_of_file = path.stat().st_size
    given = 0
    with path.open("rb", buffering=1 << 16) as data, path.open("rb", buffering=1 << 18) as directory:
        offset, count, shift = _zip_directory(directory, path)
        directory.seek(offset)
        for _ in range(count):
            entry = directory.read(46)
            if len(entry) < 46 or entry[:4] != b"PK\1\2":
                raise ValueError(f"{path} is damaged: its table of contents is cut off. Fetch it again.")
            flags, method, crc = struct.unpack("<HH4xI", entry[8:20])
            packed, size, name_n, extra_n, note_n = struct.unpack("<IIHHH", entry[20:34])
            attributes, start = struct.unpack("<II", entry[38:46])
            raw = directory.read(name_n)
            extra = directory.read(extra_n)
            directory.seek(note_n, os.SEEK_CUR)
            size, packed, start = _zip64(extra, size, packed, start)
            name = raw.decode("utf-8" if flags & 0x800 or raw.isascii() else "cp437", "surrogateescape")
            if name.endswith("/"):
                continue
            given += size
            check_swelling(path, given, size_of_file)
            fault = unsafe(name)
            if entry[5] == 3 and (attributes >> 16) & 0o170000 == 0o120000:
                fault = "it is a link, and links are never followed"
            elif flags & 1:
                fault = "it is encrypted"
            elif size > MEMBER_LIMIT or packed > MEMBER_LIMIT:
                fault = f"it has {max(size, packed)} bytes, more than {MEMBER_LIMIT}"
            elif method not in (0, 8):
                fault = f"its compression method {method} is not supported (stored and deflated are)"
            if fault or keep(name):
                where = (start + shift, packed, size, method, crc)
                yield Member(name, fault, lambda name=name, where=where: _zip_read(data, path, name, *where))


def _zip_directory(file: BinaryIO, path: Path) -> tuple[int, int, int]:
    """Where the table of contents starts, its number of entries, and how far the archive is shifted."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(max(0, end - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise ValueError(f"{path} is not a zip archive, or is truncated (its table of contents is missing).")
    position = max(0, end - 65_557) + at
    count, size, offset = struct.unpack("<HII", tail[at + 10 : at + 20])
    if 0xFFFF in (count,) or 0xFFFFFFFF in (size, offset):
        file.seek(max(0, position - 20))
        locator = file.read(20)
        if locator[:4] == b"PK\6\7":
            position = struct.unpack("<Q", locator[8:16])[0]
            file.seek(position)
            record = file.read(56)
            if record[:4] != b"PK\6\6":
                raise ValueError(f"{path} is damaged: its zip64 table of contents is missing. Fetch it again.")
            count, size, offset = struct.unpack("<QQQ", record[32:56])
    shift = position - size - offset
    if shift < 0 or count * 46 > size:
        raise ValueError(f"{path} is damaged: its table of contents does not fit into it. Fetch it again.")
    return offset + shift, count, shift


def _zip64(extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
    """Sizes and offset of an entry with the zip64 extension applied."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != 1:
            continue
        wide = [struct.unpack("<Q", body[i : i + 8])[0] for i in range(0, len(body) - 7, 8)]
        values = []
        for value in (size, packed, start):
            values.append(wide.pop(0) if value == 0xFFFFFFFF and wide else value)
        return values[0], values[1], values[2]
    return size, packed, start


def _zip_read(
    file: BinaryIO, path: Path, name: str, start: int, packed: int, size: int, method: int, crc: int
) -> bytes:
    """The content of a zip member, its length and checksum verified."""
    damaged = f"{path}: member {name!r} is damaged"
    file.seek(start)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise ValueError(f"{damaged}: its header is not where the table of contents says. Fetch the archive again.")
    name_n, extra_n = struct.unpack("<HH", header[26:30])
    file.seek(name_n + extra_n, os.SEEK_CUR)
    body = file.read(packed)
    if len(body) < packed:
        raise ValueError(f"{damaged}: the archive ends inside it. Fetch the archive again.")
    if method == 8:
        inflate = zlib.decompressobj(-15)
        try:
            body = inflate.decompress(body, size + 1)
        except zlib.error as error:
            raise ValueError(f"{damaged}: {error}. Fetch the archive again.") from None
    if len(body) != size or zlib.crc32(body) != crc:
        raise ValueError(f"{damaged}: its length or checksum is wrong. Fetch the archive again.")
    return body
