"""Points: their files, their card and their statistics."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.cards import Card
from data.domains.base import DataKind, Parts, class_arrays, class_fields
from data.domains.table import row_hashes
from data.readers.base import UNPUBLISHED, Chunk, IngestReport, Mapper, Reader, class_codes, class_list


def card_faults(card: Card) -> Iterable[str]:
    """What is wrong with a card of points."""
    if card.image or card.columns:
        yield "points have neither image nor columns"


def open_coordinates(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """A text file: the coordinates of a point and its class on every line."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    x, names = np.array([line[:-1] for line in lines], np.float64), [line[-1] for line in lines]
    found = sorted(set(names))
    classes = class_list(card, found)

    def chunks() -> Iterator[Chunk]:
        codes, anomalous = class_codes(card, found, classes)
        where = np.array([found.index(name) for name in names])
        yield Chunk(
            x=x, label=codes[where], split=np.full(len(x), UNPUBLISHED, np.int8), anomaly=anomalous[where],
            content=row_hashes(x), source=np.arange(len(x)),
        )  # fmt: skip

    return Reader(event_shape=x.shape[1:], dtype="float64", class_names=classes, chunks=chunks)


class Moments:
    """Mean and standard deviation of each axis."""

    def __init__(self) -> None:
        self.lock, self.parts = threading.Lock(), []

    def add(self, x: np.ndarray) -> None:
        with self.lock:
            self.parts.append(x.copy())

    def as_dict(self) -> dict[str, Any]:
        x = np.concatenate(self.parts)
        return {"mean": x.mean(0).tolist(), "std": x.std(0).tolist()}


class PointsKind(DataKind):
    """Points of a plane or space."""

    def accumulator(self) -> Moments:
        return Moments()

    def domain(
        self, card: Card, event_shape: tuple[int, ...], columns: list[dict[str, Any]], statistics: dict[str, Any]
    ) -> dict[str, Any]:
        return {"kind": "points", **statistics}

    def section(self, manifest: dict[str, Any]) -> str:
        return f"## Points\n\nCentre {manifest['statistics']['mean']}."

    def as_text(self, folder: Path, manifest: dict[str, Any], x: np.ndarray, label: np.ndarray) -> str:
        return "\n".join("  ".join(f"{value:8.3f}" for value in row) for row in x)

    def fields(self, manifest: Mapping[str, Any], label: str) -> list[pa.Field]:
        axes = range(len(manifest["domain"]["mean"]))
        return [*(pa.field(f"axis {axis}", pa.float64()) for axis in axes), *class_fields(manifest, label)]

    def arrays(
        self, manifest: Mapping[str, Any], split: str, parts: Parts, schema: pa.Schema
    ) -> Iterator[list[pa.Array]]:
        for x, codes in parts:
            yield [*map(pa.array, x.T), *class_arrays(manifest, codes)]
