"""Identifiers, which are drawn fresh and not learned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class IdentifierFormat:
    """Identifiers: not learned; fresh ones are drawn from their pattern, none that occurred.

    Arguments:
        alphabet: The letters seen at each place of the longest ones.
        unused: Starts of identifiers that no real one has, each as long as the others.
        start, step: Of a running number: what comes after the last, and the difference; step 0 for none.
        prefix, width, suffix: What stands before a running number, its digits with leading zeros, what stands after.
        texts, ranges: Of identifiers that are texts around numbers: the texts, and the least and the greatest of each
            number and its digits with leading zeros; `unused` are then first numbers that no real one begins with.

    Example:
        >>> IdentifierFormat(start=120, step=1, prefix="c-", width=5).draw(2, np.random.default_rng(0))
        ['c-00120', 'c-00121']
    """

    alphabet: tuple[str, ...] = ()
    unused: tuple[Any, ...] = ()
    start: int = 0
    step: int = 0
    prefix: str = ""
    width: int = 0
    suffix: str = ""
    texts: tuple[str, ...] = ()
    ranges: tuple[Sequence[int], ...] = ()

    def draw(self, n: int, random: np.random.Generator) -> list[str]:
        """So many different identifiers that are none of the real ones."""
        if self.step:
            return [f"{self.prefix}{self.start + self.step * i:0{self.width}}" for i in range(n)]
        if not self.unused:
            return [f"{self.prefix}{self.start + i:0{self.width}}{self.suffix}" for i in range(n)]
        if self.texts:
            return self._numbered(n, random)
        rest = self.alphabet[len(self.unused[0]) :]
        room = len(self.unused) * math.prod(len(letters) for letters in rest)
        if n > room // 2:  # lengthen what is full
            longer = [head + str(index) for index, head in enumerate(self._filled(room, random, room))]
            return [f"{longer[i % room]}{i}" for i in range(n)]
        return self._filled(n, random, room)

    def _numbered(self, n: int, random: np.random.Generator) -> list[str]:
        """Texts around numbers; beyond the greatest where there is no room for as many within the ranges."""
        lead = len(self.unused[0])
        low, high, _ = np.array(self.ranges, np.int64).T
        room = len(self.unused) * math.prod((high - low + 1)[lead:].tolist())
        found: dict[tuple[int, ...], None] = {}
        while len(found) < n and n <= room // 2:
            heads = random.integers(len(self.unused), size=n)
            tails = random.integers(low[lead:], high[lead:] + 1, size=(n, len(low) - lead))
            for head, tail in zip(heads.tolist(), tails.tolist(), strict=True):
                found[*self.unused[head], *tail] = None
        rows = list(found)[:n]
        widest = int((high - low).argmax())
        while len(rows) < n:
            rows.append(tuple(int(high[i]) + 1 + len(rows) if i == widest else int(low[i]) for i in range(len(low))))
        return [self._around(row) for row in rows]

    def _around(self, numbers: Sequence[int]) -> str:
        widths = [width for _, _, width in self.ranges]
        pieces = [f"{text}{n:0{width}}" for text, n, width in zip(self.texts[:-1], numbers, widths, strict=True)]
        return "".join(pieces) + self.texts[-1]

    def _filled(self, n: int, random: np.random.Generator, room: int) -> list[str]:
        rest = self.alphabet[len(self.unused[0]) :]
        found: dict[str, None] = {}
        if room <= 2 * n:
            numbers: Iterable[int] = range(min(n, room))
            for number in numbers:
                number, tail = divmod(number, len(self.unused))
                text = self.unused[tail]
                for letters in rest:
                    number, digit = divmod(number, len(letters))
                    text += letters[digit]
                found[text] = None
            return list(found)
        while len(found) < n:
            heads = random.integers(len(self.unused), size=n)
            tails = [random.integers(len(letters), size=n) for letters in rest]
            for i in range(n):
                text = self.unused[heads[i]] + "".join(letters[t[i]] for letters, t in zip(rest, tails, strict=True))
                found[text] = None
                if len(found) == n:
                    break
        return list(found)


def whole_type(numbers: Sequence[int], dtype: str) -> str:
    """The type that holds some whole numbers: their source's, else `int64`, else none (`""`, they are text).

    Fresh identifiers may have more digits than any of the source.
    """
    low, high = min(numbers, default=0), max(numbers, default=0)
    fitting = (name for name in (dtype, "int64") if np.iinfo(name).min <= low and high <= np.iinfo(name).max)
    return next(fitting, "")
