"""An environment of pinned packages that the project itself does not need."""

from __future__ import annotations

import hashlib
import subprocess
import venv
from pathlib import Path


def environment(folder: Path, requirements: Path) -> Path:
    """The interpreter of an environment, which is made where it is missing or out of date.

    Arguments:
        folder: Where it lies.
        requirements: Every package of it, pinned; installed with `--no-deps`.
    """
    python, stamp = folder / "bin" / "python", folder / "made-from"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", requirements], check=True)
        stamp.write_text(digest)
    return python
