"""Numbers that people round: found where training has them, and what is drawn ends as they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fivefold
from data.domains.table import rounded_quantiles
from data.rounding import rounding_of
from models.domains.table import Table

RANDOM = np.random.default_rng(0)
N = 4_000
CENTS = np.round(np.exp(RANDOM.normal(3.5, 1.0, N)), 2)


def ending(share: float, cents: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Numbers of which a share is replaced."""
    return np.where(RANDOM.random(N) < share, cents, otherwise)


PRICES = ending(0.7, np.floor(CENTS) + 0.99, CENTS)
INCOMES = np.round(np.exp(RANDOM.normal(10.5, 0.6, N)))
INCOMES = np.select([RANDOM.random(N) < 0.5, RANDOM.random(N) < 0.5], [INCOMES.round(-3), INCOMES.round(-2)], INCOMES)
SERIES = np.exp(RANDOM.normal(4.6, 1.5, N))
SERIES = np.where(SERIES < 100, np.round(SERIES, 2), np.round(SERIES, 4))
SIGNED = PRICES * RANDOM.choice([-1, 1], N)


def shares(values: np.ndarray) -> dict[str, float]:
    """Of numbers with the endings that the columns above have."""
    cents, absolute = np.rint(np.abs(values) * 100), np.abs(values)
    return {
        "99 cents": float(np.mean(cents % 100 == 99)),
        "thousands": float(np.mean(absolute % 1000 == 0)),
        "hundreds": float(np.mean(absolute % 100 == 0)),
        "more decimals below 100": float(np.mean((np.abs(absolute * 100 - cents) > 1e-6) & (absolute < 100))),
        "more decimals above": float(np.mean((np.abs(absolute * 100 - cents) > 1e-6) & (absolute >= 100))),
    }


def table(values: np.ndarray, kind: str = "continuous") -> Table:
    """A table of one column, as preparing it describes it."""
    quantiles = rounded_quantiles(values).tolist()
    column = {
        "name": "x", "type": kind, "count": len(values), "min": values.min(), "max": values.max(), "missing": 0,
        "mean": values.mean(), "std": values.std(), "quantiles": quantiles, "rounding": rounding_of(values),
    }  # fmt: skip
    return Table(columns=[column])


@pytest.mark.parametrize(
    ("values", "kind"),
    [(PRICES, "continuous"), (INCOMES, "integer"), (SERIES, "continuous"), (SIGNED, "continuous")],
    ids=["prices", "incomes", "series", "signed"],
)
def test_standard_normal_numbers_become_numbers_that_end_as_the_data_do(values: np.ndarray, kind: str) -> None:
    domain = table(values, kind)
    drawn = domain.quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((20_000, 1)))).numpy()[:, 0]
    expected, found = shares(values), shares(drawn)
    assert {name: found[name] == pytest.approx(share, abs=0.05) for name, share in expected.items()} == dict.fromkeys(
        expected, True
    ), (expected, found)
    quantiles = np.linspace(0.05, 0.95, 19)
    assert np.quantile(drawn, quantiles) == pytest.approx(np.quantile(values, quantiles), rel=0.06, abs=1.1)
    assert values.min() <= drawn.min()
    assert drawn.max() <= values.max()


@pytest.mark.parametrize("values", [PRICES, INCOMES, SERIES, SIGNED], ids=["prices", "incomes", "series", "signed"])
def test_a_number_is_what_its_cell_says_and_cells_fill_the_range(values: np.ndarray) -> None:
    domain = table(values)
    every = np.unique(values)
    cells = domain.cells(torch.from_numpy(every[:, None]))
    lower, upper = cells.lower[:, 0].numpy(), cells.upper[:, 0].numpy()
    assert (lower < upper).all()
    assert (upper[:-1] <= lower[1:] + 1e-12).all()  # no place is of two numbers
    inside = torch.special.ndtri(cells.below + (1 - cells.below - cells.above) * (cells.lower + cells.upper) / 2)
    assert domain.quantize(inside).numpy()[:, 0] == pytest.approx(every, rel=1e-12)


@pytest.mark.parametrize("prices", [PRICES, np.floor(PRICES) + 0.99], ids=["most", "all"])
def test_all_numbers_that_can_be_have_probabilities_that_sum_to_one(prices: np.ndarray) -> None:
    """Every cent up to the largest price, whether seen or not."""
    small = prices[prices < 200]
    domain = table(small)
    every = torch.arange(int(small.max() * 100) + 1).double()[:, None] / 100
    cells = domain.cells(every)
    assert float((cells.upper - cells.lower)[cells.excess == 0].sum()) == pytest.approx(1.0, abs=1e-6)
    assert bool((cells.upper > cells.lower)[every > float(small.min())].all())


def test_what_is_even_is_left_alone() -> None:
    assert rounding_of(RANDOM.integers(0, 5_000, N).astype(float)) == {}
    assert rounding_of(np.round(RANDOM.normal(50, 9, N), 2)) == {}
    assert rounding_of(RANDOM.normal(50, 9, N)) == {}
    assert rounding_of(RANDOM.choice([5.0, 9.99, 19.99, 100.0], N)) == {}  # of few values each is drawn as it occurs
    halves = RANDOM.integers(0, 400, N) * 0.5
    assert rounding_of(halves, {"start": 0, "step": 5, "parts": 10}) == {}  # its step says all


def test_shares_are_those_of_the_mixture() -> None:
    """A quarter to the unit, a quarter to hundreds, half to thousands; one in ten of the second is of the third."""
    many = RANDOM.integers(1_000, 10_000_000, 40_000)
    power = RANDOM.choice([1, 100, 1_000], len(many), p=[0.25, 0.25, 0.5])
    (millions,) = (r for r in rounding_of(many // power * power * 1.0)["ranges"] if r["least"] == 1_000_000)
    assert millions["zeros"] == pytest.approx([0.25, 0, 0.25, 0.5, 0, 0], abs=0.02)
    assert not any(millions["last"])


def test_a_frequent_number_says_nothing_of_how_others_end() -> None:
    even = np.round(RANDOM.uniform(10, 90, N), 2)
    assert rounding_of(np.where(RANDOM.random(N) < 0.7, 12.34, even)) == {}
    hundreds = RANDOM.integers(10, 2_000, N) * 100.0
    few = np.concatenate([hundreds, np.repeat([1207.0, 3407.0, 5607.0], 8)])  # as often as another: three numbers only
    assert not any(any(entry["last"]) for entry in rounding_of(few)["ranges"])
    several = np.concatenate([hundreds, np.repeat(np.arange(1_007.0, 9_007, 1_000), 8)])
    assert "07" in rounding_of(several)["ranges"][0]["last"][0]


def test_the_expensive_end_ends_as_the_cheap_one() -> None:
    """Cheap prices are frequent, each by itself, dear ones are not: .99 is as common among these."""
    domain = table(PRICES)
    drawn = domain.quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((40_000, 1)))).numpy()[:, 0]
    for low, high in ((0, 10), (10, 50), (50, 100), (100, 1_000)):
        there = [side[(side > low) & (side <= high)] for side in (PRICES, drawn)]
        assert shares(there[1])["99 cents"] == pytest.approx(shares(there[0])["99 cents"], abs=0.07), (low, high)


def test_a_magnitude_of_few_numbers_has_its_own_decimals() -> None:
    """Two decimals below ten, where one in fifty lies, one below a hundred, none above."""
    near = np.exp(RANDOM.normal(4.3, 1, N))
    values = np.where(near < 10, near.round(2), np.where(near < 100, near.round(1), near.round()))
    drawn = (
        table(values).quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((40_000, 1)))).numpy()[:, 0]
    )
    small, middle, large = (drawn[(drawn >= low) & (drawn < high)] for low, high in ((0, 10), (10, 100), (100, 9e9)))
    assert np.mean(small.round(1) != small) > 0.8
    assert np.mean(middle.round(1) == middle) > 0.98
    assert np.mean(large.round() == large) > 0.97


def test_a_frequent_number_that_is_finer_than_the_others_stays() -> None:
    values = np.where(
        RANDOM.random(N) < 0.2, 12.34, np.where(RANDOM.random(N) < 0.5, 100, 10) * RANDOM.integers(1, 900, N)
    )
    domain = table(values)
    drawn = domain.quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((5_000, 1)))).numpy()[:, 0]
    assert np.mean(drawn == 12.34) == pytest.approx(0.2, abs=0.03)
    assert np.mean(drawn % 100 == 0) == pytest.approx(np.mean(values % 100 == 0), abs=0.04)


@pytest.mark.parametrize("kind", ["rounded", "halves", "whole"])
def test_no_zero_is_below_zero(kind: str) -> None:
    """Amounts to either side of zero: none is written -0.0."""
    amounts = np.where(RANDOM.random(N) < 0.3, 0.0, SIGNED)
    halves = RANDOM.integers(-60, 60, N) / 2
    values = {"rounded": amounts, "halves": halves, "whole": np.round(halves)}[kind]
    domain = table(values, "integer" if kind == "whole" else "continuous")
    if kind == "halves":
        domain.grids[0] = {"start": 0, "step": 5, "parts": 10}
    drawn = domain.quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((5_000, 1)))).numpy()[:, 0]
    assert (drawn == 0).sum() > 20
    assert not np.signbit(drawn[drawn == 0]).any()


def test_what_is_seldom_not_zero_keeps_its_decimals() -> None:
    """Of claims nearly all are zero: the amounts of the others are prices, and what is measured is not rounded."""
    claims = np.concatenate([np.zeros(200 * N), PRICES[:600]])
    found = rounding_of(claims)
    assert found["unit"] == -2
    assert rounding_of(np.concatenate([np.zeros(200 * N), RANDOM.uniform(0, 0.4, 600)])) == {}
    domain = table(claims[-20_000:])
    drawn = domain.quantize(torch.from_numpy(np.random.default_rng(1).standard_normal((40_000, 1)))).numpy()[:, 0]
    assert np.mean(drawn == 0) == pytest.approx(0.97, abs=0.005)
    assert shares(drawn[drawn > 0])["99 cents"] == pytest.approx(shares(PRICES[:600])["99 cents"], abs=0.06)


def test_a_few_numbers_with_more_decimals_are_exceptions() -> None:
    """0.1 + 0.2 has one decimal, and two readings in a thousand with nine are not drawn."""
    noisy = np.where(RANDOM.random(N) < 0.002, PRICES + 1.23e-7, PRICES)
    noisy[:50] = np.round(RANDOM.integers(0, 900, 50) / 10, 1) + 0.1 + 0.2
    assert rounding_of(noisy)["unit"] == -2


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_prices_and_incomes_are_drawn_as_people_write_them(family: str) -> None:
    frame = pd.DataFrame({"price": PRICES, "income": INCOMES, "shop": np.where(PRICES > 30, "a", "b")})
    settings: dict[str, Any] = {"model.width": 16, "training.batch_size": 64}
    model = fivefold.fit(frame, family=family, examples=4_000, settings=settings)
    drawn = model.sample(2_000)
    assert shares(drawn["price"].to_numpy(float))["99 cents"] == pytest.approx(shares(PRICES)["99 cents"], abs=0.06)
    incomes = shares(drawn["income"].to_numpy(float))
    assert incomes["hundreds"] == pytest.approx(shares(INCOMES)["hundreds"], abs=0.06)
    filled = model.impute(frame.assign(price=np.nan).head(500))
    assert shares(filled["price"].to_numpy(float))["99 cents"] == pytest.approx(shares(PRICES)["99 cents"], abs=0.1)
    assert filled["income"].to_numpy(float).tolist() == INCOMES[:500].tolist()
