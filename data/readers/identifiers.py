"""Identifiers as they are read: enough is kept to draw fresh ones that are none of them, and no more."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.readers.common_text import CommonText
from data.readers.identifier_runs import RunsSeen, mixed

BITS = 1 << 21
LONGEST = 64
STARTS = 16
KEPT = 256
LARGEST = {19: str(2**63 - 1), 20: str(2**64 - 1)}
"""By their number of digits the largest whole numbers that files have types for."""
CLASSES = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    string.ascii_lowercase,
    string.ascii_uppercase,
)


@dataclass(kw_only=True, slots=True)
class IdentifiersSeen:
    """What a column of identifiers has in common.

    A start of an identifier is marked in a table of bits by a hash; a start whose bit is not set was never seen, so
    an identifier that begins with it is fresh for certain.

    Arguments:
        restart: Whether the identifiers count the rows, so that drawn ones begin anew.
    """

    restart: bool = False
    letters: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((LONGEST, 256), np.bool_))
    starts: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((STARTS, BITS), np.bool_))
    length: int = 0
    first: int | None = None
    last: int = 0
    step: int | None = None
    prefix: str = ""
    width: int = 0
    steady: bool = True
    highest: int = 0
    common: CommonText = field(default_factory=CommonText)
    count: int = 0
    runs: RunsSeen = field(default_factory=RunsSeen)
    whole: bool = True

    def add(self, texts: pa.Array) -> None:
        """Note the identifiers of a batch, in their order."""
        texts = pc.utf8_trim_whitespace(texts.drop_null())
        texts = texts.filter(pc.not_equal(texts, ""))
        known = texts.to_pylist()
        if not known:
            return
        self._sequence(known)
        if self.steady:  # a running number is drawn as such
            self.runs.hopeless = True
        self.runs.add(texts)
        self.common.add(known)
        self.count += len(known)
        raw = [text.encode()[:LONGEST] for text in known]
        longest = max(map(len, raw))
        if longest > self.length:
            self.length = longest
            self.letters[:] = False
        same = [text for text in raw if len(text) == self.length]
        for start in range(0, len(same), 1 << 14):
            table = np.frombuffer(b"".join(same[start : start + (1 << 14)]), np.uint8).reshape(-1, self.length)
            for place in range(self.length):
                self.letters[place, table[:, place]] = True
        for start in range(0, len(raw), 1 << 14):
            part = raw[start : start + (1 << 14)]
            wide = np.array(part, f"S{max(longest, 1)}").view(np.uint8).reshape(len(part), -1)
            code = np.full(len(part), 7, np.uint64)
            for place in range(min(STARTS, wide.shape[1])):
                code = mixed(code, wide[:, place].astype(np.uint64))
                self.starts[place, code % np.uint64(BITS)] = True

    def _sequence(self, texts: list[str]) -> None:
        for text in texts:
            head = text.rstrip(string.digits) if len(text) <= LONGEST else text
            digits = text[len(head) :]
            self.prefix = head if self.first is None and not self.prefix else self.prefix
            number = int(digits) if digits else 0
            self.whole &= not head and (text == "0" or text[0] != "0") and len(text) < 19
            if not self.steady:
                continue
            if not digits:
                self.steady = False
            elif self.first is None:
                self.first, self.prefix = number, head
                self.width = len(digits)
            else:
                step = number - self.last
                self.step = step if self.step is None else self.step
                padded = len(digits) == max(self.width, len(str(number)))
                self.steady = step == self.step and step > 0 and head == self.prefix and padded
            self.last = number

    def fresh(self) -> dict[str, Any]:
        """The arguments of `data.formats.IdentifierFormat`."""
        if self.steady and self.first is not None and self.step:
            start = self.first if self.restart else self.last + self.step
            width = self.width if len(str(self.first)) < self.width else 0
            return {"start": start, "step": self.step, "prefix": self.prefix, "width": width}
        found = self.runs.fresh() if self.runs.varying else {}
        if found:
            return found
        if not self.common.addresses:
            for alphabet in (self._alphabet(), self._alphabet(rounded=True)):
                if unused := self._unused(alphabet):
                    return {"alphabet": alphabet, "unused": unused}
            if self.runs.texts and any(self.runs.texts) and (found := self.runs.fresh()):
                return found
            alphabet = self.common.alphabet()
            if unused := self._unused(alphabet):
                return {"alphabet": alphabet, "unused": unused}
        prefix, suffix = self.common.around()
        return {"prefix": prefix, "start": self.common.beyond, "suffix": suffix}

    def _alphabet(self, *, rounded: bool = False) -> list[str]:
        """The letters that may stand at each place: those seen, digits and letters rounded up to their class.

        Letters of which so many identifiers would have more, if they were any of their class, are all there are
        (bases of DNA, the letters of a few words), unless these too are to be rounded up.
        """
        if self.letters[:, 128:].any() or not self.length:
            return []
        seen = [{chr(code) for code in np.flatnonzero(row)} for row in self.letters[: self.length]]
        found = []
        for place, letters in enumerate(seen):
            near = [seen[other] for other in (place - 1, place + 1) if 0 <= other < len(seen)]
            in_number = letters <= set(string.digits) and any(
                other <= set(string.digits) and len(other) > 1 for other in near
            )
            if len(letters) > 1 or in_number:
                kind = next((kind for kind in CLASSES if letters <= set(kind)), "".join(sorted(letters)))
                expected = len(kind) * (1 - (1 - 1 / len(kind)) ** self.count)
                if not rounded and kind != string.digits and len(letters) < 0.5 * expected:
                    found.append("".join(sorted(letters)))
                    continue
                begins = place == 0 or not seen[place - 1] <= set(string.digits)
                first_digit = begins and kind == string.digits and "0" not in letters
                found.append(kind[1:] if first_digit else kind)
            else:
                found.append("".join(letters))
        limit = LARGEST.get(len(found), "") if all(set(letters) <= set(string.digits) for letters in found) else ""
        for place, digit in enumerate(limit):
            below = "".join(letter for letter in found[place] if letter < digit)
            found[place] = below or digit
            if below:
                break
        return found

    def _unused(self, alphabet: list[str]) -> list[str]:
        """Starts that no identifier has, as short as can be."""
        random = np.random.default_rng(0)
        for length in range(1, min(STARTS, len(alphabet)) + 1):
            choices = math.prod(len(letters) for letters in alphabet[:length])
            if choices < 8 and length < len(alphabet):
                continue
            found: dict[str, None] = {}
            for index in range(min(choices, 4 * KEPT)):
                number = index if choices <= 4 * KEPT else int(random.integers(min(choices, 2**62)))
                text = ""
                for letters in reversed(alphabet[:length]):
                    number, digit = divmod(number, len(letters))
                    text = letters[digit] + text
                code = np.full(1, 7, np.uint64)
                for letter in text.encode():
                    code = mixed(code, np.array([letter], np.uint64))
                if not self.starts[length - 1, int(code[0] % np.uint64(BITS))]:
                    found[text] = None
                if len(found) == KEPT:
                    break
            room = len(found) * math.prod(len(letters) for letters in alphabet[length:])
            if len(found) >= 4 and room >= 1000:
                return list(found)
        return []
