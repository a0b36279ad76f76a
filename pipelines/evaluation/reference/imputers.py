"""Imputation by scikit-learn, the baseline of the families' imputation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # pyright: ignore[reportUnusedImport]
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from torch import Tensor

from models.capabilities import Imputation
from models.rng import Streams
from pipelines.evaluation.domain import EvaluationDomain

MOST_TRAINING_ROWS = 2_000
"""Training rows that the classical ways of filling in learn from."""
MOST_REGRESSED = 128
"""Encoded columns up to which iterated regression is tried: it regresses each on all others."""


class SklearnImputer(Imputation):
    """A classical way of filling in: scikit-learn's imputers on standardized numbers and one-hot categories.

    Arguments:
        x: Training examples in data space.
        domain: What evaluation asks of the dataset's kind of data.
        imputer: What learns from them.
    """

    def __init__(self, x: Num[Tensor, "n *data"], domain: EvaluationDomain, imputer: Any) -> None:
        self.domain = domain
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a regression that has not converged is judged as it is
            self.imputer = imputer.fit(self._encode(x, torch.zeros_like(x, dtype=torch.bool)))

    def impute(
        self,
        x: Num[Tensor, "n *data"],
        observed: Bool[Tensor, "n *data"],
        generator: Streams,
        *,
        draws: int = 1,
    ) -> Num[Tensor, "draws n *data"]:
        """The completed examples, float64; every draw is the same."""
        encoded = self._encode(x, ~observed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            filled = self._decode(self.imputer.transform(encoded)).view(x.shape)
        known = observed & ~(x.isnan() if x.is_floating_point() else torch.zeros_like(observed))
        return torch.where(known, x.double(), filled).expand(draws, *x.shape)

    def _encode(self, x: Tensor, hidden: Tensor) -> Float[np.ndarray, "n encoded"]:
        y = x.flatten(1).double().masked_fill(hidden.flatten(1), torch.nan)
        scale, _ = self.domain.value_scale(y.shape[1])
        parts = []
        for values, unit, size in zip(y.unbind(1), scale, self.domain.categories(y.shape[1]), strict=True):
            part = (values[:, None] == torch.arange(size)).double() if size else values[:, None] / unit
            parts.append(part.masked_fill(values.isnan()[:, None], torch.nan))
        return torch.cat(parts, 1).numpy()

    def _decode(self, encoded: Float[np.ndarray, "n encoded"]) -> Float[Tensor, "n values"]:
        sizes = self.domain.categories(encoded.shape[1])
        scale, _ = self.domain.value_scale(len(sizes))
        parts = torch.from_numpy(encoded).split([max(size, 1) for size in sizes], 1)
        pairs = zip(parts, sizes, scale, strict=True)
        return torch.stack([p.argmax(1).double() if size else p[:, 0] * unit for p, size, unit in pairs], 1)


def sklearn_imputers(
    train: Num[Tensor, "m *data"], domain: EvaluationDomain, *, seed: int
) -> Iterator[tuple[str, SklearnImputer]]:
    """The classical ways of filling in, each learned from the first training rows: `mean` (of categories
    the mode), `knn`, and `iterative` where there are not too many columns."""
    imputers = {
        "mean": SimpleImputer(keep_empty_features=True),
        "knn": KNNImputer(n_neighbors=10, keep_empty_features=True),
        "iterative": IterativeImputer(max_iter=5, random_state=seed, keep_empty_features=True),
    }
    if sum(max(size, 1) for size in domain.categories(train[0].numel())) > MOST_REGRESSED:
        del imputers["iterative"]
    for name, imputer in imputers.items():
        yield name, SklearnImputer(train[:MOST_TRAINING_ROWS], domain, imputer)
