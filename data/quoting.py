"""Text of others, quoted so that it is shown as it is: in YAML, in Markdown, on a terminal."""

from __future__ import annotations

import json
import re


def one_line(text: str) -> str:
    """Text as a YAML comment may hold it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def quoted(text: str) -> str:
    """A YAML string: JSON's double-quoted form is one."""
    return re.sub(r"[^\x20-\x7e]", _escaped, json.dumps(text, ensure_ascii=False))


def _escaped(letter: re.Match[str]) -> str:
    """A character as YAML's double-quoted strings may hold it."""
    code = ord(letter[0])
    if letter[0].isprintable():
        return letter[0]
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def in_markdown(text: str) -> str:
    """A stranger's text as Markdown that shows it as it is: no link, no tag, no heading, one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#|!~&])", r"\\\1", printable(" ".join(text.split())))


def printable(text: str) -> str:
    """A stranger's text for a terminal: what would move its cursor, or turn the line around, is spelled out."""
    return re.sub(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]",
        lambda found: f"\\u{ord(found[0]):04x}",
        text,
    )
