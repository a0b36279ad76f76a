"""What lies in a cluster's storage, at hand here: data that never change, and the state of a training that does."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from data.files import whole_folder, write_atomically
from pipelines.storage import stores
from pipelines.storage.stores import MANIFEST

CACHE = Path.home() / ".cache" / "fivefold"
"""Where a node keeps what it has fetched from a bucket."""

PARTS = ("", "samples", "model", "pictures", "yardstick", "prepared")
"""Folders of a state that travel: not its checkpoints, which have their own way, nor Ray's notes."""

PRIVATE = ("lock", "job.json")
"""Files of a state that never travel."""

SYNC_INTERVAL_S = 2.0
"""How often a state in a bucket and its replica are compared."""


class StateMirror:
    """A local folder that takes over what changes in the storage, and the other way round; one writer per file.

    Arguments:
        place: The folder in the storage, a path or an `s3://` URL.
        folder: The local one.
        private: Names of files that do not travel.
    """

    def __init__(self, place: str, folder: Path, private: tuple[str, ...] = PRIVATE) -> None:
        self.files, self.root = stores.file_system(place)
        self.folder, self.private = folder, private
        self.there: dict[str, Any] = {}
        self.here: dict[str, Any] = {}

    def pull(self) -> None:
        """Take over what is new or changed there; a part that has a manifest comes with the manifest last."""
        for name, stamp in self._there().items():
            if self.there.get(name) != stamp:
                with suppress(FileNotFoundError):  # replaced or removed meanwhile: next time
                    write_atomically(self.folder / name, self.read(name))
                    self.there[name], self.here[name] = stamp, _stamp(self.folder / name)

    def push(self) -> None:
        """Send what is new or changed here, a manifest last."""
        for name, stamp in self._here().items():
            if self.here.get(name) != stamp:
                with self.files.open_output_stream(f"{self.root}/{name}") as target:
                    target.write((self.folder / name).read_bytes())
                self.here[name], self.there[name] = stamp, self._there().get(name)

    def read(self, name: str) -> bytes:
        """A file there."""
        with self.files.open_input_stream(f"{self.root}/{name}") as source:
            return source.read()

    def remove(self, name: str) -> None:
        """Remove a file there, if there is one."""
        with suppress(FileNotFoundError):
            self.files.delete_file(f"{self.root}/{name}")

    def _there(self) -> dict[str, Any]:
        from pyarrow.fs import FileSelector, FileType

        def inside(part: str) -> list[Any]:
            return self.files.get_file_info(FileSelector(f"{self.root}/{part}".rstrip("/"), allow_not_found=True))

        listed = {"": inside("")}
        folders = {info.base_name for info in listed[""] if info.type == FileType.Directory}
        listed |= {part: inside(part) for part in PARTS if part in folders}  # a request to a bucket for each
        found = {
            f"{part}/{info.base_name}".lstrip("/"): (info.size, info.mtime_ns)
            for part, infos in listed.items()
            for info in infos
            if info.type == FileType.File
        }
        return self._travelling(found)

    def _here(self) -> dict[str, Any]:
        paths = (path for part in PARTS for path in (self.folder / part).glob("*") if path.is_file())
        return self._travelling({str(path.relative_to(self.folder)): _stamp(path) for path in paths})

    def _travelling(self, found: dict[str, Any]) -> dict[str, Any]:
        names = (name for name in found if name not in self.private and not Path(name).name.startswith("."))
        return {name: found[name] for name in sorted(names, key=lambda name: (name.endswith(MANIFEST), name))}


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def refresh(place: str, state: Path) -> None:
    """Take over at once what others have left in a state that is `synced_state`."""
    if "://" in place:
        StateMirror(place, state).pull()


@contextmanager
def synced_state(place: str) -> Iterator[Path]:
    """A state's folder: itself where all nodes see it; of one in a bucket a replica, kept like it meanwhile."""
    if "://" not in place:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="fivefold-") as scratch:
        mirror = StateMirror(place, Path(scratch))
        mirror.pull()
        over = threading.Event()

        def keep() -> None:
            while not over.wait(SYNC_INTERVAL_S):
                with suppress(OSError):  # tried again; what never arrives is told by the last push
                    mirror.push()
                    mirror.pull()

        thread = threading.Thread(target=keep, name="replica", daemon=True)
        thread.start()
        try:
            yield Path(scratch)
        finally:
            over.set()
            thread.join()
            mirror.push()


def local_copy(place: str) -> Path:
    """A folder of the storage that never changes: itself, or of one in a bucket this node's copy, fetched once.

    Raises:
        FileNotFoundError: If the bucket has no such folder, or not the whole of it: its manifest is sent last.
    """
    if "://" not in place:
        return Path(place)
    root, _, name = place.rpartition("/")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / name).exists():
            with stores.open_store(root).fetched(name) as fetched, whole_folder(CACHE / name) as temporary:
                if not (fetched / MANIFEST).is_file():
                    raise FileNotFoundError(
                        f"{place} lacks {MANIFEST}: removed, or still being sent. Run the same command again; "
                        "what is not there is sent anew."
                    )
                shutil.copytree(fetched, temporary, dirs_exist_ok=True)
    return CACHE / name
