"""`dvc.yaml` for one dataset, or with a stage per dataset for several that stand side by side.

DVC has no optional parameter and no condition: a file that names `${dataset}` needs it, one that names a matrix of
datasets needs that, and no file serves both. So the same file is written in two forms, of which each follows from the
other. That for several names the datasets itself: what a stage of this file makes, `dvc exp run` leaves in its place,
whichever of them an experiment is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PIPELINE = Path("dvc.yaml")
ONE, EACH = "${dataset}", "${item.dataset}"
MATRIX = re.compile(r"^      dataset: \[(.*)\]$", re.MULTILINE)
STAGE = re.compile(r"^  [\w.-]+:[ ]*(?:#.*)?$")
SHOWN = re.compile(r"^  - runs/[^/]+/(.+)$")
"""A line of the sections `params` and `plots`."""
NO_TEXT = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
"""Words that YAML takes for something else."""
MADE = re.compile(r"(?:runs|data/prepared)/([^/]+)")


def stage_datasets(text: str) -> tuple[str, ...]:
    """The datasets that the stages of a `dvc.yaml` are of, none where it is for the one of `params.yaml`."""
    found = MATRIX.search(text)
    return tuple(name.strip().strip('"') for name in found[1].split(",")) if found else ()


def pipeline_text(text: str, datasets: Sequence[str]) -> str:
    """A `dvc.yaml` with the stages of these datasets; for the one that `params.yaml` means if there are none."""
    blocks = [_for_one(block) for block in _blocks(text)]
    if datasets:
        blocks = [_for_each(block, datasets) for block in blocks]
    return "".join(f"{line}\n" for block in blocks for line in block)


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines of each stage, and those around them."""
    block: list[str] = []
    for line in text.splitlines():
        if STAGE.match(line) or (line and line[0] not in " #" and block):
            yield block
            block = []
        block.append(line)
    yield block


def _for_one(block: Sequence[str]) -> list[str]:
    lines = [line.replace(EACH, ONE) for line in block if not MATRIX.match(line)]
    if "    matrix:" in lines and not any(line.startswith("      family:") for line in lines):
        lines.remove("    matrix:")
        lines = [line.removesuffix(" ${item}") if line.startswith("    cmd: ") else line for line in lines]
    once: list[str] = []
    for line in lines:
        shown = SHOWN.sub(rf"  - runs/{ONE}/\1", line)
        if not SHOWN.match(line) or shown not in once:
            once.append(shown)
    return once


def _for_each(block: Sequence[str], datasets: Sequence[str]) -> list[str]:
    if not any(ONE in line for line in block):
        return list(block)
    listed = f"      dataset: [{', '.join(map(_quoted, datasets))}]"
    whole = "    matrix:" in block
    lines: list[str] = []
    for line in block:
        if SHOWN.match(line):
            lines += [line.replace(ONE, name) for name in datasets]
            continue
        if line.startswith("    cmd: ") and not whole:
            lines += ["    matrix:", listed, f"{line} ${{item}}"]
            continue
        lines.append(line.replace(ONE, EACH))
        if line == "    matrix:":
            lines.append(listed)
    return lines


def _quoted(name: str) -> str:
    """A name in YAML, where `1.5` and `no` would be something else."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and name.lower() not in NO_TEXT
    return name if plain else f'"{name}"'


def lock_content(lock: Mapping[str, Any], datasets: Sequence[str], one: str) -> dict[str, Any]:
    """What `dvc.lock` says under the names and with the commands of the form wanted, so that nothing runs for that.

    Arguments:
        lock: Its content; entries of either form.
        datasets: Those that the stages are of; none for the form for one.
        one: The dataset of the form for one.
    """
    stages: dict[str, Any] = {}
    for name, entry in lock.get("stages", {}).items():
        made = [found[1] for out in entry.get("outs", ()) if (found := MADE.match(out["path"]))]
        dataset, command = made[0] if made else "", entry["cmd"]
        named, family = f" --dataset {dataset}", re.search(r" --family [a-z]+$", command)
        group, of = name.split("@")[0], family[0].split()[-1] if family else ""
        if datasets and dataset in datasets and named not in command:
            name = f"{group}@{dataset}{f'-{of}' if of else ''}"
            command = f"{command.removesuffix(f' --family {of}')}{named}{family[0] if family else ''}"
        elif not datasets and dataset == one and named in command:
            name, command = f"{group}@{of}" if of else group, command.replace(named, "", 1)
        stages[name] = {**entry, "cmd": command}
    return {**lock, "stages": stages}
