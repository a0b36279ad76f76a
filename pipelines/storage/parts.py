"""Finished parts of unfinished work: tensors by name, each whole or not there, in a folder or a bucket."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from torch import Tensor

from data.files import write_atomically
from pipelines.storage import stores

HASH = 64
"""Bytes in front of a part that tell whether the rest is what was written."""


class Parts:
    """What an interrupted piece of work need not do again.

    Arguments:
        place: A folder or an `s3://` URL, made when first written to.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.files, self.root = stores.file_system(self.place)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """The part of that name; `None` if it is missing or damaged."""
        try:
            with self.files.open_input_stream(f"{self.root}/{name}") as source:
                found = source.read()
        except FileNotFoundError:
            return None
        whole = hashlib.sha256(found[HASH:]).hexdigest().encode() == found[:HASH]
        return safetensors.torch.load(found[HASH:]) if whole else None

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep a part."""
        content = safetensors.torch.save({key: value.cpu().contiguous() for key, value in tensors.items()})
        content = hashlib.sha256(content).hexdigest().encode() + content
        if "://" not in self.place:
            write_atomically(Path(self.root) / name, content)
            return
        with self.files.open_output_stream(f"{self.root}/{name}") as target:
            target.write(content)

    def clear(self) -> None:
        """Forget all parts."""
        with suppress(FileNotFoundError):
            self.files.delete_dir(self.root)
