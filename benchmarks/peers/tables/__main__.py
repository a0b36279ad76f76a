"""Tables: our families beside TabularARGN, CTGAN, TVAE and the Gaussian copula. Writes docs/benchmarks-tables.md.

    make benchmark-tables                                            # every table, two minutes a side: hours
    python benchmarks/peers/tables --tables adult --who flow argn --minutes 1

Each side learns four fifths of a table with its defaults for the same processor minutes, in a process and on threads of
its own, draws as many rows as were held out, and is judged by SDMetrics and by trees (`judge.py` says how). Ours are
`fivefold.fit` with the number of examples that fits, the defaults' if that is fewer. The specialists and the tables
live in `benchmarks/.venv-tables`, which the first run makes. What was measured is kept in runs/benchmark-tables, so a
run that is interrupted goes on; delete the folder to start again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]

import page  # noqa: E402
from environment import environment  # noqa: E402
from tables import TABLES  # noqa: E402

from models import FAMILIES  # noqa: E402

PEERS = ("argn", "ctgan", "tvae", "copula")
REAL = "real"
"""Rows of the training part as if they had been drawn: the floor."""


def run(python: Path | str, script: str, asked: dict[str, Any], threads: int = 1) -> dict[str, Any]:
    """A script's result, from a process of its own."""
    few = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [python, "-W", "ignore", HERE / script, json.dumps(asked)], env=os.environ | few, capture_output=True, text=True
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else f"rc {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def measured(python: Path, asked: dict[str, Any], root: Path, data: Path) -> dict[str, Any]:
    """Train, draw and judge one side."""
    folder = root / asked["table"]
    if not (folder / "test.parquet").exists():
        found = run(python, "tables.py", {"table": asked["table"], "data": str(data), "folder": str(folder)})
        if found.get("error"):
            raise SystemExit(f"{asked['table']}: {found['error']}")
    import pyarrow.parquet as pq

    who, rows = asked["who"], pq.read_metadata(folder / "test.parquet").num_rows
    drawn = folder / f"{who}-{asked['minutes']:g}-{asked['seed']}.parquet"
    label = TABLES[asked["table"]].label
    spent: dict[str, Any] = {}
    if who == REAL:
        drawn = folder / "train.parquet"
    else:
        ours = who in FAMILIES
        request = asked | {"train": str(folder / "train.parquet"), "out": str(drawn), "rows": max(rows, 1000)}
        script = "ours.py" if ours else "theirs.py"
        spent = run(sys.executable if ours else python, script, request | {"label": label}, asked["threads"])
        if spent.get("error"):
            return spent
    parts = {"train": str(folder / "train.parquet"), "test": str(folder / "test.parquet")}
    return spent | run(python, "judge.py", parts | {"drawn": str(drawn), "label": label})


def main() -> None:
    """Measure what the command line asks for and has not been measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/datasets", help="adult.csv, mammography.csv")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--who", nargs="+", choices=(REAL, *PEERS, *FAMILIES), default=[REAL, *PEERS, *FAMILIES])
    parser.add_argument("--minutes", type=float, default=2, help="of training per side, of the processor")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "benchmark-tables")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks-tables.md")
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    python = environment(ROOT / "benchmarks" / ".venv-tables", HERE / "requirements.txt")
    path = root / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    budget = {"minutes": chosen.minutes, "threads": chosen.threads}
    for table in chosen.tables:
        for seed in range(chosen.repeats):
            for who in chosen.who:
                asked = {"table": table, "who": who, "seed": seed, **budget}
                if any(asked.items() <= result.items() for result in results):
                    continue
                results.append(asked | measured(python, asked, root, chosen.data))
                with path.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
                print(json.dumps(results[-1]), flush=True)
    chosen.out.write_text(page.page(results), encoding="utf-8")
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
