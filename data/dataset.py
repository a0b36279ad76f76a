"""Reading prepared data: a dataset is a manifest and memory-mapped shards of fixed-shape tensors."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from data.fetched_shards import fetched, shards_at
from data.files import recover, sha256
from data.schema import closest
from data.shards import SCHEMA, content_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Examples in the dataset's own space.

    Arguments:
        x: Images as uint8 `[n, height, width, channels]`; tables as float64 `[n, columns]`, NaN where missing.
        label: Class of each example, -1 where unknown, `[n]`.
    """

    x: Shaped[Tensor, "n *event"]
    label: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: str | torch.device) -> Examples:
        """The same examples on another device."""
        return Examples(x=self.x.to(device, non_blocking=True), label=self.label.to(device, non_blocking=True))


class Split:
    """The examples of one split, memory-mapped; a shard's SHA-256 is checked when it is first touched.

    Arguments:
        folder: The prepared dataset.
        name: Name of the split.
        shards: The manifest's entries of its shards.
        verify: Whether to check each shard's SHA-256 before using it.
        place: Where the shards are, if not in the folder.
    """

    def __init__(
        self, folder: Path, name: str, shards: Sequence[dict[str, Any]], *, verify: bool = True, place: str = ""
    ) -> None:
        self.folder = folder
        self.place = place
        self.name = name
        self.shards = tuple(shards)
        self.verify_on_use = verify
        self._starts = np.cumsum([0, *(shard["rows"] for shard in shards)])
        self._mapped: dict[int, tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}}

    @property
    def example_bytes(self) -> int:
        """Size of one example in memory, label included."""
        x, label, _ = self._shard(0)
        return int(x[:1].nbytes + label[:1].nbytes)

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Class of every example, -1 where unknown, `[n]`."""
        return torch.from_numpy(np.concatenate([self._shard(i)[1] for i in range(len(self.shards))]))

    @property
    def sources(self) -> Int[Tensor, " n"]:
        """Position of every example in its source (row of the table, image of the archive), `[n]`."""
        return torch.from_numpy(np.concatenate([self._shard(i)[2] for i in range(len(self.shards))]))

    def take(self, indices: Tensor | NDArray[np.int64] | Sequence[int]) -> Examples:
        """Examples by position, in the order asked for.

        Arguments:
            indices: Positions from 0 to `len(self)` - 1; repeats are allowed, `[n]`.
        Raises:
            IndexError: If a position lies outside the split.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(
                f"split {self.name!r} has positions 0 … {len(self) - 1}, got {wanted.min()} … {wanted.max()}"
            )
        first, _, _ = self._shard(0)
        x = np.empty((len(wanted), *first.shape[1:]), first.dtype)
        label = np.empty(len(wanted), np.int64)
        home = np.searchsorted(self._starts, wanted, side="right") - 1
        for index in np.unique(home):
            here = np.flatnonzero(home == index)
            local = wanted[here] - self._starts[index]
            shard_x, shard_label, _ = self._shard(int(index))
            x[here] = shard_x[local]
            label[here] = shard_label[local]
        return Examples(x=torch.from_numpy(x), label=torch.from_numpy(label))

    def slice(self, start: int, stop: int) -> Examples:
        """Consecutive examples, read without random access."""
        start, stop = max(0, start), min(stop, len(self))
        parts = []
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self.shards) and self._starts[index] < stop:
            offset = int(self._starts[index])
            x, label, _ = self._shard(index)
            parts.append((x[max(0, start - offset) : stop - offset], label[max(0, start - offset) : stop - offset]))
            index += 1
        if not parts:
            return self.take([])
        x, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return Examples(x=torch.from_numpy(x), label=torch.from_numpy(label))

    def all(self) -> Examples:
        """Every example, in memory."""
        return self.slice(0, len(self))

    def verify(self) -> None:
        """Check every shard against the manifest.

        Raises:
            ValueError: If a shard's SHA-256 is not the manifest's.
        """
        for shard in self.shards:
            self._check(shard)

    def _path(self, shard: dict[str, Any]) -> Path:
        return fetched(self.place, shard) if self.place else self.folder / shard["file"]

    def _check(self, shard: dict[str, Any]) -> None:
        path = self._path(shard)
        found = sha256(path)
        if found != shard["sha256"]:
            raise ValueError(
                f"{path} is damaged: its SHA-256 is {found}, the manifest says {shard['sha256']}. "
                f"Run `fivefold prepare --dataset {self.folder.name}` (or `dvc checkout`) to restore it."
            )

    def _shard(self, index: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        if index not in self._mapped:
            shard = self.shards[index]
            if self.verify_on_use:
                self._check(shard)
            with pa.memory_map(str(self._path(shard))) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
            x, label, position = (batch.column(name) for name in ("x", "label", "source"))
            self._mapped[index] = (x.to_numpy_ndarray(), label.to_numpy(), position.to_numpy())
        return self._mapped[index]


class Dataset:
    """A prepared dataset.

    Attributes:
        folder: Where it lies.
        manifest: What `prepare` wrote about it.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], *, verify: bool = True, place: str = "") -> None:
        self.folder = folder
        self.manifest = manifest
        self._splits = {
            name: Split(folder, name, split["shards"], verify=verify, place=place)
            for name, split in manifest["splits"].items()
        }

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> Dataset:
        """Open a prepared dataset, checking its manifest and that every shard is there, or where they are.

        Arguments:
            folder: A folder written by `fivefold prepare`.
            verify: Whether to check each shard's SHA-256 when it is first touched.
        Raises:
            FileNotFoundError: If the folder, its manifest or a shard is missing.
            ValueError: If the manifest is damaged, newer than this program, or a shard has the wrong size.
        """
        folder = Path(folder)
        again = f"Run `fivefold prepare --dataset {folder.name}`."
        path = folder / "manifest.json"
        recover(folder)
        if not path.exists():
            near = closest(folder.name, [path.parent.name for path in folder.parent.glob("*/manifest.json")])
            hint = f" Did you mean {near!r}?" if near else ""
            raise FileNotFoundError(f"there is no prepared dataset at {folder} (no manifest.json).{hint} {again}")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}). {again}") from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise ValueError(
                f"{path} has schema {schema}, this program reads up to {SCHEMA}. Update fivefold, or prepare again."
            )
        try:
            digest, stated = content_digest(manifest), manifest["digest"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error!r} is missing or malformed. {again}") from None
        if digest != stated:
            raise ValueError(f"{path} is damaged: its content gives digest {digest}, it states {stated}. {again}")
        if place := shards_at(folder):
            return cls(folder, manifest, verify=verify, place=place)
        for shard in (shard for split in manifest["splits"].values() for shard in split["shards"]):
            file = folder / shard["file"]
            if not file.exists():
                raise FileNotFoundError(f"shard {file} is missing. {again}")
            if file.stat().st_size != shard["bytes"]:
                raise ValueError(
                    f"shard {file} is damaged: expected {shard['bytes']} bytes, got {file.stat().st_size}. {again}"
                )
        return cls(folder, manifest, verify=verify)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.manifest["name"]

    @property
    def digest(self) -> str:
        """SHA-256 of the content: the one identity of the data."""
        return self.manifest["digest"]

    @property
    def kind(self) -> str:
        """`image` or `table`."""
        return self.manifest["kind"]

    @property
    def domain(self) -> dict[str, Any]:
        """What an example is, ready for `models.build`."""
        return self.manifest["domain"]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, empty when the data has no labels."""
        return self.manifest["class_names"]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """The examples of one split.

        Raises:
            ValueError: If the dataset has no such split.
        """
        if name not in self._splits:
            raise ValueError(f"dataset {self.name!r} has no split {name!r}; it has {', '.join(self._splits)}")
        return self._splits[name]

    def verify(self) -> None:
        """Check every shard of every split against the manifest.

        Raises:
            ValueError: If a shard is damaged.
        """
        for split in self._splits.values():
            split.verify()
