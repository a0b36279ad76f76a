"""The table of metrics: which files measure what, and what each number is called.

A metric is a file of this folder: its code, and its words beside it in `DESCRIPTIONS`. One of samples
has `measure(samples) -> Findings` and a line in `SAMPLE_METRICS`; the evaluator and the report find it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipelines.evaluation.metrics.base import Description
    from pipelines.evaluation.metrics.samples import Findings, SampleSet


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleMetric:
    """A file of metrics that need nothing but samples.

    Arguments:
        file: Its name in this folder.
        kind: The one kind of data it is for; empty for every kind.
        floor: Which real rows score the floor in place of samples; `None` where the file states its own.
    """

    file: str
    kind: str = ""
    floor: Literal["train", "test"] | None = "train"

    @property
    def measure(self) -> Callable[[SampleSet], Findings]:
        """What measures samples."""
        return _module(self.file).measure


SAMPLE_METRICS = (
    SampleMetric(file="distribution"),
    SampleMetric(file="label_accuracy", floor="test"),
    SampleMetric(file="tabular", kind="table"),
    SampleMetric(file="gaps", kind="table"),
    SampleMetric(file="shapes_trends", kind="table"),
    SampleMetric(file="coherence", kind="table", floor="test"),
    SampleMetric(file="rules", kind="table", floor="test"),
    SampleMetric(file="dates", kind="table", floor="test"),
    SampleMetric(file="last_digits", kind="table", floor="test"),
    SampleMetric(file="tails", kind="table"),
    SampleMetric(file="tree_c2st", kind="table"),
    SampleMetric(file="memorization", floor=None),
    SampleMetric(file="closest_record", floor=None),
    SampleMetric(file="membership", floor=None),
    SampleMetric(file="singling_out", kind="table", floor=None),
    SampleMetric(file="attribute_inference", kind="table", floor=None),
)
"""Measured of every model that samples, in this order."""
OTHER_METRICS = ("likelihood", "reconstruction", "compression", "probe", "imputation", "anomaly")
"""Files of metrics behind the other capabilities."""


def sample_metrics(kind: str) -> list[SampleMetric]:
    """The files that measure samples of a kind of data."""
    return [entry for entry in SAMPLE_METRICS if entry.kind in ("", kind)]


@cache
def descriptions() -> tuple[Description, ...]:
    """The words of every metric, in the order of the page."""
    files = [*(entry.file for entry in SAMPLE_METRICS), *OTHER_METRICS]
    return tuple(description for file in files for description in _module(file).DESCRIPTIONS)


def describe(name: str) -> Description | None:
    """The words of a metric; `None` for an unknown one."""
    found = [d for d in descriptions() if d.name == name or (d.by_kind and name.startswith(d.name))]
    return found[0] if found else None


def _module(file: str) -> Any:
    return import_module(f"{__name__}.{file}")
