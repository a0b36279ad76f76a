"""Folders and files that nobody else may write: checked, and closed, before any command starts.

Libraries unpickle what lies in some folders, and so run whatever another user of the machine could put there. DVC's
is by default `/var/tmp/dvc`, which everybody may write; ours is `.dvc-site` in the project. What is written while a
command runs is for its user alone (`private_umask`).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.paths import private_umask

SITE_CACHE = ".dvc-site"
"""DVC's site cache, in the project."""


@contextmanager
def private_process(root: Path | None = None) -> Iterator[None]:
    """While the block runs, new files are for this user alone; the project's caches are checked first.

    Arguments:
        root: The project's root, the working directory when not given.
    Raises:
        PermissionError: If somebody else may write where a library unpickles.
        ValueError: If the environment's umask is none.
    """
    before = os.umask(private_umask())
    try:
        close_token()
        secure_site_cache(Path.cwd() if root is None else root)
        yield
    finally:
        os.umask(before)


def secure_site_cache(root: Path) -> None:
    """Give a project that DVC knows a site cache that only its user may write.

    Raises:
        PermissionError: If somebody else could have written to the one that is set.
    """
    if os.name != "posix" or not (root / ".dvc").is_dir():
        return
    folder = site_cache(root)
    if folder is None:
        folder = (root / SITE_CACHE).absolute()
        _write_local(root, folder)
    for closed in (folder, folder / "repo"):
        closed.mkdir(mode=0o700, parents=True, exist_ok=True)
        if closed.stat().st_uid == os.geteuid() and closed.stat().st_mode & 0o077:
            closed.chmod(0o700)
    if folder.name == SITE_CACHE and not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n")
    if wrong := fault(folder, trusted=root.stat().st_uid):
        raise PermissionError(f"DVC runs what it finds in its cache, and {wrong}")


def close_token() -> str:
    """Close Ray's token, which Ray itself leaves readable to all; what is wrong with it if that cannot be done."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    if os.name != "posix" or not path.is_file() or not path.stat().st_mode & 0o077:
        return ""
    if path.stat().st_uid == os.geteuid():
        path.chmod(0o600)
        return ""
    return f"others can read Ray's token: `chmod 600 {path}`, and make a new one"


def site_cache(root: Path) -> Path | None:
    """DVC's site cache as it is set, for every folder of a project; `None` where it is not, or was for another place.

    A relative path, such as that of `.dvc/config`, DVC takes from whatever folder it is called in.
    """
    if named := os.environ.get("DVC_SITE_CACHE_DIR"):
        return Path(named).absolute()
    for name in ("config.local", "config"):
        named = _settings(root / ".dvc" / name).get("site_cache_dir")
        if named and Path(named).is_absolute():
            moved = Path(named).name == SITE_CACHE and Path(named) != (root / SITE_CACHE).absolute()
            return None if moved else Path(named)
    return None


def fault(folder: Path, trusted: int | None = None) -> str:
    """How somebody else could write into a folder, or has, with the fix; empty when nobody can.

    Arguments:
        folder: Looked at with all that it holds, and with the folders above it.
        trusted: A user besides this one and root.
    """
    known = {0, os.geteuid(), trusted}
    fix = f"Remove {folder}, or name a folder of your own in DVC_SITE_CACHE_DIR"
    for path in folder.resolve().parents:
        if path.stat().st_mode & stat.S_IWOTH and not path.stat().st_mode & stat.S_ISVTX:
            return f"everybody can write to {path}: `chmod o-w {path}`"
    for path in (folder, *folder.rglob("*")):
        found = path.lstat()
        if found.st_uid not in known:
            return f"{path} is of user {found.st_uid}. {fix}"
        if stat.S_ISDIR(found.st_mode) and found.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return f"others can write to {path}. {fix}"
    return ""


def _settings(path: Path) -> dict[str, str]:
    """The section `core` of a configuration of DVC; empty where there is none.

    Raises:
        ValueError: If it is no such file.
    """
    from configobj import ConfigObj

    try:
        core = ConfigObj(str(path)).get("core") if path.exists() else None
        return {str(key): str(value) for key, value in (core or {}).items()}
    except (SyntaxError, ValueError, TypeError) as error:  # ConfigObjError is a SyntaxError
        raise ValueError(f"{path} is no configuration that DVC reads: {error}. Fix the file, or remove it.") from error


def _write_local(root: Path, folder: Path) -> None:
    """Say in `.dvc/config.local`, which git does not keep, where the cache lies."""
    from configobj import ConfigObj

    config = ConfigObj(str(root / ".dvc" / "config.local"))
    config.setdefault("core", {})["site_cache_dir"] = str(folder)  # type: ignore[index]
    config.write()
    print(f"DVC's cache of this project is {folder}, for you alone (.dvc/config.local)", file=sys.stderr)
