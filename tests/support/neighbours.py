"""Folders of tests, seen by other users of the machine."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path


def open_to_others(folder: Path) -> None:
    """Let others read a folder and reach it from the machine's temporary folder, which itself stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.gettempdir()).resolve()
    for path in (folder.resolve(), *folder.resolve().parents):
        if path != top and path.is_relative_to(top):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o055)
