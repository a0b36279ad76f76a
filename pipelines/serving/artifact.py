"""A finished model as a folder: weights, facts, and a manifest that vouches for both.

| file | what |
| --- | --- |
| `model.safetensors` | the state of the model (EMA weights), CPU, contiguous |
| `model.json` | how to build it (`family`, `config`, `domain`, `classes`) and where it comes from |
| `manifest.json` | format version and the SHA-256 of the two |

Nothing is pickled. The file imports torch and safetensors only, and travels with a registered model
(inside its vendored package), so that a model is checked by the same lines wherever it is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from torch import Tensor

    from models.contract import GenerativeModel

FORMAT = 1
"""Version of the folder's layout; a folder of a newer one is refused."""

SPEC = ("family", "config", "domain", "classes")
"""The keys of `model.json` from which `models.build` builds the model."""

WEIGHTS, FACTS, MANIFEST = "model.safetensors", "model.json", "manifest.json"


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces (what digests are taken of)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all: temporary name in the same folder, fsync, rename.

    Raises:
        OSError: If the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def save(model: GenerativeModel, folder: str | Path, facts: Mapping[str, Any]) -> str:
    """Write a finished model's folder, whole or not at all, replacing an older one.

    Arguments:
        model: The model; its `state_dict()` is what is kept.
        folder: Where, for example `runs/digits/models/vae`.
        facts: What `model.json` says: the spec for `models.build` (`family`, `config`, `domain`,
            `classes`) and whatever else is worth knowing (`dataset`, `data_digest`, `run_id`, …).
    Returns:
        The model's digest (see `model_digest`).
    Raises:
        ValueError: If `facts` lacks a key of the spec or holds what JSON cannot say.
        OSError: If the folder cannot be written; an older model stays as it was.
    """
    folder = Path(folder)
    missing = [key for key in SPEC if key not in facts]
    if missing:
        raise ValueError(f"facts for {folder / FACTS} lack {', '.join(missing)}: expected at least {', '.join(SPEC)}.")
    text = _json_text(facts, folder)
    temporary = _sibling(folder, "tmp")
    temporary.mkdir(parents=True)
    try:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        (temporary / FACTS).write_text(text, encoding="utf-8")
        manifest = {"format": FORMAT, "files": {name: sha256(temporary / name) for name in (FACTS, WEIGHTS)}}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            fsync(path)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model_digest(folder)


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and weights of a finished model, checked against its manifest.

    Raises:
        ValueError: If a file is missing, altered, truncated, or of a newer format.
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    check(folder)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    missing = [key for key in SPEC if key not in facts]
    if missing:
        raise ValueError(f"{folder / FACTS} lacks {', '.join(missing)}. Train the model again.")
    return facts, load_file(folder / WEIGHTS)


def check(folder: str | Path) -> dict[str, str]:
    """Check a finished model's files against its manifest.

    Returns:
        SHA-256 by file name.
    Raises:
        ValueError: If a file is missing, altered, truncated, or of a newer format.
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no finished model in {folder}. Train it first: `fivefold train`.")
    mend = "Restore the folder (`dvc checkout`) or train the model again."
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, expected = int(manifest["format"]), dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read as a manifest ({error!r}). {mend}") from error
    if version > FORMAT:
        raise ValueError(
            f"{folder / MANIFEST} has format {version}, this Fivefold reads up to {FORMAT}. Use a newer Fivefold."
        )
    for name in (FACTS, WEIGHTS):
        if name not in expected:
            raise ValueError(f"{folder / MANIFEST} does not list {name}. {mend}")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing. {mend}")
        got = sha256(folder / name)
        if got != expected[name]:
            raise ValueError(
                f"{folder / name} is not the file that was saved: expected SHA-256 {expected[name]}, got {got}. {mend}"
            )
    return {name: expected[name] for name in (FACTS, WEIGHTS)}


def load(folder: str | Path, device: str = "cpu") -> tuple[GenerativeModel, dict[str, Any]]:
    """Build the finished model of a folder, in evaluation mode, after checking its hashes.

    Returns:
        The model on `device`, and the facts of `model.json`.
    Raises:
        ValueError: If a file was altered, or the weights do not fit the spec.
        FileNotFoundError: If there is no such folder.
    """
    from models import build

    facts, tensors = read(folder)
    return fill(build({key: facts[key] for key in SPEC}), tensors, folder).to(device).eval(), facts


def fill(model: GenerativeModel, tensors: Mapping[str, Tensor], folder: str | Path) -> GenerativeModel:
    """Put weights into a built model.

    Raises:
        ValueError: If names or shapes do not fit; `folder` is named.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {folder} do not fit the model its {FACTS} describes: {reason} "
            "The code of this family has changed since; train the model again."
        ) from error
    return model


def model_digest(folder: str | Path) -> str:
    """Identity of a finished model: SHA-256 over its weights, its spec and the data it learned from.

    Two trainings that end in the same weights are the same model, however long they took.

    Raises:
        ValueError: If a file was altered.
    """
    folder = Path(folder)
    hashes = check(folder)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    identity = {key: facts.get(key) for key in (*SPEC, "data_digest")} | {"weights": hashes[WEIGHTS]}
    return hashlib.sha256(canonical(identity)).hexdigest()


def _json_text(facts: Mapping[str, Any], folder: Path) -> str:
    try:
        return json.dumps(dict(facts), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"facts for {folder / FACTS} cannot be written as JSON: {error}.") from error


def _sibling(folder: Path, kind: str) -> Path:
    """A hidden name beside a folder, cleared of what a killed process may have left there."""
    path = folder.with_name(f".{folder.name}.{kind}")
    shutil.rmtree(path, ignore_errors=True)
    return path


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; an older folder steps aside first and comes back on failure."""
    old = _sibling(folder, "old")
    had_one = folder.exists()
    if had_one:
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if had_one:
            os.rename(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def fsync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the file system can."""
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        fsync(folder)
