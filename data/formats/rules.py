"""How a card states what every row obeys: `a <= b`, `total = x + y`, a combination, a unique key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

OPERATORS = ("<=", ">=", "<", ">", "=", "+", "-", "*")


@dataclass(frozen=True)
class Rule:
    """One statement about every row.

    Arguments:
        kind: `order` (`names` are low and high), `sum`, `product` (the target, then what it is made of),
            `combination`, `unique`.
        names: The columns it is about.
        signs: Of the terms of a sum.
        strict: Whether low must be below high.
        unit: What a number counts the time between two dates in, a key of `SPANS`.
        redraw: Whether it is kept by drawing again, though it could be kept by construction.
        gaps: Columns with missing cells that the rule would fill: which, is learned as a category of its own.
        text: As the card has it.
    """

    kind: str
    names: tuple[str, ...]
    signs: tuple[int, ...] = ()
    strict: bool = False
    unit: str = "days"
    redraw: bool = False
    gaps: tuple[str, ...] = ()
    text: str = ""


def parse_rule(stated: Mapping[str, Any], names: Iterable[str]) -> Rule:
    """The rule that an entry of a card's `constraints` states.

    Arguments:
        stated: With one of `rule`, `combination` and `unique`, and `by`.
        names: The table's columns. Those whose names hold operators can be put between backticks.
    Raises:
        ValueError: If it states none, or names another column.

    Example:
        >>> parse_rule({"rule": "total = rate * nights"}, ["rate", "nights", "total"]).names
        ('total', 'rate', 'nights')
    """
    names = list(names)
    redraw = stated.get("by") == "redraw"
    found = _parsed(stated, names, redraw)
    gaps = tuple(stated.get("gaps") or ())
    if gaps and (found.kind not in ("sum", "product", "combination") or not set(gaps) <= set(found.names) or redraw):
        raise ValueError(f"{found.text}: gaps names columns of a sum, product or combination, got {', '.join(gaps)}")
    return replace(found, gaps=gaps)


def _parsed(stated: Mapping[str, Any], names: list[str], redraw: bool) -> Rule:
    for kind in ("combination", "unique"):
        if stated.get(kind):
            listed = tuple(stated[kind])
            for name in listed:
                if name not in names:
                    raise ValueError(f"{kind}: {_unknown(name, names)}")
            least = 2 if kind == "combination" else 1
            if len(set(listed)) != len(listed) or len(listed) < least:
                raise ValueError(f"{kind} takes {least} or more different columns, got {', '.join(listed)}")
            return Rule(kind, listed, redraw=redraw, text=f"{kind} of {', '.join(map(repr, listed))}")
    return _parse_text(str(stated.get("rule", "")), names, redraw)


def _parse_text(text: str, names: list[str], redraw: bool) -> Rule:
    found = re.fullmatch(r"(.*?)(?: in (days|hours|minutes|seconds))?", text.strip(), re.DOTALL)
    body, unit = (found[1], found[2]) if found and found[2] else (text.strip(), "days")
    tokens = _tokens(body, names, text)
    left, relation, rest = tokens[0], tokens[1] if len(tokens) > 1 else "", tokens[2:]
    terms, between = rest[::2], rest[1::2]
    shape = len(tokens) % 2 and len(tokens) > 2 and all(token.startswith("`") for token in [left, *terms])
    if not shape or not set(between) <= {"+", "-", "*"} or relation not in ("<=", ">=", "<", ">", "="):
        raise ValueError(f"a rule is like 'a <= b', 'c = a + b', 'c = a - b' or 'c = a * b', got {text!r}")
    listed = tuple(token[1:] for token in (left, *terms))
    if len(set(listed)) < len(listed):
        raise ValueError(f"rule {text!r} names a column twice")
    if relation != "=":
        if between:
            raise ValueError(f"rule {text!r}: on both sides of {relation} stands one column")
        low_high = listed if relation[0] == "<" else listed[::-1]
        return Rule("order", low_high, strict="=" not in relation, redraw=redraw, text=text)
    if redraw:
        raise ValueError(f"rule {text!r} is computed, not drawn again: leave `by` out")
    if "*" in between:
        if set(between) != {"*"}:
            raise ValueError(f"rule {text!r} mixes * with + or -: state a sum or a product")
        return Rule("product", listed, text=text)
    signs = (1, *(1 if operator == "+" else -1 for operator in between))
    return Rule("sum", listed, signs=signs, unit=unit, text=text)


def _tokens(body: str, names: list[str], text: str) -> list[str]:
    """Operators, and columns after a backtick; at each place the longest name that fits."""
    tokens: list[str] = []
    longest = sorted(names, key=len, reverse=True)
    at = 0
    while at < len(body):
        if body[at].isspace():
            at += 1
            continue
        end = body.find("`", at + 1) if body[at] == "`" else -1
        if end > 0:
            name, after = body[at + 1 : end], end + 1
            if name not in names:
                raise ValueError(f"rule {text!r}: {_unknown(name, names)}")
        else:
            fits = [n for n in longest if body.startswith(n, at) and (body[at + len(n) :] + " ")[0].isspace()]
            name, after = (fits[0], at + len(fits[0])) if fits else ("", at)
        if after > at:
            tokens.append(f"`{name}")
            at = after
            continue
        operator = next((o for o in OPERATORS if body.startswith(o, at)), "")
        if not operator:
            word = re.split(r"\s(?:<=|>=|<|>|=|\+|-|\*)\s", body[at:])[0].strip()
            raise ValueError(f"rule {text!r}: {_unknown(word, names)}")
        tokens.append(operator)
        at += len(operator)
    return tokens or [""]


def _unknown(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"there is no column {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def written_name(name: str) -> str:
    """A column's name as a rule states it, between backticks where it could be misread."""
    doubtful = any(f" {o} " in f" {name} " for o in OPERATORS) or name != name.strip()
    doubtful |= re.search(r" in (days|hours|minutes|seconds)$", name) is not None
    return f"`{name}`" if doubtful and "`" not in name else name
