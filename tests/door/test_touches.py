"""What CONTRIBUTING counts: how many places of the product know a family, a reader, a kind of data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from data.readers import OPENERS
from models import FAMILIES
from pipelines.cli.commands import STAGES
from pipelines.config import SECTIONS
from pipelines.defaults import Facts, defaults, expected_seconds

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "data", "pipelines", "fivefold")


def named(words: set[str], files: Iterator[Path]) -> set[str]:
    """The files that import a module of such a name, or hold it as a text of its own."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = isinstance(node, ast.ImportFrom) and words & set((node.module or "").split("."))
            if imported or (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def product() -> Iterator[Path]:
    """All files of code but the tests."""
    return (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_known_to_its_own_room_and_to_the_table_of_families(family: str) -> None:
    """So a new one touches its file, the table, its defaults by kind of data, and two files of tests."""
    inside = f"models/{family}"
    elsewhere = {path for path in named({family}, product()) if not path.startswith((f"{inside}.py", f"{inside}/"))}
    by_default = {"fivefold/fitting.py"} if family == "flow" else set()  # what `fit` trains if not told
    codes = {"models/prior.py"} if family in ("flow", "diffusion") else set()  # what draws an autoencoder's codes
    rules = {f"pipelines/defaults/domains/{kind}.py" for kind in ("image", "table")}
    assert elsewhere == {"models/__init__.py"} | rules | by_default | codes


@pytest.mark.parametrize("facts", [Facts(shape=(8, 8, 1), examples=99), Facts(kind="table", columns=3, examples=99)])
def test_a_family_that_no_rule_names_has_the_defaults_of_its_config(facts: Facts) -> None:
    """So its defaults by kind of data are no place that must be touched."""
    settings, why = defaults(facts)
    assert set(settings) - set(FAMILIES) <= set(SECTIONS)
    assert "new" not in settings | why
    assert expected_seconds("new", facts, {"total_examples": 1_000}) == 0


@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_format_is_opened_by_one_line(kind: str) -> None:
    """Each format of a kind stands once in the table of readers, and its opener in a file of its own room."""
    openers = [opener for (of, _), opener in OPENERS.items() if of == kind]
    assert openers
    assert all(opener.__module__.startswith("data.readers.") for opener in openers)


def test_a_stage_is_a_file_a_verb_and_an_entry_of_the_pipeline() -> None:
    """The same names in `dvc.yaml`, in `pipelines/stages` and on the command line."""
    entries = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    files = {path.stem for path in (ROOT / "pipelines/stages").glob("*.py")} - {"__init__"}
    assert set(entries) == files
    commands = [str(entry.get("do", entry)["cmd"]) for entry in entries.values()]
    for name, command in zip(entries, commands, strict=True):
        assert f"fivefold {name}" in command
    assert list(STAGES) == list(entries)
