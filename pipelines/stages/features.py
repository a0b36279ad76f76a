"""The stage `features`: make the yardstick of a dataset and freeze it.

Two classifiers are trained on the train split, one for the feature space and an unlike one that
judges conditional samples; a network with random weights gives a second space. Beside them stand what
real training examples score in place of samples (the floors) and what the classical baseline scores.
The folder is a pure function of data, seed and settings: the same twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.evaluation.config import ReferenceConfig


def features(
    dataset: str,
    *,
    seed: int = 0,
    settings: ReferenceConfig | None = None,
    root: str | Path = ".",
    run: Callable[..., None] | None = None,
) -> None:
    """Make the yardstick of a prepared dataset in `runs/<dataset>/yardstick/`.

    Arguments:
        dataset: Name of the dataset; `data/prepared/<dataset>/` must be there.
        seed: Seed of everything random.
        settings: How it is made; `None` for the defaults.
        root: The project's folder.
        run: What makes it, given the arguments of `build_reference`; `None`: that, in this process, on its CPU.
    Raises:
        FileNotFoundError: If the dataset is not prepared.
        ValueError: If a split the yardstick needs is missing or too small.
        OSError: If the folder cannot be written.
    """
    from data.dataset import Dataset

    prepared = Dataset.open(Path(root) / "data" / "prepared" / dataset)
    if run is None:  # else seconds of imports that who only submits a job is spared
        from pipelines.evaluation.reference_builder import build_reference as run
    run(
        prepared,
        dataset,
        Path(root) / "runs" / dataset / "yardstick",
        seed=seed,
        settings=settings or ReferenceConfig(),
    )
