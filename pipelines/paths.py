"""Where each dataset's prepared data and results lie, and who may read them."""

from __future__ import annotations

import os
from pathlib import Path

UMASK = "FIVEFOLD_UMASK"
"""Environment variable: what the permissions of new files lack, in octal; 077 when not set."""


def prepared_folder(dataset: str) -> Path:
    """Where `prepare` leaves a dataset."""
    return Path("data/prepared") / dataset


def runs_folder(dataset: str) -> Path:
    """Where everything made from a dataset lies."""
    return Path("runs") / dataset


def state_folder(dataset: str) -> Path:
    """Where interrupted and finished work lies, nobody's output: the project's, also for an experiment in a copy."""
    return project_folder() / runs_folder(dataset) / "state"


def project_folder() -> Path:
    """The working folder; in a copy, made by DVC for `dvc exp run --temp` or `--queue`, the folder it is a copy of."""
    here, root = Path.cwd(), os.environ.get("DVC_ROOT", "")
    if not root or Path(root, ".dvc", "tmp") not in here.parents:
        return Path()
    copy = next(folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir())
    return Path(root) / here.relative_to(copy)


def card_file(dataset: str) -> Path:
    """Where a dataset's card lies."""
    return Path("data/catalog") / f"{dataset}.yaml"


def settings_file(dataset: str) -> Path:
    """Where the settings lie that a dataset's families are trained with."""
    return runs_folder(dataset) / "settings.yaml"


def private_umask() -> int:
    """What the permissions of new files lack while a command runs: all for others than its user, if not set otherwise.

    Raises:
        ValueError: If the environment's umask is none.
    """
    text = os.environ.get(UMASK, "").strip() or "077"
    if set(text) - set("01234567") or int(text, 8) > 0o777:
        raise ValueError(f"{UMASK} must be an octal number such as 077 or 027, got {text!r}. Set it or unset it.")
    return int(text, 8)
