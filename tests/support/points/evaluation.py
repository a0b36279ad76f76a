"""Points: what evaluation asks of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.dataset import Examples
from pipelines.evaluation.domain import EvaluationDomain, FeatureEncoder, FigureWriter, LogDensity
from pipelines.evaluation.domains.table import EncodedRows, RandomRows, RowClassifier


class Standardized(FeatureEncoder):
    """Points in standard deviations from their mean."""

    error_unit = "standard deviations"

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.shape = (len(mean),)

    def __call__(self, x: Tensor) -> Tensor:
        return ((x.cpu().double() - self.mean) / self.std).float()

    def inverse(self, y: Tensor) -> Tensor:
        return y.double() * self.std + self.mean

    def augment(self, y: Tensor, generator: torch.Generator) -> Tensor:
        return y + 0.02 * torch.randn(y.shape, generator=generator)


class PointsEvaluation(EvaluationDomain):
    """What evaluation asks of points."""

    networks = {"classifier": EncodedRows, "judge": RowClassifier, "random": RandomRows}  # noqa: RUF012
    trained_features = False
    error_unit = "standard deviations"
    imputation_rows, imputation_draws = 50, 10

    def _encoder(self, options: dict[str, Any]) -> FeatureEncoder:
        return Standardized(**options)

    def corruptions(self, test: Examples, seed: int) -> dict[str, Tensor]:
        return {"centre": test.x * 0.2}

    def hidden_cells(self, x: Tensor, seed: int) -> Tensor:
        hidden = torch.zeros(x.shape, dtype=torch.bool)
        hidden[:, 0] = True
        return hidden

    def value_scale(self, values: int) -> tuple[Tensor, np.ndarray]:
        return torch.tensor(self.spec["std"], dtype=torch.float64), np.zeros(values, bool)

    def categories(self, values: int) -> list[int]:
        return [0] * values

    def baseline_density(self, x: Tensor, label: Tensor) -> tuple[str, LogDensity]:
        mean, covariance = x.double().mean(0), torch.cov(x.double().T)
        return "one Gaussian", torch.distributions.MultivariateNormal(mean, covariance).log_prob

    def figures(self, class_names: Sequence[str], test: Examples) -> FigureWriter:
        return Scatter()


class Scatter(FigureWriter):
    """Keeps the coordinates of some samples."""

    def samples(self, drawn: Tensor, label: Tensor | None) -> None:
        self.drawn = drawn[:100].tolist()

    def write(self, folder: Path) -> None:
        (folder / "points.json").write_text(json.dumps(self.drawn), encoding="utf-8")
