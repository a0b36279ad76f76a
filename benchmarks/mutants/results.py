"""Outcomes, kept line by line so that a run can be killed, and read back."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.mutants.mutations import Mutant
from benchmarks.mutants.trial import CAUGHT, SURVIVED, TIMEOUT, UNCOVERED


class Results:
    """All outcomes ever found under `state/results.jsonl`, and one file per finished run under `state/runs`."""

    def __init__(self, state: Path) -> None:
        self.file, self.runs = state / "results.jsonl", state / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, dict[str, Any]] = {}
        if self.file.is_file():
            for line in self.file.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # the line a killed run was writing
                    continue
                self.known[record["id"]] = record

    def valid(self, mutant: Mutant, source: str, tests: dict[str, str]) -> dict[str, Any] | None:
        """The outcome known of a mutant, unless its file changed or the tests that decided it did.

        Arguments:
            source: Digest of the mutant's file.
            tests: Digest of each file of the tests, and of all of them under "".
        """
        record = self.known.get(mutant.id)
        if record is None or record["source"] != source:
            return None
        if record["outcome"] == CAUGHT:
            by = record["by"].split("::")[0]
            return record if tests.get(by, tests[""]) == record["decided"] else None
        return record if record["decided"] == tests[""] else None

    def add(self, mutant: Mutant, outcome: dict[str, Any], source: str, tests: dict[str, str]) -> dict[str, Any]:
        by = outcome["by"].split("::")[0]
        decided = tests.get(by, tests[""]) if outcome["outcome"] == CAUGHT else tests[""]
        record = outcome | {"id": mutant.id, "path": mutant.path, "line": mutant.line, "before": mutant.before}
        record |= {"after": mutant.after, "source": source, "decided": decided, "at": time.strftime("%F %T")}
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.known[mutant.id] = record
        return record

    def previous(self) -> dict[str, str]:
        """Outcomes by mutant over all finished runs, later ones first."""
        found: dict[str, str] = {}
        for path in sorted(self.runs.glob("*.json")):
            found |= json.loads(path.read_text())
        return found

    def finish(self, records: list[dict[str, Any]]) -> None:
        name = time.strftime("%Y%m%dT%H%M%S")
        (self.runs / f"{name}.json").write_text(json.dumps({r["id"]: r["outcome"] for r in records}))


class Equivalents:
    """Mutants that a person found to change nothing, each with its reason.

    The file is a list of `path`, `line` (the line's text), `mutated` (the changed text), `reason`.
    """

    def __init__(self, file: Path) -> None:
        self.entries = (YAML(typ="safe").load(file) or []) if file.is_file() else []
        for number, entry in enumerate(self.entries, 1):
            lacking = {"path", "line", "mutated", "reason"} - set(entry)
            if lacking:
                raise ValueError(
                    f"{file}, entry {number}: expected path, line, mutated and reason, got no {min(lacking)}"
                )
        self.keys = {(e["path"], e["line"].strip(), e["mutated"].strip()) for e in self.entries}

    def __contains__(self, mutant: Mutant) -> bool:
        return (mutant.path, mutant.before.strip(), mutant.after.strip()) in self.keys

    def stale(self, found: list[Mutant], root: Path) -> list[str]:
        """Entries that no mutant of the files as they are now corresponds to."""
        there = {(mutant.path, mutant.before.strip(), mutant.after.strip()) for mutant in found}
        read = {mutant.path for mutant in found}
        return [
            f"{path}: {line}"
            for path, line, mutated in sorted(self.keys)
            if not (root / path).is_file() or (path in read and (path, line, mutated) not in there)
        ]


def shown(record: dict[str, Any]) -> str:
    """A mutant as a difference of lines."""
    lines = [f"{record['path']}:{record['line']}  {record['outcome']}, {record['tests']} of {record['covering']} tests"]
    lines += [f"  - {line}" for line in record["before"].split("\n")]
    lines += [f"  + {line}" for line in record["after"].split("\n")]
    return "\n".join(lines)


def summary(records: list[dict[str, Any]], groups: list[str]) -> str:
    """Counts and shares by folder; a folder's subfolders that are groups themselves are counted apart, too."""
    rows = [f"{'':<24}{'mutants':>8}{'caught':>8}{'timeout':>8}{'survived':>9}{'uncovered':>10}{'caught':>9}"]
    for group in [*groups, ""]:
        counts = Counter(r["outcome"] for r in records if not group or r["path"].startswith(group.rstrip("/") + "/"))
        total = sum(counts.values())
        if total:
            share = (counts[CAUGHT] + counts[TIMEOUT]) / total
            rows.append(
                f"{group or 'all':<24}{total:>8}{counts[CAUGHT]:>8}{counts[TIMEOUT]:>8}{counts[SURVIVED]:>9}"
                f"{counts[UNCOVERED]:>10}{share:>9.1%}"
            )
    return "\n".join(rows)
