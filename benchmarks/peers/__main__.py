"""Fivefold beside the specialists of each family: same data, same cores, same time. Writes docs/benchmarks.md.

    make benchmark                                    # everything, 5 minutes a side, three times: hours
    python benchmarks/peers --families vae --minutes 1 --repeats 1

Two measurements. `throughput`: the specialist's own networks and losses, trained by its own loop and by ours.
`quality`: each side trains by its own recipe for the same minutes, and one classifier that neither has seen judges
1,000 samples against 1,000 held-out images. `columns` are flows of rows: the images' 16 leading principal components,
judged by the density of the held-out rows. Each runs in a process of its own, alternating between the sides, in an
environment of its own (benchmarks/.venv) that the first run makes. What was measured is kept in runs/benchmark, so a
run that is interrupted goes on; delete the folder to start again. Use an idle machine, or `--clock cpu`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import mnist  # noqa: E402
import ours  # noqa: E402
import table  # noqa: E402
from environment import environment  # noqa: E402

from models import FAMILIES  # noqa: E402

CONTESTS = (*FAMILIES, "columns")

SIDES = {"throughput": ("theirs", "fp32", "bf16"), "quality": ("theirs", "ours")}


def wanted(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every measurement asked for, the sides alternating."""
    seconds = {"throughput": chosen.seconds, "quality": 60 * chosen.minutes}
    for measure in chosen.measure:
        for family in chosen.families:
            for seed in range(chosen.repeats):
                for side in SIDES[measure]:
                    if (family, side) == ("columns", "bf16"):  # no convolution to gain by, and not invertible
                        continue
                    yield {
                        "measure": measure,
                        "family": family,
                        "side": side,
                        "seed": seed,
                        "seconds": seconds[measure],
                        "threads": chosen.threads,
                        "cpu": chosen.clock == "cpu",
                    }


def identity(asked: dict[str, Any]) -> dict[str, Any]:
    """What makes a measurement another one: the request and, on our side, the recipe's settings."""
    if asked["measure"] == "quality" and asked["side"] == "ours":
        return asked | {"recipe": hashlib.sha256(repr(ours.recipe(asked["family"])).encode()).hexdigest()[:12]}
    return asked


def measured(python: Path, asked: dict[str, Any], root: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    threads = {"OMP_NUM_THREADS": str(asked["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, HERE / "measure.py", json.dumps(asked | {"root": str(root)})]
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{asked['family']}, {asked['side']}, failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure what the command line asks for and has not been measured, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/datasets/mnist-10k.zip", help="image folder")
    parser.add_argument("--measure", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--families", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--minutes", type=float, default=5, help="of training per side (quality)")
    parser.add_argument("--seconds", type=float, default=15, help="of training per side (throughput)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: count processor seconds")
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    mnist.prepared_rows(root, mnist.prepared(root, chosen.data))
    judge = mnist.judge(root)
    python = environment(ROOT / "benchmarks" / ".venv", HERE / "requirements.txt")
    path = root / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for asked in map(identity, wanted(chosen)):
        if any(asked.items() <= result.items() for result in results):
            continue
        results.append(asked | measured(python, asked, root))
        with path.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(json.dumps(results[-1]), flush=True)
    chosen.out.write_text(table.page(results, judge), encoding="utf-8")
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
