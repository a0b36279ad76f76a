"""Durable checkpoints: folders of safetensors and JSON with a SHA-256 manifest, nothing pickled.

A checkpoint is whole or invisible (see `storage`), unless what it lies on has damaged it, which the
manifest shows. There is no pointer to the newest that could be wrong: the newest valid one is found
by looking, and a damaged one is set aside under a `corrupt-` name and said so.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data.files import sha256
from pipelines.storage.stores import MANIFEST, Storage
from pipelines.training.errors import CorruptCheckpoint

SCHEMA = 2
TENSORS, FACTS = "tensors.safetensors", "facts.json"
STEP, BEST = "step-", "best-"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state that a training can go on from.

    Arguments:
        step: Updates made.
        tensors: Named tensors.
        facts: Whatever else is needed, JSON types only.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, facts and the manifest into an empty folder.

    Raises:
        OSError: If the disk is full or read-only.
    """
    text = json.dumps({"schema": SCHEMA, **facts}, indent=1).encode()
    (folder / FACTS).write_bytes(text)
    hashes = {TENSORS: write_tensors(folder / TENSORS, tensors), FACTS: hashlib.sha256(text).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file; returns the SHA-256 of what was meant to be written.

    The library's own writer makes a copy of everything and holds the interpreter while it writes,
    which would stop the training that goes on meanwhile.

    References:
        | https://github.com/huggingface/safetensors#format
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # keeps all aligned
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            digest.update(part)
            file.write(part)
        for _, tensor in ordered:
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """The facts of a checkpoint, after checking every byte of it.

    Raises:
        CorruptCheckpoint: If a file is missing or damaged.
        ValueError: If it is of another schema.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if set(hashes) != {TENSORS, FACTS}:
            raise CorruptCheckpoint(f"{MANIFEST} does not list {TENSORS} and {FACTS}")
        for name, expected in hashes.items():
            if sha256(folder / name) != expected:
                raise CorruptCheckpoint(f"{name} has another SHA-256 than {MANIFEST} says")
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if not all(isinstance(facts[key], int) for key in ("schema", "step")):
            raise CorruptCheckpoint(f"{FACTS} does not say its schema and step")
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise CorruptCheckpoint(str(error)) from error
    if facts["schema"] != SCHEMA:
        age, fix = ("newer", "upgrade") if facts["schema"] > SCHEMA else ("older", "go on with that one")
        raise ValueError(
            f"{folder} was written by {'a' if age == 'newer' else 'an'} {age} Fivefold (checkpoint schema"
            f" {facts['schema']}, this one reads {SCHEMA}); {fix}, or delete the folder to start again"
        )
    return facts


def read(storage: Storage, name: str) -> Checkpoint:
    """A checkpoint, verified; tensors on the CPU.

    Raises:
        CorruptCheckpoint: If a file is missing, damaged or not safetensors (nothing else is ever loaded).
        ValueError: If it is of another schema.
    """
    with storage.fetched(name) as folder:
        try:
            facts = verify(folder)
            return Checkpoint(facts["step"], load_file(folder / TENSORS), facts)
        except (CorruptCheckpoint, SafetensorError) as error:
            raise CorruptCheckpoint(f"{storage}/{name} is damaged: {error}") from error


def save(storage: Storage, made: Checkpoint, best: Checkpoint | None = None, *, keep: int = 2) -> str:
    """Write a checkpoint, and once it is known to be whole remove all but the newest `keep`.

    Arguments:
        storage: Where.
        made: The state.
        best: The best model so far, if there is a new one since the last checkpoint. It is written
            first; as there is at most one new one per checkpoint, the newest `keep` of them are all
            that the kept checkpoints speak of.
        keep: How many to keep.
    Returns:
        Its name.
    Raises:
        OSError: If it could not be written, or does not read back as what was written. Older ones stay.
    """
    if best is not None:
        _install(storage, f"{BEST}{best.step:010d}", best)
    name = f"{STEP}{made.step:010d}"
    _install(storage, name, made)
    for prefix in (STEP, BEST):
        for old in storage.names(prefix)[keep:]:
            storage.remove(old)
    return name


def _install(storage: Storage, name: str, made: Checkpoint) -> None:
    storage.install(name, lambda folder: write(folder, made.tensors, {"step": made.step, **made.facts}))
    try:
        with storage.fetched(name) as folder:
            verify(folder)
    except CorruptCheckpoint as error:
        raise OSError(f"{storage}/{name} does not read back as it was written: {error}; check the disk") from error


def load_newest(storage: Storage) -> Checkpoint | None:
    """The newest valid checkpoint, or None where none was ever written.

    Raises:
        CorruptCheckpoint: If there are checkpoints and every one of them is damaged.
    """
    names = storage.names(STEP)
    for name in names:
        try:
            return read(storage, name)
        except CorruptCheckpoint as error:
            aside = storage.set_aside(name)
            warnings.warn(f"{error}; set aside as {aside}, falling back to the one before", stacklevel=2)
    if names or storage.names(f"corrupt-{STEP}"):
        raise CorruptCheckpoint(
            f"every checkpoint in {storage} is damaged (kept there under corrupt- names); restore one from a backup,"
            " or delete the folder to train from the start"
        )
    return None


def load_best(storage: Storage, step: int) -> Checkpoint | None:
    """The best model, made at a step; None, and a warning, where it is damaged or gone."""
    name = f"{BEST}{step:010d}"
    try:
        return read(storage, name)
    except CorruptCheckpoint as error:
        if name in storage.names(BEST):
            storage.set_aside(name)
        warnings.warn(f"{error}; set aside, the best from here on is kept instead", stacklevel=2)
        return None


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint of another training.

    Raises:
        ValueError: With every field in which the two differ.
    """
    different = differing(found, expected)
    if different:
        left, right = _flat(found), _flat(expected)
        lines = (f"{key}: {left.get(key, 'absent')} there, {right.get(key, 'absent')} here" for key in different)
        raise ValueError(
            f"the checkpoint in {where} is of another training ({'; '.join(lines)}); "
            "move that folder away, or restore the settings it was made with"
        )


def differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields in which two identities differ."""
    left, right = _flat(found), _flat(expected)
    missing = object()
    return [key for key in sorted({*left, *right}) if left.get(key, missing) != right.get(key, missing)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
    return flat


class AsyncCheckpointWriter:
    """Writes checkpoints in a background thread, one at a time.

    The training waits only while its state is copied. What goes wrong in writing is raised by the
    next call, and at the latest at the end of the block.

    Arguments:
        storage: Where.
        keep: Checkpoints to keep.
    """

    def __init__(self, storage: Storage, *, keep: int = 2) -> None:
        self.storage, self.keep = storage, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[str] | None = None
        self._copies: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            warnings.warn(f"the last checkpoint was not written: {error}", stacklevel=2)
        finally:
            self._thread.shutdown()

    def save(self, made: Checkpoint, best: Checkpoint | None = None) -> None:
        """Copy the state and write it in the background (see `checkpoint.save`)."""
        self.wait()
        copies = {}
        for name, tensor in made.tensors.items():
            copy = self._copies.get(name)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                copy = torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format)
            copies[name] = copy.copy_(tensor.detach())
        self._copies = copies
        still = Checkpoint(made.step, copies, made.facts)
        self._writing = self._thread.submit(save, self.storage, still, best, keep=self.keep)

    def check(self) -> None:
        """Raise what went wrong, if a write has ended; wait for nothing."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            OSError: If writing failed.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
