"""A text file's rows as a stream: without what stands around them, each with all its cells."""

from __future__ import annotations

import csv
import re

from data.sources.streams import Readable

PIECE = 1 << 20


class Padded:
    """A stream of lines whose rows end in empty cells where they have fewer than the table, and do not beyond it.

    Arguments:
        stream: UTF-8 text.
        width: Of the table.
        delimiter: Between cells.
    """

    def __init__(self, stream: Readable, width: int, delimiter: str) -> None:
        self._stream, self._width, self._delimiter = stream, width, delimiter
        self._ready = self._open = b""
        self._inside = False

    def _whole(self, line: bytes) -> bytes:
        """A line with all its cells; what lies within quotation marks goes on as it is."""
        row = line.rstrip(b"\r\n")
        if line.count(b'"') % 2:
            self._inside = not self._inside
            return line
        if self._inside or not row:
            return line
        mark = self._delimiter.encode()
        quoted = b'"' in row
        cells = len(next(csv.reader([row.decode()], delimiter=self._delimiter))) if quoted else row.count(mark) + 1
        end = line[len(row) :]
        if cells > self._width and row.endswith(surplus := mark * (cells - self._width)):
            row = row.removesuffix(surplus)
        return row + mark * max(0, self._width - cells) + end

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        while size < 0 or len(self._ready) < size:
            piece = self._stream.read(PIECE)
            lines = (self._open + piece).splitlines(keepends=True)
            self._open = lines.pop() if piece and lines else b""
            self._ready += b"".join(map(self._whole, lines))
            if not piece:
                break
        size = len(self._ready) if size < 0 else size
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


class WithoutFooter:
    """A stream of lines without the last few.

    Arguments:
        stream: UTF-8 text.
        footer: How many lines to leave out.
    """

    def __init__(self, stream: Readable, footer: int) -> None:
        self._stream, self._footer = stream, footer
        self._ready = self._kept = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        while size < 0 or len(self._ready) < size:
            piece = self._stream.read(PIECE)
            if not piece:
                break
            lines = (self._kept + piece).splitlines(keepends=True)
            self._ready += b"".join(lines[: -self._footer - 1])
            self._kept = b"".join(lines[-self._footer - 1 :])
        else:
            taken, self._ready = self._ready[:size], self._ready[size:]
            return taken
        taken = self._ready + b"".join(self._kept.splitlines(keepends=True)[: -self._footer])
        self._ready = self._kept = b""
        if size < 0:
            return taken
        taken, self._ready = taken[:size], taken[size:]
        return taken


class Body:
    """A stream of a table's rows as UTF-8: without what stands above them, and with single blanks between cells.

    Arguments:
        stream: UTF-8 text.
        lines: Physical lines to leave out.
        blanks: Whether cells are divided by any number of blanks.
        footer: Physical lines to leave out at the end.
    """

    def __init__(self, stream: Readable, lines: int, *, blanks: bool = False, footer: int = 0) -> None:
        self._stream, self._blanks = WithoutFooter(stream, footer) if footer else stream, blanks
        self._ready = self._without(lines)
        self._rest = b""
        self.closed = False

    def _without(self, lines: int) -> bytes:
        ready = b""
        while lines:
            piece = self._stream.read(PIECE)
            ready += piece
            kept = ready.splitlines(keepends=True)
            if len(kept) > lines or not piece:
                return b"".join(kept[lines:])
        return ready

    def readable(self) -> bool:
        """True: this is a stream to read."""
        return True

    def close(self) -> None:
        """Nothing: whoever opened the stream closes it."""
        self.closed = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        if not self._blanks:
            if self._ready:
                taken, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
                if size < 0 or len(taken) < size:
                    taken += self._stream.read(size - len(taken) if size >= 0 else -1)
                return taken
            return self._stream.read(size)
        while size < 0 or len(self._rest) < size:
            piece = self._ready or self._stream.read(PIECE)
            self._ready = b""
            if not piece:
                break
            while not piece.endswith(b"\n"):  # whole lines only
                more = self._stream.read(PIECE)
                if not more:
                    break
                piece += more
                head, newline, tail = piece.rpartition(b"\n")
                if newline:
                    piece, self._ready = head + newline, tail
                    break
            self._rest += b"".join(re.sub(rb"[ \t]+", b" ", line.strip()) + b"\n" for line in piece.splitlines())
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
