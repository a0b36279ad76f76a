"""Files inside folders, zip and tar archives, read as streams: nothing is ever unpacked to the disk.

Archives are untrusted. Names that leave the archive, links and devices are faults; how much an
archive may swell is bounded before anything of it is kept; and memory does not grow with the number
of files, which is why the tables of contents are read here entry by entry instead of as a list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from data.sources.streams import MEMBER_LIMIT, Member, leads_to_file
from data.sources.tar import tar_members
from data.sources.zip import zip_members

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive this module reads."""
    name = path.name.lower()
    return name.endswith(".zip") or name.endswith(TAR_SUFFIXES)


def members(path: Path, keep: Callable[[str], bool] = lambda name: True) -> Iterator[Member]:
    """The files of a folder (in the order of their names) or archive (in its own order).

    Arguments:
        path: Folder or archive.
        keep: Only files whose name passes are yielded; the content of others is not looked at.
    Raises:
        ValueError: If the archive is damaged, or would swell beyond reason.
    """
    if path.is_dir():
        return _folder(path, keep)
    if path.name.lower().endswith(".zip"):
        return zip_members(path, keep)
    return tar_members(path, keep)


def _folder(path: Path, keep: Callable[[str], bool]) -> Iterator[Member]:
    def walk(folder: Path, prefix: str) -> Iterator[Member]:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False), leads_to_file(entry)) for entry in found)
        for name, is_folder, is_file in entries:
            if is_folder:
                yield from walk(folder / name, f"{prefix}{name}/")
            elif keep(prefix + name):
                fault = "" if is_file else "it is neither a file nor a folder (a link that leads nowhere?)"
                yield Member(prefix + name, fault, lambda file=folder / name: _read_file(file))

    return walk(path, "")


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MEMBER_LIMIT:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MEMBER_LIMIT}")
    return path.read_bytes()
