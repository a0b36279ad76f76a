"""Changes single places of the code and says which changes no test notices.

    make mutants ARGS="--count 30 --paths models"         # 30 drawn by seed 0
    make mutants ARGS="--changed main"                    # the lines changed since main
    make mutants ARGS="--count 400 --seed 7 --minutes 60"

The first run measures which tests run which lines (once, as long as the tests take and half again); later ones measure
only test files that changed or whose covered code did. A mutant then runs the tests that cover it, cheapest first, in a
fork of a process that has the libraries loaded, until one fails. Everything is kept under .mutants: a run that is
killed goes on where it was, and outcomes hold until the changed file or the tests that decided them change.
`pyproject.toml` says under [tool.mutants] what is changed, by which tests it is judged and where equivalent mutants
are listed.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.mutants import mutations, workspace
from benchmarks.mutants.coverage_map import Mapper
from benchmarks.mutants.mutations import Mutant
from benchmarks.mutants.results import Equivalents, Results, shown, summary
from benchmarks.mutants.trial import SURVIVED, UNCOVERED, Judge
from benchmarks.mutants.workspace import Workspace, digest


def arguments() -> argparse.Namespace:
    text = f"{__doc__}\n{mutations.__doc__}"
    parser = argparse.ArgumentParser("make mutants", description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the project (default: the present folder)")
    parser.add_argument("--paths", nargs="+", help="folders or files to change (default: paths in pyproject.toml)")
    parser.add_argument("--tests", nargs="+", help="test files to judge by (default: all of the tests' folder)")
    parser.add_argument("--changed", metavar="REF", help="change only lines that differ from this git revision")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn (default 0)")
    parser.add_argument("--count", type=int, help="how many (default: all)")
    parser.add_argument("--minutes", type=float, help="begin no mutant after this time; mapping is not counted")
    parser.add_argument("--cap", type=float, default=120, help="seconds of tests per mutant (default 120)")
    parser.add_argument("--grace", type=float, default=30, help="seconds on top of four times the tests' (default 30)")
    parser.add_argument("--again", action="store_true", help="run mutants whose outcome is known, too")
    parser.add_argument(
        "--keep-map", action="store_true", help="follow lines of changed code, measure only changed test files"
    )
    parser.add_argument("--map-only", action="store_true", help="measure which tests run which lines, then stop")
    parser.add_argument("--list", action="store_true", help="list the mutants that would be run, then stop")
    return parser.parse_args()


def generate(space: Workspace, path: str) -> list[Mutant]:
    """A file's mutants, from `state/generated` where the file and the rules are those of an earlier run."""
    source = (space.work / path).read_bytes()
    key = digest(path.encode() + source + Path(mutations.__file__).read_bytes())
    kept = space.state / "generated" / f"{key}.json"
    if not kept.is_file():
        found = [vars(m) | {"text": m.text.decode()} for m in mutations.mutants(path, source)]
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found))
    read = json.loads(kept.read_text())
    return [Mutant(**m | {"text": m["text"].encode(), "span": tuple(m["span"])}) for m in read]


def changed_lines(root: Path, reference: str) -> dict[str, set[int]]:
    """Lines of the work tree that a git revision does not have, by file."""
    command = ["git", "-C", str(root), "diff", "-U0", "--no-color", "--relative", reference, "--", "*.py"]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"--changed: expected a git revision, got {reference!r}: {ran.stderr.strip()}")
    found: dict[str, set[int]] = {}
    path = ""
    for line in ran.stdout.splitlines():
        if line.startswith("+++ "):
            path = line[6:]
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, number = int(match[1]), int(match[2] or 1)
            found.setdefault(path, set()).update(range(first, first + number))
    return found


def within(path: str, places: list[str]) -> bool:
    return any(path == place.rstrip("/") or path.startswith(place.rstrip("/") + "/") for place in places)


def main() -> None:
    told = arguments()
    root = told.root.resolve()
    settings = tomllib.loads((root / "pyproject.toml").read_text()).get("tool", {}).get("mutants", {})
    state = root / ".mutants"
    state.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"{state}: another run is using it; wait for it or stop it") from None
    workspace.adopt_orphans()
    space = Workspace(root, state)
    space.sync()

    tests = settings.get("tests", "tests")
    test_files = told.tests or [
        name for name in space.files if within(name, [tests]) and Path(name).name.startswith("test_")
    ]

    mapper = Mapper(space, test_files, settings.get("markers", ""))
    if told.map_only:
        workspace.warm_up(mapper.modules())
        mapper.update(limit=1800, follow=told.keep_map)
        return

    paths = [path.rstrip("/") for path in told.paths or settings["paths"]]
    sources = [name for name in space.files if name.endswith(".py") and within(name, paths)]
    if not sources:
        raise SystemExit(f"--paths: expected folders or files with Python code under {root}, got {', '.join(paths)}")
    found = list(itertools.chain.from_iterable(generate(space, path) for path in sources))
    equivalents = Equivalents(root / settings.get("equivalents", f"{tests}/equivalent_mutants.yaml"))
    drawn = mutations.sample([mutant for mutant in found if mutant not in equivalents], told.seed)
    if told.changed:
        lines = changed_lines(root, told.changed)
        drawn = [m for m in drawn if lines.get(m.path, set()).intersection(range(m.span[0], m.span[1] + 1))]
    drawn = drawn[: told.count]
    print(f"{len(drawn)} of {len(found)} mutants, seed {told.seed}; {len(equivalents.entries)} listed as equivalent")
    for entry in equivalents.stale(found, root):
        print(f"stale entry among the equivalent mutants: {entry}")
    if told.list:
        for m in drawn:
            print(f"{m.path}:{m.line}\n  - {m.before}\n  + {m.after}")
        return

    workspace.warm_up(mapper.modules())
    covered = mapper.update(limit=1800, follow=told.keep_map)
    for name in covered.failed:
        print(f"fails without any change, set aside: {name}")

    results = Results(state)
    digests = {name: digest((space.work / name).read_bytes()) for name in space.files if within(name, [tests])}
    listed = sorted(digests.items()) if not told.tests else [(name, digests[name]) for name in sorted(told.tests)]
    digests[""] = digest(json.dumps(listed).encode())
    earlier = results.previous()
    judge = Judge(space, covered, told.cap, told.grace)
    begun, records, ran, processor = time.monotonic(), [], 0, 0.0
    for number, mutant in enumerate(drawn, 1):
        source = (space.work / mutant.path).read_bytes()
        record = None if told.again else results.valid(mutant, digest(source), digests)
        if record is None:
            if told.minutes is not None and time.monotonic() - begun > 60 * told.minutes:
                print(f"{told.minutes:g} minutes are over: {number - 1} of {len(drawn)} mutants done")
                break
            record = results.add(mutant, judge.try_out(mutant, source), digest(source), digests)
            ran += 1
            processor += record["processor"]
            by = f" by {record['by']}" if record["by"] else ""
            print(
                f"[{number}/{len(drawn)}] {mutant.path}:{mutant.line} {record['outcome']}{by},"
                f" {record['seconds']:.1f} s, {record['tests']} of {record['covering']} tests",
                flush=True,
            )
        records.append(record | {"line": mutant.line})
    report(records, earlier, settings.get("groups", paths), judge)
    print(
        f"{ran} run in {time.monotonic() - begun:.0f} s, {processor:.0f} s of processor time in tests;"
        f" {len(records) - ran} known from before"
    )
    results.finish(records)


def report(records: list[dict], earlier: dict[str, str], groups: list[str], judge: Judge) -> None:
    """Survivors with their difference, what changed since the runs before, and the shares by folder."""
    missed = (SURVIVED, UNCOVERED)
    for record in sorted(records, key=lambda r: (r["path"], r["line"])):
        if record["outcome"] in missed:
            print("\n" + shown(record))
    for title, now in (("newly surviving", True), ("newly caught", False)):
        turned = [
            r for r in records if r["id"] in earlier and (earlier[r["id"]] in missed) != now == (r["outcome"] in missed)
        ]
        if turned:
            print(f"\n{title}: " + ", ".join(f"{r['path']}:{r['line']}" for r in turned))
    for name, why in judge.unfit.items():
        print(f"\n{why}, set aside: {name}")
    print("\n" + summary(records, groups))


if __name__ == "__main__":
    main()
