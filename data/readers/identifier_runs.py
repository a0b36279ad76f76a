"""Identifiers that are the same text around numbers of their own (`user12@example.org`, `10.0.7.12`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BITS = 1 << 21
MOST = 8
KEPT = 256
FEWEST = 1000
"""Identifiers that there must be room for."""


@dataclass(kw_only=True, slots=True)
class RunsSeen:
    """The numbers within a column of identifiers, as long as all have the same text around them.

    The numbers up to each place are marked in a table of bits by a hash: a start whose bit is not set was never seen.
    """

    texts: list[str] | None = None
    low: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    high: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    lengths: list[set[int]] = field(default_factory=list)
    padded: set[int] = field(default_factory=set)
    starts: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, BITS), np.bool_))
    hopeless: bool = False

    def add(self, texts: pa.Array) -> None:
        """Note the identifiers of a batch."""
        if self.hopeless or not len(texts):
            return
        if self.texts is None:
            self.texts = re.split(r"\d+", texts[0].as_py())
            runs = len(self.texts) - 1
            self.low, self.high = np.full(runs, 2**62), np.full(runs, -1)
            self.lengths, self.starts = [set() for _ in range(runs)], np.zeros((runs, BITS), np.bool_)
            self.hopeless = not 0 < runs <= MOST
            if self.hopeless:
                return
        pattern = "".join(rf"{re.escape(text)}(?P<n{i}>\d+)" for i, text in enumerate(self.texts[:-1]))
        found = pc.extract_regex(texts, f"^{pattern}{re.escape(self.texts[-1])}$")
        if found.null_count:
            self.hopeless = True
            return
        code = np.full(len(texts), 7, np.uint64)
        for place, cells in enumerate(found.flatten()):
            sizes = pc.utf8_length(cells)
            if pc.max(sizes).as_py() > 17:
                self.hopeless = True
                return
            self.lengths[place] |= set(sizes.unique().to_pylist())
            if pc.any(pc.match_substring_regex(cells, r"^0\d")).as_py():
                self.padded.add(place)
            numbers = cells.cast(pa.int64()).to_numpy(zero_copy_only=False)
            self.low[place] = min(self.low[place], numbers.min())
            self.high[place] = max(self.high[place], numbers.max())
            code = mixed(code, numbers.astype(np.uint64))
            self.starts[place, code % np.uint64(BITS)] = True

    @property
    def varying(self) -> bool:
        """Whether all have the same text around numbers, of which some have more digits than others."""
        return not self.hopeless and any(self.texts or ()) and any(len(sizes) > 1 for sizes in self.lengths)

    def fresh(self) -> dict[str, Any]:
        """The arguments of `data.formats.IdentifierFormat`; none where there is no room for fresh ones."""
        if self.hopeless or not self.texts or any(len(self.lengths[place]) > 1 for place in self.padded):
            return {}
        widest = int((self.high - self.low).argmax())
        digits = max(self.lengths[widest])
        within = self._within(self.high)
        for more in (0, 1):  # else the widest number goes on: over all of as many digits, then of one more
            if within or (more and widest in self.padded):
                break
            high = self.high.copy()
            high[widest] = 10 ** (digits + more) - 1
            within = self._within(high)
        return within

    def _within(self, high: NDArray[np.int64]) -> dict[str, Any]:
        """The same, where no number is above these."""
        widths = [next(iter(sizes)) if place in self.padded else 1 for place, sizes in enumerate(self.lengths)]
        random = np.random.default_rng(0)
        for count in range(1, len(high) + 1):
            drawn = random.integers(self.low[:count], high[:count] + 1, size=(16 * KEPT, count))
            code = np.full(len(drawn), 7, np.uint64)
            for place in range(count):
                code = mixed(code, drawn[:, place].astype(np.uint64))
            unseen = np.unique(drawn[~self.starts[count - 1, code % np.uint64(BITS)]], axis=0)
            rest = np.prod((high[count:] - self.low[count:] + 1).astype(np.float64))
            if len(unseen) >= 4 and len(unseen) * rest >= FEWEST:
                kept = np.sort(random.permutation(len(unseen))[: KEPT if count < len(high) else len(unseen)])
                ranges = [[int(low), int(top), width] for low, top, width in zip(self.low, high, widths, strict=True)]
                return {"texts": self.texts, "ranges": ranges, "unused": unseen[kept].tolist()}
        return {}


def mixed(code: NDArray[np.uint64], value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of what was before and a further value, `[n]`."""
    code = (code ^ value) * np.uint64(0x9E3779B97F4A7C15)
    return code ^ (code >> np.uint64(29))
