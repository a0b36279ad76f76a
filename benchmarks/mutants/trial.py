"""One mutant against the tests that cover it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.mutants.coverage_map import Map
from benchmarks.mutants.mutations import Mutant
from benchmarks.mutants.workspace import PYTEST, Workspace, digest

CAUGHT, TIMEOUT, SURVIVED, UNCOVERED = "caught", "timeout", "survived", "uncovered"


class Chosen:
    """A pytest plugin that runs the named tests in the named order and remembers the first failure."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {name: number for number, name in enumerate(tests)}
        self.failure = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        if missing := self.place.keys() - found.keys():
            self.failure = self.failure or f"collection of {min(missing)}"
        items[:] = [found[name] for name in self.place if name in found]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failure = self.failure or f"collection of {report.nodeid}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failure = self.failure or report.nodeid


def run_tests(tests: list[str]) -> dict[str, Any]:
    """Runs tests in the present process until one fails."""
    chosen = Chosen(tests)
    files = list(dict.fromkeys(name.split("::")[0] for name in tests))
    code = pytest.main([*files, "-x", "--tb=short", *PYTEST], plugins=[chosen])
    return {"code": int(code), "by": chosen.failure or ("" if code == 0 else f"pytest's exit code {int(code)}")}


@dataclass
class Judge:
    """Runs mutants; a test counts as having caught one only if, alone, it passes without the change.

    Arguments:
        cap: Seconds of covering tests that a mutant gets, by their measured times.
        grace: Seconds that any run may take on top of four times what its tests took while measured.
    """

    space: Workspace
    covered: Map
    cap: float
    grace: float
    unfit: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.passed_file = self.space.state / "passed_alone.json"
        self.passed = set(json.loads(self.passed_file.read_text())) if self.passed_file.is_file() else set()

    def _passes_unchanged(self, tests: list[str], by: str) -> bool:
        """Whether what failed with a change passes without it; a test is run alone, anything else again as it was."""
        alone = [by] if by in tests else tests
        file = alone[0].split("::")[0]
        key = f"{by} {digest((self.space.work / file).read_bytes())}"
        if key not in self.passed:
            ended = self.space.run(lambda: run_tests(alone), self._limit(alone), write_bytecode=True)
            if ended.answer is None or ended.answer["by"]:
                return False
            self.passed.add(key)
            self.passed_file.write_text(json.dumps(sorted(self.passed)))
        return True

    def _limit(self, tests: list[str]) -> float:
        return self.grace + 4 * self.covered.expected(tests)

    def try_out(self, mutant: Mutant, source: bytes) -> dict[str, Any]:
        """What became of one mutant: outcome, what caught it, seconds (wall, processor), tests chosen and covering."""
        covering = self.covered.covering(mutant.path, mutant.span, mutant.deferred)
        seconds, processor = 0.0, 0.0
        while True:
            tests = self.covered.ordered([name for name in covering if name not in self.unfit], self.cap)
            answer = {
                "seconds": seconds,
                "processor": processor,
                "tests": len(tests),
                "covering": len(covering),
                "by": "",
            }
            if not tests:
                return answer | {"outcome": UNCOVERED}
            with self.space.changed(mutant.path, mutant.apply(source)):
                ended = self.space.run(lambda tests=tests: run_tests(tests), self._limit(tests))
            seconds = answer["seconds"] = round(seconds + ended.seconds, 2)
            processor = answer["processor"] = round(processor + ended.processor, 2)
            if ended.timed_out:
                return answer | {"outcome": TIMEOUT}
            by = "the process's death" if ended.answer is None else ended.answer["by"]
            if not by:
                return answer | {"outcome": SURVIVED}
            if self._passes_unchanged(tests, by):
                return answer | {"outcome": CAUGHT, "by": by}
            if by not in tests:
                return answer | {"outcome": SURVIVED, "by": f"{by}, but without the change, too"}
            self.unfit[by] = "fails alone without a change"
