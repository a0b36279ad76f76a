r"""Do the rows keep the rules that every training row keeps?

Rules between columns, found in the training rows and kept by all of them:

| rule | holds in a row when |
| --- | --- |
| `b` follows from `a` | `b` is the one value that training rows with this `a` have |
| `a` is at most `b` | of numbers, or of dates |
| `c` is `a + b`, `c` is `a × b` | up to the rounding of `c` and half a percent |
| `c` is linear in `a`, or in `a` and `b` | up to the rounding of all and half a percent of the spread of `c` |

A rule counts only if at least `TELLING` of the rows would break it with the column `b` shuffled, and a row only where
all of the rule's cells are known. No pair of values need be rare for a rule to be broken: so this sees what impossible
pairs, distances and correlations do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pipelines.evaluation.metrics.base import SAMPLES, Description
from pipelines.evaluation.metrics.dates import dates
from pipelines.evaluation.metrics.samples import Findings, SampleSet, faulty

BROKEN_RULES = Description(
    name="broken_rules",
    title="Broken rules",
    sentence="Rows that break what all training rows keep: values that follow from others, orders, sums, products.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (BROKEN_RULES,)

TELLING = 0.05
"""Share of rows that would break a rule by chance, for it to be one."""
LEAST_ROWS = 50
"""Training rows with all cells known that a rule must be seen in."""
MOST_KEYS = 10_000
"""Values of a column from which others may follow."""
MOST_NUMBERS = 24
"""Columns of numbers among which orders, sums and products are looked for; of more, the first."""
PRODUCT_TOLERANCE = 0.005
"""Relative error of a sum or product in a drawn row: draws are not rounded as their source is."""

FINE = 0.05
"""Standard deviations that a linear function is rounded to at most: else nearly every column is one."""

Test = Callable[[Float[np.ndarray, "n columns"]], tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What every training row keeps.

    Arguments:
        text: As the report says it.
        test: Of rows in data space: which can be judged, and which of them break it.
    """

    text: str
    test: Test


def measure(samples: SampleSet) -> Findings:
    """The share of samples that break a rule; nothing where the training rows keep none."""
    train, drawn = (x.double().numpy() for x in (samples.every, samples.drawn))
    broken = (
        ({"rule": rule.text}, np.logical_and(*rule.test(drawn))) for rule in rules(train, samples.domain["columns"])
    )
    return faulty(BROKEN_RULES, samples, broken)


def rules(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """The rules that all training rows keep."""
    return [
        *_determined(train, columns), *_ordered(train, columns), *_computed(train, columns), *_linear(train, columns)
    ]  # fmt: skip


# A value that follows from another


def _determined(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> Iterator[Rule]:
    values, codes = {}, {}
    for i, column in enumerate(columns):
        if "source" not in column:
            found, code = np.unique(train[:, i], return_inverse=True)
            known = found[~np.isnan(found)]
            if 1 < len(known) <= MOST_KEYS:
                values[i], codes[i] = known, np.where(code < len(known), code, -1)
    for a, b in itertools.permutations(codes, 2):
        if "categorical" not in (columns[a]["type"], columns[b]["type"]):
            continue
        known = (codes[a] >= 0) & (codes[b] >= 0)
        x, y = codes[a][known], codes[b][known]
        counts = np.bincount(x, minlength=len(values[a]))
        repeated = counts[counts > 1].sum()
        if len(x) < LEAST_ROWS or repeated < 0.9 * len(x):  # names of rows: everything follows from them
            continue
        follows = np.full(len(values[a]), -1)
        follows[x] = y
        if (follows[x] != y).any() or _chance(lambda z, f=follows, x=x: f[x] != z, y) < TELLING:
            continue
        value = np.where(follows >= 0, values[b][follows], np.nan)
        yield Rule(f"{columns[b]['name']} follows from {columns[a]['name']}", _follows(a, b, values[a], value))


def _follows(a: int, b: int, values: np.ndarray, value: np.ndarray) -> Test:
    def test(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.searchsorted(values, np.nan_to_num(rows[:, a])).clip(max=len(values) - 1)
        judged = (values[place] == rows[:, a]) & ~np.isnan(value[place]) & ~np.isnan(rows[:, b])
        return judged, value[place] != rows[:, b]

    return test


# An order


def _numbers(columns: Sequence[Mapping[str, Any]]) -> list[int]:
    """Columns of numbers that are no part of a date, `MOST_NUMBERS` at most."""
    return [i for i, c in enumerate(columns) if c["type"] != "categorical" and "source" not in c][:MOST_NUMBERS]


def _quantities(columns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
    """Name, unit and values of each number and each date (in days)."""
    for i in _numbers(columns):
        yield str(columns[i]["name"]), "number", lambda rows, i=i: rows[:, i]
    for name, days in dates(columns):
        yield name, "date", days


def _ordered(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> Iterator[Rule]:
    for (a, unit_a, x), (b, unit_b, y) in itertools.permutations(_quantities(columns), 2):
        if unit_a != unit_b:
            continue
        low, high = x(train), y(train)
        known = ~(np.isnan(low) | np.isnan(high))
        low, high = low[known], high[known]
        if len(low) < LEAST_ROWS or (low > high).any() or (low == high).all():
            continue
        if _chance(lambda z, low=low: low > z, high) >= TELLING:
            yield Rule(f"{a} is at most {b}", _at_most(x, y))


def _at_most(x: Callable[[np.ndarray], np.ndarray], y: Callable[[np.ndarray], np.ndarray]) -> Test:
    def test(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = x(rows), y(rows)
        return ~(np.isnan(low) | np.isnan(high)), low > high

    return test


# A sum, a product, a linear function


def _roundings(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Half of the last decimal of each column of numbers that are not all alike."""
    numbers = [i for i in _numbers(columns) if len(np.unique(train[~np.isnan(train[:, i]), i])) > 1]
    return {i: 0.5 * 10.0 ** -_decimals(train[:, i]) for i in numbers}


def _computed(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> Iterator[Rule]:
    rounding = _roundings(train, columns)
    numbers = list(rounding)
    for c in numbers:
        for a, b in itertools.combinations([i for i in numbers if i != c], 2):
            known = np.flatnonzero(~np.isnan(train[:, [a, b, c]]).any(1))
            if len(known) < LEAST_ROWS:
                continue
            few = train[known[:LEAST_ROWS]][:, [a, b, c]]
            for sign, function in (("+", np.add), ("×", np.multiply)):
                near = 1.0001 * rounding[c]

                def off(rows: np.ndarray, f: Any = function, near: float = near) -> np.ndarray:
                    return np.abs(rows[:, 2] - f(rows[:, 0], rows[:, 1])) > near + 1e-9 * np.abs(rows[:, 2])

                if off(few).any() or off(rows := train[known][:, [a, b, c]]).any():
                    continue
                if min(_chance(lambda z, r=rows, k=k, o=off: o(_with(r, k, z)), rows[:, k]) for k in (0, 1)) < TELLING:
                    continue
                text = f"{columns[c]['name']} is {columns[a]['name']} {sign} {columns[b]['name']}"
                yield Rule(text, _computes(a, b, c, function, near))


def _with(rows: np.ndarray, place: int, values: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:, place] = values
    return rows


def _computes(a: int, b: int, c: int, function: Callable[[Any, Any], np.ndarray], near: float) -> Test:
    def test(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right = function(rows[:, a], rows[:, b])
        judged = ~(np.isnan(right) | np.isnan(rows[:, c]))
        return judged, np.abs(rows[:, c] - right) > near + PRODUCT_TOLERANCE * np.abs(right)

    return test


def _linear(train: Float[np.ndarray, "n columns"], columns: Sequence[Mapping[str, Any]]) -> Iterator[Rule]:
    """Degrees Fahrenheit from Celsius, a decimal date from year and month; plain sums are found before."""
    rounding = _roundings(train, columns)
    coarse = {i: rounding[i] / float(np.nanstd(train[:, i])) for i in rounding}
    found: list[set[int]] = []
    for c in sorted((i for i in rounding if coarse[i] <= FINE), key=coarse.__getitem__):  # the finest tells most
        others = [i for i in rounding if i != c]
        for chosen in ((a,) for a in others), itertools.combinations(others, 2):
            for places in map(list, chosen):
                if any(known <= {c, *places} for known in found):
                    continue
                rows = train[~np.isnan(train[:, [c, *places]]).any(1)]
                if len(rows) < LEAST_ROWS:
                    continue
                if _fitted(rows[:LEAST_ROWS], c, places, rounding) is None:
                    continue
                fit = _fitted(rows, c, places, rounding)
                if fit is None or (len(places) == 2 and np.allclose(fit[0], [1, 1, 0])):
                    continue
                off = partial(_off, c=c, places=places, fit=fit)
                if min(_chance(lambda z, r=rows, k=k, o=off: o(_with(r, k, z)), rows[:, k]) for k in places) < TELLING:
                    continue
                found.append({c, *places})
                names = " and ".join(str(columns[i]["name"]) for i in places)
                near = fit[1] + PRODUCT_TOLERANCE * float(np.nanstd(train[:, c]))
                test = partial(_off, c=c, places=places, fit=(fit[0], near))
                yield Rule(
                    f"{columns[c]['name']} is linear in {names}",
                    lambda rows, all_of=[c, *places], test=test: (~np.isnan(rows[:, all_of]).any(1), test(rows)),
                )


Fit = tuple[Float[np.ndarray, " k"], float]


def _fitted(
    rows: Float[np.ndarray, "n columns"], c: int, places: list[int], rounding: Mapping[int, float]
) -> Fit | None:
    """Factors and constant of column `c` in others, and how far rounding takes a row from them; `None` if one lies
    farther.

    What others are rounded to counts as far as it is about what `c` is rounded to: a year is exact beside a date.
    """
    factors = np.linalg.lstsq(np.c_[rows[:, places], np.ones(len(rows))], rows[:, c])[0]
    slack = rounding[c] + sum(
        rounding[i] * abs(f) for i, f in zip(places, factors, strict=False) if rounding[i] * abs(f) <= 2 * rounding[c]
    )
    fit = factors, 1.01 * slack
    return None if _off(rows, c, places, fit).any() else fit


def _off(rows: Float[np.ndarray, "n columns"], c: int, places: list[int], fit: Fit) -> Bool[np.ndarray, " n"]:
    """Which rows lie farther from a linear function than rounding takes them."""
    return np.abs(rows[:, places] @ fit[0][:-1] + fit[0][-1] - rows[:, c]) > fit[1]


def _decimals(values: np.ndarray) -> int:
    """Decimals that a column of the training rows is rounded to, at most nine."""
    known = values[~np.isnan(values)]
    for decimals in range(9):
        if np.allclose(known, np.round(known, decimals), rtol=1e-12, atol=1e-9):
            return decimals
    return 9


def _chance(broken: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> float:
    """Share of rows that would break a rule with a column shuffled."""
    return float(broken(np.random.default_rng(0).permutation(values)).mean())
