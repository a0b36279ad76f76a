"""What the texts of a column have in common, and which of them mean "not known"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EVIDENT = {
    "-", "--", "---", "–", "—", "?", "??", ".", "..", "...", "*", "unknown", "unk", "missing", "none", "nil", "na",
    "n.a.", "n/a", "n/d", "nd", "n.d.", "not available", "not applicable", "not known", "no data", "not reported",
    "tbd", "tbc", "tba", "k.a.", "keine angabe", "unbekannt", "inconnu", "desconocido", "s/d",
    "(null)", "\\n", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!", "inf", "+inf",
    "-inf", "infinity", "-infinity",
    "+infinity", "nan", "null", "<null>", "undefined", "unspecified", "blank", "(blank)", "empty", "x",
    "(x)", "(d)", "(s)", "(z)", "(na)", "suppressed", "withheld", "confidential", *("*" * n for n in range(2, 7)),
    ":", *(f".{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
}  # fmt: skip
"""Texts that mean "not known" where all other cells are numbers or dates, in small letters."""
NO_DATE = re.compile(r"0[0:/.\- T]*|9[9:/.\- T]*")
"""What stands for "no date" among dates: 0000-00-00, 99/99/9999."""
PUNCTUATION = ("-", "--", "---", "–", "—", "?", "??", "...", "\\N")
"""Texts that mean "not known" in any column."""
ODD_TEXTS = 20


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
