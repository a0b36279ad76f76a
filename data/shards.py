"""Writing shards of fixed-shape tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.files import canonical, sha256
from data.formats import is_plain

SCHEMA = 1
SHARD_BYTES = (4 << 20, 64 << 20)
SHARDS = 1024


def rows_per_shard(example_bytes: int, examples: int) -> int:
    """How many examples make a shard: about 4 MiB of them, up to 64 MiB where that would make many shards."""
    least, most = SHARD_BYTES
    wanted = min(most, max(least, examples * example_bytes // SHARDS))
    return max(1, wanted // max(1, example_bytes))


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
    with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    return {"file": path.name, "rows": len(x), "bytes": path.stat().st_size, "sha256": sha256(path)}


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
        if entry["role"] in ("datetime", "duration", "several", "identifier", "text", "constant")
        or not is_plain(entry.get("pattern", ""))
    ]
    if forms:  # tables of plain numbers and categories are what they were before formats were known
        identity["formats"] = forms
    if manifest.get("constraints"):
        identity["constraints"] = manifest["constraints"]
    return hashlib.sha256(canonical(identity)).hexdigest()
