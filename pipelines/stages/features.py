"""The stage `features`: make the yardstick of a dataset and freeze it.

Two classifiers are trained on the train split, one for the feature space and an unlike one that
judges conditional samples; a network with random weights gives a second space. Beside them stand what
real training examples score in place of samples (the floors) and what the classical baseline scores.
The folder is a pure function of data, seed and settings: the same twice gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
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
        if self.bootstrap < 0:
            raise ValueError(f"features.bootstrap must not be negative, got {self.bootstrap}")
        if self.clusters < 2:
            raise ValueError(f"features.clusters must be at least 2, got {self.clusters}")
        if not self.components or min(self.components) < 1:
            raise ValueError(f"features.components must be positive numbers, got {list(self.components)}")


def features(dataset: str, *, seed: int = 0, settings: Settings | None = None, root: str | Path = ".") -> None:
    """Make the yardstick of a prepared dataset in `runs/<dataset>/yardstick/`.

    Arguments:
        dataset: Name of the dataset; `data/prepared/<dataset>/` must be there.
        seed: Seed of everything random.
        settings: How it is made; `None` for the defaults.
        root: The project's folder.
    Raises:
        FileNotFoundError: If the dataset is not prepared.
        ValueError: If a split the yardstick needs is missing or too small.
        OSError: If the folder cannot be written.
    """
    from data.shards import Dataset
    from pipelines.evaluation.making import make

    prepared = Dataset.open(Path(root) / "data" / "prepared" / dataset)
    make(prepared, dataset, Path(root) / "runs" / dataset / "yardstick", seed=seed, settings=settings or Settings())
