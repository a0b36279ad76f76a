"""Tar archives, member by member, compressed or not."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from data.sources.streams import MEMBER_LIMIT, PIECE, Member, check_decompression_ratio, decompressed, unsafe


def tar_members(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
    """POSIX ustar and pax, GNU long names; every other type of member is a fault."""
    compressed = path.suffix.lower() != ".tar"
    size_of_file = path.stat().st_size
    given = 0
    named = ""
    with closing(_Window(path)) as window:
        while header := window.take(512):
            if len(header) < 512:
                raise ValueError(f"{path} ends early, inside a header: it is truncated. Fetch it again.")
            if not header.strip(b"\0"):
                return
            name, kind, size = _header(header, path)
            padded = (size + 511) // 512 * 512
            if compressed:
                given += 512 + padded
                check_decompression_ratio(path, given, size_of_file)
            if kind in b"xgLK":
                body = window.take(padded)[:size] if size < PIECE else window.skip(padded)
                if kind in b"xL":
                    named = _long_name(body, chr(kind)) or named
                continue
            name, named = named or name, ""
            fault = _fault(name, kind, size)
            if kind == ord("5") or fault or not keep(name):
                window.skip(0 if kind in b"123456" else padded)
                if fault:
                    yield Member(name, fault, lambda: b"")
                continue
            body = window.take(padded)
            if len(body) < size:
                raise ValueError(f"{path} ends early, inside {name!r}: it is truncated. Fetch it again.")
            yield Member(name, "", lambda body=body, size=size: body[:size])


def _fault(name: str, kind: int, size: int) -> str:
    """Why a member must not be used, empty when it may be."""
    if kind == ord("5"):
        return ""
    if kind in b"12":
        return "it is a link, and links are never followed"
    if kind not in b"07\0":
        return f"it is not a plain file (tar type {chr(kind)!r})"
    if size > MEMBER_LIMIT:
        return f"it has {size} bytes, more than {MEMBER_LIMIT}"
    return unsafe(name)


class _Window:
    """A tar archive's bytes, read in large pieces and handed out in small ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = decompressed(path)
        self._piece = b""
        self._at = 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def take(self, size: int) -> bytes:
        """The next so many bytes, fewer only at the end."""
        end = self._at + size
        if end > len(self._piece):
            self._piece = self._piece[self._at :] + self._read(max(PIECE, size))
            self._at, end = 0, size
        taken = self._piece[self._at : end]
        self._at += len(taken)
        return taken

    def skip(self, size: int) -> bytes:
        """Pass over so many bytes."""
        while size > 0:
            passed = len(self.take(min(size, PIECE)))
            if not passed:
                raise ValueError(f"{self.path} ends early: it is truncated. Fetch it again.")
            size -= passed
        return b""

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ValueError(f"{self.path} is damaged: {error}. Fetch it again.") from None


def _plain(raw: bytes) -> str:
    """A member's name as text, without the `./` that tar puts before it."""
    return raw.decode("utf-8", "surrogateescape").removeprefix("./")


def _header(header: bytes, path: Path) -> tuple[str, int, int]:
    """Name, type and size of a tar member, its checksum verified."""
    try:
        stated = int(header[148:156].strip(b" \0") or b"0", 8)
        raw = header[124:136]
        size = int.from_bytes(raw[1:], "big") if raw[0] & 0x80 else int(raw.strip(b" \0") or b"0", 8)
    except ValueError:
        stated, size = -1, 0
    found = zlib.adler32(header[:148] + b"        " + header[156:]) & 0xFFFF  # 1 + the sum of the bytes
    if (stated + 1) % 65521 != found:
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
