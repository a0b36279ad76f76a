"""Lines of text tables that are brought to cells with one character between them before they are read.

Two characters between cells (`::`), blanks before a quotation mark, quotation marks that quote nothing, and columns of
a fixed width.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

from data.sources.streams import Readable

MARK = "\x1f"
"""What is put between cells where no single character of the file's own is."""
DOUBLES = ("::", "||", "~~", "^^")
PIECE = 1 << 20
FEWEST = 10
"""Lines from which columns of a fixed width are told."""


def rewriting(delimiter: str, *, trim: bool, literal: bool, widths: Sequence[int]) -> Callable[[str], str] | None:
    """What makes a line of the file one with a single character between its cells; none where it is one already.

    Arguments:
        delimiter: Of the file.
        trim: Whether blanks before a quotation mark are none of the cell.
        literal: Whether quotation marks are letters like others.
        widths: Of the columns, in characters, the last of any width; empty for delimited cells.
    """
    if widths:
        ends = [sum(widths[: i + 1]) for i in range(len(widths))]
        return lambda line: _sliced(line, ends)
    if len(delimiter) > 1:
        return lambda line: line.replace(delimiter, MARK)
    if literal:
        return lambda line: _joined(line.rstrip("\r\n").split(delimiter), delimiter, line) if '"' in line else line
    if trim:
        quoted = re.compile(rf'(^|{re.escape(delimiter)})[ \t]+(?="(?!"))')
        return lambda line: quoted.sub(r"\1", line)
    return None


def _sliced(line: str, ends: Sequence[int]) -> str:
    text = line.rstrip("\r\n")
    if not text.strip():
        return line
    cells = [text[start:end].strip() for start, end in zip([0, *ends[:-1]], [*ends[:-1], None], strict=True)]
    return _joined(cells, MARK, line)


def _joined(cells: Sequence[str], delimiter: str, line: str) -> str:
    """Cells as a line of CSV that ends as another."""
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="").writerow(cells)
    return written.getvalue() + line[len(line.rstrip("\r\n")) :]


class Rewritten:
    """A stream of lines, each rewritten.

    Arguments:
        stream: UTF-8 text.
        rewrite: What is made of a line.
    """

    def __init__(self, stream: Readable, rewrite: Callable[[str], str]) -> None:
        self._stream, self._rewrite = stream, rewrite
        self._ready = self._open = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        while size < 0 or len(self._ready) < size:
            piece = self._stream.read(PIECE)
            lines = (self._open + piece).splitlines(keepends=True)
            self._open = lines.pop() if piece and lines else b""
            self._ready += b"".join(self._rewrite(line.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape") for line in lines)  # fmt: skip
            if not piece:
                break
        size = len(self._ready) if size < 0 else size
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


def double_of(lines: Sequence[str]) -> str:
    """The two equal characters that divide all lines into as many cells; empty when none do."""
    for double in DOUBLES:
        counts = Counter(line.count(double) for line in lines)
        count, most = counts.most_common(1)[0] if counts else (0, 0)
        single = sum(line.replace(double, "").count(double[0]) for line in lines)
        apart = double == "::" or single < 0.1 * len(lines)  # else an empty cell between two delimiters
        if count and most > 0.98 * len(lines) and lines[0].count(double) == count and apart:
            return double
    return ""


def is_literal(lines: Sequence[str], delimiter: str) -> bool:
    """Whether every line has its cells as it stands, and would lose some if quotation marks joined them.

    Only between tabs: of other files it is more likely that a mark was never closed.
    """
    if delimiter != "\t" or not any('"' in line for line in lines):
        return False
    counts = Counter(line.count(delimiter) for line in lines)
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        rows = []
    return len(counts) == 1 and max(counts) > 0 and len(rows) < len(lines)


def is_trimmed(lines: Sequence[str], delimiter: str) -> bool:
    """Whether cells begin with blanks and a quotation mark, so that delimiters within the quotes would divide them."""
    if delimiter.isspace() or not any(re.search(rf'{re.escape(delimiter)}[ \t]+"', line) for line in lines[:50]):
        return False
    try:
        plain = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        trimmed = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row)
    except csv.Error:
        return False
    best = max(trimmed.values(), default=0)
    return best == trimmed.total() and best > max(plain.values(), default=0)


def fixed_widths(lines: Sequence[str]) -> tuple[int, ...]:
    """The widths of columns that are aligned with blanks; none where no places are blank in all lines.

    A column ends where the next begins: at the first place after the blanks, for numbers stand to the right of theirs.
    """
    kept = [line.rstrip() for line in lines if line.strip()]
    if len(kept) < FEWEST or any("\t" in line for line in kept):
        return ()
    longest = max(map(len, kept))
    filled = [any(line[place : place + 1].strip() for line in kept) for place in range(longest)]
    starts = [place for place in range(1, longest) if filled[place] and not filled[place - 1]]
    starts = [start for start in starts if sum(len(line) > start for line in kept) >= 0.9 * len(kept)]
    if not starts:
        return ()
    named = [start for start, end in itertools.pairwise([*starts, longest]) if kept[0][start:end].strip()]
    if not named:
        return ()
    places = [0, *named]
    return (*(end - start for start, end in itertools.pairwise(places)), longest - places[-1])
