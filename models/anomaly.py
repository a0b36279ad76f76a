"""How typical an example is, judged by several statistics of it at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .shapes import Float

ENOUGH = 1024
"""Training examples that mean and covariance of a few statistics need."""

MANY = 4096
"""Those that many statistics need."""


class MahalanobisScore(nn.Module):
    r"""Mahalanobis distance of an example's statistics from those of the training data.

    A single likelihood calls smooth images normal; a vector of statistics (likelihood, norms,
    errors at several noise levels) is unusual whenever any combination of them is, too high as
    well as too low.

    .. math:: a(x) = (s(x) - m)^\top C^{-1} (s(x) - m)

    Arguments:
        statistics: Number of statistics per example.
        upper_only: Whether only values above the training data's mean count, each for itself: the sum of
            the statistics in units of their spread. Right for rows of tables, where low error and high
            density mean an ordinary row, not a smooth image.
        both_sides: Whether a distance that is shorter than usual counts as well: then the score is how far
            its logarithm lies from that of the training data's. Right for many statistics, of which a smooth
            image's all lie nearer to their means than any real one's.

    References:
        | Density of states estimation for out-of-distribution detection (Morningstar et al., 2021)
        | https://arxiv.org/abs/2006.09273
    """

    def __init__(self, statistics: int, *, upper_only: bool = False, both_sides: bool = False) -> None:
        super().__init__()
        self.upper_only = upper_only
        self.length = MahalanobisScore(1) if both_sides else None
        self.mean: Tensor
        self.precision: Tensor
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("precision", torch.eye(statistics))

    def fit(self, statistics: Float[Tensor, "n statistics"]) -> None:
        """Take mean and (slightly shrunk) covariance from training examples."""
        values = statistics.double()
        self.mean.copy_(values.mean(0))
        covariance = torch.cov(values.T).reshape(values.shape[1], values.shape[1])
        if self.upper_only:
            covariance = torch.diag(covariance.diagonal())
        covariance = covariance + torch.diag(1e-3 * covariance.diagonal() + 1e-9)
        self.precision.copy_(torch.linalg.inv(covariance))
        if self.length is not None:
            self.length.fit(self._log_distance(statistics))

    def _log_distance(self, statistics: Float[Tensor, "n statistics"]) -> Float[Tensor, "n 1"]:
        centred = statistics - self.mean
        return torch.einsum("ni,ij,nj->n", centred, self.precision, centred).clamp(min=1e-8).log()[:, None]

    def forward(self, statistics: Float[Tensor, "n statistics"]) -> Float[Tensor, " n"]:
        if self.length is not None:
            return self.length(self._log_distance(statistics))
        centred = statistics - self.mean
        if self.upper_only:
            return (centred * self.precision.diagonal().sqrt()).sum(1)
        return torch.einsum("ni,ij,nj->n", centred, self.precision, centred)
