"""What identifiers of many lengths and words have in common, by which fresh ones are drawn that are none of them."""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 2000
MASKS = {
    **dict.fromkeys(string.digits, "9"),
    **dict.fromkeys(string.ascii_lowercase, "a"),
    **dict.fromkeys(string.ascii_uppercase, "A"),
}
CLASS = {"9": string.digits, "a": string.ascii_lowercase, "A": string.ascii_uppercase}
TABLE = str.maketrans(MASKS)
ADDRESS = "@example.com"
"""Where nobody lives (RFC 2606)."""


@dataclass(slots=True)
class CommonText:
    """The beginning and the end that all identifiers share, and the classes of letters that most have between them."""

    head: str | None = None
    tail: str = ""
    masks: Counter[str] = field(default_factory=Counter)
    digits: int = 0
    addresses: bool = True
    numbers: bool = True

    def add(self, texts: Sequence[str]) -> None:
        """Note some identifiers."""
        low, high = min(texts), max(texts)
        backwards = [text[::-1] for text in texts]
        tail = os.path.commonprefix([min(backwards), max(backwards)])[::-1]
        self.head = os.path.commonprefix([low, high, *([] if self.head is None else [self.head])])
        self.tail = tail if not self.masks else os.path.commonprefix([tail[::-1], self.tail[::-1]])[::-1]
        self.addresses &= all(text.count("@") == 1 for text in texts)
        self.numbers &= all(map(str.isdigit, texts))
        masks = Counter(text.translate(TABLE) for text in texts)
        self.digits = max(self.digits, *(len(run) for mask in masks for run in re.findall("9+", mask)), 0)
        self.masks.update({mask: count for mask, count in masks.items() if mask.isascii()})
        if len(self.masks) > MOST:
            self.masks = Counter(dict(self.masks.most_common(MOST // 2)))

    @property
    def beyond(self) -> int:
        """The least number that has more digits than any within them."""
        return 10**self.digits

    def around(self) -> tuple[str, str]:
        """What stands before and after a number that makes it an identifier of this kind."""
        head = (self.head or "").rstrip(string.digits)
        tail = self.tail.lstrip(string.digits)
        if self.addresses:
            return head or "user", tail if "@" in tail else ADDRESS
        if re.fullmatch(r"https?://(www\.)?", head):
            head += "example.com/"
        if not head and not tail and not self.numbers:
            head = "id-"
        return head, tail

    def alphabet(self) -> list[str]:
        """The letters at each place of the commonest form: those that all share, else all of their class."""
        if not self.masks:
            return []
        mask = self.masks.most_common(1)[0][0]
        head, tail = self.head or "", self.tail
        if len(mask) <= len(head) + len(tail):
            return []
        within = mask[len(head) : len(mask) - len(tail)]
        return [*head, *(CLASS.get(letter, letter) for letter in within), *tail]
