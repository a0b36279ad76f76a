"""What makes a training the same one: settings, data and the code that computes it."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
from data import batches, permutation
from data.files import canonical
from models import FAMILIES
from pipelines.training import config, context, loop, state
from pipelines.training.job import TrainingJob


def code_digest(family: str, package: Path) -> str:
    """SHA-256 over the code that a family is made of, comments and layout aside.

    A change in another family's file leaves it as it is.

    Arguments:
        family: Name in the table of families.
        package: The folder of the families' code.
    """
    from models import FAMILIES

    start = FAMILIES[family].__module__.split(".")[1:]
    files = _imported(package, start)
    texts = {str(path.relative_to(package)): ast.dump(ast.parse(path.read_bytes())) for path in files}
    return hashlib.sha256(canonical(texts)).hexdigest()


def _imported(package: Path, start: Sequence[str]) -> set[Path]:
    """Files of a package that one of its modules needs, by its relative imports."""
    seen: set[Path] = set()
    waiting = [list(start), ["serving", "artifact"], ["serving", "served_model"]]
    while waiting:
        module = waiting.pop()
        path = package.joinpath(*module).with_suffix(".py")
        here = module[:-1]
        if not path.exists():
            path, here = package.joinpath(*module, "__init__.py"), module
        if path in seen or not path.exists() or not module:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = here[: len(here) - (node.level - 1)] + (node.module.split(".") if node.module else [])
                waiting += [base, *([*base, name.name] for name in node.names)]
    return seen


def identity(job: TrainingJob, data_digest: str) -> dict[str, Any]:
    """What makes a training the same one: its settings, its data and the code that computes it."""
    code = hashlib.sha256()
    for path in family_code(job.spec["family"]):
        code.update(path.read_bytes())
    return {
        "spec": job.spec,
        "training": job.training,
        "seed": job.seed,
        "data": data_digest,
        "code": code.hexdigest(),
    }


def family_code(family: str) -> list[Path]:
    """The files whose change makes a training another one: all of `models` but the other families, loop and order."""

    def home(name: str) -> Path:
        path = Path(inspect.getfile(FAMILIES[name]))
        return path.parent if path.name == "__init__.py" else path

    root = Path(inspect.getfile(models)).parent
    others = {home(name) for name in FAMILIES if name != family}
    others.add(root / "__init__.py")  # the table of families: a new one changes nothing for the others
    shared = [path for path in sorted(root.rglob("*.py")) if not others & {path, *path.parents}]
    parts = (loop, config, context, state, batches, permutation)
    return [*shared, *(Path(inspect.getfile(part)) for part in parts)]
