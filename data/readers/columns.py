"""Cells to numbers, category codes, dates and times: the parsers of `prepare`, by which `add` decides, too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import Column
from data.formats import DAY, UNITS, Instants, format_of, is_plain, parts_of

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
EXACT = 2**53
TRUTH = {"True", "False"}
"""True and false as Python writes them into text files; other words, and words in files with types, are texts."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A column's cells of one batch.

    Arguments:
        values: Numbers or category codes, NaN where missing or bad, `[n]`; of dates and times the parts, `[n, parts]`.
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
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return (
        pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == "string_view"
    )


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_temporal(kind: pa.DataType) -> bool:
    """Whether a column holds dates, times or durations as such."""
    return pa.types.is_temporal(kind) and not pa.types.is_interval(kind)


def is_readable(kind: pa.DataType) -> bool:
    """Whether a column's type can be learned from at all."""
    if pa.types.is_dictionary(kind):
        return is_readable(kind.value_type)
    return is_text(kind) or is_numeric(kind) or pa.types.is_boolean(kind) or is_temporal(kind)


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
        whole = pc.and_(pc.equal(known, pc.floor(known)), pc.less(pc.abs(known), float(2**63)))
        if pc.all(whole, min_count=0).as_py():
            return known.cast(pa.int64(), safe=False).cast(pa.string())
        return known.cast(pa.string())
    return array.cast(pa.string())


def as_floats(array: pa.Array) -> NDArray[np.float64]:
    """Numbers as the nearest floats, NaN where missing."""
    if pa.types.is_decimal(array.type):  # Arrow divides, and is off by the last digit
        array = array.cast(pa.string())
    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


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
        values = as_floats(array)
        absent = np.isnan(values)
        nulls = array.null_count
        missing.update({name: count for name, count in (("null", nulls), ("nan", int(absent.sum()) - nulls)) if count})
        bad = np.zeros(len(values), np.bool_)
    if "inf" in tokens:
        infinite = np.isinf(values)
        missing.update({"inf": int(infinite.sum())} if infinite.any() else {})
        values, absent = np.where(infinite, np.nan, values), absent | infinite
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


def native_instants(array: pa.Array) -> tuple[Instants, NDArray[np.bool_]]:
    """Dates, times and durations of a column that holds them as such, and which are missing, `[n]`."""
    kind = array.type
    missing = array.is_null().to_numpy(zero_copy_only=False)
    unit = UNITS[kind.unit] if hasattr(kind, "unit") else UNITS["ms"]
    if pa.types.is_date(kind):
        days = pc.fill_null(array.cast(pa.date32()).cast(pa.int32()), 0).to_numpy().astype(np.int64)
        return Instants(days, np.zeros_like(days), np.zeros_like(days)), missing
    counts = pc.fill_null(array.cast(pa.int32() if kind.bit_width == 32 else pa.int64()), 0).to_numpy().astype(np.int64)
    zero = np.zeros_like(counts)
    if pa.types.is_timestamp(kind):
        days, rest = np.divmod(counts, DAY // unit)
        return Instants(days, rest * unit, zero), missing
    return Instants(zero, counts * unit, zero), missing


def read_cells(array: pa.Array, column: Column, tokens: tuple[str, ...]) -> Cells:
    """Read the cells of a column as what is learned of them.

    Arguments:
        array: The cells.
        column: The card's entry.
        tokens: Texts that mean "missing" in every column.
    """
    tokens = (*tokens, *column.missing)
    if column.type == "categorical":
        return codes(array, list(column.categories), tokens)
    if column.type in ("datetime", "duration"):
        return _instants(array, column, tokens)
    if column.type == "several":
        return _several(array, column, tokens)
    if column.format and not is_plain(column.format):
        return _formatted(array, column, tokens)
    return numbers(array, integer=column.type == "integer", tokens=tokens)


def _formatted(array: pa.Array, column: Column, tokens: tuple[str, ...]) -> Cells:
    missing: Counter[str] = Counter()
    texts, broken = _known_texts(array, tokens, missing)
    values, bad = format_of("number", column.format).read(texts)
    if column.type == "integer":
        bad |= (values[:, 0] != np.floor(values[:, 0])) & ~np.isnan(values[:, 0])
    values[bad] = np.nan
    return Cells(values[:, 0], bad | broken, "not a number", f"a number written as {column.format}", missing)


def _several(array: pa.Array, column: Column, tokens: tuple[str, ...]) -> Cells:
    missing: Counter[str] = Counter()
    texts, broken = _known_texts(array, tokens, missing)
    values, bad = format_of("several", column.format).read(texts)
    return Cells(values, bad | broken, "not several numbers", f"numbers written as {column.format}", missing)


def _instants(array: pa.Array, column: Column, tokens: tuple[str, ...]) -> Cells:
    missing: Counter[str] = Counter()
    form = format_of(column.type, column.format, column.parts)
    if is_temporal(array.type):
        when, absent = native_instants(array)
        missing.update({"null": int(absent.sum())} if absent.any() else {})
        values, wrong = parts_of(when, form.parts)  # pyright: ignore[reportAttributeAccessIssue]
        values[absent | wrong] = np.nan
        bad = wrong & ~absent
    else:
        texts, broken = _known_texts(array, tokens, missing)
        values, bad = form.read(texts)
        bad |= broken
    learned = ", ".join(column.parts)
    expected = f"one that {column.format or 'its type'} and the parts {learned} can say"
    return Cells(values, bad, f"not a {'date or time' if column.type == 'datetime' else 'duration'}", expected, missing)


def _known_texts(
    array: pa.Array, tokens: tuple[str, ...], missing: Counter[str]
) -> tuple[list[str | None], NDArray[np.bool_]]:
    """Trimmed texts, `None` where missing, and which are no text at all."""
    broken = not_utf8(array)
    trimmed = pc.utf8_trim_whitespace(as_text(array))
    absent = pc.or_(pc.is_null(trimmed), pc.is_in(trimmed, value_set=pa.array(tokens, pa.string())))
    _count(trimmed.filter(pc.and_(absent, pa.array(~broken))), missing)
    return pc.if_else(absent, None, trimmed).to_pylist(), broken


def _count(texts: pa.Array, missing: Counter[str]) -> None:
    for item in pc.value_counts(texts).to_pylist():
        missing[item["values"] or ""] += item["counts"]
