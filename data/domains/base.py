"""What all kinds of data share in preparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


def first_rows(folder: Path, manifest: dict[str, Any], split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples and labels of a split, straight from its first shard."""
    shard = manifest["splits"][split]["shards"][0]
    with pa.memory_map(str(folder / shard["file"])) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        label = np.frombuffer(batch.column("label").buffers()[1], np.int64)  # `to_numpy` would import pandas
        return batch.column("x").to_numpy_ndarray()[:count].copy(), label[:count].copy()
