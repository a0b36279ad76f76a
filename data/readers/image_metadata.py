"""Labels of images that a table beside them states (`metadata.csv`, `metadata.jsonl`, another) or their own names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.sources.archive import members

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_KEYS = ("file_name", "filename", "file", "image", "path", "image_file")
LABEL_KEYS = ("label", "labels", "class", "category", "target", "class_name", "label_name")
MOST_CLASSES = 1000
NUMBERED = re.compile(r"([^\W\d_].*?)[ ._-]*\(?\d+\)?")
SERIAL = re.compile(
    r"(?i)_?(img|image|images|dsc[a-z]?|dscn|photo|pic|picture|foto|bild|frame|screenshot|scan|page|sample|file|video|"
    r"p|i|mg|data|test|train|val|valid|pxl|gopr|whatsapp image.*)"
)
"""What cameras and programs begin the names of all of their images with."""
FEWEST_ALIKE = 5
FEWEST_NAMED = 0.9
"""The share of the images that a table must name to be taken for their labels."""


def metadata_labels(path: Path) -> dict[str, str]:
    """The class of each image by its name inside the source; empty when no file states any.

    The column of classes is one named `label`, `class`, `category`, `target` …, else the only other column
    whose values repeat.

    Raises:
        ValueError: If such a file is damaged.
    """
    found: dict[str, str] = {}
    for member in members(path, lambda name: name.rpartition("/")[2].lower() in NAMES):
        if member.fault:
            continue
        home = member.name.rpartition("/")[0]
        where = f"{path}: {member.name!r}"
        try:
            text = member.read().decode("utf-8-sig")
            rows = (
                list(csv.DictReader(io.StringIO(text, newline="")))
                if member.name.lower().endswith(".csv")
                else [json.loads(line) for line in text.splitlines() if line.strip()]
            )
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{where} cannot be read: {error}. Fix it, or take it out of the source.") from None
        if not rows or not all(isinstance(row, dict) for row in rows):
            continue
        key = next((key for key in FILE_KEYS if key in rows[0]), "")
        label = _label_key(rows, key)
        if key and label:
            for row in rows:
                if row.get(key) and row.get(label) not in (None, ""):
                    found[f"{home}/{row[key]}" if home else str(row[key])] = str(row[label])
    return found


def listed_labels(path: Path, is_image: Callable[[str], bool]) -> dict[str, str]:
    """The same by a CSV file of another name (`labels.csv`, `train.csv`), if one column names nearly all images.

    They are named with or without their folders and endings.
    """
    images: dict[str, str] = {}
    for member in members(path, is_image):
        base = member.name.rpartition("/")[2]
        images |= dict.fromkeys((member.name, base, base.rpartition(".")[0]), member.name)
    count = len(set(images.values()))
    for member in members(path, lambda name: name.lower().endswith(".csv")):
        if member.fault:
            continue
        text = member.read().decode("utf-8-sig", "replace")
        mark = max(",;\t", key=text.partition("\n")[0].count)
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=mark))
        except csv.Error:
            continue
        for key in (rows or [{}])[0]:
            named = {images[row[key]]: row for row in rows if row.get(key) in images}
            if key and len(named) >= FEWEST_NAMED * count and (label := _label_key(rows, key)):
                return {name: str(row[label]) for name, row in named.items() if row.get(label)}
    return {}


def named_labels(path: Path, is_image: Callable[[str], bool]) -> dict[str, str]:
    """The word before the number in each image's name (`cat.12.jpg`, `great_pyrenees_3.jpg`), where it names classes.

    Each word must begin several names, and all names must be of that form.
    """
    found: dict[str, str] = {}
    for member in members(path, is_image):
        parsed = NUMBERED.fullmatch(member.name.rpartition("/")[2].rpartition(".")[0])
        if parsed is None or SERIAL.fullmatch(parsed[1]):
            return {}
        found[member.name] = parsed[1]
    counts = Counter(found.values())
    return found if 1 < len(counts) <= MOST_CLASSES and min(counts.values()) >= FEWEST_ALIKE else {}


def _label_key(rows: list[dict[str, Any]], file_key: str) -> str:
    others = [str(key) for key in rows[0] if key not in (file_key, None)]
    for key in LABEL_KEYS:
        if key in others:
            return key
    repeating = []
    for key in others:
        values = Counter(str(row.get(key)) for row in rows if not isinstance(row.get(key), (dict, list)))
        if values and len(values) <= min(MOST_CLASSES, len(rows) // 2):
            repeating.append(key)
    return repeating[0] if len(repeating) == 1 else ""
