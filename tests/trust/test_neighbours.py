"""Other users of the machine: what they can write, and what we run of it."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from neighbours import open_to_others

from pipelines.__main__ import main

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CLONED = (".dvc-site/repo/.gitignore", ".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore")
"""What a clone holds for DVC; git, which knows it, need not be where the tests run."""


def dvc(folder: Path, *command: str) -> str:
    """DVC as its user calls it; the cache's place is not in the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
    environment["DVC_NO_ANALYTICS"] = "1"
    told = subprocess.run(
        [sys.executable, "-m", "dvc", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the project holds for DVC, with a file that DVC keeps; and its first `dvc checkout`."""
    folder = tmp_path_factory.mktemp("open") / "project"
    open_to_others(folder)  # a neighbour may look around, as in most homes
    before = os.umask(0o022)
    try:
        for name in CLONED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        (folder / "x.txt").write_text("x")
        dvc(folder, "add", "-q", "x.txt")
        (folder / "x.txt").unlink()
        dvc(folder, "checkout")
    finally:
        os.umask(before)
    return folder


def test_what_dvc_unpickles_nobody_else_can_write(clone: Path):
    """From the first command in a clone: neither where DVC keeps its databases nor in a folder above that."""
    where = next(line for line in dvc(clone, "version").splitlines() if line.startswith("Repo.site_cache_dir"))
    caches = [path.parent for path in clone.rglob("cache.db")]
    assert caches, where
    assert (clone / where.split(": ")[1]).resolve().is_relative_to(clone.resolve()), where
    chain = {folder for cache in caches for folder in (cache, *cache.parents) if folder.is_relative_to(clone)}
    assert [folder for folder in chain if folder.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)] == []


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def plant(folder: Path, ran: Path, **user: Any) -> int:
    """Tell DVC, as some user, that it once linked a file that is no output: it unpickles what it knows of that file."""
    attack = (
        "import pathlib, sqlite3, sys\n"
        "pickled = sys.stdin.buffer.read()\n"
        "for path in pathlib.Path('.dvc-site').rglob('links/cache.db'):\n"
        "    with sqlite3.connect(path) as base:\n"
        "        row = ('.dvcignore', pickled)\n"
        "        base.execute('update Cache set key = ?, mode = 4, filename = null, value = ?', row)\n"
        "    print('written')\n"
    )
    command = ["/usr/bin/python3" if user else sys.executable, "-c", attack]
    told = subprocess.run(command, cwd=folder, input=pickle.dumps(Payload(ran)), capture_output=True, **user)
    return told.stdout.count(b"written")


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="only root can act as another user"
)
def test_a_neighbour_cannot_put_a_pickle_where_dvc_looks(clone: Path):
    """As `nobody` no row of DVC's databases can be replaced; by the owner's hand the same pickle runs."""
    ran = clone / "ran"
    assert plant(clone, ran, user=NOBODY, group=NOBODY, extra_groups=[]) == 0
    dvc(clone, "checkout")
    assert not ran.exists()
    assert plant(clone, ran) == 1
    dvc(clone, "checkout")
    assert ran.exists()


@pytest.mark.parametrize("planted", [True, False])
def test_a_command_does_not_start_beside_a_cache_that_others_wrote(planted, tmp_path, monkeypatch, capsys):
    """A cache that DVC made open to all is closed; what somebody else has put into it is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    cache = tmp_path / ".dvc-site/repo/0123"
    cache.mkdir(parents=True)
    cache.parent.chmod(0o777)
    (cache / "cache.db").touch()
    if planted and os.geteuid() == 0:
        os.chown(cache / "cache.db", NOBODY, NOBODY)
    status = main(["data", "show", "digits"])
    told = capsys.readouterr().err
    assert status == 1
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
    assert ("cache.db is of user 65534. Remove" in told) == (planted and os.geteuid() == 0)
    assert f"site_cache_dir = {tmp_path}/.dvc-site" in (tmp_path / ".dvc/config.local").read_text()


def test_rays_token_is_closed_before_anything_else(tmp_path, monkeypatch, capsys):
    token = tmp_path / "token"
    token.write_text("0" * 64)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.chdir(tmp_path)
    main(["data", "show", "digits"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_what_is_written_is_for_its_user_alone(tmp_path, monkeypatch):
    """And the process that a command runs in is as it was afterwards."""
    before = os.umask(0o022)
    try:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(40)))
        assert main(["data", "add", "rows.csv", "--name", "rows"]) == 0
        made = [path for path in tmp_path.rglob("*") if path.name != "rows.csv"]
        assert len(made) >= 3
        assert [path for path in made if path.stat().st_mode & 0o077] == []
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
