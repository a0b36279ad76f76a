"""What rules are, and what those of several kinds of data share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pipelines.defaults.facts import Facts

Rules = dict[str, Any]
"""Values by dotted name; a pair is a value and why."""
MINUTES = 5
"""That a family trains on two cores of a CPU, at most, where nothing else is said."""
LR = {"low": 5e-4, "high": 4e-3, "log": True}
NOISE, FREE_BITS = {"low": 0.05, "high": 0.4}, {"low": 0.0, "high": 0.2}
ADVERSARIAL: Rules = {
    "model.loss": "relativistic",
    "training.beta1": 0.0,
    "training.grad_clip": 0,
    "search.training.lr": {"low": 3e-4, "high": 2e-3, "log": True},
}


class KindRules(ABC):
    """The settings that suit one kind of data."""

    @abstractmethod
    def rules(self, facts: Facts) -> dict[str, Rules]:
        """Values by section, a stage's or a family's; what no rule names is left out."""

    def seconds_per_thousand(self, family: str, facts: Facts) -> float:
        """Processor seconds of one core per 1,000 training examples; 0 where nothing is known."""
        return 0.0

    def useful_cores(self, facts: Facts, cores: int) -> int:
        """How many of a machine's cores shorten a training."""
        return 1
