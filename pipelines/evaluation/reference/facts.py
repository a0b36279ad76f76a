"""What a yardstick says of itself, read and checked without what is needed to measure with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.files import recover, sha256

FORMAT = 1
"""Version of the folder's layout."""
FACTS = "yardstick.json"
"""The file that says what was made, and the SHA-256 of every other."""


def checked_facts(folder: Path) -> dict[str, Any]:
    """`yardstick.json`, after comparing every file with the SHA-256 it names.

    Raises:
        FileNotFoundError: If there is no yardstick.
        ValueError: If a file is missing or altered, or the layout is newer than this code.
    """
    fix = "Make the yardstick again: `fivefold features`."
    recover(folder)
    if not (folder / FACTS).is_file():
        raise FileNotFoundError(f"There is no yardstick in {folder}. {fix}")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        version, files = int(facts["format"]), dict(facts["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / FACTS} cannot be read ({error!r}). {fix}") from error
    if version > FORMAT:
        raise ValueError(f"{folder / FACTS} has format {version}, this Fivefold reads up to {FORMAT}. {fix}")
    for name, expected in files.items():
        path = folder / name
        got = sha256(path) if path.is_file() else "no file"
        if got != expected:
            raise ValueError(f"{path} is not the file that was made: expected SHA-256 {expected}, got {got}. {fix}")
    return facts
