"""The first file of a registered model that runs: it checks the others before it imports any of them.

MLflow executes this file when it loads a version ("models from code"), under the name `served_model.py` at the root of
the model's folder. `vouched.json` beside it lists every file with its SHA-256; a folder that holds another file, lacks
one, or has one changed is refused. The families' code is then compiled from the very bytes that were checked: no file
is read twice, and compiled files (`.pyc`) are neither read nor written.

It cannot vouch for itself: whoever can write to a model store can replace this file too. What a version's tags say of
its files is compared by whoever downloads them (`fivefold verify`), before anything of them runs.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "fivefold_models"
"""Name of the families' package inside a registered model."""

LIST = "vouched.json"
"""SHA-256 of every file of a registered model's folder, by path; all but itself and what MLflow adds."""

ADDED = "registered_model_meta"
"""What MLflow writes into a folder that it downloads: name and version, as it was asked for them."""

NO_BYTECODE = "__pycache__"
"""A file of this name: Python leaves no compiled files beside the entry, and finds none there."""


def files(root: str | Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, by its path there, in order; `ADDED` aside.

    Raises:
        ValueError: If something else than files and folders lies there, such as a link.
    """
    root = Path(root)
    for above, folders, names in os.walk(root):
        folders.sort()
        for name in [*folders, *sorted(names)]:
            path = Path(above, name)
            relative = path.relative_to(root).as_posix()
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or any(c in relative for c in "\\\n\r"):
                raise ValueError(f"{relative!r} in {root} is no plain file. Delete it, or register the model again.")
            if stat.S_ISREG(mode) and relative != ADDED:
                yield relative, path


def vouched(root: str | Path) -> dict[str, bytes]:
    """The code of a model's folder, by path, after every file was compared with the list.

    Raises:
        ValueError: If a file was changed, added or taken away, or there is no list.
    """
    root = Path(root)
    fix = "Download the model again, or register it again."
    try:
        listed = json.loads((root / LIST).read_text(encoding="utf-8"))["files"]
        wanted = {str(name): str(digest) for name, digest in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{root / LIST} does not list the model's files ({error!r}). {fix}") from error
    found = {name: path for name, path in files(root) if name != LIST}
    for what, names in (("is not one of its files", found.keys() - wanted), ("is missing", wanted.keys() - found)):
        if names:
            raise ValueError(f"{min(names)} {what} in {root}. {fix}")
    code = {}
    for name, path in found.items():
        content = path.read_bytes() if name.endswith(".py") else None
        if (hashlib.sha256(content).hexdigest() if content is not None else sha256(path)) != wanted[name]:
            raise ValueError(f"{name} in {root} is not the file that was saved. {fix}")
        if content is not None:
            code[name] = content
    return code


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class CheckedCode(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports a package from bytes in memory.

    Arguments:
        name: Of the package.
        code: Source by path below the package's folder.
        folder: Of the package, for messages.
    """

    def __init__(self, name: str, code: Mapping[str, bytes], folder: Path) -> None:
        self.name, self.code, self.folder = name, dict(code), folder

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        found = self._path(fullname)
        if found is None:
            return None
        package = found.endswith("__init__.py")
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(self.folder / found), is_package=package)
        spec.has_location = True
        return spec

    def get_source(self, fullname: str) -> str:
        return self._content(fullname)[1].decode("utf-8")

    def get_code(self, fullname: str) -> Any:
        path, content = self._content(fullname)
        return compile(content, str(self.folder / path), "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return self._content(fullname)[0].endswith("__init__.py")

    def _path(self, fullname: str) -> str | None:
        if fullname != self.name and not fullname.startswith(f"{self.name}."):
            return None
        stem = fullname[len(self.name) + 1 :].replace(".", "/")
        names = [f"{stem}/__init__.py", f"{stem}.py"] if stem else ["__init__.py"]
        return next((name for name in names if name in self.code), None)

    def _content(self, fullname: str) -> tuple[str, bytes]:
        path = self._path(fullname)
        if path is None:
            raise ImportError(f"{self.folder} holds no module {fullname}", name=fullname)
        return path, self.code[path]


def vendored(root: str | Path) -> ModuleType:
    """Import the families' package of a registered model, checked.

    Two versions with different code can live in one process, and a caller's own packages are left
    alone: the package is imported under a name that ends in a digest of its code.

    Raises:
        ValueError: If the folder is not what was saved.
    """
    root = Path(root)
    prefix = f"code/{PACKAGE}/"
    code = {name.removeprefix(prefix): text for name, text in vouched(root).items() if name.startswith(prefix)}
    if "__init__.py" not in code:
        raise ValueError(f"{root / prefix} holds no code. The registered model is incomplete: register it again.")
    digest = hashlib.sha256(
        json.dumps({name: hashlib.sha256(text).hexdigest() for name, text in code.items()}).encode()
    )
    name = f"{PACKAGE}_{digest.hexdigest()[:16]}"
    if name not in sys.modules:
        finder = CheckedCode(name, code, root / prefix)
        sys.meta_path.insert(0, finder)
        try:
            importlib.import_module(f"{name}.serving.served_model")
        except BaseException:
            sys.meta_path.remove(finder)
            for module in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
                del sys.modules[module]
            raise
    return sys.modules[name]


if not __package__:  # MLflow runs this file by itself
    from mlflow.models import set_model

    set_model(vendored(Path(__file__).resolve().parent).serving.served_model.ServedModel())
