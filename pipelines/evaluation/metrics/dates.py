"""Do dates lie where those of the training rows lie?

A date is learned as year, week and weekday (or as month and day), each of which may be right while the whole is not: a
week of autumn in a last year that ends in May. Distances of columns look at the parts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data.formats import WEEKDAYS, Part, instants_of
from pipelines.evaluation.metrics.base import SAMPLES, Description
from pipelines.evaluation.metrics.samples import Findings, SampleSet, faulty

OUTSIDE_DATES = Description(
    name="outside_dates",
    title="Dates outside",
    sentence="Rows with a date before the first or after the last of the training rows.",
    group=SAMPLES,
    unit="share",
    better="lower",
)
DESCRIPTIONS = (OUTSIDE_DATES,)

Days = Callable[[Float[np.ndarray, "n columns"]], Float[np.ndarray, " n"]]


def measure(samples: SampleSet) -> Findings:
    """The share of samples with a date that no training row's range holds; nothing where no column has years."""
    train, drawn = (x.double().numpy() for x in (samples.every, samples.drawn))
    outside = []
    for name, days in dates(samples.domain["columns"]):
        known = days(train)[~np.isnan(days(train))]
        if len(known):
            outside.append(({"columns": [name]}, (days(drawn) < known.min()) | (days(drawn) > known.max())))
    return faulty(OUTSIDE_DATES, samples, outside)


def dates(columns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Days]]:
    """Name of each date that has a year, and its days since 1970 of rows in data space, NaN where it is missing."""
    places: dict[str, list[int]] = {}
    for i, column in enumerate(columns):
        if "source" in column:
            places.setdefault(str(column["source"]), []).append(i)
    for name, place in places.items():
        parts = [_part(columns[i]) for i in place]
        if "year" in {part.name for part in parts}:
            yield name, lambda rows, parts=parts, place=place: _days(rows[:, place], parts)


def _part(column: Mapping[str, Any]) -> Part:
    names = [str(name) for name in column.get("categories") or ()]
    weekday = column["part"] == "weekday"
    return Part(column["part"], values=tuple(WEEKDAYS.index(n) if weekday else int(n) for n in names))


def _days(values: Float[np.ndarray, "n parts"], parts: Sequence[Part]) -> Float[np.ndarray, " n"]:
    missing = np.isnan(values).any(1)
    days = instants_of(np.where(missing[:, None], 0.0, values), parts).days.astype(np.float64)
    return np.where(missing, np.nan, days)
