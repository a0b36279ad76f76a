"""One specialist trained on a table and asked for rows, in a process of its own: `python theirs.py '{"who": …}'`."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch

NAME = "table"
"""What SDV is told that the table is called."""


def argn(train: pd.DataFrame, n: int, minutes: float, seed: int) -> pd.DataFrame:
    """TabularARGN with its defaults; it stops by itself."""
    from mostlyai import engine
    from mostlyai.engine._tabular import training

    training.time = SimpleNamespace(time=time.process_time)  # its budget is of the processor, too
    with TemporaryDirectory() as workspace:
        engine.set_random_state(seed)
        engine.split(tgt_data=train, workspace_dir=workspace)
        engine.analyze(workspace_dir=workspace)
        engine.encode(workspace_dir=workspace)
        engine.train(workspace_dir=workspace, max_training_time=minutes)
        engine.generate(workspace_dir=workspace, sample_size=n)
        return pd.read_parquet(Path(workspace) / "SyntheticData")


def synthesizer(who: str, train: pd.DataFrame, **options: Any) -> Any:
    """One of SDV's, not fitted, with the metadata that it detects."""
    import sdv.single_table
    from sdv.metadata import Metadata

    metadata = Metadata.detect_from_dataframes({NAME: train})
    (table,) = metadata.tables.values()
    if table.primary_key:  # a column that happens to be unique
        metadata.remove_primary_key(NAME)
    return getattr(sdv.single_table, who)(metadata, **options)


def copula(train: pd.DataFrame, n: int, minutes: float, seed: int) -> pd.DataFrame:
    """SDV's Gaussian copula with its defaults."""
    model = synthesizer("GaussianCopulaSynthesizer", train)
    model.fit({NAME: train})
    return drawn(model, n)


def drawn(model: Any, n: int) -> pd.DataFrame:
    """Rows of a synthesizer of SDV's, which knows tables by name since its version 2."""
    found = model.sample(n)
    return found[NAME] if isinstance(found, dict) else found


def epochs(who: str, train: pd.DataFrame, n: int, minutes: float, seed: int) -> pd.DataFrame:
    """CTGAN or TVAE for as many of its 300 epochs as fit into the minutes, by what two short runs take."""
    took = {}
    for count in (1, 2):
        began = time.process_time()
        synthesizer(who, train, epochs=count).fit({NAME: train})
        took[count] = time.process_time() - began
    epoch = max(took[2] - took[1], 1e-3)
    model = synthesizer(who, train, epochs=min(300, max(1, int((60 * minutes - took[1]) / epoch) + 1)))
    model.fit({NAME: train})
    return drawn(model, n)


def rows(who: str, train: pd.DataFrame, n: int, minutes: float, seed: int) -> pd.DataFrame:
    """Rows drawn by a specialist that was trained for so many minutes."""
    if who == "argn":
        return argn(train, n, minutes, seed)
    if who == "copula":
        return copula(train, n, minutes, seed)
    return epochs({"ctgan": "CTGANSynthesizer", "tvae": "TVAESynthesizer"}[who], train, n, minutes, seed)


def main() -> None:
    """Do what the command line's JSON asks for."""
    asked = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(asked["seed"])
    began, wall = time.process_time(), time.perf_counter()
    drawn = rows(asked["who"], pd.read_parquet(asked["train"]), asked["rows"], asked["minutes"], asked["seed"])
    drawn.to_parquet(asked["out"])
    print(json.dumps({"seconds": time.process_time() - began, "wall": time.perf_counter() - wall}))


if __name__ == "__main__":
    main()
