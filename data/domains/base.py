"""What all kinds of data share in preparing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data.cards import Card, Inspection, Source

Parts = Iterator[tuple[np.ndarray, np.ndarray]]
"""Examples of a split and their labels, some thousand at a time."""

TextWriter = Callable[[Mapping[str, Any], str, Parts, Path, str, Source], None]
"""Writes a split as text: manifest, name of the split, its examples, file, form (`csv`, `jsonl`), the card's source."""


def first_rows(folder: Path, manifest: dict[str, Any], split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first examples and labels of a split, straight from its first shard."""
    shard = manifest["splits"][split]["shards"][0]
    with pa.memory_map(str(folder / shard["file"])) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        label = np.frombuffer(batch.column("label").buffers()[1], np.int64)  # `to_numpy` would import pandas
        return batch.column("x").to_numpy_ndarray()[:count].copy(), label[:count].copy()


def class_fields(manifest: Mapping[str, Any], label: str) -> list[pa.Field]:
    """The exported column of classes; none where there are no classes."""
    return [pa.field(label, pa.dictionary(pa.int32(), pa.string()))] if manifest["class_names"] else []


def class_arrays(manifest: Mapping[str, Any], label: np.ndarray) -> list[pa.Array]:
    """Labels `[n]` as that column; below 0 is null."""
    if not manifest["class_names"]:
        return []
    names = pa.array(manifest["class_names"], pa.string())
    return [pa.DictionaryArray.from_arrays(pa.array(label, pa.int32(), mask=label < 0), names)]


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
    def fields(self, manifest: Mapping[str, Any], label: str) -> list[pa.Field]:
        """The columns of exported examples; `label` names that of the classes, where these have no name."""

    @abstractmethod
    def arrays(
        self, manifest: Mapping[str, Any], split: str, parts: Parts, schema: pa.Schema
    ) -> Iterator[list[pa.Array]]:
        """The examples of a split as these columns, part by part."""

    def text_writer(self) -> TextWriter | None:
        """What writes a split as text; `None` where examples have no such form."""
        return None
