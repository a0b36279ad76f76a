"""What makes a training the same one: settings, data, reference, and the code that computes it.

The code is found by following imports from the modules where the work begins, so nothing has to be listed by hand.
Two rules keep out what cannot change the result. A package's `__init__.py` counts where a name is taken from it, not
where a module below it is imported. And of a table of siblings, a dictionary such as `FAMILIES` from names to what
the file imports, only the entry that the training names counts, with its import.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import models
from data.files import canonical
from models import FAMILIES
from models.domains import DOMAINS
from pipelines.training.config import TrainingConfig, changes_model
from pipelines.training.job import TrainingJob

ROOT = Path(str(models.__file__)).parents[1]
PACKAGES = ("models", "data", "pipelines")
WORKER = "pipelines.training.worker"
"""Where a training begins: it imports the loop, the batches and the selection score."""

VENDORED = tuple(
    f"serving.{module}"
    for module in (
        "artifact", "calibration", "domains", "entry", "formats", "interpolation", "params", "rest", "served_model",
        "signature",
    )
)  # fmt: skip
"""Where a registered model begins, beside its family."""


def identity(job: TrainingJob, data: str, reference: str, root: Path = ROOT) -> dict[str, Any]:
    """What makes a training the same one.

    Arguments:
        job: The training; only fields that change what is learned count (see `changes_model`).
        data: Digest of the prepared data.
        reference: Digest of the evaluation reference, by which the best model is chosen.
        root: Folder of the packages.
    Returns:
        Plain data; `code` holds a digest of each file, so that two identities tell which file differs.
    """
    settings = changes_model(TrainingJob, dataclasses.asdict(job))
    settings["training"] = changes_model(TrainingConfig, job.training)
    code = training_code(job.spec["family"], job.spec.get("domain", {}).get("kind"), root)
    return {**settings, "data": data, "reference": reference, "code": code}


def identity_digest(same: Mapping[str, Any]) -> str:
    """SHA-256 of an identity."""
    return hashlib.sha256(canonical(same)).hexdigest()


def training_code(family: str, kind: str | None, root: Path = ROOT) -> dict[str, str]:
    """Digest by file of the code that a family's training on one kind of data is made of.

    A kind of data registered from outside counts by its own files, with what they import.
    """
    names = {family, kind} if kind else {family}
    entries, outside = [FAMILIES[family].__module__, WORKER], {}
    if path := registered_outside(DOMAINS).get(kind or ""):
        module = DOMAINS[str(kind)].__module__
        module = path.stem if module == "__main__" else module
        entries.append(module)
        outside[module.split(".")[0]] = path.parents[module.count(".") + (path.name == "__init__.py")]
    return import_closure(root, PACKAGES, entries, names, outside)


def registered_outside(table: Mapping[str, Any]) -> dict[str, Path]:
    """The files of those classes in a table of kinds of data that were registered from outside, by kind."""
    found = {kind: entry for kind, entry in table.items() if entry.__module__.split(".")[0] not in PACKAGES}
    return {kind: Path(inspect.getfile(entry)) for kind, entry in found.items()}


def code_digest(family: str, package: Path) -> str:
    """SHA-256 over the code of a family as it travels with a registered model, comments and layout aside.

    A change in another family's file leaves it as it is.

    Arguments:
        family: Name in the table of families.
        package: The folder of the families' code, with `serving` within.
    """
    home = FAMILIES[family].__module__.split(".", 1)[1]
    entries = [f"{package.name}.{module}" for module in (home, *VENDORED)]
    return hashlib.sha256(canonical(import_closure(package.parent, [package.name], entries, {family}))).hexdigest()


def import_closure(
    root: Path,
    packages: Collection[str],
    entries: Collection[str],
    names: Collection[str] = (),
    outside: Mapping[str, Path] | None = None,
) -> dict[str, str]:
    """The files that some modules need, each with the digest of its code without comments and docstrings.

    Arguments:
        root: Folder of the packages.
        packages: Packages whose imports are followed, those in functions too.
        entries: Dotted names of the modules to begin with.
        names: What the work names: a table of siblings that has one of them as a key counts by these entries only.
        outside: Folder by name of packages that lie elsewhere, whose imports are followed too.
    Returns:
        SHA-256 by path below `root`, or below the folder of a package that lies elsewhere.
    Raises:
        ValueError: If a package, or an entry in one, is not there.
    """
    found: dict[str, str] = {}
    wanted = frozenset(names)
    folders = dict.fromkeys(packages, root) | dict(outside or {})
    waiting = [(module, "") for module in entries]
    for module in (*packages, *entries):
        if _file(folders, module) is None:
            raise ValueError(f"there is no module {module} below {folders.get(module.split('.')[0], root)}")
    seen: set[tuple[str, str]] = set()
    while waiting:
        if (request := waiting.pop()) in seen:
            continue
        seen.add(request)
        module, name = request
        if name and _file(folders, f"{module}.{name}"):
            waiting.append((f"{module}.{name}", ""))
            continue
        path = _file(folders, module)
        if path is None:
            continue
        code = _code(path.read_text(encoding="utf-8"), wanted)
        found[path.relative_to(folders[module.split(".")[0]]).as_posix()] = code.digest
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [_absolute(package, *imported) for imported in code.imports]
        if name in code.left_out:
            waiting.append(_absolute(package, *code.left_out[name]))
    return dict(sorted(found.items()))


def _file(folders: Mapping[str, Path], module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] not in folders:
        return None
    root = folders[parts[0]]
    for path in (root.joinpath(*parts, "__init__.py"), root.joinpath(*parts).with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _absolute(package: str, level: int, module: str, name: str) -> tuple[str, str]:
    """An import as a module and a name in it, or none."""
    if level:
        above = package.split(".")
        module = ".".join([*above[: len(above) - level + 1], *([module] if module else [])])
    return module, name


@dataclass(frozen=True, slots=True)
class _Code:
    """What matters of a file.

    Arguments:
        digest: Of its syntax tree, without docstrings and without what a table leaves out.
        imports: Level, module and name of each import.
        left_out: Imports of the entries that a table leaves out, by the name they have here.
    """

    digest: str
    imports: tuple[tuple[int, str, str], ...]
    left_out: dict[str, tuple[int, str, str]]


@lru_cache(maxsize=1024)
def _code(text: str, names: frozenset[str]) -> _Code:
    tree = ast.parse(text)
    left_out = _leave_out(tree, names)
    imports = []
    for node in _blocks(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [line for line in node.body if not _is_docstring(line)]  # type: ignore[attr-defined]
        imports += [imported for _, imported in _imports(node)]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return _Code(digest, tuple(imports), left_out)


BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement holds others."""


def _blocks(tree: ast.AST) -> Iterator[ast.AST]:
    """A module and every statement, handler and case in it: all that can hold a docstring or be an import.

    `ast.walk` goes through every expression, too, which takes five times as long.
    """
    waiting = [tree]
    while waiting:
        yield (node := waiting.pop())
        for name in BLOCKS:
            within = getattr(node, name, None)
            waiting += within if isinstance(within, list) else []


def _is_docstring(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _imports(node: ast.AST) -> Iterator[tuple[str, tuple[int, str, str]]]:
    """The names that an import binds, each with the level, module and name that it is imported from."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, (0, alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, (node.level, node.module or "", alias.name)


def _leave_out(tree: ast.Module, names: frozenset[str]) -> dict[str, tuple[int, str, str]]:
    """Take from a file the entries of its tables that are not named, and the imports that only these need."""
    imported = dict(pair for node in tree.body for pair in _imports(node))
    dropped: set[str] = set()
    for node in tree.body:
        table = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if not isinstance(table, ast.Dict):
            continue
        entries = [
            (key, value)
            for key, value in zip(table.keys, table.values, strict=True)
            if isinstance(key, ast.Constant) and _used(value) and _used(value) <= imported.keys()
        ]
        kept = [(key, value) for key, value in entries if key.value in names]
        if len(entries) < len(table.keys) or not kept:
            continue  # no table of siblings, or none of which one is named
        dropped |= {name for entry in entries if entry not in kept for name in _used(entry[1])}
        table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]
    if not dropped:
        return {}
    dropped -= _used(tree)
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) not in dropped]
    tree.body = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom)) or node.names]
    return {name: imported[name] for name in dropped}


def _used(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
