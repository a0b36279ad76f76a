"""The one writer of folders: killed between any two system calls, the old or the new folder is whole."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import traced

from data import files
from pipelines.storage.stores import LocalStore

OLD = {"a": "old a", "deep/b": "old b"}
NEW = {"a": "new a", "deep/c": "new c"}


@pytest.fixture
def quick_disk() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of times a real disk would be waited for."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def fill(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(folder: Path, content: dict[str, str]) -> None:
    with files.whole_folder(folder) as new:
        fill(new, content)


def read_folder(folder: Path) -> dict[str, str] | None:
    files.recover(folder)
    return held(folder) if folder.exists() else None


def write_stored(folder: Path, content: dict[str, str]) -> None:
    LocalStore(folder.parent).install(folder.name, lambda new: fill(new, content))


def read_stored(folder: Path) -> dict[str, str] | None:
    store = LocalStore(folder.parent)
    if folder.name not in store.names(folder.name):
        return None
    with store.fetched(folder.name) as found:
        return held(found)


def write_file(path: Path, content: dict[str, str]) -> None:
    files.write_json(path, content)


def read_file(path: Path) -> dict[str, str] | None:
    return json.loads(path.read_text()) if path.exists() else None


Writer = tuple[Callable[[Path, dict[str, str]], None], Callable[[Path], dict[str, str] | None]]


FOLDER, STORED, FILE = (write_folder, read_folder), (write_stored, read_stored), (write_file, read_file)


@pytest.mark.parametrize(
    ("writer", "before", "exchanging"),
    [
        pytest.param(FOLDER, OLD, True, id="a folder, exchanged"),
        pytest.param(FOLDER, OLD, False, id="a folder, two renames"),
        pytest.param(FOLDER, None, True, id="a first folder"),
        pytest.param(STORED, OLD, False, id="a store's folder, two renames"),
        pytest.param(FILE, OLD, True, id="a file"),
    ],
)
def test_killed_between_any_two_system_calls_the_old_or_the_new_is_whole(
    writer: Writer,
    before: dict[str, str] | None,
    exchanging: bool,
    quick_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the file system can exchange two names, and where it cannot; then writing again leaves nothing else."""
    write, read = writer
    if not exchanging:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    seen = []

    def check(folder: Path) -> None:
        found = read(folder)
        assert found in (before, NEW), found
        assert read(folder) == found
        (folder.parent.parent / "seen").write_text("new" if found == NEW else "old")
        write(folder, {"again": "x"})
        assert read(folder) == {"again": "x"}
        left = [path.name for path in folder.parent.iterdir()]
        assert left == [folder.name], left

    gc.disable()
    try:
        for call in itertools.count(1):
            folder = quick_disk / str(call) / "kept.v1"
            folder.parent.mkdir()
            if before is not None and writer is FILE:
                folder.write_text(json.dumps(before))
            elif before is not None:
                fill(folder, before)
            killed = traced.killed_at(call, lambda folder=folder: write(folder, NEW))
            traced.fresh(lambda folder=folder: check(folder))
            seen.append((quick_disk / "seen").read_text())
            if not killed:
                break
    finally:
        gc.enable()
    assert len(seen) > 20
    assert seen == sorted(seen, reverse=True)  # once it is the new, it stays the new
    assert (seen[0], seen[-1]) == ("old", "new")


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Files, folders and links beside a file; what a link points at stays, and so does what a living one writes."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").write_text("x")
    (tmp_path / f".a.json.{gone.pid}.tmp").write_text("half")
    (tmp_path / f".a.json.{gone.pid}.old").mkdir()
    (tmp_path / f".a.json.{gone.pid}.old/part").write_text("half")
    (tmp_path / f".a.json.{gone.pid}.tmp.x").symlink_to(tmp_path / "other")
    (tmp_path / ".a.json.1.tmp").write_text("of a living process")
    (tmp_path / f".b.json.{gone.pid}.tmp").write_text("of another file")
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.json", "other", ".a.json.1.tmp", f".b.json.{gone.pid}.tmp")
    }
    assert (tmp_path / "other/kept").read_text() == "x"


def test_a_file_and_everything_below_a_folder_is_flushed_before_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files.os, "fsync", lambda d: flushed.append(Path(os.readlink(f"/proc/self/fd/{d}"))))
    (tmp_path / "a/b").mkdir(parents=True)
    everything = [tmp_path / name for name in ("a/one", "a/b/two")]
    for path in everything:
        path.write_text("x")
    files.fsync_tree(everything[0])
    assert flushed == everything[:1]
    flushed.clear()
    files.fsync_tree(tmp_path / "a")
    assert sorted(flushed) == sorted([*everything, tmp_path / "a", tmp_path / "a/b"])
    assert all(flushed.index(path) < flushed.index(path.parent) for path in everything)
    assert flushed[-1] == tmp_path / "a"
