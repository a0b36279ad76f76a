"""Numbers as a pattern writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALES = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "m": 1e6, "B": 1e9, "b": 1e9, "T": 1e12}
"""What letters after a number multiply it by."""


@dataclass(frozen=True)
class NumberFormat:
    """Numbers as a pattern writes them: `$#,##0.00`, `0.0%`, `#.##0,00 €`, `#,##,##0` (lakhs), `0.##` (up to two),
    `0.0#[K|M]` (in thousands or millions), `0.00°[N|-S]` (of opposite signs), `0.0{ e| p}` (marks that may
    follow, and are not written).

    Arguments:
        pattern: Text before, digits, text after; after a `;` how negative numbers are written: `()` in
            parentheses, `p-` with the sign after the text before, `-` with the sign last, `−` with a true minus first,
            `+` with a hyphen first and the others with a plus, else with a hyphen first.

    Example:
        >>> NumberFormat("$#,##0.00;()").read(["$1,234.50", "($7.00)"])[0].tolist()
        [[1234.5], [-7.0]]
        >>> NumberFormat("0,0#%").write(np.array([[12.5], [np.nan]]))
        ['12,5%', None]
    """

    pattern: str = ""
    CORE = re.compile(r"(?:#(?P<sep>[^#0])##(?P<lakh>(?P=sep)##)?)?0(?:(?P<dec>[.,])(?P<fixed>0*)(?P<free>#*))?")

    FLAGS = re.compile(r"\{([^{}]*)\}$")

    @cached_property
    def _parts(self) -> tuple[str, str, str, str, int, int, str, bool]:
        pattern, _, negative = self.pattern.partition(";")
        pattern = self.FLAGS.sub("", pattern)
        core = self.CORE.search(pattern)
        if core is None or negative not in ("", "()", "p-", "-", "−", "+"):
            raise ValueError(
                f"expected a pattern of a number such as '$#,##0.00', '0.0%' (after ';' one of '()', 'p-', '-', '−', "
                f"'+'), got {self.pattern!r}"
            )
        fixed = len(core["fixed"] or "")
        return (
            pattern[: core.start()], core["sep"] or "", core["dec"] or ".", pattern[core.end() :],
            fixed, fixed + len(core["free"] or ""), negative, bool(core["lakh"]),
        )  # fmt: skip

    @cached_property
    def scales(self) -> dict[str, float]:
        """By what the letters that may follow multiply a number, the greatest first; none where nothing does."""
        found = re.fullmatch(r"\[([A-Za-z|]*)\]", self._parts[3])
        names = found[1].split("|") if found else []
        if unknown := [name for name in names if name not in SCALES]:
            raise ValueError(f"expected letters of {', '.join(filter(None, SCALES))} in [], got {', '.join(unknown)}")
        return dict(sorted(((name, SCALES[name]) for name in names), key=lambda pair: -pair[1]))

    @cached_property
    def signs(self) -> tuple[str, str] | None:
        """The texts after numbers above and below zero, where they state the sign; none where they do not."""
        found = re.fullmatch(r"(.*)\[([A-Za-z]+)\|-([A-Za-z]+)\]", self._parts[3])
        return (found[1] + found[2], found[1] + found[3]) if found else None

    @property
    def around(self) -> tuple[str, str]:
        """The texts before and after the digits."""
        return self._parts[0].strip(), self._parts[3].strip()

    @property
    def point(self) -> str:
        """What stands before decimals."""
        return self._parts[2]

    @property
    def decimals(self) -> int:
        """The most decimals that are written."""
        return self._parts[5]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        before, sep, dec, after, _, _, negative, lakh = self._parts
        before, after = re.escape(before.strip()), re.escape(after.strip())
        after = f"(?P<scale>{'|'.join(self.scales)})" if self.scales else f"(?P<scale>){after}"
        if self.signs:
            after = f"(?P<scale>)(?:{'|'.join(re.escape(text.strip()) for text in self.signs)})"
        flags = self.FLAGS.search(self.pattern.partition(";")[0])
        after += f"(?:{'|'.join(map(re.escape, flags[1].split('|')))})?" if flags else ""
        mark, last = re.escape(sep), r"(?P<last>[\-−]?)" if negative == "-" else "(?P<last>)"
        groups = rf"\d{{1,2}}(?:{mark}\d{{2}})*{mark}\d{{3}}" if lakh else rf"\d{{1,3}}(?:{mark}\d{{3}})+"
        digits = rf"{groups}|\d+" if sep else r"\d+"
        number = rf"(?P<number>(?:{digits})?(?:{re.escape(dec)}\d*)?(?:[eE][+-]?\d+)?)"
        return re.compile(
            rf"\s*(?P<open>\()?(?P<sign>[+\-−]?)\s*{before}\s*(?P<sign2>[+\-−]?){number}\s*{after}{last}\s*(?P<close>\))?\s*"
        )

    def read_one(self, text: str) -> float | None:
        """The number that a text states; `None` if it states none."""
        _, sep, dec, *_ = self._parts
        found = self._regex.fullmatch(text)
        if found is None or bool(found["open"]) != bool(found["close"]):
            return None
        sign = found["sign"] + found["sign2"] + found["last"]
        if len(sign) > 1:
            return None
        digits = found["number"]
        digits = (digits.replace(sep, "") if sep else digits).replace(dec, ".")
        try:
            value = float(digits)
        except ValueError:
            return None
        if found["scale"]:
            value = round(value * self.scales[found["scale"]], 6)
        negative = bool(found["open"]) or sign in ("-", "−")
        if self.signs:
            negative = negative != text.strip().endswith(self.signs[1].strip())
        value = -value if negative and value else value
        return value if math.isfinite(value) else None

    def read(self, texts: Iterable[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers `[n, 1]`, NaN for `None`, and which texts are none, `[n]`."""
        return _read(self.read_one, texts, 1)

    def write(self, values: NDArray[np.float64]) -> list[str | None]:
        """Numbers `[n, 1]` as texts; `None` for NaN."""
        before, sep, dec, after, fixed, most, negative, lakh = self._parts
        texts: list[str | None] = []
        for value in values[:, 0].tolist():
            if value != value:
                texts.append(None)
                continue
            if self.scales:
                fitting = (pair for pair in self.scales.items() if abs(value) >= pair[1])
                after, size = next(fitting, list(self.scales.items())[-1])
                value /= size
            digits = f"{abs(value):,.{most}f}" if sep else f"{abs(value):.{most}f}"
            whole, _, part = digits.partition(".")
            whole = _in_lakhs(whole) if lakh else whole
            part = part[:fixed] + part[fixed:].rstrip("0")
            below = value < 0 and any(digit not in "0.," for digit in digits)
            if self.signs:
                after, below = self.signs[below], False
            body = whole.replace(",", sep) + (dec + part if part else "")
            if below and negative == "()":
                texts.append(f"({before}{body}{after})")
            elif below and negative == "-":
                texts.append(f"{before}{body}{after}-")
            elif below and negative == "p-":
                texts.append(f"{before}-{body}{after}")
            elif negative == "+":
                texts.append(f"{'-' if below else '+'}{before}{body}{after}")
            elif below:
                texts.append(f"{negative or '-'}{before}{body}{after}")
            else:
                texts.append(f"{before}{body}{after}")
        return texts


def _in_lakhs(whole: str) -> str:
    """Digits in groups of three, in those of India: three at the end, before them two by two."""
    digits = whole.replace(",", "")
    return re.sub(r"(?<=\d)(?=(?:\d\d)+$)", ",", digits[:-3]) + "," * (len(digits) > 3) + digits[-3:]


def _read(one: Any, texts: Iterable[str | None], width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Apply a reader of one text to many, repeated ones once."""
    known: dict[str, Any] = {}
    nothing = (math.nan,) * width
    rows, bad = [], []
    for text in texts:
        if text is None:
            rows.append(nothing)
            bad.append(False)
            continue
        if text not in known:
            if len(known) > 100_000:
                known.clear()
            found = one(text)
            known[text] = (found,) if isinstance(found, float) else found
        found = known[text]
        rows.append(nothing if found is None else found)
        bad.append(found is None)
    return np.array(rows, np.float64).reshape(-1, width), np.array(bad, np.bool_)


def is_plain(pattern: str) -> bool:
    """Whether a number's pattern is digits with a point and nothing else, at most with fewer decimals."""
    return re.fullmatch(r"(0(\.0*#*)?)?", pattern) is not None


def plain_numbers(values: NDArray[np.float64], pattern: str, *, whole: bool) -> list[float | int | None]:
    """Numbers with the decimals their column has; as `int` if they are whole."""
    if pattern and not whole:
        values = np.round(values, NumberFormat(pattern).decimals)
    return [None if v != v else int(v) if whole else v + 0.0 for v in values.tolist()]
