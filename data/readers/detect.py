"""What kind of thing a column holds and how it is written, found from all of its cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from data.cards import Column
from data.formats import DateTimeFormat, NumberFormat, Part, fitting_parts
from data.readers.base import natural_sorted
from data.readers.columns import NUMBER, is_numeric, is_readable, is_temporal, is_text, type_name
from data.readers.date_patterns import FEWEST
from data.readers.number_patterns import NumberPattern
from data.readers.scan import CellScan
from data.readers.several_patterns import several_numbers
from data.readers.texts import EVIDENT, NO_DATE, ODD_TEXTS, PUNCTUATION, shape_of

ODD_SHARE = 0.01
BEYOND = re.compile(r"[<>≤≥]=?\s*\d[\d.,]*")
NOT_KNOWN = re.compile(r": ?[a-z]{1,3}|#{3,}")
"""Eurostat's mark of a missing number with the reason; what Excel shows where a column is too narrow."""
SEVERAL = 100
"""Distinct cells of several numbers, above which these are learned and no categories."""
VARIED = 10
"""Distinct numbers that there must be where most cells mean "not known"."""
FEW_BEYOND = 3
"""Bounds beyond which a laboratory does not measure (`<0.01`), of one column."""
STAND_IN = re.compile(r"-9+(\.0+)?|9{2,}(\.0+)?")
"""What is written for a number that is not known, where all cells must be numbers: -9, -999, 99, 9999.0."""
FAR = 3
"""By how many times the range of all other numbers such a one lies beyond them."""
MANY = 20
HOURS = 6
"""Hours of the day that times without a mark (0830) must be of, to be told from other codes."""
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


@dataclass(kw_only=True, slots=True)
class ColumnScan(CellScan):
    """What a column is, by what it was seen to hold.

    Arguments:
        comma: Whether other columns of the file have a decimal comma: 1.234 is then a thousand, and 1,234 is little.
    """

    comma: bool = False

    @property
    def has_comma(self) -> bool:
        """Whether its numbers have a comma before their decimals, that can be none between thousands."""
        if self.shapes is None or not self._is_text:
            return False
        pattern, _ = NumberPattern.guess(self.shapes, self.samples)
        return bool(pattern) and NumberFormat(pattern).point == ","

    @property
    def categories(self) -> tuple[str, ...]:
        """Distinct values in natural order, those that mean "missing" aside; beside a `+`, a `-` means something."""
        known = [value for value in self.values or () if value.strip() not in PUNCTUATION]
        words = not known or any(letter.isalnum() for value in known for letter in value)
        return tuple(natural_sorted(known if words else self.values or ()))

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
        plain = [shape for shape in self.shapes or () if re.match(NUMBER, self.samples[shape])]
        lengths = [len(shape.partition(".")[2]) for shape in plain if "e" not in shape.lower()]
        if len(lengths) < len(plain) or not lengths or max(lengths) > 12:
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
            nested = pa.types.is_nested(self.kind)
            why = "lists and objects within cells" if nested else f"type {self.kind}"
            why += " are not learned from" if nested else " is not learned from"
            return Column(name=self.name, type="skip", why=why), []
        kind = self.kind.value_type if pa.types.is_dictionary(self.kind) else self.kind
        stated = is_numeric(kind) and not is_numeric(self.kind) and self.values is not None
        if as_category or pa.types.is_boolean(kind) or stated:
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

    def _odd(
        self, wrong: Counter[str], *, dates: bool = False, around: tuple[str, str] = ("", "")
    ) -> tuple[tuple[str, ...], list[str]] | None:
        """The texts among numbers or dates that mean "not known", and what to say; `None` if they are too many.

        Arguments:
            wrong: The texts that are none.
            dates: Whether they stand among dates.
            around: What stands before and after a number (`$ -`).
        """
        evident = {
            text for text in wrong
            if self._evident(text, around) or (dates and NO_DATE.fullmatch(text))
        }  # fmt: skip
        odd = {text: n for text, n in wrong.items() if text not in evident}
        beyond = {text for text in odd if BEYOND.fullmatch(text)}
        if not dates and len(beyond) <= FEW_BEYOND:
            evident |= beyond
            odd = {text: n for text, n in odd.items() if text not in beyond}
        if odd and (self.known < 100 or len(odd) > ODD_TEXTS or sum(odd.values()) > ODD_SHARE * self.known):
            if dates or len(odd) > 1 or self.distinct <= MANY or any(map(str.isdigit, next(iter(odd)))):
                return None
            evident, odd = evident | set(odd), {}  # one word among many numbers
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
        if self.shapes is None or not self.numeric or self._codes or (self.comma and self._in_thousands):
            return None
        wrong = self._wrong_texts([shape for shape in self.shapes if re.match(NUMBER, self.samples[shape])])
        marks = self._odd(wrong) if wrong is not None else None
        if wrong is None or marks is None or self._outnumbered(wrong):
            return None
        low, high = self._decimals
        stand_ins = self._stand_ins()
        shown = ", ".join(f"{count} × {text!r}" for text, count in stand_ins.items())
        said = [f"taken as missing, for they lie far from all other numbers: {shown}"] if shown else []
        return self._number(
            "" if high == 99 else NumberPattern.of(low, high), (*marks[0], *stand_ins), [*marks[1], *said]
        )

    def _stand_ins(self) -> dict[str, int]:
        """Numbers such as -999 that stand for none: they come again, and lie far from all others."""
        numbers = {text.strip(): n for text, n in (self.values or {}).items() if re.match(NUMBER, text.strip())}
        others = [float(text) for text in numbers if not STAND_IN.fullmatch(text)]
        if len(others) < FEW_BEYOND:
            return {}
        low, high = min(others), max(others)
        return {
            text: count
            for text, count in sorted(numbers.items())
            if STAND_IN.fullmatch(text) and FEW_BEYOND <= count < 0.5 * self.known
            and max(low - float(text), float(text) - high) > FAR * (high - low)
        }  # fmt: skip

    def _outnumbered(self, wrong: Counter[str], around: tuple[str, str] = ("", "")) -> bool:
        """Whether too many cells are no number: most of them, or most though they mean "not known" and few values vary.

        Arguments:
            wrong: The texts that are none.
            around: What stands before and after a number.
        """
        total = sum(wrong.values())
        unknown = sum(n for text, n in wrong.items() if self._evident(text, around))
        few = self.known - total < 0.05 * self.known or self.distinct - len(wrong) < VARIED
        return 2 * (total - unknown) > self.known or (2 * total > self.known and few)

    @staticmethod
    def _evident(text: str, around: tuple[str, str]) -> bool:
        text = text.removeprefix(around[0]).removesuffix(around[1]).strip().casefold()
        return text in EVIDENT or NOT_KNOWN.fullmatch(text) is not None

    @property
    def _in_thousands(self) -> bool:
        """Whether all its numbers could have points between thousands, and some have."""
        shapes = [shape for shape in self.shapes or () if re.match(NUMBER, self.samples[shape])]
        marked = [shape for shape in shapes if "." in shape]
        return bool(marked) and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})?", self.samples[s]) for s in shapes)

    def _number(self, pattern: str, marks: tuple[str, ...], notes: list[str]) -> tuple[Column, list[str]]:
        if self.infinite:
            marks = (*marks, "inf")
            notes = [*notes, f"taken as missing: {self.infinite} infinite numbers"]
        if not self.known:
            return Column(name=self.name, type="constant", why="it has no finite values"), notes
        whole = self.whole and (not self._is_text or (pattern != "" and NumberFormat(pattern).decimals == 0))
        if whole and not marks and self.dates:
            found = self._dated()
            if found is not None:
                return found
        if whole and self._identifies(number=True):
            column, notes = self._identifier(notes)
            return replace(column, missing=marks), notes
        if self.whole and not self.exact and pattern == "0" and not pa.types.is_floating(self.kind):
            why = "its numbers are too large to be exact (above 2^53)"
            if self.values is not None and self.distinct <= 0.5 * self.known:
                return Column(name=self.name, type="categorical", categories=self.categories), [*notes, why]
            return Column(name=self.name, type="identifier", why=why), notes
        if self.distinct == 1 and self.known == self.cells and not marks:
            return self._constant(), notes
        if whole and self.distinct <= 10 and self.cells > 50:
            notes = [*notes, f"only {self.distinct} distinct whole numbers: perhaps `type: categorical`"]
        written = self.whole and pattern == "0.0"  # 12.0, as pandas writes whole numbers among which one is missing
        kind = "integer" if (whole or written) and self.exact else "continuous"
        return Column(name=self.name, type=kind, format=pattern if pattern != "0" else "", missing=marks), notes

    def as_number(self) -> Column:
        """The column as plain numbers, whatever else they may be."""
        low, high = self._decimals if self._is_text else (0, self.decimals if self.decimals < 9 else 99)
        pattern = "" if high == 99 else NumberPattern.of(low, high)
        kind = "integer" if self.whole and (pattern == "0" or not self._is_text) else "continuous"
        return Column(name=self.name, type=kind, format="" if pattern == "0" else pattern)

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
            marks = self._odd(candidate.wrong, dates=candidate.role == "datetime")
            if candidate.pattern == "%H%M" and (not self._codes or len({v[:2] for v in self.values or ()}) < HOURS):
                continue  # years, as 2024 is, or numbers of places
            if marks is not None and candidate.right and self.known >= FEWEST.get(candidate.pattern, 0):
                fitting.append((candidate, *marks))
        if not fitting:
            return None
        if self.values is not None and len(self.values) <= 1:
            return None  # a constant
        candidate, marks, notes = fitting[0]
        others = [c.pattern for c, *_ in fitting[1:] if sorted(c.pattern) == sorted(candidate.pattern)]
        if others:
            notes = [*notes, f"read as {candidate.pattern}; {others[0]} would fit as well"]
        first, several, _ = candidate.final.partition("|")
        if several:
            notes = [*notes, f"its dates are written in several ways ({candidate.final}): they come back as {first}"]
        if candidate.late:
            notes = [*notes, "24:00 comes back as 00:00 of the next day"]
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
        pattern, fits = NumberPattern.guess(self.shapes, self.samples, comma=self.comma)
        if not pattern:
            return None
        wrong, form = self._wrong_texts(fits), NumberFormat(pattern)
        marks = self._odd(wrong, around=form.around) if wrong is not None else None
        if wrong is None or marks is None or self._outnumbered(wrong, form.around):
            return None
        named = ID_NAME.search(self.name) or ID_TAIL.search(self.name)
        if named and form.decimals == 0 and self._identifies(number=False):
            return self._identifier(marks[1])
        if self.values is not None and len(self.values) == 1 and self.known == self.cells:
            return self._constant(), []
        kind = "integer" if form.decimals == 0 else "continuous"
        flags = form.FLAGS.search(pattern)
        said = [f"marks after its numbers are not kept: {flags[1].replace('|', ',')}"] if flags else []
        return Column(name=self.name, type=kind, format=pattern, missing=marks[0]), [*marks[1], *said]

    # Text

    @property
    def _grouped_digits(self) -> bool:
        """Whether all are digits in the same groups, as numbers of cards, accounts and telephones are."""
        forms = {shape.replace("z", "9") for shape in self.shapes or ()}
        return len(forms) == 1 and re.fullmatch(r"[+(]?9+([ .()-]+9+)+", next(iter(forms))) is not None

    def _identifies(self, *, number: bool) -> bool:
        """Whether every row (or nearly) has its own value, and the values look like names of rows."""
        if self.known < 10 or self.distinct < 0.95 * self.known:
            return False
        named = bool(ID_NAME.search(self.name) or ID_TAIL.search(self.name))
        if not number:
            return named or self.texts.like_codes or self._grouped_digits
        if YEAR_NAME.search(self.name) and 1000 <= self.low <= self.high <= 2200:
            return False
        if pa.types.is_floating(self.kind):
            return named
        dense = self.high - self.low < 2 * self.known and self.distinct >= 0.99 * self.known and self.known >= 20
        counts = self.order.steady and self.numeric == self.known
        return named or counts or dense

    def _identifier(self, notes: list[str]) -> tuple[Column, list[str]]:
        blank = not self.name.strip() or INDEX_NAME.match(self.name.strip())
        if self.order.steady and self.order.step == 1 and self.order.first in (0, 1) and blank:
            return Column(name=self.name, type="index", why="it counts the rows"), notes
        unique = "every row has" if self.distinct >= self.known else "nearly every row has"
        return Column(name=self.name, type="identifier", why=f"{unique} a value of its own"), notes

    def _text(self, notes: list[str]) -> tuple[Column, list[str]]:
        named = ID_NAME.search(self.name) or ID_TAIL.search(self.name)
        if not named and self.shapes is not None and self.known >= MANY and self.distinct > 0.2 * self.known:
            pattern = several_numbers(self.shapes, self.samples)
            if pattern and (self.distinct > SEVERAL or self._lost(notes)):
                return Column(name=self.name, type="several", format=pattern), notes
        return self._words(notes)

    def _lost(self, notes: list[str]) -> bool:
        """Whether a column of texts would not be learned."""
        return self._words(notes)[0].type in ("text", "identifier")

    def _words(self, notes: list[str]) -> tuple[Column, list[str]]:
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
