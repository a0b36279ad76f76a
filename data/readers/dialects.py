"""How a text file holds a table: its delimiter, where it begins, whether its first row names the columns."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.readers.encodings import Decoded
from data.readers.headings import header_of, rows_below, units_below
from data.readers.line_forms import MARK, double_of, fixed_widths, is_literal, is_trimmed, rewriting
from data.readers.suffixes import COMPRESSED
from data.sources.inflate import inflated

HEAD = 1 << 20
ROWS = 500
DELIMITERS = ",;\t|"
RARE = "^~\x01\x1f:"
"""Delimiters that are tried where no other divides the lines."""
TAIL = 1 << 16
SHORT = 0.1
"""The share of rows with too few cells above which their last ones were left out, and no delimiter was lost."""
BLANKS = " "
HINT = re.compile(r'"?sep=(.)"?')
"""The first line of a file that tells Excel its delimiter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a file holds its table; see `data.cards.Source`.

    Arguments:
        encoding, delimiter, header, skip, below, footer, pad, trim, literal, widths: As there.
        notes: What was found that is not the ordinary.
    """

    encoding: str = "utf-8"
    delimiter: str = ","
    header: str = "first"
    skip: int = 0
    below: int = 0
    footer: int = 0
    pad: bool = False
    trim: bool = False
    literal: bool = False
    widths: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """The one character between cells, once lines are rewritten."""
        return MARK if self.widths or len(self.delimiter) > 1 else self.delimiter

    @property
    def rewrite(self) -> Callable[[str], str] | None:
        """What makes a line one with `mark` between its cells; none where it is one."""
        return rewriting(self.delimiter, trim=self.trim, literal=self.literal, widths=self.widths)


def sniff(path: Path, encoding: str) -> Dialect:
    """Find out how a file holds its table, from its first megabyte."""
    text = head_of(path, encoding)
    lines = [line.rstrip("\r\n") for line in _lines(text)]
    if len(text) >= HEAD // 2 and not text.endswith(("\n", "\r")):
        lines = lines[:-1]
    lines = lines[: ROWS * 4]
    hint = HINT.fullmatch(lines[0]) if lines else None
    hinted = hint is not None
    form = _form(lines[hinted:], hint[1] if hint else "\t" if ".tsv" in path.name.lower() else ",")
    delimiter = form.mark
    if form.rewrite:
        lines = [form.rewrite(line) for line in lines]
    skip = hinted + _skipped(lines[hinted:], delimiter)
    rows = [row for row in cells("\n".join(lines[skip:]), delimiter) if any(cell.strip() for cell in row)][:ROWS]
    notes = []
    if skip:
        shown = next((line.strip() for line in lines[:skip] if line.strip()), "")
        notes.append(f"{skip} line(s) before the table are skipped, beginning with {shown[:60]!r}")
    header, why = header_of(rows)
    if why:
        notes.append(why)
    below = units_below(rows) if header == "first" else 0
    if below:
        notes.append(f"{below} line(s) below the header are left out, beginning with {' '.join(rows[1])[:60]!r}")
    footer, first = _footer(path, encoding, form, Counter(map(len, rows)).most_common(1)[0][0] if rows else 0)
    if footer:
        notes.append(f"{footer} line(s) after the table are left out, beginning with {first[:60]!r}")
    body = rows[header == "first" :]
    fewer = sum(len(row) < len(rows[0]) for row in body)
    longest = max(len(row) if any(row[len(rows[0]) :]) else min(len(row), len(rows[0])) for row in rows) if rows else 0
    longer = sum(len(row) > len(rows[0]) for row in body)
    short = fewer > SHORT * len(body)
    pad = (short or 0 < longer < len(body)) and longest == len(rows[0]) > 1 and delimiter != BLANKS
    if pad and longer:
        notes.append(f"{longer} of its first {len(body)} rows end in a delimiter more than its header: it is left out")
    if pad and short:
        notes.append(f"{fewer} of its first {len(body)} rows have fewer cells than its header: the others are missing")
    if delimiter == BLANKS:
        notes.append("its cells are divided by blanks")
    return replace(form, encoding=encoding, header=header, skip=skip, below=below, footer=footer, pad=pad,
                   notes=form.notes + notes)  # fmt: skip


def _form(lines: Sequence[str], usual: str) -> Dialect:
    """What divides the cells of lines."""
    kept = [line for line in lines if line.strip() and not line.startswith("#")]
    if double := double_of(kept):
        return Dialect(delimiter=double)
    delimiter = _delimiter(lines, usual)
    if is_literal(kept, delimiter):
        notes = ["its quotation marks quote nothing: they are letters like others"]
        return Dialect(delimiter=delimiter, literal=True, notes=notes)
    if is_trimmed(kept, delimiter):
        notes = ["blanks before quotation marks are none of the cells"]
        return Dialect(delimiter=delimiter, trim=True, notes=notes)
    undivided = all(len(row) < 2 for row in cells("\n".join(kept[:ROWS]), delimiter))
    if undivided and (widths := fixed_widths(kept)):
        return Dialect(widths=widths, notes=["its columns are aligned with blanks, and so of a fixed width"])
    return Dialect(delimiter=delimiter)


def _footer(path: Path, encoding: str, form: Dialect, width: int) -> tuple[int, str]:
    """How many lines at the end of a file are none of its table, and the first of them; of plain files."""
    size = path.stat().st_size
    if width < 2 or path.name.lower().endswith(COMPRESSED[1:]) or codecs.lookup(encoding).name.startswith("utf-16"):
        return 0, ""
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        lines = file.read().decode(encoding, "replace").splitlines()[size > TAIL :]
    if form.rewrite:
        lines = [form.rewrite(line) for line in lines]
    rows = [next(iter(cells(line, form.mark)), []) for line in lines]
    count = rows_below(rows, width)
    whole = all(line.count('"') % 2 == 0 for line in lines[len(lines) - count - 1 :])
    return (count, next(line for line in lines[-count:] if line.strip())) if count and whole else (0, "")


def head_of(path: Path, encoding: str) -> str:
    """The beginning of a text file."""
    stream = inflated(path)
    try:
        return Decoded(stream, encoding, path).read(HEAD).decode("utf-8", "replace")
    finally:
        stream.close()


def cells(text: str, delimiter: str) -> list[list[str]]:
    """The rows of a text; empty if it cannot be read as such."""
    csv.field_size_limit(max(csv.field_size_limit(), HEAD))
    if delimiter == BLANKS:
        return [_split_blanks(line) for line in text.splitlines()]
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        return []


def _split_blanks(line: str) -> list[str]:
    return next(csv.reader([re.sub(r"[ \t]+", " ", line.strip())], delimiter=" "), [])


def _delimiter(lines: Sequence[str], usual: str) -> str:
    """The delimiter by which most lines, the first among them, have the same number of cells, the more the better."""
    kept = [line for line in lines if line.strip() and not line.startswith("#")]
    if not kept:
        return usual
    text = "\n".join(kept)
    comment = lines[lines.index(kept[0]) - 1] if lines.index(kept[0]) else ""  # may name the columns
    best, found = 0.0, usual
    for delimiter in (*DELIMITERS, BLANKS):
        rows = [row for row in cells(text, delimiter) if row]
        widths = Counter(len(row) for row in rows if len(row) > 1)
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        share = count / len(rows)
        heads = [line for line in (comment, kept[0]) if len(next(iter(cells(line, delimiter)), [])) == width]
        heading = 1.0 if heads else 0.6
        if delimiter == BLANKS and len(rows[0]) == width - 1 > 1:  # R's row names have no header
            heading = 1.0
        if delimiter == BLANKS and (share < 0.98 or heading < 1):
            continue
        foreign = [mark for mark in ";\t|" if mark != delimiter and (not heads or mark in heads[0])]
        other = re.compile(r"[;\t|]|(?<!\d),|,(?!\d)" if delimiter == BLANKS else f"[{''.join(foreign)}\0]")
        clean = sum(not any(map(other.search, row)) for row in rows) / len(rows)
        score = share * clean * heading * (1 + math.log(width)) + 1e-6 * (delimiter == usual)
        if score > best:
            best, found = score, delimiter
    if not best:
        for delimiter in RARE:
            widths = {len(row) for row in cells(text, delimiter) if row}
            named = delimiter != ":" or all(re.match(r"[^\W\d]", cell) for cell in kept[0].split(":"))
            if len(widths) == 1 and max(widths) > 1 and named:  # else a time of day
                return delimiter
    return found


def _skipped(lines: Sequence[str], delimiter: str) -> int:
    """Lines before the header: blank ones, comments, and titles with fewer cells than the table has columns."""
    widths = Counter(len(row) for row in cells("\n".join(lines), delimiter) if len(row) > 1)
    if not widths:
        first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
        return first if len(lines) > first + 1 else 0
    width = widths.most_common(1)[0][0]
    least = width - 1 if width > 2 else width
    for index, line in enumerate(lines[:200]):
        row = next(iter(cells(line, delimiter)), [])
        if not line.strip() or (line.startswith("#") and len(row) != width):
            continue
        filled = sum(bool(cell.strip()) for cell in row)
        opens = line.count('"') % 2 == 1
        if opens or (len(row) >= least and filled >= max(2, width // 2)) or (width == 2 and len(row) == 2):
            return index
        if index + 1 < len(lines) and len(row) > 1 and filled > 1 and 2 * len(row) > width:
            return index
    return 0


def column_names(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """A name of its own for every column, and what was renamed.

    Blank names become `unnamed_1`, repeated ones `name.1`, as pandas has it; line breaks become blanks.
    """
    names: list[str] = []
    notes: list[str] = []
    taken = {cell.strip() for cell in header}
    for position, cell in enumerate(header, 1):
        name = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in cell).strip()
        if not name:
            name = f"unnamed_{position}"
            notes.append(f"column {position} has no name: it is called {name!r}")
        if name in names:
            number = 1
            while f"{name}.{number}" in names or f"{name}.{number}" in taken:
                number += 1
            notes.append(f"{name!r} names more than one column: column {position} is called '{name}.{number}'")
            name = f"{name}.{number}"
        names.append(name)
    return names, notes


def numbered(width: int) -> list[str]:
    """Names of the columns of a file without a header."""
    return [f"column_{position}" for position in range(1, width + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """What stands above the rows of a file.

    Arguments:
        names: Of the columns, each its own.
        titles: Of the columns, as the file has them; empty without a header.
        lines: Physical lines before the first row of data.
        first_row: Number of the first row of data, for people.
        notes: What was renamed or added.
    """

    names: list[str]
    titles: list[str]
    lines: int
    first_row: int
    notes: list[str]


def heading(path: Path, dialect: Dialect) -> Heading:
    """Read what stands above the rows.

    Raises:
        ValueError: If the file is empty or its first row cannot be read.
    """
    text = head_of(path, dialect.encoding)
    if not text.strip():
        raise ValueError(f"{path} is empty: expected a header row and data. Give another file.")
    lines = _lines(text)[dialect.skip :]
    if not lines:
        raise ValueError(
            f"{path}: nothing is left below the {dialect.skip} lines that source.skip passes. Fix the card."
        )
    if dialect.rewrite:
        lines = [dialect.rewrite(line) for line in lines]
    if dialect.delimiter == BLANKS:
        lines = [re.sub(r"[ \t]+", " ", line.strip()) + "\n" for line in lines]
    first, used = _first_row(lines, dialect.mark, dialect.below)
    if not first:
        raise ValueError(
            f"{path}: the header cannot be read (a quotation mark that is never closed?). Fix row {dialect.skip + 1}."
        )
    body = [row for row in cells("".join(lines[used : used + ROWS]), dialect.mark) if row]
    widths, last = Counter(len(row) for row in body), {row[-1] for row in body}
    if dialect.header == "none":
        width = max(widths.most_common(1)[0][0] if widths else 0, len(first))
        return Heading(names=numbered(width), titles=[], lines=dialect.skip, first_row=dialect.skip + 1, notes=[])
    notes: list[str] = []
    _check_text(path, first, dialect.skip + 1)
    if widths and widths.most_common(1)[0][0] == len(first) + 1 and not dialect.pad:
        if last == {""}:
            first = [*first, ""]
        else:
            first = ["", *first]
            notes.append("its rows have one cell more than its header: the first is taken for the name of the row")
    names, renamed = column_names(first)
    return Heading(
        names=names,
        titles=first,
        lines=dialect.skip + used,
        first_row=dialect.skip + 2 + dialect.below,
        notes=notes + renamed,
    )


def _lines(text: str) -> list[str]:
    """Lines that end as a file's do: not at every character that `str.splitlines` knows."""
    return [line.decode() for line in text.encode("utf-8", "replace").splitlines(keepends=True)]


def _first_row(lines: Sequence[str], delimiter: str, below: int) -> tuple[list[str], int]:
    """The first row that is not blank, and how many lines it, those before it and the rows below it take."""
    reader = csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter)
    try:
        first = next(reader, [])
        while not first and reader.line_num < len(lines):
            first = next(reader, [])
        for _ in range(below):
            while next(reader, None) == []:
                pass
    except csv.Error:
        return [], 0
    return first, reader.line_num


def _check_text(path: Path, titles: Sequence[str], row: int) -> None:
    for position, title in enumerate(titles, 1):
        if "\0" in title or "�" in title or len(title) > 10_000 or title.count("\n") > 4:
            shown = f"{title[:60]}…" if len(title) > 60 else title
            raise ValueError(
                f"{path}: the name of column {position} (row {row}) is no text of the file's encoding: {shown!r}. "
                "Fix source.encoding in the card, or close every quotation mark in that row."
            )
