"""A registered model altered by somebody who can write to the store: nothing of it runs, nothing approves it."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_registry import finish, measure, migrated, registered, store

from data.files import sha256
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.tracking import vouching
from pipelines.tracking.server import get_client

__all__ = ["migrated", "store"]

CODE = "code/fivefold_models"
URI = "models:/digits@generation"
pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Path]:
    """A project with a registered model, signed; the key is only where it was registered."""
    root = tmp_path_factory.mktemp("kept")
    shutil.copy(migrated, root / "mlflow.db")
    for name in ("key", "other"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"], cwd=root, check=True)
        (root / f"{name}.pem").chmod(0o600)
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"], cwd=root, check=True
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        tracking.connect()
        finish(root, "vae")
        measure(root, "vae", frechet=2.0)
        patch.setenv(vouching.SIGNING_KEY, str(root / "key.pem"))
        registered(root, "vae")
        patch.delenv(vouching.SIGNING_KEY)
        (root / "params.yaml").write_text("dataset: digits\nfamilies: [vae]\nvae: {}\n")
        yield root


@pytest.fixture
def files(kept: Path) -> Iterator[Path]:
    """The folder of the version in the store, given back as it was."""
    version = tracking.find_version(URI)
    folder = Path(get_client().get_model_version_download_uri("digits", str(version.number)).removeprefix("file://"))
    backup = kept / "backup"
    shutil.copytree(folder, backup, symlinks=True)
    yield folder
    shutil.rmtree(folder)
    backup.rename(folder)


def payload(folder: Path) -> str:
    return f"\nopen({str(folder / 'ran')!r}, 'w').close()\n"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def compiled(folder: Path, beside: Path) -> None:
    """A stray compiled file, of the age and size of the source that it stands for."""
    target = beside.parent / "__pycache__" / f"{beside.stem}.cpython-311.pyc"
    if target.parent.is_file():
        target.parent.unlink()
    before = beside.read_bytes(), beside.stat()
    beside.write_text(payload(folder) + " " * (before[1].st_size - len(payload(folder)) - 2) + "#")
    os.utime(beside, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    py_compile.compile(str(beside), cfile=str(target), doraise=True)
    beside.write_bytes(before[0])
    os.utime(beside, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))


def weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Other weights, and every list in the folder signed anew."""
    (path,) = folder.rglob("model.safetensors")
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim() > 1)
    save_file({**tensors, name: change(tensors[name])}, path)
    manifest = path.with_name("manifest.json")
    listed = json.loads(manifest.read_text())
    listed["files"][path.name] = sha256(path)
    manifest.write_text(json.dumps(listed))
    vouching.seal(folder)


def other_loader(folder: Path) -> None:
    (folder / "code/evil.py").write_text(payload(folder))
    described = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(described.replace("mlflow.pyfunc.loaders.code_model", "evil"))


def replaced_by_link(folder: Path) -> None:
    path = folder / CODE / "vae/__init__.py"
    path.rename(folder.parent / "elsewhere.py")
    path.symlink_to(folder.parent / "elsewhere.py")


ENTRY = {
    "entry appended": lambda f: append(f / "served_model.py", payload(f)),
    "entry appended, listed": lambda f: (append(f / "served_model.py", payload(f)), vouching.seal(f)),
    "entry compiled": lambda f: compiled(f, f / "served_model.py"),
    "loader named in MLmodel": other_loader,
    "loader named, listed": lambda f: (other_loader(f), vouching.seal(f)),
    "MLmodel truncated": lambda f: (f / "MLmodel").write_text((f / "MLmodel").read_text()[:400]),
    "package appended, listed": lambda f: (append(f / CODE / "vae/__init__.py", payload(f)), vouching.seal(f)),
    "weights swapped, listed": lambda f: weights(f, torch.randn_like),
    "weights not a number, listed": lambda f: weights(f, lambda x: x * torch.nan),
}
"""What a consumer that does not compare anything would run or use."""

CHECKED = {
    "package appended": lambda f: append(f / CODE / "vae/__init__.py", payload(f)),
    "stray module": lambda f: (f / "code/safetensors.py").write_text(payload(f)),
    "stray file": lambda f: (f / "notes.txt").write_text("x"),
    "package compiled": lambda f: compiled(f, f / CODE / "vae/__init__.py"),
    "a link": replaced_by_link,
    "file missing": lambda f: (f / "requirements.txt").unlink(),
    "requirements changed": lambda f: append(f / "requirements.txt", "evil==1\n"),
    "list missing": lambda f: (f / "vouched.json").unlink(),
    "list of nothing": lambda f: (f / "vouched.json").write_text('{"files": {}}'),
    "list nested": lambda f: (f / "vouched.json").write_text("[" * 100_000),
    "version's job": lambda f: append(f / "artifacts/version.json", " "),
}
"""What the entry itself refuses, in a folder that nobody else compared."""


@pytest.mark.parametrize("alteration", [*ENTRY, *CHECKED])
def test_an_altered_model_is_refused_before_anything_of_it_runs(
    alteration: str, files: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    {**ENTRY, **CHECKED}[alteration](files)
    assert main(["verify", URI]) == 1
    told = capsys.readouterr().err
    assert "is refused" in told or alteration == "a link"  # which MLflow itself does not download
    assert "Traceback" not in told
    assert main(["sample", "digits", "-o", str(kept / "drawn.npy")]) == 1
    assert main(["lineage", "--dataset", "digits"]) == 1
    assert "BAD files" in capsys.readouterr().out
    assert not list(kept.rglob("ran"))
    assert not (kept / "drawn.npy").exists()


@pytest.mark.parametrize("alteration", CHECKED)
def test_the_entry_checks_what_it_vendors_before_importing_it(alteration: str, files: Path, kept: Path) -> None:
    """Whoever loads without comparing is still told, as long as the entry is the one that was registered."""
    import mlflow

    CHECKED[alteration](files)
    with pytest.raises(mlflow.MlflowException, match=r"Download the model again|is no plain file"):
        mlflow.pyfunc.load_model(URI)
    assert not list(kept.rglob("ran"))


def test_what_was_verified_loads_and_loading_leaves_it_as_it_was(
    kept: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way of a careful consumer, and of one who loads from the store: neither leaves a file behind."""
    import mlflow

    before = vouching.files_digest(files)
    mlflow.pyfunc.load_model(URI)  # in place, where the store is a folder
    assert vouching.files_digest(files) == before
    assert main(["verify", URI, "--to", str(tmp_path / "checked")]) == 0
    assert f"files digest {before[:12]}, signed, but no key is pinned here" in capsys.readouterr().out
    model = mlflow.pyfunc.load_model(str(tmp_path / "checked"))
    assert model.predict(np.zeros((0, 8, 8, 1), np.uint8), params={"n": 2}).shape == (2, 8, 8, 1)
    command = "find . -type f ! -path ./registered_model_meta -exec sha256sum {} + | LC_ALL=C sort | sha256sum"
    told = subprocess.run(command, shell=True, cwd=tmp_path / "checked", capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == before == tracking.find_version(URI).tags["files_digest"]
    assert main(["verify", URI, "--to", str(tmp_path / "checked")]) == 1


def test_a_pinned_key_finds_out_who_can_write_to_the_database_too(
    kept: Path, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = tracking.find_version(URI)
    monkeypatch.setenv(vouching.TRUSTED_KEYS, str(kept / "key.pub"))
    assert main(["verify", "digits"]) == 0
    assert "signed by a trusted key" in capsys.readouterr().out
    assert main(["verify", "digits", "--key", str(kept / "other.pub")]) == 1
    assert "its signature is not by a key that is trusted here" in capsys.readouterr().err
    get_client().copy_model_version(f"models:/digits/{version.number}", "cats")  # as another model's: no longer signed
    assert main(["verify", "models:/cats/1"]) == 1
    assert "its signature is not by a key that is trusted here" in capsys.readouterr().err
    monkeypatch.delenv(vouching.TRUSTED_KEYS)
    assert main(["verify", "models:/cats/1"]) == 0
    monkeypatch.setenv(vouching.TRUSTED_KEYS, str(kept / "key.pub"))
    ENTRY["entry appended, listed"](files)

    def tag(name: str, value: str) -> None:
        get_client().set_model_version_tag("digits", str(version.number), name, value)

    try:
        tag("files_digest", vouching.files_digest(files))
        assert main(["verify", "digits"]) == 1  # the signature is of other files
        monkeypatch.setenv(vouching.SIGNING_KEY, str(kept / "other.pem"))
        tag("signature", vouching.vouchers("digits", files)["signature"])
        assert main(["verify", "digits"]) == 1  # by the attacker's own key
        tag("signature", "no base64!")
        assert main(["verify", "digits"]) == 1
        assert main(["sample", "digits", "-o", str(kept / "drawn.npy")]) == 1
        assert not (files / "ran").exists()
    finally:
        for name in vouching.TAGS:
            tag(name, version.tags[name])


def test_registering_again_looks_at_what_is_there(
    kept: Path, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a version without our signature is not taken for ours: another one is registered."""
    before = len(tracking.versions("digits"))
    ENTRY["entry appended"](files)
    for path in kept.glob("mlruns/*/models/*/artifacts"):
        if path != files:
            ENTRY["entry appended"](path)
    with pytest.raises(ValueError, match="is refused: its files have digest"):
        registered(kept, "vae")
    assert len(tracking.versions("digits")) == before
    monkeypatch.setenv(vouching.SIGNING_KEY, str(kept / "other.pem"))
    number = registered(kept, "vae")["versions"]["vae"]["version"]
    assert number > before
    for version in tracking.versions("digits"):  # as those that were registered before there were digests
        get_client().delete_model_version_tag("digits", str(version.number), "files_digest")
    assert main(["verify", URI]) == 1
    assert "nothing vouches for its files" in capsys.readouterr().err
    assert "registered without a digest of its files" in registered(kept, "vae")["jobs"]["generation"]["why"]
    assert main(["verify", URI, "--key", str(kept / "other.pub")]) == 0
    (kept / "other.pem").chmod(0o644)
    with pytest.raises(ValueError, match="others can read it: `chmod 600"):
        registered(kept, "vae")
