"""A real PostgreSQL server for a test, on a port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from neighbours import open_to_others


def programs() -> Path | None:
    """The folder of its programs; `None` where it is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


@contextlib.contextmanager
def postgres(folder: Path, port: int) -> Iterator[str]:
    """A server that keeps its data in a folder; yields the beginning of its databases' URIs.

    As root it is run as `nobody`, for it refuses to run as root.
    """
    bin_folder = programs()
    assert bin_folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        open_to_others(folder.parent)  # pytest's folders are for their owner alone
        prefix = ["setpriv", "--reuid", "nobody", "--clear-groups", "--"]
    data = folder / "data"
    quick = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    where = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

    def run(name: str, *arguments: str) -> None:
        subprocess.run([*prefix, str(bin_folder / name), *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run("initdb", "-D", str(data), "-U", "mlflow", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
    run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", f"{quick} {where}", "start")
    try:
        yield f"postgresql://mlflow@127.0.0.1:{port}/"
    finally:
        if prefix:
            open_to_others(folder.parent)  # another session of pytest that has begun since may have closed them
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
