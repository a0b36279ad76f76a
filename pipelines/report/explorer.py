"""What the page lets one explore of a family: decoded codes, and samples as training went on.

Everything is decoded beforehand (`pipelines/evaluation/explorer.py`) and kept in the page; `page.js` shows what a
slider asks for. Images are in sprites, examples one below the other and steps beside each other; tables are cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report.loading import Family, mapping, sequence
from pipelines.report.numbers import THIN, count, finite, plain
from pipelines.report.pictures import Picture

PREFIX = "explorer-"
"""Of the names of sprites."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explorer:
    """A family's part of the explorer.

    Arguments:
        family: The family.
        examples: What the examples are called that one can begin from; empty where it has no codes.
        directions: Of each direction, what is said beneath it.
        joined: How many of the examples there are ways between.
        steps: Places of a slider.
        sprites: Of each direction, then of the ways, all frames; empty for tables.
        progress: By examples seen in training, as shown.
        data: What `page.js` reads, as JSON.
    """

    family: str
    examples: list[str]
    directions: list[str]
    joined: int
    steps: int
    sprites: list[Picture]
    progress: list[str]
    data: str


def explorers(families: list[Family]) -> list[Explorer]:
    """Of every family that there is something to explore of."""
    found = [explorer(family, mapping(family.explorer)) for family in families]
    return [one for one in found if one.examples or one.progress]


def explorer(family: Family, kept: Mapping[str, Any]) -> Explorer:
    """A family's part; without codes where what `evaluate` left does not fit together."""
    progress = [count(examples) for examples, _ in family.progress]
    examples = [str(name) for name in sequence(kept.get("examples"))]
    places = [finite(place) for place in sequence(kept.get("places"))]
    directions = [mapping(direction) for direction in sequence(kept.get("directions"))]
    pairs = [pair for pair in sequence(kept.get("pairs")) if _is_pair(pair, len(examples))]
    data: dict[str, Any] = {"places": places, "pairs": pairs, "examples": len(examples)}
    sprites, fits = [], False
    if examples and directions and len(places) > 1 and None not in places:
        names = [*(f"{PREFIX}direction-{i + 1}" for i in range(len(directions))), *([f"{PREFIX}ways"] if pairs else [])]
        rows = [len(examples)] * len(directions) + [len(pairs)] * bool(pairs)
        sprites = [family.pictures[name] for name in names if name in family.pictures]
        fits = len(sprites) == len(names) and all(
            p.width % len(places) == 0 and p.height % n == 0 for p, n in zip(sprites, rows, strict=True)
        )
        if not sprites:
            header = [str(name) for name in sequence(kept.get("header"))]
            cells = [_cells(d.get("rows"), len(examples), len(places), len(header)) for d in directions]
            ways = _cells(kept.get("ways"), len(pairs), len(places), len(header))
            fits = bool(header) and all(cells) and bool(ways or not pairs)
            data |= {"header": header, "cells": cells, "ways": ways}
    return Explorer(
        family=family.name,
        examples=examples if fits else [],
        directions=[_share(direction) for direction in directions] if fits else [],
        joined=1 + max((max(pair) for pair in pairs), default=-1) if fits else 0,
        steps=len(places),
        sprites=sprites if fits else [],
        progress=progress if len(progress) > 1 else [],
        data=json.dumps(data if fits else {}, ensure_ascii=False, separators=(",", ":")),
    )


def _is_pair(pair: object, examples: int) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < examples for i in pair)
    )


def _cells(value: object, rows: int, steps: int, columns: int) -> list[list[list[str]]]:
    """Cells by row and step as text; empty unless there are as many as there should be."""
    found = [[[str(cell) for cell in sequence(step)] for step in sequence(row)] for row in sequence(value)]
    fits = len(found) == rows and all(len(row) == steps and all(len(s) == columns for s in row) for row in found)
    return found if fits else []


def _share(direction: Mapping[str, Any]) -> str:
    share = finite(direction.get("share"))
    return "" if share is None else f"{plain(100 * share, 0)}{THIN}% of the data’s variance"
