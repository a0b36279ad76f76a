"""One of our families trained on a table with its defaults and asked for rows: `python ours.py JSON`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import pandas as pd
import torch

import fivefold
from fivefold.fitting import _prepared
from pipelines import config

PROBE = (4_096, 12_288)
"""Examples of two short trainings, which say what one costs and what comes before and after."""


def within(train: pd.DataFrame, who: str, label: str | None, minutes: float) -> int:
    """How many examples fit into the minutes."""
    took = []
    for examples in PROBE:
        began = time.process_time()
        fivefold.fit(train, who, label=label, examples=examples, progress=False)
        took.append(time.process_time() - began)
    each = max((took[1] - took[0]) / (PROBE[1] - PROBE[0]), 1e-7)
    fit = int((60 * minutes - took[0]) / each) + PROBE[0]
    return max(fit, PROBE[1])


def of_default(train: pd.DataFrame, who: str, label: str | None) -> int:
    """How many examples the defaults would see."""
    with tempfile.TemporaryDirectory() as folder:
        return config.suiting(who, _prepared(train, label, {}, Path(folder))[0].manifest).training.total_examples


def main() -> None:
    """Do what the command line's JSON asks for."""
    asked = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked["threads"])
    train = pd.read_parquet(asked["train"])
    label = None if train[asked["label"]].isna().any() else asked["label"]
    examples = within(train, asked["who"], label, asked["minutes"])
    default = of_default(train, asked["who"], label)
    began, wall = time.process_time(), time.perf_counter()
    chosen = min(examples, default)
    model = fivefold.fit(train, asked["who"], label=label, examples=chosen, seed=asked["seed"], progress=False)
    fitted = time.process_time() - began
    model.sample(asked["rows"], seed=asked["seed"]).to_parquet(asked["out"])
    model.save(asked["out"].removesuffix(".parquet") + ".model")
    spent = {"seconds": time.process_time() - began, "wall": time.perf_counter() - wall, "fit": fitted}
    print(json.dumps(spent | {"examples": chosen, "default": default}))


if __name__ == "__main__":
    main()
