"""How the numbers of a column are written, found from its texts."""

from __future__ import annotations

import re
from collections import Counter

from data.formats import SCALES, is_plain

CODES = (
    r"AED|ARS|AUD|BDT|BGN|BHD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|GHS|HKD|HRK|"
    r"HUF|IDR|ILS|INR|ISK|JOD|JPY|KES|KRW|KWD|KZT|LKR|MAD|MXN|MYR|NGN|NOK|NZD|OMR|PEN|PHP|PKR|PLN|QAR|"
    r"RMB|RON|RSD|RUB|SAR|SEK|SGD|THB|TND|TRY|TWD|TZS|UAH|UGX|USD|UYU|VND|XAF|XOF|ZAR"
)
"""Currencies by their code: other letters before a number are part of a name (ORD-1001)."""
CURRENCIES = re.compile(
    r"[^\w\s.,%()+\-−'’/#:;@&*<>=~\"\d]{1,2}|[A-Z]{1,3}[$€£¥]|R\$|Rs\.?|kr\.?|Fr\.?|zł|Kč|Ft|лв|" + CODES
)


OPPOSITES = (("N", "S"), ("E", "W"), ("E", "O"), ("CR", "DR"), ("Cr", "Dr"), ("cr", "dr"))
"""What after a number states that it is above or below zero: latitudes, longitudes, credits and debits."""


FLAG = re.compile(r"\s[a-z]{1,3}|\s?\*{1,4}|\s?\[\w{1,2}\]|\s?[†‡§]")
"""A mark after a number: estimated, provisional, significant, a note."""
MOST_FLAGS = 12
UNFLAGGED = 0.3
"""The share of numbers without a mark, from which on what others have after them is one and no unit."""


class NumberPattern:
    """Finding a number's pattern from the shapes of a column's texts."""

    BODY = re.compile(
        r"(?P<open>\(?)(?P<sign>[+\-−]?)\s?(?P<before>[^\d+\-−()]*?)\s?(?P<sign2>[+\-−]?)"
        r"(?P<body>\d[\d.,' \u00a0\u202f\u2009’]*\d|\d|\.\d+)"
        r"(?P<after>[^\d()]*?(?:\[\w{1,2}\])?)(?P<last>(?:(?<!/)[-−])?)(?P<close>\)?)"
    )
    SEPARATORS = (
        ("", "."), (",", "."), ("", ","), (".", ","), (" ", "."), (" ", ","), ("\u00a0", ","), ("\u202f", ","),
        ("\u00a0", "."), ("\u202f", "."), ("\u2009", "."), ("\u2009", ","),
        ("'", "."), ("’", "."), ("'", ","), (",,", "."),
    )  # fmt: skip
    UNMARKED = 0.05
    """The share of numbers above a thousand that may lack the marks which the others have."""

    @staticmethod
    def of(fewest: int, most: int) -> str:
        """The pattern of plain numbers with so many decimals."""
        return "0" + ("." + "0" * fewest + "#" * (most - fewest) if most else "")

    @classmethod
    def guess(cls, shapes: Counter[str], samples: dict[str, str], *, comma: bool = False) -> tuple[str, list[str]]:
        """The pattern that most cells have, and the shapes that fit it; empty when there is none.

        Arguments:
            shapes: Of the cells, with how many there are.
            samples: A text of each shape.
            comma: Whether a comma before three digits is one before decimals.
        """
        split: dict[str, re.Match[str]] = {}
        for shape in shapes:
            text = samples[shape]
            found = cls.BODY.fullmatch(text)
            if found is None or bool(found["open"]) != bool(found["close"]):
                continue
            if len(found["sign"] + found["sign2"] + found["last"]) > 1:
                continue
            if not cls._proper(found["before"], found["after"]):
                continue
            split[shape] = found
        if not split:
            return "", []
        around = {shape: cls._edges(found) for shape, found in split.items()}
        around = cls._flagged(cls._signed(cls._scaled(around, shapes), shapes), shapes)
        counts: Counter[tuple[str, str]] = Counter()
        for shape, place in around.items():
            counts[place] += shapes[shape]
        edges = counts.most_common(1)[0][0]
        mine = {shape: found for shape, found in split.items() if around[shape] == edges}
        if any(re.match(r"z9*$", cls._zeros(found["body"])) for found in mine.values()):
            return "", []
        for sep, dec in sorted(cls.SEPARATORS, key=lambda pair: comma and pair[1] != ","):
            pattern = cls._with(edges, sep, dec, {shape: (found, shapes[shape]) for shape, found in mine.items()})
            if pattern and not is_plain(pattern):
                return pattern, list(mine)
        return "", []

    @staticmethod
    def _scaled(around: dict[str, tuple[str, str]], shapes: Counter[str]) -> dict[str, tuple[str, str]]:
        """Texts before and after the numbers; letters for thousands, millions, … as one where there are several."""
        scaled = {shape for shape, (_, after) in around.items() if after in SCALES}
        letters = sorted({around[shape][1] for shape in scaled})
        if len(set(letters) - {""}) < 2 or sum(shapes[s] for s in scaled) < 0.9 * sum(shapes[s] for s in around):
            return around
        one = f"[{'|'.join(letters)}]"
        return {shape: (before, one if shape in scaled else after) for shape, (before, after) in around.items()}

    @staticmethod
    def _signed(around: dict[str, tuple[str, str]], shapes: Counter[str]) -> dict[str, tuple[str, str]]:
        """Texts before and after the numbers; those that state opposite signs (north and south) as one."""
        for ends in OPPOSITES:
            texts = [re.fullmatch(rf"(.*?)({'|'.join(ends)})", after) for _, after in around.values()]
            signed = {shape: found for shape, found in zip(around, texts, strict=True) if found}
            leads = {found[1] for found in signed.values()}
            known = sum(shapes[shape] for shape in signed) >= 0.9 * sum(shapes[shape] for shape in around)
            if known and len(leads) == 1 and {found[2] for found in signed.values()} == set(ends):
                one = f"{leads.pop()}[{ends[0]}|-{ends[1]}]"
                return {shape: (before, one if shape in signed else after) for shape, (before, after) in around.items()}
        return around

    @staticmethod
    def _flagged(around: dict[str, tuple[str, str]], shapes: Counter[str]) -> dict[str, tuple[str, str]]:
        """Texts before and after the numbers; marks that some have after them (estimated, provisional) as one."""
        flags = sorted({after for before, after in around.values() if not before and FLAG.fullmatch(after)})
        bare = sum(shapes[shape] for shape, place in around.items() if place == ("", ""))
        if not 0 < len(flags) <= MOST_FLAGS or bare < UNFLAGGED * sum(shapes[shape] for shape in around):
            return around
        one = f"{{{'|'.join(flags)}}}"
        merged = {("", after) for after in ("", *flags)}
        return {shape: ("", one) if place in merged else place for shape, place in around.items()}

    @staticmethod
    def _zeros(body: str) -> str:
        return re.sub(r"\d", "9", re.sub(r"^0(?=\d)", "z", body))

    @staticmethod
    def _proper(before: str, after: str) -> bool:
        before, after = before.strip(), after.strip()
        if before and not CURRENCIES.fullmatch(before):
            return False
        return after == "/-" or (len(after) <= 12 and not re.search(r"[,;:=@#\"]|^[.\-/_]", after))

    @staticmethod
    def _edges(found: re.Match[str]) -> tuple[str, str]:
        text, at = found.string, found.start("body")
        before = text[:at].lstrip("(").lstrip("+-−")
        before = re.sub(r"[+\-−]", "", before)
        return before, text[found.end("body") : found.start("last")]

    @classmethod
    def _with(cls, edges: tuple[str, str], sep: str, dec: str, counted: dict[str, tuple[re.Match[str], int]]) -> str:
        """The pattern with these separators, empty if a text does not fit it."""
        lakh, sep = len(sep) == 2, sep[:1]
        mark = re.escape(sep)
        groups = rf"[1-9]\d?(?:{mark}\d{{2}})*{mark}\d{{3}}" if lakh else rf"[1-9]\d{{0,2}}(?:{mark}\d{{3}})+"
        whole = rf"(?:{groups}|\d+)" if sep else r"\d+"
        regex = re.compile(rf"(?P<whole>{whole})?(?:{re.escape(dec)}(?P<part>\d+))?")
        lengths: set[int] = set()
        marked, without, total = False, 0, 0
        found = [item for item, _ in counted.values()]
        for item, count in counted.values():
            fit = regex.fullmatch(item["body"])
            if fit is None:
                return ""
            lengths.add(len(fit["part"] or ""))
            marked |= bool(sep) and sep in item["body"]
            total += count
            without += count if len(fit["whole"] or "") > 3 and sep not in item["body"] else 0
        if sep and (not marked or without > cls.UNMARKED * total):
            return ""
        digits = cls.of(min(lengths), max(lengths)).replace(".", dec)
        core = f"#{sep}##{sep + '##' if lakh else ''}{digits}" if sep else digits
        negative = ""
        if any(item["open"] for item in found):
            negative = ";()"
        elif any(item["last"] for item in found):
            negative = ";-"
        elif edges[0] and any(item["sign2"] for item in found):
            negative = ";p-"
        elif any(item["sign"] == "−" for item in found):
            negative = ";−"
        elif all(item["sign"] for item in found) and any(item["sign"] == "+" for item in found):
            negative = ";+"
        if any(letter in "#0" for letter in "".join(edges)) or ";" in "".join(edges):
            return ""
        return f"{edges[0]}{core}{edges[1]}{negative}"
