"""Files and requests as nobody would write them: whatever is not read rightly must be refused by a sentence.

    python -m benchmarks.fuzz --seed 0 --inputs 100000          # all kinds, in turn
    python -m benchmarks.fuzz --kinds cards --only 4711 -v      # one input again, with its traceback

Every input is a function of kind, seed and number. A finding is an exception that is no `ValueError` or `OSError` of
ours: of another class, or of such a class but raised in a library and handed on without a word of our own; or an input
that takes longer than `SECONDS`. Findings of one kind at one place count as one. The exit status is their number.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fuzz.kinds import KINDS

ROOT = Path(__file__).parents[2]
SECONDS = 20
MEMORY = 8 << 30


class Late(BaseException):
    """An input took too long."""


def finding(error: BaseException) -> str | None:
    """What is wrong with an exception, and where; `None` for a refusal of ours."""
    if isinstance(error, Late):
        frames = traceback.extract_tb(error.__traceback__)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        ours = Path(frames[-1].filename).is_relative_to(ROOT) and ".venv" not in frames[-1].filename
        if isinstance(error, (ValueError, OSError)) and ours:
            return None
    inner = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename]
    place = f"{Path(inner[-1].filename).relative_to(ROOT)}:{inner[-1].lineno}" if inner else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:150]}"


def attempt(kind: Any, seed: int, number: int) -> BaseException | None:
    """Give one input to the code that reads it."""
    source = random.Random(f"{kind.name} {seed} {number}")

    def late(*_: Any) -> None:
        raise Late(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        kind.read(kind.make(source))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return error
    finally:
        signal.alarm(0)
    return None


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.split("\n")[0])
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    options.add_argument("--inputs", type=int, default=6_000, help="how many, of all kinds together (default: 6000)")
    options.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", type=int, help="the number of one input")
    options.add_argument("-v", "--verbose", action="store_true", help="print tracebacks")
    chosen = options.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    found: dict[str, int] = {}
    outcomes, start = Counter(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        kinds = [KINDS[name](Path(folder) / name) for name in chosen.kinds]
        numbers = range(chosen.inputs // len(kinds)) if chosen.only is None else [chosen.only]
        done = 0
        for number in numbers:
            for kind in kinds:
                error = attempt(kind, chosen.seed, number)
                done += 1
                text = finding(error) if error else None
                outcomes[kind.name, "found" if text else "refused" if error else "read"] += 1
                if text and (key := f"{kind.name}: {text.split(': ')[0]}") not in found:
                    found[key] = number
                    print(f"{kind.name} {number}: {text}", flush=True)
                if error and chosen.verbose:
                    traceback.print_exception(error)
            if time.monotonic() - start > chosen.seconds:
                break
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"{name:12} {outcome:8} {count}")
    print(f"{done} inputs, seed {chosen.seed}, {time.monotonic() - start:.0f} s: {len(found)} findings")
    return min(len(found), 100)


if __name__ == "__main__":
    sys.exit(main())
