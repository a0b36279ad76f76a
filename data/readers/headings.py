"""What stands above and below the rows of a table: names of columns, units, totals, notes."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from data.cards import MISSING
from data.readers.columns import NUMBER
from data.readers.texts import EVIDENT

NUMERIC = re.compile(rf"{NUMBER}|^[$€£(\-+]*\d[\d.,]*\s?%?\)?-?$")
TOTAL = re.compile(
    r"(?i)(grand |sub|over)?(totals?|sum|all|totaux|totale?|totaal|suma|summe|gesamt(summe)?|insgesamt|合計|总计|итого)"
    r"\W*"
)
NOTE = re.compile(
    r"(?i)\W*(notes?|sources?|quelle|fuente|fonte|last updated|generated|data (from|source)|©)\b|\*|\[\d+\]"
)
MOST_BELOW = 40
FEWEST = 20
"""Rows below the first of a single column, by which it is told from a name."""
RULE = re.compile(r"[\s|:+=\-]*[+=\-]{3,}[\s|:+=\-]*")
"""What stands below the header of a table that is drawn with dashes."""


def header_of(rows: list[list[str]]) -> tuple[str, str]:
    """Whether the first row names the columns, and what to say of it."""
    if len(rows) < 2:
        return "first", ""
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    columns = [[row[i].strip() for row in body if i < len(row)] for i in range(len(first))]
    numeric = [_numeric(column) for column in columns]
    numbers = [bool(NUMERIC.match(cell)) for cell in first]
    if any(
        is_number and not cell_is and cell for is_number, cell_is, cell in zip(numeric, numbers, first, strict=True)
    ):
        return "first", ""  # a word above numbers
    like_body = [i for i, cell in enumerate(first) if cell and numeric[i] and numbers[i]]
    if like_body and len(like_body) == sum(numeric):
        if _counts([cell for cell, is_number in zip(first, numbers, strict=True) if is_number]):
            return "first", f"its header holds numbers that count up ({', '.join(first[:4])})"
        shown = ", ".join(first[:4])
        return "none", (
            f"its first row is like the others ({shown}), so it is taken for data and the columns are numbered; "
            "set `header: first` under source in the card if it names them"
        )
    words = [i for i, cell in enumerate(first) if cell and not numeric[i] and not numbers[i]]
    again = [i for i in words if len(columns[i]) > 10 and first[i] in columns[i]]
    if words and not any(numeric) and len(again) == len(words) and len(words) > 1:
        return "none", (
            f"the words of its first row come again below ({', '.join(first[:4])}), so it is taken for data; "
            "set `header: first` under source in the card if it names the columns"
        )
    if len(first) == 1 and not any(numeric) and len(body) >= FEWEST and columns[0].count(first[0]) > 0.02 * len(body):
        return "none", (
            f"the text of its first row ({first[0][:60]}) comes again and again below, so it is taken for data; "
            "set `header: first` under source in the card if it names the column"
        )
    if sum(numbers) and not any(numeric):
        return "first", f"the first row, taken for the header, holds numbers ({', '.join(first[:4])})"
    return "first", ""


def _numeric(column: Sequence[str]) -> bool:
    known = [cell for cell in column if cell]
    return bool(known) and sum(bool(NUMERIC.match(cell)) for cell in known) >= 0.9 * len(known)


def _counts(names: Sequence[str]) -> bool:
    """Whether these are whole numbers in steps of one, as years are, or the names of columns that have none; or
    several years one after the other, of which some may be left out."""
    try:
        numbers = [int(name) for name in names if name]
    except ValueError:
        return False
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    years = len(numbers) >= 5 and all(1500 <= number <= 2200 for number in numbers)
    return bool(steps) and (set(steps) == {1} or (years and min(steps) > 0 and max(steps) <= 10))


def rows_above(rows: Sequence[Sequence[str]]) -> int:
    """How many rows stand before the header: blank ones, and titles that fill fewer cells than the table."""
    filled = [sum(bool(cell.strip()) for cell in row) for row in rows]
    width = Counter(count for count in filled if count).most_common(1)
    least = max(min(2, width[0][0]), math.ceil(0.6 * width[0][0])) if width else 0
    return next((place for place, count in enumerate(filled) if count and count >= least), 0)


def units_below(rows: Sequence[Sequence[str]]) -> int:
    """How many rows below the header hold units or a second header: words above numbers, and nothing else.

    Arguments:
        rows: The header and some rows after it.
    """
    width = len(rows[0]) if rows else 0
    if len(rows) > 2 and all(cell.startswith('{"ImportId":') for cell in rows[2]):  # Qualtrics: questions, then keys
        return 2
    if (
        len(rows) > 1
        and all(RULE.fullmatch(cell) or not cell.strip() for cell in rows[1])
        and any(map(str.strip, rows[1]))
    ):
        return 1
    for count in (2, 1):
        body = rows[1 + count :]
        columns = [[row[i].strip() for row in body if i < len(row)] for i in range(width)]
        numeric = [i for i, column in enumerate(columns) if len(column) > 4 and _numeric(column)]
        above = [[row[i].strip() for i in numeric if i < len(row)] for row in rows[1 : 1 + count]]
        words = [[cell for cell in row if cell] for row in above]
        unlike = all(
            row and not any(map(NUMERIC.match, row)) and 2 * sum(map(_unknown, row)) <= len(row) for row in words
        )
        if len(numeric) > 1 and unlike and 2 * len(words[0]) > len(numeric):
            return count + _names_index(rows[count + 1])
    return 0


def _unknown(cell: str) -> bool:
    return cell in MISSING or cell.casefold() in EVIDENT


def _names_index(row: Sequence[str]) -> bool:
    """Whether a row below two headers only names the first column, as pandas writes it."""
    return len(row) > 1 and bool(re.match(r"[^\W\d]", row[0].strip())) and not any(map(str.strip, row[1:]))


def rows_below(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many rows at the end of a table are none of it: totals, notes, and blank rows between.

    Arguments:
        rows: The last rows.
        width: Of the table.
    """
    firsts = [row[0].strip() if row else "" for row in rows]
    found = count = 0
    for place in range(len(rows) - 1, max(0, len(rows) - MOST_BELOW) - 1, -1):
        filled = [cell.strip() for cell in rows[place] if cell.strip()]
        count += 1
        if not filled:
            continue
        after_blank = place > 0 and not any(cell.strip() for cell in rows[place - 1])
        total = TOTAL.fullmatch(filled[0]) is not None and firsts.count(firsts[place]) == 1
        note = len(filled) == 1 and width > 2 and (len(rows[place]) < width or after_blank or NOTE.match(filled[0]))
        if not (total or note):
            break
        found = count
    return found if found < len(rows) else 0
