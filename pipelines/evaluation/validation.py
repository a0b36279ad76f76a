"""The quick number that training and tuning steer by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipelines.evaluation.inference import proportional_labels, sample
from pipelines.evaluation.metrics.distribution import frechet
from pipelines.evaluation.reference.reference import Space

if TYPE_CHECKING:
    from models.contract import GenerativeModel


def validation_score(model: GenerativeModel, space: Space, split: str = "val", n: int = 500, seed: int = 0) -> float:
    """Fréchet distance of `n` samples from a split's real rows; lower is better.

    Samples ask for labels in the training rows' proportions. The same seed asks for the same draws,
    so that two checkpoints differ by what they learned and not by their luck.

    Arguments:
        model: A model that samples.
        space: A space of the yardstick (`Reference.open(folder).spaces["classifier"]`).
        split: Rows to compare with; one with fewer than twice as many rows as the space has dimensions
            gives way to the training rows.
        n: How many samples.
        seed: Seed of the samples.
    Raises:
        ValueError: If the space does not know the split.
    """
    if split not in space.rows and split != "val":
        raise ValueError(f"the yardstick keeps no rows of {split!r}; it has {', '.join(space.rows)}")
    reference = space.rows.get(split, space.rows["train"])
    if len(reference) < 2 * space.mean.numel():
        reference = space.rows["train"]
    counts = space.label_counts
    wanted = proportional_labels(counts, n, seed) if model.classes and sum(counts) else None
    with torch.no_grad():
        return frechet(space.features(sample(model, n, wanted, seed)), reference)
