"""How the several numbers in each cell of a column are written, found from its texts."""

from __future__ import annotations

import re
from collections import Counter

from data.readers.number_patterns import NumberPattern

NUMBER = re.compile(r"(?<![\d.])(?:(?<![^\s(\[,;:=/|])[+-])?\d+(?:\.\d+)?(?![\d.]*\d)")
MOST = 6
BETWEEN = re.compile(r"[/x×X°'\"′″±,()\[\];|\s]+|to|by|of|and|[-–]?\s?[$€£¥₹]|[^\w\s.\-:]+")
"""What stands between whole numbers that are quantities; others may be parts of a code (123-45-6789)."""


def several_numbers(shapes: Counter[str], samples: dict[str, str]) -> str:
    """The pattern of `data.formats.SeveralFormat` that all cells have; empty when there is none.

    Arguments:
        shapes: Of the cells, with how many there are.
        samples: A text of each shape.
    """
    kept: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
    decimals: list[set[int]] = []
    for shape, count in shapes.items():
        text = samples[shape]
        found = NUMBER.findall(text)
        if not 2 <= len(found) <= MOST or any(re.match(r"[+-]?0\d", number) for number in found):
            return ""
        texts = tuple(re.split(NUMBER, text))
        form = tuple("".join(piece.split()) or " " * bool(piece) for piece in texts)
        kept.setdefault(form, Counter())[texts] += count
        decimals = decimals or [set() for _ in found]
        if len(kept) > 1 or len(decimals) != len(found):
            return ""
        for seen, number in zip(decimals, found, strict=True):
            seen.add(len(number.partition(".")[2]))
    if not kept:
        return ""
    texts = next(iter(kept.values())).most_common(1)[0][0]
    whole = all(seen == {0} for seen in decimals)
    if any("{" in piece or "}" in piece for piece in texts) or any(piece.strip() == "." for piece in texts):
        return ""
    codes = any(re.search(r"[/:@]|.{13}", piece) for piece in (texts[0], texts[-1]))  # an address, a name
    if whole and (codes or not all(BETWEEN.fullmatch(piece.strip()) for piece in texts[1:-1])):
        return ""
    holes = [f"{{{NumberPattern.of(min(seen), max(seen))}}}" for seen in decimals]
    return "".join(piece + hole for piece, hole in zip(texts, [*holes, ""], strict=True))
