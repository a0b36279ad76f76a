"""A number, what it is measured in, and what stands beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One measured number.

    Arguments:
        value: The estimate.
        low: Lower end of its 95 % bootstrap interval; `None` when it has none.
        high: Upper end.
        unit: What it is measured in.
        better: Which direction is better.
        floor: The same number for real training examples in place of samples; `None` when meaningless.
        baseline: The same number for the classical baseline; `None` when it has none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str
    better: Better
    floor: float | None = None
    baseline: float | None = None

    def beside(self, *, floor: float | None = None, baseline: float | None = None) -> Metric:
        """The same number with its floor and its baseline."""
        return replace(self, floor=floor, baseline=baseline)

    def beats(self, other: Metric) -> bool:
        """Whether this number is better than the other's whole interval (its value if it has none)."""
        if self.better == "lower":
            return self.value < (other.value if other.low is None else other.low)
        return self.value > (other.value if other.high is None else other.high)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def metric(*, value: float, interval: tuple[float, float] | None = None, unit: str, better: Better) -> Metric:
    """A metric of plain Python floats, from an estimate and its interval."""
    low, high = (None, None) if interval is None else (float(interval[0]), float(interval[1]))
    return Metric(value=float(value), low=low, high=high, unit=unit, better=better)
