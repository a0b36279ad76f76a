"""How the several numbers in each cell of a column, or a number and its unit, are written, found from its texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from data.readers.number_patterns import CURRENCIES, NumberPattern

NUMBER = re.compile(r"(?<![\d.])(?:(?<![^\s(\[,;:=/|])[+-])?\d+(?:\.\d+)?(?![\d.]*\d)")
MOST = 6
MOST_CHOICES = 12
BETWEEN = re.compile(r"[/x×X°'\"′″±,()\[\];|\s]+|to|by|of|and|[-–]?\s?[$€£¥₹]|[^\w\s.\-:]+")
"""What stands between whole numbers that are quantities; others may be parts of a code (123-45-6789)."""
UNIT = re.compile(r"[°'\"′″]?\s?[^\W\d_]{0,8}[²³]?|\s?[*†‡%°]{1,4}|")
"""What stands after a whole number that is a quantity."""


def several_numbers(shapes: Counter[str], samples: dict[str, str]) -> str:
    """The pattern of `data.formats.SeveralFormat` that all cells have; empty when there is none.

    Arguments:
        shapes: Of the cells, with how many there are.
        samples: A text of each shape.
    """
    forms: Counter[tuple[str, ...]] = Counter()
    decimals: list[set[int]] = []
    for shape, count in shapes.items():
        text = samples[shape]
        found = NUMBER.findall(text)
        decimals = decimals or [set() for _ in found]
        if not 1 <= len(found) <= MOST or len(found) != len(decimals) or any(
            re.match(r"[+-]?0\d", number) for number in found
        ):  # fmt: skip
            return ""
        forms[tuple(re.split(NUMBER, text))] += count
        for seen, number in zip(decimals, found, strict=True):
            seen.add(len(number.partition(".")[2]))
    texts, place, choices = _common(forms)
    written = [*texts, *choices]
    if not texts or any(set(piece) & set("{}|") or piece.strip() == "." for piece in written):
        return ""
    if all(seen == {0} for seen in decimals) and not _quantities(texts, place, choices):
        return ""
    if place >= 0:
        texts[place] = "{" + "|".join(choices) + "}"
    elif len(decimals) < 2:
        return ""
    holes = [f"{{{NumberPattern.of(min(seen), max(seen))}}}" for seen in decimals]
    return "".join(piece + hole for piece, hole in zip(texts, [*holes, ""], strict=True))


def _common(forms: Counter[tuple[str, ...]]) -> tuple[list[str], int, list[str]]:
    """The texts around the numbers, the place of those that differ (-1 where none do), and what may stand there.

    No texts where they differ in more than one place, or in too many ways.
    """
    kept: dict[tuple[str, ...], tuple[str, ...]] = {}
    for texts, _ in forms.most_common():
        kept.setdefault(tuple("".join(text.split()) or " " * bool(text) for text in texts), texts)
    if not 1 <= len(kept) <= MOST_CHOICES:
        return [], -1, []
    differing = [place for place, texts in enumerate(zip(*kept, strict=True)) if len(set(texts)) > 1]
    first = list(next(iter(kept.values())))
    if len(differing) > 1:
        return [], -1, []
    place = differing[0] if differing else -1
    return first, place, sorted(texts[place] for texts in kept.values()) if differing else []


def _quantities(texts: Sequence[str], place: int, choices: Sequence[str]) -> bool:
    """Whether whole numbers among these texts are quantities, and no parts of codes or addresses."""
    outer = [choices if i == place else [texts[i]] for i in (0, len(texts) - 1)]
    if any(re.search(r"[/:@]|.{13}", piece) for pieces in outer for piece in pieces):
        return False
    if place in (0, len(texts) - 1):
        fits = UNIT.fullmatch if place else lambda text: CURRENCIES.fullmatch(text.strip())
        if not all(map(fits, choices)):
            return False
    inner = [piece for i in range(1, len(texts) - 1) for piece in (choices if i == place else [texts[i]])]
    return all(BETWEEN.fullmatch(piece.strip()) for piece in inner)
