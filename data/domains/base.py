"""What all kinds of data share in preparing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data.cards import Card, Inspection


def first_rows(folder: Path, manifest: dict[str, Any], split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples and labels of a split, straight from its first shard."""
    shard = manifest["splits"][split]["shards"][0]
    with pa.memory_map(str(folder / shard["file"])) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        label = np.frombuffer(batch.column("label").buffers()[1], np.int64)  # `to_numpy` would import pandas
        return batch.column("x").to_numpy_ndarray()[:count].copy(), label[:count].copy()


class Accumulator(Protocol):
    """Sums over the training examples, fed while their shards are written, from several threads."""

    def add(self, x: np.ndarray) -> None:
        """Note examples, `[n, *event]`."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The statistics in JSON types."""
        ...


class DataKind(ABC):
    """What preparing, describing and exporting needs to know of a kind of data."""

    def accumulator(self) -> Accumulator | None:
        """What sums over the training examples while they are written; nothing by default."""
        return None

    def statistics(self, folder: Path, splits: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
        """Statistics of the training split, of its shards, where no accumulator made them."""
        return {}

    @abstractmethod
    def domain(
        self, card: Card, event_shape: tuple[int, ...], columns: list[dict[str, Any]], statistics: dict[str, Any]
    ) -> dict[str, Any]:
        """The domain as `models.build` takes it, with `kind` and JSON types only."""

    def card_lines(self, card: Card, inspection: Inspection) -> list[str]:
        """The lines of a new card that only this kind of data has."""
        return []

    def write_preview(self, folder: Path, manifest: dict[str, Any]) -> None:  # noqa: B027 - most have none
        """Write pictures beside the datasheet; none by default."""

    def section(self, manifest: dict[str, Any]) -> str:
        """The datasheet's section on this kind of data, Markdown; empty for none."""
        return ""

    @abstractmethod
    def as_text(self, folder: Path, manifest: dict[str, Any], x: np.ndarray, label: np.ndarray) -> str:
        """A few examples for the terminal."""

    @abstractmethod
    def fields(self, domain: dict[str, Any]) -> list[pa.Field]:
        """The columns of exported examples."""

    @abstractmethod
    def arrays(self, domain: dict[str, Any], x: np.ndarray, schema: pa.Schema) -> Iterator[pa.Array]:
        """Examples as these columns."""
