"""`fivefold experiments`: what each experiment changed, and what came of it, on a screen.

`dvc exp show` has a column for each setting, dependency and number: hundreds, whatever was changed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any

import typer

from pipelines.cli.options import DatasetName
from pipelines.evaluation.use_cases import ARROWS, USE_CASES

LEAST = 24
"""Characters of a line that are left to the settings, however narrow the screen is."""


def experiments(
    job: Annotated[str, typer.Option(metavar="JOB", help="Whose number is shown.")] = "generation",
    dataset: DatasetName = None,
) -> None:
    """Print a line for the workspace, the last commit and each experiment on it.

    Arguments:
        job: Which job's number is shown of each family.
        dataset: On which dataset; by default the one of `params.yaml`, of several the first.
    Raises:
        ValueError: If there is no such job, or this is no project of DVC and Git.
    """
    if job not in USE_CASES:
        raise ValueError(f"--job: expected one of {', '.join(USE_CASES)}, got {job!r}")
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ValueError("DVC cannot list the experiments (it says why above); they need `git init` and a first commit")
    name = job + ARROWS[USE_CASES[job].better]
    for line in table(json.loads(done.stdout), name, shutil.get_terminal_size().columns, dataset or ""):
        print(line)


def table(found: Sequence[Mapping[str, Any]], name: str, width: int, dataset: str = "") -> Iterator[str]:
    """The lines of the table.

    Arguments:
        found: What `dvc exp show --json` prints.
        name: Of the number shown: `generation↓`.
        width: Characters of a line.
        dataset: On which dataset; of each experiment its own, of several the first, if empty.
    """
    rows = [row for group in found for row in _rows(group)]
    written = [_settings(data) for _, data in rows]
    last = next((place for place, (title, _) in enumerate(rows) if title != "workspace"), 0)
    base = written[last]
    on = [dataset or _dataset(settings) for settings in written]
    numbers = [_numbers(data, where, name) for (_, data), where in zip(rows, on, strict=True)]
    families = list(dict.fromkeys(family for row in [numbers[last], *numbers] for family in row))
    spans = [max(len(family), 7) for family in families]
    first = max(len(title) for title, _ in [("experiment", {}), *rows])
    left = max(width - first - sum(spans) - 2 * (len(families) + 1), LEAST)

    def line(title: str, cells: Sequence[str], changed: str) -> str:
        shown = [cell.rjust(span) for cell, span in zip(cells, spans, strict=True)]
        return "  ".join([title.ljust(first), *shown, changed]).rstrip()

    where = f" on {on[last]}" if len(set(on)) == 1 else ""
    yield f"{name} by family{where}, and the settings that are not the last commit's"
    yield line("experiment", families, "changed settings")
    for (title, _), settings, row in zip(rows, written, numbers, strict=True):
        changed = [f"{key}={settings.get(key)}" for key in {**base, **settings} if settings.get(key) != base.get(key)]
        parts = textwrap.wrap(", ".join(changed), left) or [""]
        yield line(title, [f"{row[family]:.4g}" if family in row else "-" for family in families], parts[0])
        for part in parts[1:]:
            yield line("", [""] * len(families), part)


def _rows(group: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A revision and the experiments on it: name and what DVC knows of each."""
    yield group.get("name") or str(group["rev"])[:10], group.get("data") or {}
    for experiment in group.get("experiments") or []:
        for revision in experiment["revs"]:
            yield revision.get("name") or str(revision["rev"])[:7], revision.get("data") or {}


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name."""

    def flat(value: object, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, entry in value.items():
                yield from flat(entry, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix, value

    return dict(flat(data.get("params", {}).get("params.yaml", {}).get("data") or {}, ""))


def _dataset(settings: Mapping[str, Any]) -> str:
    """The dataset of the settings, of several the first where they mean none."""
    return settings.get("dataset") or next(iter(settings.get("datasets") or ()), "")


def _numbers(data: Mapping[str, Any], dataset: str, name: str) -> dict[str, float]:
    """By family, the number of that name on a dataset."""
    found = {PurePath(path): entry.get("data") or {} for path, entry in data.get("metrics", {}).items()}
    return {path.stem: entry[name] for path, entry in found.items() if path.parent.name == dataset and name in entry}
