r"""The classical baseline every family is compared with: scikit-learn, seconds, no network.

Per class: principal components, a Gaussian mixture on the codes whose number of components is chosen
by the Bayesian information criterion, and isotropic Gaussian noise for what the components leave out
(as in probabilistic PCA; it counts in the density, not in the samples). Samples are rounded to the
data's levels and scored by the very functions that score the families.

References:
    | Mixtures of probabilistic principal component analysers (Tipping and Bishop, 1999)
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from models.capabilities import AnomalyScoring, Coding, Density, Imputation, Reconstruction, Sampling
from models.rng import Streams
from pipelines.evaluation.domain import EvaluationDomain
from pipelines.evaluation.inference import proportional_labels

MIXTURES = (1, 2, 3, 4, 6)
"""Numbers of components to choose from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassModel:
    """Principal components and a mixture of one class.

    Arguments:
        share: Share of the class among the training rows.
        pca: Principal components.
        mixture: Mixture on the codes.
        residual: Variance of a left-out dimension.
    """

    share: float
    pca: PCA
    mixture: GaussianMixture
    residual: float

    def sample(self, n: int, random: np.random.Generator) -> Float[np.ndarray, "n flat"]:
        """`n` draws."""
        weights, means = np.asarray(self.mixture.weights_), np.asarray(self.mixture.means_)
        which = random.choice(len(weights), n, p=weights / weights.sum())
        roots = np.linalg.cholesky(np.asarray(self.mixture.covariances_))
        noise = random.standard_normal((n, roots.shape[-1]))
        return self.pca.inverse_transform(means[which] + np.einsum("nij,nj->ni", roots[which], noise))

    def log_density(self, flat: Float[np.ndarray, "n flat"]) -> Float[np.ndarray, " n"]:
        """Joint log-density of rows and this class."""
        codes = self.pca.transform(flat)
        left = flat.shape[-1] - codes.shape[-1]
        missed = np.square(flat - self.pca.inverse_transform(codes)).sum(1)
        noise = -missed / (2 * self.residual) - left / 2 * math.log(2 * math.pi * self.residual)
        return math.log(self.share) + self.mixture.score_samples(codes) + noise


class ClassicalBaseline(Sampling, Density, Coding, Reconstruction, AnomalyScoring, Imputation):
    """Per class, a Gaussian mixture on principal components, with the capabilities that a family may have.

    Densities come from values independent of each other (`EvaluationDomain.baseline_density`), for a
    mixture has none of the discrete data; imputations from `imputer`, one of scikit-learn's.

    Arguments:
        x: Training examples in data space.
        label: Their classes, none unknown.
        domain: What evaluation asks of the kind of data.
        components: Most principal components of a class.
        seed: Seed of the mixtures' starts.
    """

    def __init__(
        self,
        x: Num[Tensor, "n *data"],
        label: Int[Tensor, " n"],
        domain: EvaluationDomain,
        *,
        components: int,
        seed: int,
    ) -> None:
        self.inputs = inputs = domain.encoder
        self.counts = torch.bincount(label).tolist()
        self.density_name, self.density = domain.baseline_density(x, label)
        self.imputer: Imputation | None = None
        flat, classes = inputs.flat(x), label.numpy()
        self.models = {
            int(c): _fit_class(flat[classes == c], len(flat), components, seed)
            for c in np.unique(classes)
            if (classes == c).sum() > 1
        } or {int(classes[0]): _fit_class(flat, len(flat), components, seed)}  # one row a class: all are one
        self.codes = PCA(min(components, flat.shape[1], len(flat) - 1), **_solver(flat)).fit(flat)

    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *data"]:
        """`n` draws rounded to valid examples, of the training rows' classes in their proportions where none is asked
        for. The streams give their seed to numpy."""
        seed = generator.generators[0].initial_seed()
        if label is None:
            label = proportional_labels(self.counts, n, seed)
        random = np.random.default_rng(seed)
        some = next(iter(self.models.values()))
        flat = np.zeros((n, int(np.prod(self.inputs.shape))))
        for c in np.unique(label.numpy()):
            rows = np.flatnonzero(label.numpy() == c)
            flat[rows] = self.models.get(int(c), some).sample(len(rows), random)
        return self.inputs.inverse(torch.from_numpy(flat))

    def log_prob(
        self, x: Num[Tensor, "n *data"], generator: Streams, *, label: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Log-probability in nats by the density to beat: of independent values, whatever the label."""
        return self.density(x)

    def anomaly_score(self, x: Num[Tensor, "n *data"], generator: Streams) -> Float[Tensor, " n"]:
        """Negative log-density, summed over classes."""
        flat = self.inputs.flat(x)
        return -torch.from_numpy(np.asarray(logsumexp([m.log_density(flat) for m in self.models.values()], axis=0)))

    def encode(self, x: Num[Tensor, "n *data"]) -> Float[Tensor, "n code"]:
        """Principal component codes, all classes together."""
        return torch.from_numpy(self.codes.transform(self.inputs.flat(x)))

    def reconstruct(self, x: Num[Tensor, "n *data"], generator: Streams) -> Num[Tensor, "n *data"]:
        """Examples from their principal component codes."""
        return self.decode(self.encode(x))

    def decode(self, z: Float[Tensor, "n code"]) -> Num[Tensor, "n *data"]:
        """Examples of principal component codes."""
        return self.inputs.inverse(torch.from_numpy(self.codes.inverse_transform(z.numpy())))

    def impute(
        self,
        x: Num[Tensor, "n *data"],
        observed: Bool[Tensor, "n *data"],
        generator: Streams,
        *,
        draws: int = 1,
    ) -> Num[Tensor, "draws n *data"]:
        """Completions by the classical way of filling in that was chosen."""
        if self.imputer is None:
            raise ValueError("the classical baseline fills in nothing before an imputer was chosen: set `imputer`")
        return self.imputer.impute(x, observed, generator, draws=draws)


def _solver(flat: np.ndarray) -> dict[str, Any]:
    """Exact for a few hundred columns; randomized, with a fixed seed, beyond."""
    return {"svd_solver": "full"} if flat.shape[1] <= 256 else {"svd_solver": "randomized", "random_state": 0}


def _fit_class(flat: np.ndarray, total: int, components: int, seed: int) -> ClassModel:
    n = min(components, flat.shape[1], max(len(flat) // 3, 1), len(flat) - 1)
    pca = PCA(n, **_solver(flat)).fit(flat)
    codes = pca.transform(flat)
    left = flat.shape[1] - n
    residual = np.square(flat - pca.inverse_transform(codes)).sum(1).mean() / max(left, 1)
    ridge = 1e-3 * max(float(codes.var(0).mean()), 1e-6)
    candidates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in MIXTURES:
            if k > 1 and len(flat) < 20 * k:
                break
            mixture = GaussianMixture(k, reg_covar=ridge, random_state=seed, max_iter=200).fit(codes)
            candidates.append((mixture.bic(codes), k, mixture))
    return ClassModel(
        share=len(flat) / total, pca=pca, mixture=min(candidates, key=lambda c: c[:2])[2], residual=residual + 1e-3
    )
