"""Shards that lie in a storage beside which a cluster prepared them: fetched one by one, when their rows are asked for.

Training, features and evaluation read them where they are; what stays on this machine describes the data without
holding them. A shard that is wanted here after all (a few rows to look at) goes into a cache under its SHA-256.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.s3 import file_system

NOTE = "storage.json"
"""File of a prepared dataset that says where its shards are, if not beside it."""

CACHE = Path.home() / ".cache" / "fivefold" / "shards"
"""Where fetched shards are kept."""

PIECE = 1 << 22
"""Bytes that travel at a time."""


def shards_at(folder: Path) -> str:
    """The folder or `s3://` URL where a prepared dataset's shards are; empty where they are in its folder.

    Raises:
        ValueError: If the note is damaged.
    """
    try:
        return str(json.loads((folder / NOTE).read_text(encoding="utf-8"))["place"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / NOTE} is damaged ({error!r}). Run `fivefold prepare --dataset {folder.name}`."
        ) from None


def fetched(place: str, shard: Mapping[str, Any]) -> Path:
    """A shard's file: in a folder that this machine sees itself, of one in a bucket its copy here.

    Raises:
        FileNotFoundError: If it is not there, or cannot be reached.
    """
    if "://" not in place:
        return Path(place) / shard["file"]
    path = CACHE / f"{shard['sha256']}.arrow"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    temporary = CACHE / f".{path.name}.{os.getpid()}.tmp"
    try:
        files, root = file_system(place)
        with files.open_input_stream(f"{root}/{shard['file']}") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, PIECE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileNotFoundError(
            f"shard {place}/{shard['file']} cannot be fetched: {error}. See that the bucket can be read from here, or "
            "run `fivefold prepare` again."
        ) from error
    temporary.replace(path)
    return path
