"""How much is measured, and how the reference is made."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_ROWS = 20
"""Rows of a split that the yardstick may be told to keep, at least; of a smaller split it keeps all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceConfig:
    """How the yardstick is made.

    Arguments:
        examples: Examples each classifier is trained on, counting repeats.
        batch_size: Examples a step.
        learning_rate: Largest learning rate of the classifiers.
        rows: Most rows of a split that features are kept of.
        samples: Samples drawn from the baseline, and from a family by default.
        bootstrap: Resamples behind each interval.
        components: Numbers of principal components the baseline chooses from (by its Fréchet distance
            from the validation split).
        clusters: Pseudo-classes of unlabelled data.
    """

    examples: int = 40_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    rows: int = 10_000
    samples: int = 2_000
    bootstrap: int = 200
    components: tuple[int, ...] = (8, 16, 32, 64)
    clusters: int = 10

    def __post_init__(self) -> None:
        for name in ("examples", "batch_size", "learning_rate", "rows", "samples"):
            if not getattr(self, name) > 0:
                raise ValueError(f"features.{name} must be positive, got {getattr(self, name)}")
        if self.rows < LEAST_ROWS:
            raise ValueError(f"features.rows must be at least {LEAST_ROWS}, got {self.rows}")
        if self.bootstrap < 0:
            raise ValueError(f"features.bootstrap must not be negative, got {self.bootstrap}")
        if self.clusters < 2:
            raise ValueError(f"features.clusters must be at least 2, got {self.clusters}")
        if not self.components or min(self.components) < 1:
            raise ValueError(f"features.components must be positive numbers, got {list(self.components)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """How much is measured.

    Arguments:
        samples: Draws per family.
        bootstrap: Resamples behind each interval.
    """

    samples: int = 2_000
    bootstrap: int = 200

    def __post_init__(self) -> None:
        if self.samples < 100:
            raise ValueError(f"samples must be at least 100, got {self.samples}")
        if self.bootstrap < 10:
            raise ValueError(f"bootstrap must be at least 10, got {self.bootstrap}")
