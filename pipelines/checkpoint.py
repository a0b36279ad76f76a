"""Durable checkpoints: folders of safetensors and JSON with a SHA-256 manifest, nothing pickled.

A checkpoint is written under a temporary name, flushed to disk, and renamed; so a folder with a
checkpoint's name is whole unless the disk has damaged it, which the manifest shows. The newest
valid one is used; a damaged one is set aside under a `corrupt-` name and said so.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.artifact import fsync, sha256, sync_folder

SCHEMA = 1
TENSORS, FACTS, MANIFEST = "tensors.safetensors", "facts.json", "manifest.json"


class CorruptCheckpoint(ValueError):
    """A checkpoint whose bytes are not those that were written."""


def write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write one checkpoint atomically; a folder of that name is replaced.

    Arguments:
        folder: Where; its parent is made if missing.
        tensors: Named tensors, on any device.
        facts: Whatever else is needed to go on, JSON types only.

    Raises:
        OSError: If the disk is full or read-only. Nothing partial is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(separate, temporary / TENSORS)
        (temporary / FACTS).write_text(json.dumps({"schema": SCHEMA, **facts}, indent=1), encoding="utf-8")
        hashes = {name: sha256(temporary / name) for name in (TENSORS, FACTS)}
        (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        for name in (TENSORS, FACTS, MANIFEST):
            fsync(temporary / name)
        sync_folder(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and facts of a checkpoint, verified.

    Raises:
        CorruptCheckpoint: If a file is missing, damaged or of a newer schema.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if set(hashes) != {TENSORS, FACTS}:
            raise CorruptCheckpoint(f"{folder / MANIFEST} does not list {TENSORS} and {FACTS}")
        for name, expected in hashes.items():
            if sha256(folder / name) != expected:
                raise CorruptCheckpoint(f"{folder / name} has another SHA-256 than {MANIFEST} says")
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise CorruptCheckpoint(f"{folder} is damaged: {error}") from error
    if facts["schema"] > SCHEMA:
        raise ValueError(
            f"{folder} was written by a newer Fivefold (checkpoint schema {facts['schema']}, this one reads up to"
            f" {SCHEMA}); upgrade, or delete the folder to start again"
        )
    return load_file(folder / TENSORS), facts


def save(root: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write the checkpoint of a step and, once it is whole, remove all but the newest `keep`."""
    folder = root / f"step-{step:010d}"
    write(folder, tensors, {"step": step, **facts})
    for old in _newest_first(root)[keep:]:
        shutil.rmtree(old)
    return folder


def load_newest(root: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest valid checkpoint, or None where none was ever written.

    Raises:
        CorruptCheckpoint: If there are checkpoints and every one of them is damaged.
    """
    folders = _newest_first(root)
    for folder in folders:
        try:
            return read(folder)
        except CorruptCheckpoint as error:
            aside = folder.with_name(f"corrupt-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            warnings.warn(f"{error}; set aside as {aside.name}, falling back to the one before", stacklevel=2)
    if folders or any(root.glob("corrupt-*")):
        raise CorruptCheckpoint(
            f"every checkpoint in {root} is damaged (kept there under corrupt- names); restore one from a backup,"
            " or delete the folder to train from the start"
        )
    return None


def _newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True)
