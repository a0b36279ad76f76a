"""Numbers that all are multiples of a step: found where training has them, and kept by what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import fivefold
from data.grids import GridSearch

RANDOM = np.random.default_rng(0)
HALVES = RANDOM.integers(0, 200, 400) * 0.5


@pytest.mark.parametrize(
    ("batches", "grid"),
    [
        ([HALVES], (0, 5, 10)),
        ([HALVES + 0.25], (25, 50, 100)),
        ([HALVES - 50], (0, 5, 10)),
        ([HALVES[:200].round(), HALVES[200:]], (0, 5, 10)),  # of two shards the first without decimals
        ([HALVES * 600], (0, 300, 1)),
        ([[9.99, 19.99, 29.99] * 40], (999, 1000, 100)),
        ([HALVES, [0.1]], None),  # one training cell is off it
        ([RANDOM.integers(0, 9_999, 400) / 100], None),  # no coarser than the last decimal
        ([RANDOM.integers(0, 99, 400)], None),
        ([[10, 20, 30, 50, 90]], None),  # too few to tell
        ([RANDOM.normal(size=400)], None),
        ([HALVES * 1e17], None),  # floats have steps of their own there
        ([[]], None),
    ],
)
def test_the_step_that_all_values_share(batches: list[Any], grid: tuple[int, int, int] | None) -> None:
    search = GridSearch()
    for batch in batches:
        search.add(np.asarray(batch, np.float64))
    assert search.found() == ({} if grid is None else dict(zip(("start", "step", "parts"), grid, strict=True)))


@pytest.mark.parametrize(("family", "settings"), [("flow", {}), ("vae", {"model.cells": "independent"})])
def test_what_is_drawn_and_filled_in_lies_on_the_grid(family: str, settings: dict[str, Any]) -> None:
    """Rates in halves, pay in hundreds from 50, and cents that have no grid; some rates are missing."""
    frame = pd.DataFrame({"rate": HALVES, "pay": RANDOM.integers(9, 99, 400) * 100 + 50, "cents": HALVES + 0.01})
    frame["cents"] = (frame["cents"] + RANDOM.integers(0, 50, 400) / 100).round(2)
    frame.loc[::5, "rate"] = np.nan
    small = {"model.width": 16, "training.batch_size": 64, **settings}
    model = fivefold.fit(frame, family=family, examples=1_000, settings=small)
    for rows in (model.sample(300), model.impute(frame.assign(pay=np.nan).head(100))):
        rates = rows["rate"].dropna().to_numpy(float)
        assert (rates * 2 == np.round(rates * 2)).all()
        assert len(np.unique(rates)) > 20
        assert (rows["pay"].to_numpy(float) % 100 == 50).all()
    assert (model.sample(300)["cents"].to_numpy(float) * 2 % 1 != 0).mean() > 0.5
