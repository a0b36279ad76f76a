"""The rows that a JSON value holds, whatever form it has, and objects within them as keys of their own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_KEYS = 100
"""Keys that the objects under one key may have together, to be taken as columns."""
EXTENDED = ("$oid", "$date", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal")
"""Objects that stand for a value in MongoDB's exports."""


def values_of(body: str) -> list[Any]:
    """The value that a text holds, or the values one after another.

    Raises:
        ValueError: If it is no JSON.
    """
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(body):
        value, at = decoder.raw_decode(body, at)
        found.append(value)
        while at < len(body) and body[at] in " \t\r\n,":
            at += 1
    return found


def rows_of(value: Any) -> list[Any]:
    """The rows of a JSON value: a list of objects, lists or values, pandas' forms, columns as lists, GeoJSON, …"""
    if isinstance(value, dict):
        return _rows_of_object(value)
    within = [item for item in value if isinstance(item, list)]
    if len(value) > 1 and len(within) == 1 and all(isinstance(item, dict) for item in [*value[:1], *within[0]]):
        return within[0]  # what is said of the rows, then they
    if within and len(within) == len(value):
        return _named(value)
    if value and not within and not any(isinstance(item, dict) for item in value):
        return [{"value": item} for item in value]
    return value


def _named(rows: list[list[Any]], names: list[str] | None = None) -> list[dict[str, Any]]:
    """Lists as objects: by names that are given or stand in the first list, else by their place."""
    first = rows[0]
    if names is None and len(rows) > 1 and _heads(first, rows[1]):
        names, rows = first, rows[1:]
    width = max(map(len, rows))
    names = [*(names or ()), *(f"column_{place + 1}" for place in range(len(names or ()), width))]
    return [dict(zip(names, row, strict=False)) for row in rows]


def _heads(first: list[Any], second: list[Any]) -> bool:
    """Whether a list names the columns of the next: texts, each its own, above something that is no text."""
    texts = all(isinstance(name, str) for name in first) and len(set(first)) == len(first) == len(second)
    return texts and not all(isinstance(cell, str) for cell in second)


def _rows_of_object(value: dict[str, Any]) -> list[Any]:
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        names = [str(name) for name in value["columns"]]
        return [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in value["data"]]
    if value.get("type") == "FeatureCollection" and isinstance(value.get("features"), list):
        return [{**(item.get("properties") or {}), "geometry": item.get("geometry")} for item in value["features"]]
    cells = list(value.values())
    if cells and all(isinstance(cell, dict) for cell in cells):
        places = dict.fromkeys(place for cell in cells for place in cell)
        if len(cells) > len(places) and not all(place.isdigit() for place in places):  # rows by their name
            return [{"index": name, **cell} for name, cell in value.items()]
        return [{name: column.get(place) for name, column in value.items()} for place in places]
    even = len({len(cell) for cell in cells if isinstance(cell, list)}) == 1
    if even and all(isinstance(cell, list) and not any(isinstance(item, dict) for item in cell) for cell in cells):
        return [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)]
    lists = [cell for cell in cells if isinstance(cell, list) and cell]
    objects = [cell for cell in lists if all(isinstance(item, dict) for item in cell)]
    if len(objects) == 1:
        return objects[0]
    if len(lists) == 1 and all(isinstance(item, list) for item in lists[0]):
        return _named(lists[0], _stated_names(value, max(map(len, lists[0]))))
    return [value]


def _stated_names(value: Any, width: int) -> list[str] | None:
    """So many names of columns, where an object states them anywhere (`columns: [{name: …}, …]`, as Socrata does)."""
    if not isinstance(value, dict):
        return None
    listed = value.get("columns", value.get("fields"))
    if isinstance(listed, list) and len(listed) == width:
        names = [str(item.get("name", "")) if isinstance(item, dict) else str(item) for item in listed]
        return names if all(names) and len(set(names)) == width else None
    return next((found for item in value.values() if (found := _stated_names(item, width))), None)


def flat(row: dict[str, Any], whole: frozenset[str] = frozenset(), above: str = "") -> dict[str, Any]:
    """A row whose objects are keys of their own, named by the way to them (`address.city`).

    Arguments:
        row: An object.
        whole: Keys whose objects stay what they are.
        above: What stands before its keys.
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{above}{key}"
        if not isinstance(value, dict) or not value or name in whole:
            found[name] = value
        elif len(value) == 1 and next(iter(value)) in EXTENDED:
            found[name] = next(iter(value.values()))
        else:
            found |= flat(value, whole, f"{name}.")
    return found


def kind_of(value: Any) -> str:
    """What kind of value a key holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) < 2**63 else "text"
    return {float: "number", str: "text"}.get(type(value), "nested")


@dataclass(kw_only=True, slots=True)
class Keys:
    """The keys of rows, and how often each holds each kind of value.

    Objects that have too many different keys to be columns, as those have that are named by what they count, stay
    what they are.
    """

    found: dict[str, Counter[str]] = field(default_factory=dict)
    rows: int = 0
    within: dict[str, dict[str, None]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    def add(self, row: dict[str, Any]) -> None:
        """Note a row."""
        self.rows += 1
        if any(isinstance(value, dict) for value in row.values()):
            self._look(row, "")
        for key, value in flat(row, self.whole).items():
            self.found.setdefault(key, Counter())[kind_of(value)] += 1

    def _look(self, row: dict[str, Any], above: str) -> None:
        for key, value in row.items():
            name = f"{above}{key}"
            if not isinstance(value, dict) or name in self.whole:
                continue
            known = self.within.setdefault(name, {})
            known.update(dict.fromkeys(value))
            self._look(value, f"{name}.")
            if len(known) > MOST_KEYS:
                self.whole |= {name}
                below = [found for found in self.found if found.startswith(f"{name}.")]
                for found in below:
                    del self.found[found]
                self.found.setdefault(name, Counter())["nested"] += 1
