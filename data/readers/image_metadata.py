"""Labels of images that a `metadata.csv` or `metadata.jsonl` states, as Hugging Face's image folders have it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from data.sources.archive import members

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_KEYS = ("file_name", "filename", "file", "image", "path", "image_file")
LABEL_KEYS = ("label", "labels", "class", "category", "target", "class_name", "label_name")
MOST_CLASSES = 1000


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
