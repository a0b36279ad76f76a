"""What the cells of a column hold, counted batch by batch in flat memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import MISSING
from data.formats import Instants, InstantsSeen
from data.readers.columns import (
    NUMBER,
    as_floats,
    as_text,
    is_readable,
    is_temporal,
    is_text,
    native_instants,
    not_utf8,
)
from data.readers.date_patterns import Candidate, candidates
from data.readers.texts import Order, Texts

SHAPES = 512
BITS = 1 << 22
DATES_AS_NUMBERS = (
    (190001, 210012), (19000101, 21001231), (190001010000, 210012312359), (19000101000000, 21001231235959),
)  # fmt: skip
"""Between which numbers 202102, 20210228, 202102281530 and 20210228153000 lie."""


@dataclass(kw_only=True, slots=True)
class CellScan:
    """What a column was seen to hold.

    Arguments:
        name: Of the column.
        kind: Its type in the source.
        limit: Distinct values are counted up to so many.
        marks: Texts that mean "not known" wherever they stand.
    """

    name: str
    kind: pa.DataType
    limit: int
    marks: tuple[str, ...] = MISSING
    cells: int = 0
    known: int = 0
    broken: int = 0
    numeric: int = 0
    whole: bool = True
    exact: bool = True
    low: float = math.inf
    high: float = -math.inf
    decimals: int = 0
    infinite: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    values: Counter[str] | None = field(default_factory=Counter)
    shapes: Counter[str] | None = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    row_of: dict[str, int] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)
    order: Order = field(default_factory=Order)
    dates: list[Candidate] | None = None
    instants: InstantsSeen = field(default_factory=InstantsSeen)
    bits: NDArray[np.uint8] | None = None

    def add(self, array: pa.Array, rows: NDArray[np.int64]) -> None:
        """Note the cells of a batch."""
        self.cells += len(array)
        if is_temporal(self.kind):
            when, missing = native_instants(array)
            self.known += int((~missing).sum())
            self._missing("", int(missing.sum()))
            keep = ~missing
            self.instants.add(Instants(when.days[keep], when.clock[keep], when.offset[keep]))
            return
        if not is_readable(self.kind):
            self.known += len(array) - array.null_count
            return
        if is_text(self.kind) or pa.types.is_dictionary(self.kind):
            self._add_text(array, rows)
        else:
            self._add_native(array, rows)

    def _missing(self, mark: str, count: int) -> None:
        if count:
            self.missing[mark] += count

    def _add_native(self, array: pa.Array, rows: NDArray[np.int64]) -> None:
        kind = array.type
        if pa.types.is_boolean(kind):
            values = array.cast(pa.int8()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        else:
            values = as_floats(array)
        absent = np.isnan(values)
        self._missing("null", array.null_count)
        self._missing("nan", int(absent.sum()) - array.null_count)
        self.infinite += int(np.isinf(values).sum())
        good = values[np.isfinite(values)]
        self._numbers(good)
        if pa.types.is_integer(kind) and self.exact and array.null_count < len(array):
            bounds = pc.min_max(array).as_py()
            self.exact = bounds["min"] >= -(2**53) and bounds["max"] <= 2**53
        while self.decimals < 9 and len(good) and not _rounded(good, self.decimals):
            self.decimals += 1
        self.order.add(good if self.whole else good[:0], whole=self.whole)
        if self.values is not None or self.whole:
            self._distinct(pc.value_counts(as_text(array).drop_null()))
        if self.whole and any(low <= self.low <= self.high <= high for low, high in DATES_AS_NUMBERS):
            counted = pc.value_counts(as_text(array).drop_null())
            self._dates(counted.field("values").to_pylist(), counted.field("counts").to_pylist())

    def _numbers(self, good: NDArray[np.float64]) -> None:
        self.numeric += len(good)
        self.known += len(good)
        if len(good):
            self.whole &= bool((good == np.floor(good)).all())
            self.exact &= bool((np.abs(good) <= 2**53).all())
            self.low, self.high = min(self.low, float(good.min())), max(self.high, float(good.max()))

    def _add_text(self, array: pa.Array, rows: NDArray[np.int64]) -> None:
        broken = not_utf8(array)
        self.broken += int(broken.sum())
        text = as_text(array)
        self._missing("", text.null_count - int(broken.sum()))
        trimmed = pc.utf8_trim_whitespace(text)
        absent = pc.is_in(trimmed, value_set=pa.array(self.marks, pa.string()))
        for item in pc.value_counts(trimmed.filter(absent)).to_pylist():
            self._missing(item["values"], item["counts"])
        keep = pc.and_(pc.is_valid(text), pc.invert(absent))
        known, trimmed = text.filter(keep), trimmed.filter(keep)
        self.known += len(known)
        if not len(known):
            return
        self.texts.add(trimmed)
        counts = pc.value_counts(known)
        self._distinct(counts)
        counted = pc.value_counts(trimmed)
        texts, weights = counted.field("values"), counted.field("counts").to_numpy()
        self._shapes(texts, weights, rows, keep, trimmed)
        numeric = pc.match_substring_regex(texts, NUMBER)
        plain = pc.replace_substring_regex(texts.filter(numeric), r"^\+", "").cast(pa.float64())
        good = plain.to_numpy(zero_copy_only=False)
        weights = weights[numeric.to_numpy(zero_copy_only=False)]
        self.infinite += int(weights[np.isinf(good)].sum())
        good, weights = good[np.isfinite(good)], weights[np.isfinite(good)]
        before = self.known
        self._numbers(good)
        self.numeric += int(weights.sum()) - len(good)
        self.known = before
        if self.numeric == self.known and self.whole:
            self.order.add(_as_numbers(trimmed), whole=True)
        if self.dates or self.dates is None:
            self._dates(texts.to_pylist(), counted.field("counts").to_pylist())

    def _distinct(self, counts: pa.StructArray) -> None:
        values, weights = counts.field("values"), counts.field("counts")
        if self.values is not None:
            for value, count in zip(values.to_pylist(), weights.to_pylist(), strict=True):
                self.values[value] += count
            if len(self.values) > self.limit:
                self.bits = np.zeros(BITS // 8, np.uint8)
                self._mark(self.values)
                self.values = None
        else:
            self._mark(values.to_pylist())

    def _mark(self, values: Iterable[str]) -> None:
        assert self.bits is not None
        place = np.array([crc32(value.encode()) for value in values], np.uint32) % BITS
        np.bitwise_or.at(self.bits, place >> 3, np.uint8(1) << (place & 7).astype(np.uint8))

    @property
    def distinct(self) -> int:
        """How many distinct values there are; beyond the limit an estimate (linear counting)."""
        if self.values is not None:
            return len(self.values)
        assert self.bits is not None
        empty = BITS - int(np.unpackbits(self.bits).sum())
        return min(self.known, round(-BITS * math.log(max(empty, 1) / BITS)))

    def _shapes(
        self, texts: pa.Array, weights: NDArray[np.int64], rows: NDArray[np.int64], keep: pa.Array, trimmed: pa.Array
    ) -> None:
        if self.shapes is None:
            return
        shape = pc.replace_substring_regex(texts, r"\b0([0-9])", r"z\1")
        shape = pc.replace_substring_regex(shape, r"[0-9]", "9").dictionary_encode()
        if len(shape.dictionary) > SHAPES:
            self.shapes = None
            return
        totals = np.bincount(shape.indices.to_numpy(), weights=weights, minlength=len(shape.dictionary))
        first = np.full(len(shape.dictionary), -1)
        codes = shape.indices.to_numpy()
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        for code, name in enumerate(shape.dictionary.to_pylist()):
            if name not in self.shapes:
                self.samples[name] = texts[int(first[code])].as_py()
                if len(self.row_of) < 64:
                    where = pc.index(trimmed, self.samples[name]).as_py()
                    self.row_of[name] = int(rows[np.flatnonzero(keep.to_numpy(zero_copy_only=False))[where]])
            self.shapes[name] += int(totals[code])
        if len(self.shapes) > SHAPES:
            self.shapes = None

    def _dates(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Narrow down the formats of dates and times that the column may have."""
        if self.dates is None:
            self.dates = candidates(texts[:400])
        for candidate in list(self.dates):
            candidate.add(texts, counts)
            if candidate.hopeless:
                self.dates.remove(candidate)


def _rounded(values: NDArray[np.float64], decimals: int) -> bool:
    return bool((np.round(values, decimals) == values).all())


def _as_numbers(texts: pa.Array) -> NDArray[np.float64]:
    return pc.replace_substring_regex(texts, r"^\+", "").cast(pa.float64()).to_numpy(zero_copy_only=False)
