"""Writing prepared data: shards of fixed-shape tensors, a manifest, all of it visible at once or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.formats import is_plain

SCHEMA = 1
SHARD_BYTES = (4 << 20, 64 << 20)
SHARDS = 1024


def rows_per_shard(example_bytes: int, examples: int) -> int:
    """How many examples make a shard: about 4 MiB of them, up to 64 MiB where that would make many shards."""
    least, most = SHARD_BYTES
    wanted = min(most, max(least, examples * example_bytes // SHARDS))
    return max(1, wanted // max(1, example_bytes))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(file: BinaryIO, values: NDArray[Any]) -> None:
    """Write an array's bytes; unlike `tofile`, says why when it cannot (a full disk).

    Raises:
        OSError: With the system's own error number.
    """
    file.write(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data if values.size else b"")


def write_shard(path: Path, x: NDArray[Any], label: NDArray[np.int64], source: NDArray[np.int64]) -> dict[str, Any]:
    """Write one Arrow IPC file with one record batch and describe it.

    Arguments:
        path: The file to write.
        x: Examples, `[rows, *event]`, uint8 or float64.
        label: Class of each example, -1 where unknown, `[rows]`.
        source: Position of each example in its source, `[rows]`.
    Returns:
        The manifest's entry: file name, rows, bytes, SHA-256.
    """
    axes = range(x.ndim - 1)
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(x.dtype), x.shape[1:], permutation=axes)
    flat = pa.FixedSizeListArray.from_arrays(_as_arrow(x), x[0].size)
    tensors = pa.ExtensionArray.from_storage(kind, flat)
    batch = pa.record_batch([tensors, _as_arrow(label), _as_arrow(source)], names=["x", "label", "source"])
    with path.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    return {"file": path.name, "rows": len(x), "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    """The numbers of an array, in its order, without a copy (and without importing pandas, as `pa.array` does)."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])


def content_digest(manifest: Mapping[str, Any]) -> str:
    """The identity of prepared data: what it is and every byte of it, not where or when it was made.

    Statistics are left out: they follow from the content, and their last digits depend on the machine.
    """
    domain = dict(manifest["domain"])
    if "columns" in domain:
        kept = ("name", "type", "categories", "dtype")
        domain["columns"] = [{key: column.get(key) for key in kept} for column in domain["columns"]]
    splits = {
        name: [[shard["rows"], shard["sha256"]] for shard in split["shards"]]
        for name, split in manifest["splits"].items()
    }
    identity = {
        "schema": manifest["schema"],
        "kind": manifest["kind"],
        "domain": domain,
        "class_names": manifest["class_names"],
        "splits": splits,
    }
    forms = [
        [entry["name"], entry["role"], entry.get("pattern", ""), entry.get("parts", [])]
        for entry in manifest.get("table", ())
        if entry["role"] in ("datetime", "duration", "identifier", "text", "constant")
        or not is_plain(entry.get("pattern", ""))
    ]
    if forms:  # tables of plain numbers and categories are what they were before formats were known
        identity["formats"] = forms
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a temporary name in the same folder, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends without an error.

    What an earlier, killed run left behind is removed first; what `out` held before stays until the
    new content is complete and on disk.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    temporary = out.parent / f".{out.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            sync(path)
        sync(temporary)
        previous = out.parent / f".{out.name}.{os.getpid()}.old"
        if out.exists():
            out.rename(previous)
        temporary.rename(out)
        sync(out.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(out: Path) -> None:
    """Remove temporary folders of runs that are no longer alive; put back what one had set aside."""
    for kind in ("old", "tmp"):
        for path in out.parent.glob(f".{out.name}.*.{kind}"):
            owner = path.suffixes[-2][1:]
            if not owner.isdigit() or (int(owner) != os.getpid() and _alive(int(owner))):
                continue
            if kind == "old" and not out.exists() and (path / "manifest.json").exists():
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
