"""Cells to numbers and category codes, and finding out which of the two a column holds."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import Column
from data.readers.base import natural_sorted

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
COMMAS = r"[+-]?[\d.,\s]*[,\s][\d.,\s]*"
EXACT = 2**53
DATES = r"\d{4}[-/.]\d\d?[-/.]\d\d?.*|\d\d?[-/.]\d\d?[-/.]\d{2,4}.*"
TEXT_MISSING = ("", "?")


@dataclass(frozen=True, slots=True)
class Cells:
    """A column's cells of one batch.

    Arguments:
        values: Numbers or category codes, NaN where missing or bad, `[n]`.
        bad: Which cells are neither a value nor missing, `[n]`.
        reason: What is wrong with them.
        expected: What they should have been.
        missing: How often each token for "missing" occurred.
    """

    values: NDArray[np.float64]
    bad: NDArray[np.bool_]
    reason: str
    expected: str
    missing: Counter[str]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text (CSV columns do)."""
    return pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_readable(kind: pa.DataType) -> bool:
    """Whether a column's type can be learned from at all."""
    if pa.types.is_dictionary(kind):
        return is_readable(kind.value_type)
    return is_text(kind) or is_numeric(kind) or pa.types.is_boolean(kind)


def type_name(kind: pa.DataType) -> str:
    """A type as a DataFrame names it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))


def not_utf8(array: pa.Array) -> NDArray[np.bool_]:
    """Which cells of a binary column are not valid UTF-8 text or hold a NUL byte, `[n]`."""
    if not pa.types.is_binary(array.type):
        return np.zeros(len(array), np.bool_)
    try:
        array.cast(pa.string())
    except pa.ArrowInvalid:
        return np.array([_undecodable(cell) for cell in array.to_pylist()], np.bool_)
    return pc.fill_null(pc.match_substring(array, "\0"), False).to_numpy(zero_copy_only=False)


def _undecodable(cell: bytes | None) -> bool:
    try:
        return "\0" in (cell or b"").decode()
    except UnicodeDecodeError:
        return True


def as_text(array: pa.Array) -> pa.Array:
    """Cells as text: whole numbers without a point, booleans as `true` and `false`, bad UTF-8 as missing."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_text(array.cast(kind.value_type))
    if pa.types.is_binary(kind):
        broken = not_utf8(array)
        return (pc.if_else(pa.array(broken), None, array) if broken.any() else array).cast(pa.string())
    if pa.types.is_floating(kind):
        array = array.cast(pa.float32()) if pa.types.is_float16(kind) else array  # Arrow computes little on halves
        known = pc.if_else(pc.is_nan(array), None, array)
        if pc.all(pc.equal(known, pc.floor(known)), min_count=0).as_py() and not pc.any(pc.is_inf(known)).as_py():
            return known.cast(pa.int64(), safe=False).cast(pa.string())
        return known.cast(pa.string())
    return array.cast(pa.string())


def numbers(array: pa.Array, *, integer: bool, tokens: tuple[str, ...]) -> Cells:
    """Read a column as numbers.

    Arguments:
        array: The cells.
        integer: Whether they must be whole.
        tokens: Texts that mean "missing".
    """
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    missing: Counter[str] = Counter()
    if is_text(array.type):
        values, absent, bad = _parsed(array, tokens, missing)
    else:
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int8())
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        absent = np.isnan(values)
        nulls = array.null_count
        missing.update({name: count for name, count in (("null", nulls), ("nan", int(absent.sum()) - nulls)) if count})
        bad = np.zeros(len(values), np.bool_)
    infinite = np.isinf(values) | (np.isnan(values) & ~absent & ~bad)
    reason, expected = "not a number", "a number"
    if infinite.any() and not bad.any():
        reason, expected = "not a finite number", "a finite number"
    bad |= infinite
    if integer:
        fraction = ~bad & ~absent & ((values != np.floor(values)) | (np.abs(values) > EXACT))
        if fraction.any() and not bad.any():
            reason, expected = "not a whole number", f"a whole number of at most {EXACT} (the column is an integer one)"
        bad |= fraction
    if bad.any():
        values = np.where(bad, np.nan, values)
    return Cells(values, bad, reason, expected, missing)


def _parsed(
    array: pa.Array, tokens: tuple[str, ...], missing: Counter[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Text as numbers: values, which cells are missing, which are bad."""
    broken = not_utf8(array)
    trimmed = pc.utf8_trim_whitespace(as_text(array))
    absent = pc.or_(pc.is_null(trimmed), pc.is_in(trimmed, value_set=pa.array(tokens, pa.string())))
    if broken.any():
        absent = pc.and_(absent, pa.array(~broken))
    if pc.any(absent).as_py():
        for item in pc.value_counts(trimmed.filter(absent)).to_pylist():
            missing[item["values"] or ""] += item["counts"]
    known = pc.if_else(absent, None, trimmed)
    bad = broken.copy()
    try:
        parsed = known.cast(pa.float64())
    except pa.ArrowInvalid:
        known = pc.replace_substring_regex(known, r"^\+", "")
        valid = pc.fill_null(pc.match_substring_regex(known, NUMBER), False)
        bad |= ~valid.to_numpy(zero_copy_only=False) & ~absent.to_numpy(zero_copy_only=False)
        parsed = pc.if_else(valid, known, None).cast(pa.float64())
    return parsed.to_numpy(zero_copy_only=False).copy(), absent.to_numpy(zero_copy_only=False), bad


def codes(array: pa.Array, categories: list[str], tokens: tuple[str, ...]) -> Cells:
    """Read a column as codes of its categories; a token that is no category means "missing"."""
    broken = not_utf8(array)
    text = as_text(array)
    found = pc.index_in(text, value_set=pa.array(categories, pa.string()))
    values = found.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    unknown = np.isnan(values)
    missing: Counter[str] = Counter()
    bad = np.zeros(len(values), np.bool_)
    if unknown.any():
        trimmed = pc.utf8_trim_whitespace(text)
        absent = pc.or_(pc.is_null(text), pc.is_in(trimmed, value_set=pa.array(tokens, pa.string())))
        absent = absent.to_numpy(zero_copy_only=False) & unknown & ~broken
        for item in pc.value_counts(trimmed.filter(pa.array(absent))).to_pylist():
            missing[item["values"] or ""] += item["counts"]
        bad = unknown & ~absent
    shown = ", ".join(map(repr, categories[:8])) + (", …" if len(categories) > 8 else "")
    reason = "not valid UTF-8" if broken.any() else "unknown category"
    return Cells(values, bad, reason, f"one of {shown}" if not broken.any() else "UTF-8 text", missing)


@dataclass(kw_only=True, slots=True)
class ColumnScan:
    """What a column was seen to hold.

    Arguments:
        name: Of the column.
        kind: Its type in the source.
        limit: Distinct values are counted up to so many.
    """

    name: str
    kind: pa.DataType
    limit: int
    cells: int = 0
    known: int = 0
    numeric: int = 0
    whole: bool = True
    exact: bool = True
    low: float = np.inf
    high: float = -np.inf
    first_text: tuple[int, str] | None = None
    values: Counter[str] | None = field(default_factory=Counter)

    def add(self, array: pa.Array, rows: NDArray[np.int64], tokens: tuple[str, ...]) -> None:
        """Note the cells of a batch."""
        self.cells += len(array)
        if not is_readable(self.kind):
            return
        cells = numbers(array, integer=False, tokens=tokens) if self._maybe_numeric(array) else None
        if cells is not None:
            good = cells.values[~np.isnan(cells.values)]
            self.numeric += len(good)
            self.known += len(good) + int(cells.bad.sum())
            self.whole = self.whole and bool((good == np.floor(good)).all())
            self.exact = self.exact and bool((np.abs(good) <= EXACT).all())
            if len(good):
                self.low, self.high = min(self.low, float(good.min())), max(self.high, float(good.max()))
            if self.first_text is None and cells.bad.any():
                index = int(np.flatnonzero(cells.bad)[0])
                text = array[index].as_py()
                self.first_text = (
                    int(rows[index]),
                    text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text),
                )
        if self.values is not None:
            for item in pc.value_counts(as_text(array).drop_null()).to_pylist():
                self.values[item["values"]] += item["counts"]
            if len(self.values) > self.limit:
                self.values = None

    def _maybe_numeric(self, array: pa.Array) -> bool:
        """Whether trying to read numbers is worth it (not for long text)."""
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        return is_numeric(kind) or is_text(kind)

    @property
    def categories(self) -> tuple[str, ...]:
        """Distinct values in natural order, those that mean "missing" aside; empty when there are too many."""
        return tuple(natural_sorted(value for value in self.values or () if value.strip() not in TEXT_MISSING))

    @property
    def dtype(self) -> str:
        """The original type, as a DataFrame names it."""
        if not pa.types.is_binary(self.kind):
            return type_name(self.kind)
        if self.numeric and self.numeric == self.known:
            return "int64" if self.whole else "float64"
        return "string"

    def column(self, *, as_category: bool = False) -> tuple[Column, list[str]]:
        """The column's description, and what is doubtful about it."""
        kind = self.kind.value_type if pa.types.is_dictionary(self.kind) else self.kind
        if not is_readable(self.kind):
            return Column(name=self.name, type="skip"), [f"type {self.kind} is not supported"]
        if as_category or pa.types.is_boolean(kind):
            return self._category([])
        if not self.known and not self.categories:
            return Column(name=self.name, type="skip"), ["it has no values"]
        if self.numeric * 2 >= self.known and self.numeric:
            return self._number()
        warnings = []
        if self.numeric:
            warnings.append(f"{self.numeric} of {self.known} cells look like numbers, the others do not")
        return self._category(warnings)

    def _number(self) -> tuple[Column, list[str]]:
        warnings = []
        if self.first_text is not None:
            row, text = self.first_text
            warnings.append(
                f"{self.known - self.numeric} of {self.known} cells are not finite numbers, the first in row {row}: "
                f"{text!r}; list such texts under `missing`, or set `on_bad: drop`, or `type: categorical`"
            )
        distinct = len(self.values) if self.values is not None else self.limit + 1
        if self.whole and distinct <= 10 and self.cells > 50:
            warnings.append(f"only {distinct} distinct whole numbers: perhaps `type: categorical`")
        if self.whole and not self.exact:
            return Column(name=self.name, type="skip"), ["its numbers are too large to be exact: identifiers?"]
        return Column(name=self.name, type="integer" if self.whole else "continuous"), warnings

    def _category(self, warnings: list[str]) -> tuple[Column, list[str]]:
        texts = self.categories or ((self.first_text[1],) if self.first_text else ())
        if texts and all(re.fullmatch(COMMAS, text) for text in texts):
            warnings = [
                *warnings,
                f"its texts look like numbers with commas or blanks ({texts[0]!r}): write them with a point and "
                "without marks between thousands",
            ]
        elif texts and all(re.fullmatch(DATES, text) for text in texts):
            warnings = [
                *warnings,
                f"its texts look like dates ({texts[0]!r}): write them as numbers to learn from them",
            ]
        if self.values is None:
            return Column(name=self.name, type="skip"), [
                *warnings, f"more than {self.limit} distinct texts: an identifier or free text?"
            ]  # fmt: skip
        if any(value != value.strip() for value in self.categories):
            warnings = [*warnings, "some texts have blanks around them, which count as part of the category"]
        doubtful = [value for value in self.categories if value.strip() in ("NA", "N/A", "n/a", "None", "null", "nan")]
        if doubtful:
            warnings = [*warnings, f"{doubtful} taken as categories; remove them from `categories` to mean missing"]
        if self.cells > 50 and len(self.categories) > 0.5 * self.cells:
            return Column(name=self.name, type="skip"), [*warnings, "nearly every row has its own text: an identifier?"]
        return Column(name=self.name, type="categorical", categories=self.categories), warnings


def described(column: Column, scan: ColumnScan | None, kind: pa.DataType) -> dict[str, Any]:
    """A column as the manifest's domain lists it."""
    dtype = scan.dtype if scan is not None else type_name(kind)
    if scan is None and pa.types.is_binary(kind):
        dtype = {"integer": "int64", "continuous": "float64"}.get(column.type, "string")
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "dtype": dtype}
    entry["categories"] = list(column.categories) if column.type == "categorical" else []
    return entry
