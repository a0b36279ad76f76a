"""Statistics of the training split: what models scale by, never computed from validation or test data."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

QUANTILES = 1001
SAMPLE = 1 << 18
EXACT_ROWS = 256
"""So many squares of 8-bit values sum to less than 2^24: exact in float32, in which summing is fastest."""


class ImageMoments:
    """Mean and standard deviation per channel, by exact integer sums; may be fed from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0
        self.sums: list[int] = []
        self.squares: list[int] = []

    def add(self, x: NDArray[np.uint8]) -> None:
        """Note images, `[n, height, width, channels]`."""
        flat = x.reshape(len(x), -1)
        sums, squares = np.zeros((2, flat.shape[1]), np.uint64)
        for start in range(0, len(flat), EXACT_ROWS):
            block = flat[start : start + EXACT_ROWS].astype(np.float32)
            sums += block.sum(0).astype(np.uint64)
            block *= block
            squares += block.sum(0).astype(np.uint64)
        channels = x.shape[-1]
        per_channel = [values.reshape(-1, channels).sum(0).tolist() for values in (sums, squares)]
        with self._lock:
            self.sums = [a + b for a, b in zip(self.sums or [0] * channels, per_channel[0], strict=True)]
            self.squares = [a + b for a, b in zip(self.squares or [0] * channels, per_channel[1], strict=True)]
            self.count += flat.size // channels

    def as_dict(self) -> dict[str, Any]:
        """Mean and standard deviation of each channel on the scale 0 … 255."""
        means = [total / self.count for total in self.sums] if self.count else []
        variances = [
            max(0.0, square / self.count - mean**2) for square, mean in zip(self.squares, means, strict=bool(means))
        ]
        return {"mean": means, "std": [variance**0.5 for variance in variances], "pixels": self.count}


def table_statistics(folder: Path, splits: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of every column over the training split, one column at a time.

    Quantiles are exact up to 2^18 rows, beyond that those of the first so many (rows are shuffled).
    """
    shards = splits.get("train", {"shards": []})["shards"]
    return {"columns": {column["name"]: _column(folder, shards, index, column) for index, column in enumerate(columns)}}


def _column(folder: Path, shards: list[dict[str, Any]], index: int, column: dict[str, Any]) -> dict[str, Any]:
    count = missing = 0
    mean = spread = 0.0
    low, high = np.inf, -np.inf
    kept: list[NDArray[np.float64]] = []
    room = SAMPLE
    frequencies = np.zeros(len(column.get("categories") or ()), np.int64)
    for shard in shards:
        with pa.memory_map(str(folder / shard["file"])) as source:
            x = pa.ipc.open_file(source).get_batch(0).column("x").to_numpy_ndarray()
            values = x[:, index].copy()
        known = values[~np.isnan(values)]
        missing += len(values) - len(known)
        if not len(known):
            continue
        if column["type"] == "categorical":
            frequencies += np.bincount(known.astype(np.int64), minlength=len(frequencies))
        here, shift = len(known), float(known.mean()) - mean
        spread += float(((known - known.mean()) ** 2).sum()) + shift**2 * count * here / (count + here)
        mean += shift * here / (count + here)
        count += here
        low, high = min(low, float(known.min())), max(high, float(known.max()))
        if room > 0:
            kept.append(known[:room])
            room -= len(kept[-1])
    if column["type"] == "categorical":
        return {"count": count, "missing": missing, "frequencies": frequencies.tolist()}
    if not count:
        return {"count": 0, "missing": missing, "min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0, "quantiles": []}
    grid = np.quantile(np.concatenate(kept), np.linspace(0, 1, QUANTILES))
    grid[0], grid[-1] = low, high
    return {
        "count": count, "missing": missing, "min": low, "max": high,
        "mean": mean, "std": (spread / count) ** 0.5, "quantiles": grid.tolist(),
    }  # fmt: skip


def table_domain(columns: list[dict[str, Any]], statistics: dict[str, Any]) -> dict[str, Any]:
    """The table's domain, as `models.build` takes it.

    The standard deviation of a column that does not vary is given as 1, so that scaling by it stays finite.
    """
    described = []
    for column in columns:
        found = statistics["columns"][column["name"]]
        entry = {**column, "missing": found["missing"]}
        entry["missing_share"] = found["missing"] / max(1, found["missing"] + found["count"])
        if column["type"] == "categorical":
            entry["frequencies"] = found["frequencies"]
        else:
            constant = not found["std"] > 1e-12 * max(1.0, abs(found["mean"]))
            entry.update({key: found[key] for key in ("count", "min", "max", "mean")})
            entry["std"] = 1.0 if constant else found["std"]
            entry["constant"] = constant
            entry["quantiles"] = found["quantiles"] or [0.0] * QUANTILES
        described.append(entry)
    return {"kind": "table", "columns": described}
