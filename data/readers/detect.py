"""What kind of thing a column holds and how it is written, found from all of its cells."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cards import MISSING, Column
from data.formats import (
    DURATIONS,
    DateTimeFormat,
    DurationFormat,
    Instants,
    InstantsSeen,
    NumberFormat,
    Part,
    fitting_parts,
    is_plain,
)
from data.readers.base import natural_sorted
from data.readers.columns import (
    NUMBER,
    as_text,
    is_numeric,
    is_readable,
    is_temporal,
    is_text,
    native_instants,
    not_utf8,
    type_name,
)

EVIDENT = {
    "-", "--", "---", "–", "—", "?", "??", ".", "..", "...", "*", "unknown", "unk", "missing", "none", "nil", "na",
    "n.a.",    "n/a", "n/d", "nd", "n.d.", "not available", "not applicable", "not known", "no data", "not reported",
    "tbd", "(null)",    "\\n", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!", "inf", "+inf",
    "-inf", "infinity", "-infinity",
    "+infinity", "nan", "null", "<null>", "undefined", "unspecified", "blank", "(blank)", "empty", "x",
}  # fmt: skip
"""Texts that mean "not known" where all other cells are numbers or dates, in small letters."""
PUNCTUATION = ("-", "--", "---", "–", "—", "?", "??", "...")
"""Texts that mean "not known" in any column."""
SHAPES = 512
ODD_SHARE = 0.01
ODD_TEXTS = 20
ID_NAME = re.compile(
    r"(^|[^a-z])(id|ids|uid|uuid|guid|key|no|nr|num|number|index|idx|serial|sku|isbn|ssn|iban|account|phone|tel|e-?mail|"
    r"url|hash|token)([^a-z]|$)",
    re.IGNORECASE,
)
ID_TAIL = re.compile(r"[a-z0-9](ID|Id)$")
INDEX_NAME = re.compile(
    r"(?i)^(unnamed(: ?\d+)?|index|idx|row ?(names?|numbers?|id)?|rownames|level_0|#|nr\.?|x\.?\d*)$"
)
YEAR_NAME = re.compile(r"(?i)year|jahr|année|anno|date|time|^t$")
BITS = 1 << 22
CODES = (
    r"AED|ARS|AUD|BDT|BGN|BHD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|GHS|HKD|HRK|"
    r"HUF|IDR|ILS|INR|ISK|JOD|JPY|KES|KRW|KWD|KZT|LKR|MAD|MXN|MYR|NGN|NOK|NZD|OMR|PEN|PHP|PKR|PLN|QAR|"
    r"RMB|RON|RSD|RUB|SAR|SEK|SGD|THB|TND|TRY|TWD|TZS|UAH|UGX|USD|UYU|VND|XAF|XOF|ZAR"
)
"""Currencies by their code: other letters before a number are part of a name (ORD-1001)."""
CURRENCIES = re.compile(
    r"[^\w\s.,%()+\-−'’/#:;@&*<>=~\"\d]{1,2}|[A-Z]{1,3}[$€£¥]|R\$|Rs\.?|kr\.?|Fr\.?|zł|Kč|Ft|лв|" + CODES
)


@dataclass(kw_only=True, slots=True)
class ColumnScan:
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
    texts: Texts = field(default_factory=lambda: Texts())
    order: Order = field(default_factory=lambda: Order())
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
            values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
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
        if self.whole and 1_9000_000 < self.low <= self.high < 2_1010_000:
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

    # What it is

    @property
    def categories(self) -> tuple[str, ...]:
        """Distinct values in natural order, those that mean "missing" aside."""
        return tuple(natural_sorted(value for value in self.values or () if value.strip() not in PUNCTUATION))

    @property
    def dtype(self) -> str:
        """The original type, as a DataFrame names it."""
        if not pa.types.is_binary(self.kind):
            return type_name(self.kind)
        if self.numeric and self.numeric == self.known and not self._codes:
            return "int64" if self.whole and self._decimals == (0, 0) else "float64"
        return "string"

    @property
    def _codes(self) -> bool:
        """Whether there are numbers with leading zeros: codes, no quantities."""
        return any(re.match(r"[+-]?z9*$", shape) for shape in self.shapes or ())

    @property
    def _decimals(self) -> tuple[int, int]:
        """The fewest and the most decimals of plain numbers in text."""
        lengths = [
            len(shape.partition(".")[2])
            for shape in self.shapes or ()
            if re.match(NUMBER, self.samples[shape]) and "e" not in shape.lower()
        ]
        if any("e" in shape.lower() for shape in self.shapes or ()) or not lengths or max(lengths) > 12:
            return (0, 99)
        return min(lengths), max(lengths)

    def column(self, *, as_category: bool = False) -> tuple[Column, list[str]]:
        """The column's description as a card has it, and what a person should know about it."""
        if is_temporal(self.kind):
            return self._temporal()
        if self.broken > ODD_SHARE * self.cells:
            why = f"{self.broken} of {self.cells} cells are no text: binary data"
            return Column(name=self.name, type="skip", why=why), []
        if not self.known and not self.infinite:
            return Column(name=self.name, type="constant", why="it has no values"), []
        if not is_readable(self.kind):
            why = f"type {self.kind} is not learned from"
            return Column(name=self.name, type="skip", why=why), []
        kind = self.kind.value_type if pa.types.is_dictionary(self.kind) else self.kind
        if as_category or pa.types.is_boolean(kind):
            return self._category([], role=as_category)
        for found in (self._plain(), self._dated(), self._formatted()):
            if found is not None:
                return found
        notes = []
        if self.numeric:
            first = next((s for s in self.shapes or () if not re.match(NUMBER, self.samples[s])), None)
            where = f", the first that is none in row {self.row_of[first]}: {self.samples[first]!r}" if (
                first is not None and first in self.row_of
            ) else ""  # fmt: skip
            if self._codes:
                notes.append("numbers with leading zeros are codes, kept as text")
            elif self.numeric < self.known:
                notes.append(f"{self.numeric} of {self.known} cells are numbers{where}: taken as text")
        return self._text(notes)

    def _odd(self, wrong: Counter[str]) -> tuple[tuple[str, ...], list[str]] | None:
        """The texts among numbers or dates that mean "not known", and what to say; `None` if they are too many."""
        evident = {text for text in wrong if text.casefold() in EVIDENT}
        odd = {text: n for text, n in wrong.items() if text not in evident}
        if odd and (self.known < 100 or len(odd) > ODD_TEXTS or sum(odd.values()) > ODD_SHARE * self.known):
            return None
        notes = []
        if evident:
            shown = ", ".join(f"{wrong[text]} × {text!r}" for text in sorted(evident))
            notes.append(f"taken as missing: {shown}")
        if odd:
            shown = ", ".join(f"{n} × {text!r}" for text, n in odd.items())
            notes.append(f"all other cells fit, so taken as missing: {shown}")
        return tuple(sorted(wrong)), notes

    def _wrong_texts(self, fits: Sequence[str]) -> Counter[str] | None:
        """The texts whose shape is none of these; `None` where there are too many to tell."""
        assert self.shapes is not None
        other = {shape for shape in self.shapes if shape not in fits}
        if not other:
            return Counter()
        if self.values is None:
            return Counter({self.samples[shape]: self.shapes[shape] for shape in other if "9" not in shape}) if all(
                "9" not in shape for shape in other
            ) else None  # fmt: skip
        found: Counter[str] = Counter()
        for text, count in self.values.items():
            if shape_of(text.strip()) in other:
                found[text.strip()] += count
        return found

    def _plain(self) -> tuple[Column, list[str]] | None:
        """The column as plain numbers."""
        if is_numeric(self.kind):
            return self._number("" if self.decimals > 8 else NumberPattern.of(0, self.decimals), (), [])
        if self.shapes is None or not self.numeric or self._codes:
            return None
        wrong = self._wrong_texts([shape for shape in self.shapes if re.match(NUMBER, self.samples[shape])])
        marks = self._odd(wrong) if wrong is not None else None
        if wrong is None or marks is None or sum(wrong.values()) * 2 > self.known:
            return None
        low, high = self._decimals
        return self._number("" if high == 99 else NumberPattern.of(low, high), *marks)

    def _number(self, pattern: str, marks: tuple[str, ...], notes: list[str]) -> tuple[Column, list[str]]:
        if self.infinite:
            marks = (*marks, "inf")
            notes = [*notes, f"taken as missing: {self.infinite} infinite numbers"]
        if not self.known:
            return Column(name=self.name, type="constant", why="it has no finite values"), notes
        whole = self.whole and (not pattern or NumberFormat(pattern).decimals == 0 or not self._is_text)
        if whole and not marks and self.dates:
            found = self._dated()
            if found is not None:
                return found
        if whole and self._identifies(number=True):
            return self._identifier(notes)
        if self.whole and not self.exact:
            why = "its numbers are too large to be exact (above 2^53)"
            if self.values is not None and self.distinct <= 0.5 * self.known:
                return Column(name=self.name, type="categorical", categories=self.categories), [*notes, why]
            return Column(name=self.name, type="identifier", why=why), notes
        if self.distinct == 1 and self.known == self.cells and not marks:
            return self._constant(), notes
        if whole and self.distinct <= 10 and self.cells > 50:
            notes = [*notes, f"only {self.distinct} distinct whole numbers: perhaps `type: categorical`"]
        kind = "integer" if whole else "continuous"
        return Column(name=self.name, type=kind, format=pattern if pattern != "0" else "", missing=marks), notes

    @property
    def _is_text(self) -> bool:
        return is_text(self.kind)

    def _constant(self) -> Column:
        assert self.values is not None
        value = next(iter(self.values))
        return Column(name=self.name, type="constant", categories=(value,), why="it has a single value")

    def _dated(self) -> tuple[Column, list[str]] | None:
        """The column as dates, times or durations."""
        fitting = []
        for candidate in self.dates or ():
            marks = self._odd(candidate.wrong)
            if marks is not None and candidate.right:
                fitting.append((candidate, *marks))
        if not fitting:
            return None
        if self.values is not None and len(self.values) <= 1:
            return None  # a constant
        candidate, marks, notes = fitting[0]
        others = [c.pattern for c, *_ in fitting[1:] if sorted(c.pattern) == sorted(candidate.pattern)]
        if others:
            notes = [*notes, f"read as {candidate.pattern}; {others[0]} would fit as well"]
        form = candidate.form
        if candidate.role == "duration":
            parts = (Part("duration", step=max(1, candidate.seen.step)),)
        else:
            assert isinstance(form, DateTimeFormat)
            parts = fitting_parts(candidate.seen, dated=form.dated, timed=form.timed, zoned=form.zoned)
        column = Column(
            name=self.name, type=candidate.role, format=candidate.final, parts=tuple(map(str, parts)), missing=marks
        )
        return column, notes

    def _temporal(self) -> tuple[Column, list[str]]:
        if not self.known:
            return Column(name=self.name, type="constant", why="it has no values"), []
        if pa.types.is_duration(self.kind):
            parts: tuple[Part, ...] = (Part("duration", step=max(1, self.instants.step)),)
            return Column(name=self.name, type="duration", parts=tuple(map(str, parts))), []
        dated = not pa.types.is_time(self.kind)
        parts = fitting_parts(self.instants, dated=dated, timed=not pa.types.is_date(self.kind), zoned=False)
        return Column(name=self.name, type="datetime", parts=tuple(map(str, parts))), []

    def _formatted(self) -> tuple[Column, list[str]] | None:
        """The column as numbers with a currency, a unit, marks between thousands, a decimal comma."""
        if self.shapes is None or not self._is_text:
            return None
        pattern, fits = NumberPattern.guess(self.shapes, self.samples)
        if not pattern:
            return None
        wrong = self._wrong_texts(fits)
        marks = self._odd(wrong) if wrong is not None else None
        if wrong is None or marks is None or sum(wrong.values()) * 2 > self.known:
            return None
        form = NumberFormat(pattern)
        named = ID_NAME.search(self.name) or ID_TAIL.search(self.name)
        if named and form.decimals == 0 and self._identifies(number=False):
            return self._identifier(marks[1])
        if self.values is not None and len(self.values) == 1 and self.known == self.cells:
            return self._constant(), []
        kind = "integer" if form.decimals == 0 else "continuous"
        return Column(name=self.name, type=kind, format=pattern, missing=marks[0]), marks[1]

    # Text

    def _identifies(self, *, number: bool) -> bool:
        """Whether every row (or nearly) has its own value, and the values look like names of rows."""
        if self.known < 10 or self.distinct < 0.95 * self.known:
            return False
        named = bool(ID_NAME.search(self.name) or ID_TAIL.search(self.name))
        if not number:
            return named or self.texts.like_codes
        if YEAR_NAME.search(self.name) and 1000 <= self.low <= self.high <= 2200:
            return False
        if pa.types.is_floating(self.kind):
            return named
        dense = self.high - self.low < 2 * self.known and self.distinct >= 0.99 * self.known and self.known >= 20
        return named or self.order.steady or dense

    def _identifier(self, notes: list[str]) -> tuple[Column, list[str]]:
        blank = not self.name.strip() or INDEX_NAME.match(self.name.strip())
        if self.order.steady and self.order.step == 1 and self.order.first in (0, 1) and blank:
            return Column(name=self.name, type="index", why="it counts the rows"), notes
        unique = "every row has" if self.distinct >= self.known else "nearly every row has"
        return Column(name=self.name, type="identifier", why=f"{unique} a value of its own"), notes

    def _text(self, notes: list[str]) -> tuple[Column, list[str]]:
        if self._identifies(number=False):
            return self._identifier(notes)
        share = self.distinct / max(1, self.known)
        if (share > 0.95 and self.known >= 20) or (share > 0.2 and self.texts.like_prose and self.known >= 20):
            why = "free text: nearly every row has its own" if share > 0.95 else "free text"
            return Column(name=self.name, type="text", why=why), notes
        if self.values is None:
            why = f"free text: more than {self.limit} (max_categories) distinct texts"
            return Column(name=self.name, type="text", why=why), notes
        if self.distinct == 1 and self.known == self.cells:
            return self._constant(), notes
        return self._category(notes)

    def _category(self, notes: list[str], *, role: bool = False) -> tuple[Column, list[str]]:
        if self.values is None:
            why = f"more than {self.limit} distinct texts"
            return Column(name=self.name, type="text", why=why), [*notes, why]
        categories = self.categories
        if not categories:
            return Column(name=self.name, type="constant", why="it has no values"), notes
        aside = Counter({text: n for text, n in self.values.items() if text not in categories})
        if aside:
            notes = [*notes, "taken as missing: " + ", ".join(f"{n} × {text!r}" for text, n in aside.items())]
        once = sum(self.values[text] == 1 for text in categories)
        if once > 20 and 2 * once > len(categories):
            notes = [
                *notes,
                f"{once} of {len(categories)} categories occur once, and are drawn as they are: perhaps `type: text`",
            ]
        if any(value != value.strip() for value in categories):
            notes = [*notes, "some texts have blanks around them, which count as part of the category"]
        marks = tuple(sorted({text.strip() for text in aside}))
        return Column(name=self.name, type="categorical", categories=categories, missing=marks), notes


def _rounded(values: NDArray[np.float64], decimals: int) -> bool:
    return bool((np.round(values, decimals) == values).all())


def _as_numbers(texts: pa.Array) -> NDArray[np.float64]:
    return pc.replace_substring_regex(texts, r"^\+", "").cast(pa.float64()).to_numpy(zero_copy_only=False)


def shape_of(text: str) -> str:
    """A text with a 9 for every digit, a `z` for a leading zero."""
    return re.sub(r"[0-9]", "9", re.sub(r"\b0(?=[0-9])", "z", text))


@dataclass(slots=True)
class Order:
    """Whether whole numbers come in equal steps."""

    first: float = 0.0
    last: float = math.nan
    step: float = math.nan
    steady: bool = True

    def add(self, values: NDArray[np.float64], *, whole: bool) -> None:
        """Note the numbers of a batch in their order."""
        if not whole:
            self.steady = False
        if not self.steady or not len(values):
            return
        if self.last != self.last:
            self.first = float(values[0])
        else:
            values = np.concatenate([[self.last], values])
        steps = np.diff(values)
        if len(steps):
            self.step = float(steps[0]) if self.step != self.step else self.step
            self.steady = self.step != 0 and bool((steps == self.step).all())
        self.last = float(values[-1])


@dataclass(slots=True)
class Texts:
    """How long texts are, and of what they consist."""

    count: int = 0
    length: int = 0
    blanks: int = 0
    digits: int = 0
    lengths: set[int] = field(default_factory=set)

    def add(self, texts: pa.Array) -> None:
        """Note some more."""
        sizes = pc.utf8_length(texts)
        self.count += len(texts)
        self.length += pc.sum(sizes).as_py() or 0
        self.blanks += pc.sum(pc.count_substring(texts, " ")).as_py() or 0
        self.digits += pc.sum(pc.cast(pc.match_substring_regex(texts, r"[0-9@]"), pa.int64())).as_py() or 0
        if len(self.lengths) < 64:
            self.lengths |= set(sizes.unique().to_pylist()[:64])

    @property
    def like_prose(self) -> bool:
        """Whether they are several words long."""
        return self.blanks >= 4 * self.count and self.length >= 25 * self.count

    @property
    def like_codes(self) -> bool:
        """Whether they are single words with digits (or an @), or all of one length."""
        single = self.blanks <= 0.05 * self.count and self.length <= 64 * self.count
        return single and (
            self.digits >= 0.9 * self.count or (len(self.lengths) == 1 and self.length >= 4 * self.count)
        )


# Numbers


class NumberPattern:
    """Finding a number's pattern from the shapes of a column's texts."""

    BODY = re.compile(
        r"(?P<open>\(?)(?P<sign>[+\-−]?)\s?(?P<before>[^\d+\-−()]*?)\s?(?P<sign2>[+\-−]?)"
        r"(?P<body>\d[\d.,' \u00a0\u202f’]*\d|\d|\.\d+)"
        r"(?P<after>[^\d()]*?)(?P<close>\)?)"
    )
    SEPARATORS = (
        ("", "."), (",", "."), ("", ","), (".", ","), (" ", "."), (" ", ","), ("\u00a0", ","), ("\u202f", ","),
        ("\u00a0", "."), ("\u202f", "."), ("'", "."), ("’", "."), ("'", ","),
    )  # fmt: skip

    @staticmethod
    def of(fewest: int, most: int) -> str:
        """The pattern of plain numbers with so many decimals."""
        return "0" + ("." + "0" * fewest + "#" * (most - fewest) if most else "")

    @classmethod
    def guess(cls, shapes: Counter[str], samples: dict[str, str]) -> tuple[str, list[str]]:
        """The pattern that most cells have, and the shapes that fit it; empty when there is none."""
        split: dict[str, re.Match[str]] = {}
        around: Counter[tuple[str, str]] = Counter()
        for shape, count in shapes.items():
            text = samples[shape]
            found = cls.BODY.fullmatch(text)
            if found is None or bool(found["open"]) != bool(found["close"]) or (found["sign"] and found["sign2"]):
                continue
            if not cls._proper(found["before"], found["after"]):
                continue
            split[shape] = found
            around[cls._edges(found)] += count
        if not around:
            return "", []
        edges = around.most_common(1)[0][0]
        mine = {shape: found for shape, found in split.items() if cls._edges(found) == edges}
        if any(re.match(r"z9*$", cls._zeros(found["body"])) for found in mine.values()):
            return "", []
        for sep, dec in cls.SEPARATORS:
            pattern = cls._with(edges, sep, dec, list(mine.values()))
            if pattern and not is_plain(pattern):
                return pattern, list(mine)
        return "", []

    @staticmethod
    def _zeros(body: str) -> str:
        return re.sub(r"\d", "9", re.sub(r"^0(?=\d)", "z", body))

    @staticmethod
    def _proper(before: str, after: str) -> bool:
        before, after = before.strip(), after.strip()
        if before and not CURRENCIES.fullmatch(before):
            return False
        return len(after) <= 12 and not re.search(r"[,;:=@#\"]|^[.\-/_]", after)

    @staticmethod
    def _edges(found: re.Match[str]) -> tuple[str, str]:
        text, at = found.string, found.start("body")
        before = text[:at].lstrip("(").lstrip("+-−")
        before = re.sub(r"[+\-−]", "", before)
        end = found.end("body")
        return before, text[end:].removesuffix(")") if found["open"] else text[end:]

    @classmethod
    def _with(cls, edges: tuple[str, str], sep: str, dec: str, found: list[re.Match[str]]) -> str:
        """The pattern with these separators, empty if a text does not fit it."""
        mark = re.escape(sep)
        whole = rf"(?:\d{{1,3}}(?:{mark}\d{{3}})+|\d{{1,3}})" if sep else r"\d+"
        regex = re.compile(rf"(?:{whole})?(?:{re.escape(dec)}(?P<part>\d+))?")
        lengths = set()
        marked = False
        for item in found:
            fit = regex.fullmatch(item["body"])
            if fit is None:
                return ""
            lengths.add(len(fit["part"] or ""))
            marked |= bool(sep) and sep in item["body"]
        if sep and not marked:
            return ""
        digits = cls.of(min(lengths), max(lengths)).replace(".", dec)
        core = f"#{sep}##{digits}" if sep else digits
        negative = ""
        if any(item["open"] for item in found):
            negative = ";()"
        elif edges[0] and any(item["sign2"] for item in found):
            negative = ";p-"
        if any(letter in "#0" for letter in "".join(edges)) or ";" in "".join(edges):
            return ""
        return f"{edges[0]}{core}{edges[1]}{negative}"


# Dates and times

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%y/%m/%d",
    "%d %b %Y", "%d %B %Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y",
    "%d-%b-%y", "%d %b %y",    "%d/%b/%Y", "%Y-%b-%d", "%a %d %b %Y", "%a, %d %b %Y", "%A, %B %d, %Y",
    "%A, %d %B %Y", "%a %b %d %Y", "%Y%m%d",
    "%Y-%m", "%m/%Y", "%Y/%m", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y-Q%q", "%YQ%q", "Q%q %Y", "%Y Q%q",
)  # fmt: skip
TIME = re.compile(
    r"(?P<H>\d{1,2}):(?P<M>\d{2})(?P<S>:\d{2})?(?P<f>\.\d{1,9})?(?P<p>\s?[AaPp][Mm])?(?P<z>\s?(?:[+-]\d{2}:?\d{2}|Z|UTC|GMT))?$"
)


@dataclass(kw_only=True, slots=True)
class Candidate:
    """A format that a column of dates, times or durations may have.

    Arguments:
        role: `datetime` or `duration`.
        pattern: Of the format.
    """

    role: str
    pattern: str
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seen: InstantsSeen = field(default_factory=InstantsSeen)
    short: bool = False
    short_hours: bool = False
    cases: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    hopeless: bool = False

    @property
    def form(self) -> DateTimeFormat | DurationFormat:
        """The format."""
        return (DateTimeFormat if self.role == "datetime" else DurationFormat)(self.pattern)

    @property
    def final(self) -> str:
        """The pattern, with fields that have no leading zeros marked as such, and names in capital or small letters."""
        if self.role == "duration":
            return self.pattern
        pattern = self.pattern
        if self.short and "%Y%m%d" not in pattern:
            pattern = re.sub(r"%([md])", r"%-\1", pattern)
        if self.short_hours:
            pattern = re.sub(r"%([HI])", r"%-\1", pattern)
        names, noon = (next(iter(found)) if len(found) == 1 else "" for found in self.cases)
        pattern = re.sub(r"%([bBaA])", rf"%{names}\1", pattern)
        return pattern.replace("%p", "%~p") if noon == "~" else pattern

    def add(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Try the format on some texts, each given once with the number of cells that hold it."""
        form = self.form
        when, _, bad = form.instants(texts)
        good = ~bad
        self.right += int(good.sum())
        for index in np.flatnonzero(bad):
            self.wrong[texts[index]] += counts[index]
        if len(self.wrong) > 4 * ODD_TEXTS:
            self.hopeless = True
        self.seen.add(Instants(when.days[good], when.clock[good], when.offset[good]))
        if isinstance(form, DateTimeFormat):
            worded = re.search(r"%[bBaAp]", self.pattern) is not None
            for index in np.flatnonzero(good):
                text = texts[index]
                self.short |= bool(re.search(r"(?<![\d:.])[1-9](?=[/.\- ]\d|\. |[/\- ][A-Za-z]{3}|, )", text))
                self.short_hours |= bool(re.search(r"(?<!\d)\d:\d", text))
                for found, letters in zip(self.cases, form.spelled(text) if worded else ("", ""), strict=True):
                    if letters:
                        found.add("^" if letters.isupper() else "~" if letters.islower() else "")


def candidates(texts: Sequence[str]) -> list[Candidate]:
    """The formats of dates, times and durations that nearly all of some texts have."""
    known = [text for text in texts if text.casefold() not in EVIDENT]
    if not known or sum(any(c.isdigit() for c in text) for text in known) < 0.9 * len(known):
        return []
    patterns: dict[str, None] = {}
    for text in known[:3]:
        patterns.update(dict.fromkeys(_patterns(text)))
    found = [Candidate(role="datetime", pattern=pattern) for pattern in patterns]
    found += [
        Candidate(role="duration", pattern=pattern)
        for base in DURATIONS
        for pattern in dict.fromkeys(base + _fraction(text) for text in known[:3])
    ]
    kept = []
    for candidate in found:
        _, _, bad = candidate.form.instants(known)
        if bad.sum() <= max(0.1 * len(known), 0):
            kept.append(candidate)
    return kept


def _fraction(text: str) -> str:
    found = re.search(r"\.(\d{1,9})S?$", text)
    return "." + "f" * len(found[1]) if found else ""


def _patterns(text: str) -> list[str]:
    """The patterns of dates and times that one text may have."""
    time = TIME.search(text)
    clock, rest = "", text
    if time is not None:
        twelve = bool(time["p"])
        clock = ("%I" if twelve else "%H") + ":%M" + (":%S" if time["S"] else "")
        clock += f".%{len(time['f']) - 1}f" if time["f"] else ""
        clock += (time["p"][:-2] + "%p") if twelve else ""
        zone = time["z"] or ""
        clock += (
            zone
            if zone.strip() in ("Z", "UTC", "GMT")
            else zone[: len(zone) - len(zone.lstrip())] + (("%:z" if ":" in zone else "%z") if zone else "")
        )
        rest = text[: time.start()]
    if not rest.strip():
        return [clock]
    tail = re.search(r"[T, ]+$", rest) if clock else None
    if clock and tail is None:
        return []
    day, between = (rest[: tail.start()], tail[0]) if tail else (rest, "")
    found = []
    for pattern in DATES:
        when = DateTimeFormat(pattern).instant(day)
        if when is not None and when[0] + 719163 >= 1 and (pattern != "%Y%m%d" or -25567 <= when[0] < 47847):
            found.append(pattern + between + clock)
    return found
