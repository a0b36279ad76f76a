"""Where checkpoints lie: a folder, of this machine or shared by many, or an S3 bucket.

Both keep named folders of a few files that are whole or invisible. On a file system a folder is
written under a temporary name, flushed and renamed. A bucket cannot rename: there the manifest is
sent last, and what has none does not count.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data import s3
from data.files import recover, recover_all, remove_folder, whole_folder, write_atomically

MANIFEST = "manifest.json"
"""The file that makes a checkpoint one."""

PIECE = 1 << 22
"""Bytes that travel at a time."""


class Storage(ABC):
    """Named folders of files, each whole or invisible."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Names that begin so, of folders whole or damaged, newest (greatest) first."""

    @abstractmethod
    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        """Keep what `fill` writes into an empty folder under a name, replacing what had it.

        Raises:
            OSError: If the disk is full, read-only or away; nothing partial is visible.
        """

    @abstractmethod
    def fetched(self, name: str) -> Any:
        """As a context: the files of a name in a local folder, to be read and left as they are."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Forget a name; killed in between, what is left does not count."""

    @abstractmethod
    def set_aside(self, name: str) -> str:
        """Give a damaged folder a name beginning with `corrupt-`, which is returned."""

    @abstractmethod
    def note(self, name: str, text: str) -> str:
        """Keep a text beside the folders, whole or not at all; returns where."""

    @abstractmethod
    def remove_partial(self) -> None:
        """Remove what a killed process has left half done; to be called by nobody but the one that writes."""


def open_store(place: str | Path) -> Storage:
    """The storage at a path or an `s3://bucket/prefix` URL."""
    return S3Store(str(place)) if str(place).startswith("s3://") else LocalStore(Path(place))


def file_system(place: str) -> tuple[Any, str]:
    """Arrow's file system for a path or an `s3://` URL, and what the place is called there."""
    from pyarrow.fs import LocalFileSystem

    found = open_store(place)
    return (found.files, found.root) if isinstance(found, S3Store) else (LocalFileSystem(), place)


class LocalStore(Storage):
    """A folder on a local or shared disk.

    Arguments:
        root: Made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def names(self, prefix: str) -> list[str]:
        recover_all(self.root)
        return sorted((path.name for path in self.root.glob(f"{prefix}*")), reverse=True)

    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        with whole_folder(self.root / name) as temporary:
            fill(temporary)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        recover(self.root / name)
        yield self.root / name

    def remove(self, name: str) -> None:
        remove_folder(self.root / name)

    def set_aside(self, name: str) -> str:
        aside = f"corrupt-{name}"
        shutil.rmtree(self.root / aside, ignore_errors=True)
        (self.root / name).rename(self.root / aside)
        return aside

    def note(self, name: str, text: str) -> str:
        write_atomically(self.root / name, text)
        return str(self.root / name)

    def remove_partial(self) -> None:
        recover_all(self.root)
        for suffix in ("tmp", "old"):
            for path in self.root.glob(f".*.{suffix}"):
                shutil.rmtree(path, ignore_errors=True)


class S3Store(Storage):
    """A prefix in a bucket of any store that speaks the S3 protocol.

    Credentials, region and endpoint come from the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_REGION`,
    `AWS_ENDPOINT_URL`, …; see `data.s3`). Requests that fail are made again, up to `s3.ATTEMPTS` times.

    Arguments:
        url: `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.files, self.root = s3.file_system(self.url)

    def __str__(self) -> str:
        return self.url

    def names(self, prefix: str) -> list[str]:
        keys = self._keys(prefix)
        return sorted({key.split("/")[0] for key in keys if key.endswith(f"/{MANIFEST}")}, reverse=True)

    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="fivefold-") as temporary:
            fill(Path(temporary))
            self.remove(name)
            for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MANIFEST):
                with (
                    path.open("rb") as source,
                    self.files.open_output_stream(f"{self.root}/{name}/{path.name}") as target,
                ):
                    shutil.copyfileobj(source, target, PIECE)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="fivefold-") as temporary:
            for key in self._keys(f"{name}/"):
                self._fetch(key, Path(temporary) / Path(key).name)
            yield Path(temporary)

    def _fetch(self, key: str, path: Path) -> None:
        """Copy one object to a file, again from its start where the answer ends too early."""
        for attempt in range(s3.ATTEMPTS):
            try:
                with self.files.open_input_stream(f"{self.root}/{key}") as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file, PIECE)
                return
            except OSError:
                if attempt == s3.ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * 2**attempt)

    def remove(self, name: str) -> None:
        for key in sorted(self._keys(f"{name}/"), key=lambda key: not key.endswith(f"/{MANIFEST}")):
            self.files.delete_file(f"{self.root}/{key}")

    def set_aside(self, name: str) -> str:
        for key in self._keys(f"{name}/"):
            self.files.copy_file(f"{self.root}/{key}", f"{self.root}/corrupt-{key}")
        self.remove(name)
        return f"corrupt-{name}"

    def note(self, name: str, text: str) -> str:
        with self.files.open_output_stream(f"{self.root}/{name}") as target:
            target.write(text.encode())
        return f"{self.url}/{name}"

    def remove_partial(self) -> None:
        keys = self._keys("")
        whole = {key.split("/")[0] for key in keys if key.endswith(f"/{MANIFEST}")}
        for name in {key.split("/")[0] for key in keys if "/" in key} - whole:
            self.remove(name)

    def _keys(self, prefix: str) -> list[str]:
        """Keys of objects below the root that begin so, relative to it."""
        from pyarrow import fs

        found = self.files.get_file_info(fs.FileSelector(self.root, recursive=True, allow_not_found=True))
        keys = (info.path.removeprefix(f"{self.root}/") for info in found if info.type == fs.FileType.File)
        return [key for key in keys if key.startswith(prefix)]
