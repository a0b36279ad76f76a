"""What is written is on the disk before it is seen: files and folders are synced, renamed, then the folder above."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data import files
from data.files import write_atomically
from pipelines.serving import artifact
from pipelines.stages.prepare import prepare
from pipelines.storage import model_folder
from pipelines.storage.stores import LocalStore, open_store
from pipelines.training import checkpoint

ROOT = Path(__file__).parents[2]


def write_checkpoint(folder: Path) -> Path:
    return folder / checkpoint.save(open_store(folder), checkpoint.Checkpoint(3, {"x": torch.ones(9)}, {}))


def write_note(folder: Path) -> Path:
    return Path(open_store(folder).note("diverged.json", "{}"))


def write_model(folder: Path) -> Path:
    model = torch.nn.Linear(2, 1)
    for _ in range(2):  # the second takes the place of the first
        model_folder.save(model, folder / "vae", dict.fromkeys(artifact.SPEC, 0))
    return folder / "vae"


def write_text(folder: Path) -> Path:
    write_atomically(folder / "a.json", "{}")
    return folder / "a.json"


def write_data(folder: Path) -> Path:
    (folder / "data/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "data/catalog/digits.yaml", folder / "data/catalog")
    prepare("digits", root=folder)
    return folder / "data/prepared/digits"


@pytest.mark.parametrize("write", [write_checkpoint, write_note, write_model, write_text, write_data])
def test_all_is_synced_before_it_is_renamed(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    synced: set[tuple[int, int, int]] = set()
    sync = os.fsync

    def state(path: str | Path) -> tuple[int, int, int]:
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns

    def spied_sync(descriptor: int) -> None:
        synced.add(state(f"/proc/self/fd/{descriptor}"))
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def spied(rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(source: str | Path, target: str | Path) -> Any:
            if not Path(target).name.startswith("."):
                written = [Path(source), *Path(source).rglob("*")]
                missed = [path.name for path in written if state(path) not in synced]
                assert not missed, f"renamed before they are on the disk: {missed}"
                events.append(("rename", str(target)))
            return rename(source, target)

        return renamed

    monkeypatch.setattr(os, "fsync", spied_sync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    monkeypatch.setattr(files, "_exchange", spied(files._exchange))
    written = write(tmp_path / "out")
    last = max(index for index, event in enumerate(events) if event == ("rename", str(written)))
    assert ("sync", str(written.parent)) in events[last:]


class Rotten(LocalStore):
    """A disk that changes one bit of what is written, without a word."""

    def __init__(self, root: Path, file: str) -> None:
        super().__init__(root)
        self.file = file

    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        super().install(name, fill)
        path = self.root / name / self.file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("file", [checkpoint.TENSORS, checkpoint.FACTS])
def test_what_does_not_read_back_is_an_error_and_older_checkpoints_stay(tmp_path: Path, file: str) -> None:
    older = checkpoint.Checkpoint(1, {"x": torch.ones(9)}, {"note": "a"})
    checkpoint.save(open_store(tmp_path), older, older, keep=1)
    newer = checkpoint.Checkpoint(2, {"x": torch.zeros(9)}, {"note": "b"})
    with pytest.raises(OSError, match="does not read back as it was written"):
        checkpoint.save(Rotten(tmp_path, file), newer, keep=1)
    with pytest.raises(OSError, match="does not read back as it was written"):
        checkpoint.save(Rotten(tmp_path, file), newer, newer, keep=1)
    assert {"step-0000000001", "best-0000000001"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.warns(UserWarning, match="set aside"):
        assert checkpoint.load_newest(open_store(tmp_path)).step == 1
