"""Which tests run which lines, measured once per test file and kept.

Every test file runs in a fork of its own under coverage.py, whose context is the test that runs. What several tests
share, fixtures of a wider scope and cached functions, is a context of its own, and the tests that use it cover what it
ran. Processes that a test starts are measured under the test's or the fixture's context.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from benchmarks.mutants import workspace
from benchmarks.mutants.mutations import deferred_lines
from benchmarks.mutants.workspace import Workspace, digest

CONTEXT = "MUTANTS_CONTEXT"


class Recorder:
    """A pytest plugin that tells coverage whose work is being done."""

    def __init__(self, measured: coverage.Coverage, root: Path) -> None:
        self.measured, self.root = measured, root
        self.stack: list[str] = [""]
        self.uses: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self.tests: list[str] = []
        self.failed: set[str] = set()
        self.skipped: set[str] = set()
        self.since = time.perf_counter()

    def switch(self, change: Any) -> None:
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.since
        change()
        self.measured.switch_context(self.stack[-1])
        os.environ[CONTEXT] = self.stack[-1] or "import"
        self.since = time.perf_counter()

    def shared(self, name: str, call: Any) -> Any:
        """Calls what several tests share under its own context, which the present one is said to use."""
        if name in self.stack:
            return call()
        self.uses[self.stack[-1]].add(name)
        self.switch(lambda: self.stack.append(name))
        try:
            return call()
        finally:
            self.switch(self.stack.pop)

    def watch_fixtures(self) -> None:
        """Gives fixtures of a scope wider than a test their own context, whenever they are asked for."""
        execute, recorder = pytest.FixtureDef.execute, self

        def wrapped(definition: pytest.FixtureDef, request: pytest.FixtureRequest) -> Any:
            if definition.scope == "function":
                return execute(definition, request)
            index = getattr(request, "param_index", 0)
            name = f"{definition.baseid}::{definition.argname}#{index}"
            return recorder.shared(name, lambda: execute(definition, request))

        pytest.FixtureDef.execute = wrapped  # ty: ignore

    def watch_caches(self) -> None:
        """Gives cached functions of the tree measured their own context, whoever calls them first."""
        cached, recorder = functools.lru_cache, self

        def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
            if callable(maxsize):
                return lru_cache(128, typed)(maxsize)

            def decorate(function: Any) -> Any:
                inner = cached(maxsize, typed)(function)
                code = getattr(function, "__code__", None)
                if code is None or not code.co_filename.startswith(str(recorder.root)):
                    return inner
                name = f"cache {function.__module__}.{function.__qualname__}"

                @functools.wraps(function)
                def outer(*args: Any, **named: Any) -> Any:
                    return recorder.shared(name, lambda: inner(*args, **named))

                outer.cache_info, outer.cache_clear = inner.cache_info, inner.cache_clear
                return outer

            return decorate

        functools.lru_cache = lru_cache
        functools.cache = lambda function: lru_cache(None)(function)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        self.tests.append(item.nodeid)
        self.switch(lambda: self.stack.append(item.nodeid))
        try:
            return (yield)
        finally:
            self.switch(self.stack.pop)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.skipped:
            self.skipped.add(report.nodeid)


def measure(work: Path, scratch: Path, test_file: str, markers: str) -> dict[str, Any]:
    """Runs one test file under coverage, in the present process; returns what `Map` reads."""
    for old in scratch.glob("*"):
        old.unlink()
    settings = scratch / "coveragerc"
    settings.write_text(
        f"[run]\nsource = {work}\ndata_file = {scratch}/sub\nparallel = true\nsigterm = true\n"
        f"context = ${{{CONTEXT}-import}}\n"
    )
    measured = coverage.Coverage(data_file=str(scratch / "main"), config_file=False, source=[str(work)])
    recorder = Recorder(measured, work)
    recorder.watch_fixtures()
    recorder.watch_caches()
    measured.start()
    measured.switch_context("")
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    options = [*workspace.PYTEST, "-m", markers] if markers else workspace.PYTEST
    code = pytest.main([test_file, *options], plugins=[recorder])
    os.environ.pop("COVERAGE_PROCESS_START")
    measured.stop()
    measured.save()
    lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for path in [scratch / "main", *scratch.glob("sub.*")]:
        data = coverage.CoverageData(str(path))
        try:
            data.read()
        except coverage.CoverageException:  # a process that was killed while it wrote
            continue
        for name in data.measured_files():
            if Path(name).is_file() and Path(name).is_relative_to(work):
                for line, contexts in data.contexts_by_lineno(name).items():
                    for context in contexts:
                        lines[str(Path(name).relative_to(work))][context].add(line)
    return {
        "code": int(code),
        "seconds": {name: round(recorder.seconds[name], 4) for name in recorder.seconds if name},
        "tests": [name for name in recorder.tests if name not in recorder.skipped],
        "failed": sorted(recorder.failed),
        "uses": {name: sorted(used) for name, used in recorder.uses.items() if name},
        "lines": {path: {c: sorted(found) for c, found in by.items() if c} for path, by in lines.items()},
        "modules": workspace.installed(),
    }


@dataclass
class Map:
    """What every test costs and which lines it runs.

    Arguments:
        seconds: Processor-side wall time of a test's own work and of each shared piece, while measured.
        uses: The shared pieces that a test or a piece builds on.
        lines: For each file and line inside a function, the contexts that ran it.
        files: For each file, the test files whose process imported it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    uses: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    breadth: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, test_file: str, measured: dict[str, Any], inside: dict[str, set[int]]) -> None:
        """Takes in what `measure` found of one test file; `inside` holds each file's lines within functions."""
        self.failed += measured["failed"]
        tests = [name for name in measured["tests"] if name not in measured["failed"]]
        self.tests += tests

        def own(context: str) -> str:  # fixtures and caches are each process's own
            return context if context in measured["tests"] else f"{test_file} {context}"

        self.seconds |= {own(context): taken for context, taken in measured["seconds"].items()}
        self.uses |= {own(context): [own(used) for used in all_used] for context, all_used in measured["uses"].items()}
        for test in tests:
            for context in self.closure(test):
                self.users[context].add(test)
        for path, by in measured["lines"].items():
            self.files[path].add(test_file)
            for context, found in by.items():
                self.breadth[own(context)] += len(found)
                for line in inside.get(path, set()).intersection(found):
                    self.lines[path][line].add(own(context))

    def closure(self, context: str) -> list[str]:
        """A context with everything that it builds on."""
        found = [context]
        for each in found:
            found += [used for used in self.uses.get(each, []) if used not in found]
        return found

    def cost(self, test: str) -> float:
        return sum(self.seconds.get(context, 0.0) for context in self.closure(test))

    def covering(self, path: str, span: tuple[int, int], deferred: bool) -> list[str]:
        """Tests that run a statement, in no order.

        A statement that runs on import is covered by whoever runs anything of its file or, where nobody does (a file
        of constants), by all tests of the test files that import it.
        """
        lines = self.lines.get(path, {})
        wanted = range(span[0], span[1] + 1) if deferred else lines
        contexts = {context for line in wanted for context in lines.get(line, ())}
        tests = set(itertools.chain.from_iterable(self.users[context] for context in contexts))
        if not tests and not deferred:
            tests = {test for test in self.tests if test.split("::")[0] in self.files[path]}
        return list(tests)

    def ordered(self, tests: list[str], cap: float) -> list[str]:
        """Cheapest rounds first, each test file at once, the most specific first; no more than `cap` seconds in all."""
        rounds = [0.05, 0.2, 1.0, 5.0, 20.0]

        def band(test: str) -> int:
            return sum(self.cost(test) > limit for limit in rounds)

        def key(test: str) -> tuple[float, float, str]:
            return (sum(self.breadth[context] for context in self.closure(test)), self.cost(test), test)

        chosen, spent, paid = [], 0.0, set()
        for test in sorted(tests, key=lambda test: (band(test), key(test))):
            new = [context for context in self.closure(test) if context not in paid]
            price = sum(self.seconds.get(context, 0.0) for context in new)
            if chosen and spent + price > cap:
                continue
            spent += price
            paid.update(new)
            chosen.append(test)
        first: dict[tuple[int, str], int] = {}
        for place, test in enumerate(chosen):
            first.setdefault((band(test), test.split("::")[0]), place)
        return sorted(chosen, key=lambda test: (band(test), first[band(test), test.split("::")[0]], key(test)))

    def expected(self, tests: list[str]) -> float:
        """Seconds that these tests took while measured, shared pieces counted once."""
        return sum(self.seconds.get(context, 0.0) for context in {c for test in tests for c in self.closure(test)})


class Mapper:
    """Keeps one measurement per test file under `state/map` and makes it anew where something it rests on changed."""

    def __init__(self, space: Workspace, tests: list[str], markers: str) -> None:
        self.space, self.tests, self.markers = space, tests, markers
        self.folder, self.scratch = space.state / "map", space.state / "coverage"
        self.sources = space.state / "sources"
        for folder in (self.folder, self.scratch, self.sources):
            folder.mkdir(exist_ok=True)

    def kept(self, test_file: str) -> Path:
        return self.folder / (test_file.replace("/", "--") + ".json")

    def read(self, test_file: str) -> dict[str, Any] | None:
        with_name = self.kept(test_file)
        return json.loads(with_name.read_text()) if with_name.is_file() else None

    def stale(self, test_file: str, follow: bool) -> bool:
        """Whether a file was never measured or has changed, or (unless lines are followed) anything that it ran."""
        found = self.read(test_file)
        if found is None:
            return True
        work = self.space.work
        rests_on = {test_file: found["digests"][test_file]} if follow else found["digests"]
        return any(
            not (work / path).is_file() or digest((work / path).read_bytes()) != was for path, was in rests_on.items()
        )

    def _kept_source(self, path: str) -> str:
        """Keeps a file's text as it was when measured, under its digest."""
        content = (self.space.work / path).read_bytes()
        (self.sources / digest(content)).write_bytes(content)
        return digest(content)

    def modules(self) -> list[str]:
        """Installed modules that the test files import, longest list last seen of each."""
        names: dict[str, None] = {}
        for test_file in self.tests:
            found = self.read(test_file)
            names |= dict.fromkeys(found["modules"] if found else ())
        return list(names)

    def update(self, limit: float, follow: bool) -> Map:
        """Measures what is missing or stale, a file at a time, then reads everything."""
        waiting = [name for name in self.tests if self.stale(name, follow)]
        for number, test_file in enumerate(waiting, 1):
            print(f"map {number}/{len(waiting)}: {test_file}", end=" ", flush=True)
            ended = self.space.run(
                lambda name=test_file: measure(self.space.work, self.scratch, name, self.markers),
                limit,
                write_bytecode=True,
            )
            if ended.answer is None:
                why = f"ran longer than {limit:.0f} s" if ended.timed_out else "died"
                print(f"{why}; left out. Its output: {self.space.state / 'output.txt'}")
                continue
            answer = ended.answer
            answer["digests"] = {path: self._kept_source(path) for path in [*answer["lines"], test_file]}
            partial = self.kept(test_file).with_suffix(".partial")
            partial.write_text(json.dumps(answer))
            partial.rename(self.kept(test_file))
            print(f"{len(answer['tests'])} tests, {ended.seconds:.0f} s, {ended.processor:.0f} s of processor time")
            workspace.warm_up(answer["modules"])
        return self.load()

    def load(self) -> Map:
        """All measurements; where a file has changed since, its lines are followed through the change."""
        made, texts, inside = Map(), {}, {}
        for test_file in self.tests:
            measured = self.read(test_file)
            if measured is None:
                continue
            for path, by in measured["lines"].items():
                if not path.endswith(".py"):  # templates run under their own names, too
                    continue
                place, was = self.space.work / path, measured["digests"][path]
                if path not in texts:
                    texts[path] = place.read_bytes() if place.is_file() else b""
                    inside[path] = deferred_lines(texts[path])
                if digest(texts[path]) != was:
                    follow = moved((self.sources / was).read_text().splitlines(), texts[path].decode().splitlines())
                    for context, found in by.items():
                        by[context] = sorted({new for line in found for new in follow.get(line, ())})
            made.add(test_file, measured, inside)
        return made


def moved(old: list[str], new: list[str]) -> dict[int, list[int]]:
    """Where each line of a text went, from 1: a line put in or changed is run by whoever ran the lines it followed."""
    follow: dict[int, list[int]] = defaultdict(list)
    for tag, first, last, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            for line in range(first, last):
                follow[line + 1].append(start + line - first + 1)
        elif tag == "replace":
            for line in range(first, last):
                follow[line + 1] += range(start + 1, end + 1)
        elif tag == "insert":
            follow[first] += range(start + 1, end + 1)
    return follow
