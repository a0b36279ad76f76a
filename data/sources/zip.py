"""Zip archives, entry by entry."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from data.sources.streams import MEMBER_LIMIT, Member, check_decompression_ratio, unsafe


def zip_members(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
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
            check_decompression_ratio(path, given, size_of_file)
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
