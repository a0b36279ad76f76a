"""Imputation by scikit-learn, the baseline of the families' imputation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # pyright: ignore[reportUnusedImport]
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from torch import Tensor

from pipelines.evaluation.metrics.base import Metric
from pipelines.evaluation.metrics.imputation import hidden_cells, imputation_metrics, value_scale

MOST_TRAINING_ROWS = 2_000
"""Training rows that the classical ways of filling in learn from."""
MOST_REGRESSED = 128
"""Encoded columns up to which iterated regression is tried: it regresses each on all others."""


def _sizes(domain: dict[str, Any], values: int) -> list[int]:
    """One-hot columns of each value; 0 for a number."""
    if domain["kind"] == "image":
        return [0] * values
    return [max(len(c["categories"]), 1) if c["type"] == "categorical" else 0 for c in domain["columns"]]


class SklearnImputer:
    """A classical way of filling in: scikit-learn's imputers on standardized numbers and one-hot categories.

    Arguments:
        x: Training examples in data space.
        domain: The dataset's domain.
        imputer: What learns from them.
    """

    def __init__(self, x: Num[Tensor, "n *data"], domain: dict[str, Any], imputer: Any) -> None:
        self.domain = domain
        self.imputer = imputer.fit(self._encode(x, torch.zeros_like(x, dtype=torch.bool)))

    def __call__(self, x: Num[Tensor, "n *data"], hidden: Bool[Tensor, "n *data"]) -> Num[Tensor, "1 n *data"]:
        """The completed examples, as one draw."""
        filled = self._decode(self.imputer.transform(self._encode(x, hidden))).view(x.shape)
        known = ~hidden & ~(x.isnan() if x.is_floating_point() else torch.zeros_like(hidden))
        return torch.where(known, x.double(), filled)[None]

    def _encode(self, x: Tensor, hidden: Tensor) -> Float[np.ndarray, "n encoded"]:
        y = x.flatten(1).double().masked_fill(hidden.flatten(1), torch.nan)
        scale, _ = value_scale(self.domain, y.shape[1])
        parts = []
        for values, unit, size in zip(y.unbind(1), scale, _sizes(self.domain, y.shape[1]), strict=True):
            part = (values[:, None] == torch.arange(size)).double() if size else values[:, None] / unit
            parts.append(part.masked_fill(values.isnan()[:, None], torch.nan))
        return torch.cat(parts, 1).numpy()

    def _decode(self, encoded: Float[np.ndarray, "n encoded"]) -> Float[Tensor, "n values"]:
        sizes = _sizes(self.domain, encoded.shape[1])
        scale, _ = value_scale(self.domain, len(sizes))
        parts = torch.from_numpy(encoded).split([max(size, 1) for size in sizes], 1)
        pairs = zip(parts, sizes, scale, strict=True)
        return torch.stack([p.argmax(1).double() if size else p[:, 0] * unit for p, size, unit in pairs], 1)


def classical_imputation(
    train: Num[Tensor, "m *data"],
    x: Num[Tensor, "n *data"],
    domain: dict[str, Any],
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Metric]]:
    """The metrics of each classical way of filling in: `mean` (of categories the mode), `knn`, `iterative`."""
    hidden = hidden_cells(x, domain["kind"], seed)
    if not hidden.any():
        return {}
    train_rows, found = train[:MOST_TRAINING_ROWS], {}
    imputers = {
        "mean": SimpleImputer(keep_empty_features=True),
        "knn": KNNImputer(n_neighbors=10, keep_empty_features=True),
        "iterative": IterativeImputer(max_iter=5, random_state=seed, keep_empty_features=True),
    }
    for name, imputer in imputers.items():
        if name == "iterative" and sum(max(size, 1) for size in _sizes(domain, x[0].numel())) > MOST_REGRESSED:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a regression that has not converged is judged as it is
            draws = SklearnImputer(train_rows, domain, imputer)(x, hidden)
        found[name] = imputation_metrics(x, hidden, draws, domain, resamples=resamples, seed=seed)
    return found
