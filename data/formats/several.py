"""Several numbers in one cell, as a pattern writes them: coordinates, pressures, estimates with their bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .numbers import NumberFormat, _read

HOLE = re.compile(r"\{(0(?:\.0*#*)?)\}")


@dataclass(frozen=True)
class SeveralFormat:
    """Several numbers and the text around them.

    Arguments:
        pattern: The text, with the pattern of a number in braces for each: `({0.0000}, {0.0000})`, `{0}/{0}`.

    Example:
        >>> form = SeveralFormat("{0.0} [{0.0}-{0.0#}]")
        >>> form.write(form.read(["54.4 [45.9-69.35]"])[0])
        ['54.4 [45.9-69.35]']
    """

    pattern: str

    @cached_property
    def numbers(self) -> list[NumberFormat]:
        """How each of the numbers is written."""
        found = [NumberFormat(core) for core in HOLE.findall(self.pattern)]
        if len(found) < 2:
            raise ValueError(f"expected a pattern such as '{{0}}/{{0}}' with two numbers or more, got {self.pattern!r}")
        return found

    @cached_property
    def texts(self) -> list[str]:
        """What stands before, between and after them."""
        return HOLE.split(self.pattern)[::2]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        gaps = [r"\s*".join(map(re.escape, text.split())) if text.strip() else "" for text in self.texts]
        blank = [rf"\s*{gap}\s*" if gap or not text else r"\s+" for gap, text in zip(gaps, self.texts, strict=True)]
        number = r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
        return re.compile(number.join(blank))

    def read_one(self, text: str) -> tuple[float, ...] | None:
        """The numbers that a text states; `None` if it is not of this form."""
        found = self._regex.fullmatch(text)
        values = tuple(map(float, found.groups())) if found else (math.nan,)
        return values if all(map(math.isfinite, values)) else None

    def read(self, texts: Iterable[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers `[n, numbers]`, NaN for `None`, and which texts are not of this form, `[n]`."""
        return _read(self.read_one, texts, len(self.numbers))

    def write(self, values: NDArray[np.float64]) -> list[str | None]:
        """Numbers `[n, numbers]` as texts; `None` where one is missing."""
        columns = [form.write(values[:, [place]]) for place, form in enumerate(self.numbers)]
        rows = zip(*columns, strict=True)
        return [None if None in row else self._joined([*map(str, row), ""]) for row in rows]

    def _joined(self, numbers: list[str]) -> str:
        return "".join(text + number for text, number in zip(self.texts, numbers, strict=True))
