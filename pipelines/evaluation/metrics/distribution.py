"""Distances between two sets of points, and how much of one the other covers.

All of them take features `[n, dim]` and know nothing of models or images. The Fréchet distance of
finite samples is biased upwards, by an amount that depends on both sizes: compare only numbers of
the same sizes, and read them beside their floor, which has the same bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from pipelines.evaluation.metrics.base import MOST_PAIRWISE, SAMPLES, Description, Metric, counts, interval
from pipelines.evaluation.metrics.c2st import C2ST, FOLDS, c2st_predictions
from pipelines.evaluation.metrics.samples import Findings, SampleSet, too_few

FRECHET = Description(
    name="frechet",
    title="Fréchet distance",
    sentence="Distance between Gaussians fitted to the features of samples and of test data.",
    group=SAMPLES,
    unit="squared feature deviations",
    better="lower",
)
KERNEL = Description(
    name="kernel",
    title="Kernel distance",
    sentence="Maximum mean discrepancy; unbiased, so it may fall below zero.",
    group=SAMPLES,
    unit="kernel",
    better="lower",
)
PRECISION = Description(
    name="precision",
    title="Precision",
    sentence="Samples that lie among the test data: fidelity.",
    group=SAMPLES,
    unit="share",
    better="higher",
)
RECALL = Description(
    name="recall",
    title="Recall",
    sentence="Test data that lie among the samples: variety.",
    group=SAMPLES,
    unit="share",
    better="higher",
)
DENSITY = Description(
    name="density",
    title="Density",
    sentence="Test neighbourhoods a sample lies in; 1 for real data, more where samples crowd the typical.",
    group=SAMPLES,
    unit="real neighbourhoods around a sample",
    better="higher",
)
COVERAGE = Description(
    name="coverage",
    title="Coverage",
    sentence="Test examples with a sample near by: variety, robust to outliers.",
    group=SAMPLES,
    unit="share",
    better="higher",
)
UNTRAINED = "The same in the space of an untrained network."
FRECHET_RANDOM, KERNEL_RANDOM = (
    replace(known, name=f"{known.name}_random", title=f"{known.title}, random features", sentence=UNTRAINED)
    for known in (FRECHET, KERNEL)
)
DESCRIPTIONS = (FRECHET, FRECHET_RANDOM, KERNEL, KERNEL_RANDOM, PRECISION, RECALL, DENSITY, COVERAGE, C2ST)

BALLS = 5
"""Neighbours that the balls of precision, recall, density and coverage hold."""

Strata = tuple[Int[np.ndarray, " n"] | None, Int[np.ndarray, " m"] | None]
"""Groups of the rows of two samples within which to resample."""


def frechet_of_moments(
    mean_a: Float[np.ndarray, " dim"],
    cov_a: Float[np.ndarray, "dim dim"],
    mean_b: Float[np.ndarray, " dim"],
    cov_b: Float[np.ndarray, "dim dim"],
) -> float:
    r"""Squared Wasserstein-2 distance of two Gaussians.

    .. math:: \lVert\mu_a-\mu_b\rVert^2 + \operatorname{tr}(\Sigma_a + \Sigma_b
        - 2(\Sigma_a^{1/2}\Sigma_b\Sigma_a^{1/2})^{1/2})

    The last trace is the sum of the square roots of the eigenvalues of
    :math:`\Sigma_a^{1/2}\Sigma_b\Sigma_a^{1/2}`, so singular covariances are no trouble.

    References:
        | GANs trained by a two time-scale update rule (Heusel et al., 2017), eq. 6
        | https://arxiv.org/abs/1706.08500
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = root @ cov_b @ root
    cross = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def moments(
    x: Float[np.ndarray, "n dim"], weight: Int[np.ndarray, " n"] | None = None
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "dim dim"]]:
    """Mean and unbiased covariance; `weight` counts how often each row stands in the sample."""
    rows = len(x) if weight is None else int(weight.sum())
    weighted = x if weight is None else x * weight[:, None]
    mean = weighted.sum(0) / rows
    return mean, (x.T @ weighted - rows * np.outer(mean, mean)) / max(rows - 1, 1)


def frechet(a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "m dim"]) -> float:
    """Fréchet distance of two samples: that of the Gaussians with their moments, never below 0."""
    return max(frechet_of_moments(*moments(a), *moments(b)), 0.0)


def frechet_draws(
    a: Float[np.ndarray, "n dim"],
    b: Float[np.ndarray, "m dim"],
    resamples: int,
    seed: int,
    strata: Strata = (None, None),
) -> Float[np.ndarray, " resamples"]:
    """Fréchet distance with the rows of both samples resampled (within `strata`, if given)."""
    shift = b.mean(0)  # small numbers: the covariance is a difference of sums
    a, b = a - shift, b - shift
    pairs = zip(counts(len(a), resamples, seed, strata[0]), counts(len(b), resamples, seed + 1, strata[1]), strict=True)
    return np.array([frechet_of_moments(*moments(a, w), *moments(b, v)) for w, v in pairs])


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """Kernel values within and between two samples."""

    aa: Float[np.ndarray, "n n"]
    bb: Float[np.ndarray, "m m"]
    ab: Float[np.ndarray, "n m"]

    @classmethod
    def cubic(cls, a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "m dim"]) -> Kernels:
        r""":math:`k(x, y) = (x^\top y / d + 1)^3`."""

        def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return (x @ y.T / x.shape[1] + 1) ** 3

        return cls(aa=kernel(a, a), bb=kernel(b, b), ab=kernel(a, b))

    def distance(self) -> float:
        r"""Unbiased squared maximum mean discrepancy, the kernel (inception) distance; may be negative.

        .. math:: \tfrac{1}{n(n-1)}\sum_{i\ne j} k(a_i,a_j) + \tfrac{1}{m(m-1)}\sum_{i\ne j} k(b_i,b_j)
            - \tfrac{2}{nm}\sum_{ij} k(a_i,b_j)

        References:
            | Demystifying MMD GANs (Binkowski et al., 2018), eq. 4
            | https://arxiv.org/abs/1801.01401
        """
        ones = (np.ones((1, len(self.aa))), np.ones((1, len(self.bb))))
        return float(self._weighted(*ones)[0])

    def draws(self, resamples: int, seed: int, strata: Strata = (None, None)) -> Float[np.ndarray, " resamples"]:
        """The distance with the rows of both samples resampled; a row is never paired with its own copy."""
        w, v = (counts(len(self.aa), resamples, seed, strata[0]), counts(len(self.bb), resamples, seed + 1, strata[1]))
        return self._weighted(w.astype(np.float64), v.astype(np.float64))

    def _weighted(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        def within(weight: np.ndarray, kernel: np.ndarray) -> np.ndarray:
            square = weight**2
            total = ((weight @ kernel) * weight).sum(1) - square @ kernel.diagonal()
            with np.errstate(invalid="ignore"):  # copies of one row only have no pairs
                return total / (weight.sum(1) ** 2 - square.sum(1))

        between = ((w @ self.ab) * v).sum(1) / (w.sum(1) * v.sum(1))
        return within(w, self.aa) + within(v, self.bb) - 2 * between


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhoods:
    """Who lies in whose neighbourhood, one number per point; the four metrics are their means.

    Arguments:
        precision: Whether each generated point lies in some real point's ball, `[generated]`.
        recall: Whether each real point lies in some generated point's ball, `[real]`.
        density: Number of real balls around each generated point, over k, `[generated]`.
        coverage: Whether each real point's ball holds a generated point, `[real]`.
    """

    precision: Bool[np.ndarray, " generated"]
    recall: Bool[np.ndarray, " real"]
    density: Float[np.ndarray, " generated"]
    coverage: Bool[np.ndarray, " real"]


def neighbourhoods(
    real: Float[np.ndarray, "real dim"], generated: Float[np.ndarray, "generated dim"], k: int = BALLS
) -> Neighbourhoods:
    """Balls that reach to the k-th nearest neighbour within each set, and who falls into them.

    With equal sizes and equal distributions coverage is near :math:`1 - 2^{-k}`, precision and
    density near their floor; unequal sizes bias all four, so give both sets the same size.

    Raises:
        ValueError: If a set has no more than `k` points.
    References:
        | Improved precision and recall metric (Kynkäänniemi et al., 2019), https://arxiv.org/abs/1904.06991
        | Reliable fidelity and diversity metrics (Naeem et al., 2020), https://arxiv.org/abs/2002.09797
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"precision and coverage need more than {k} points a side, got {len(real)}, {len(generated)}")
    between = cdist(real, generated)
    in_real = between < _kth_neighbour(real, k)[:, None]
    in_generated = between < _kth_neighbour(generated, k)[None, :]
    return Neighbourhoods(
        precision=np.any(in_real, 0),
        recall=np.any(in_generated, 1),
        density=np.sum(in_real, 0) / k,
        coverage=np.any(in_real, 1),
    )


def _kth_neighbour(x: np.ndarray, k: int) -> np.ndarray:
    """Distance to the k-th nearest other point."""
    distance = cdist(x, x)
    np.fill_diagonal(distance, np.inf)
    return np.partition(distance, k - 1, axis=1)[:, k - 1]


def measure(samples: SampleSet) -> Findings:
    """Distances in every feature space, of the rows that are compared."""
    generated = {name: space.features(samples.drawn[: samples.compared]) for name, space in samples.spaces.items()}
    reference = {name: space.rows["test"] for name, space in samples.spaces.items()}
    label = None if samples.label is None else samples.label[: samples.compared].numpy()
    strata = (None, None) if label is None else (label, samples.test.label.numpy())
    found = distribution_metrics(reference, generated, strata=strata, **samples.options)
    fewest = {**dict.fromkeys((PRECISION, RECALL, DENSITY, COVERAGE), BALLS + 1), C2ST: FOLDS}
    left_out = {d.name: too_few(rows, samples) for d, rows in fewest.items() if d.name not in found}
    return Findings(metrics=found, left_out=left_out)


MOST_CHUNKS = 5
"""Chunks of samples, each as large as the reference, that neighbourhood metrics are averaged over."""


def distribution_metrics(
    reference: dict[str, Float[np.ndarray, "real dim"]],
    generated: dict[str, Float[np.ndarray, "n dim"]],
    *,
    resamples: int,
    seed: int,
    strata: Strata = (None, None),
) -> dict[str, Metric]:
    """How far generated points are from reference points, in every space.

    The Fréchet and kernel distances use all rows given (the kernel at most `MOST_PAIRWISE` a side);
    the other metrics compare sets of equal size, averaged over chunks of the generated rows, and are left out
    where there are too few rows for their balls or folds.

    Arguments:
        reference: Features of real test examples, by space.
        generated: Features of samples (or of real training examples, for the floor), by space.
        resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of resamples and folds.
        strata: Labels of the generated and of the reference rows, where their shares were fixed.
    """
    found: dict[str, Metric] = {}
    for space, real in reference.items():
        suffix = "" if space == "classifier" else f"_{space}"
        both = _distances(real, generated[space], resamples, seed, strata)
        if space == "classifier" and min(len(real), len(generated[space])) > BALLS:
            both |= _neighbours(real, generated[space], resamples, seed)
        if space == "classifier" and min(len(real), len(generated[space])) >= FOLDS:
            both |= _c2st(real, generated[space], resamples, seed)
        found |= {name + suffix: value for name, value in both.items()}
    return found


def _distances(real: np.ndarray, points: np.ndarray, resamples: int, seed: int, strata: Strata) -> dict[str, Metric]:
    distance = frechet(points, real)
    between = interval(distance, frechet_draws(points, real, resamples, seed, strata))
    if between is not None:
        between = (max(between[0], 0.0), between[1])
    kernels = Kernels.cubic(points[:MOST_PAIRWISE], real[:MOST_PAIRWISE])
    kernel = kernels.distance()
    few = (strata[0] if strata[0] is None else strata[0][:MOST_PAIRWISE],)
    few += (strata[1] if strata[1] is None else strata[1][:MOST_PAIRWISE],)
    spread = interval(kernel, kernels.draws(resamples, seed, few))
    return {
        FRECHET.name: FRECHET.of(distance, between),
        KERNEL.name: KERNEL.of(kernel, spread),
    }


def _neighbours(real: np.ndarray, points: np.ndarray, resamples: int, seed: int) -> dict[str, Metric]:
    real = real[:MOST_PAIRWISE]
    size = min(len(real), len(points))
    parts = [points[i * size : (i + 1) * size] for i in range(min(len(points) // size, MOST_CHUNKS))]
    found = [neighbourhoods(real[:size], part) for part in parts]
    rows = {
        PRECISION: np.concatenate([part.precision for part in found]),
        RECALL: np.mean([part.recall for part in found], 0),
        DENSITY: np.concatenate([part.density for part in found]),
        COVERAGE: np.mean([part.coverage for part in found], 0),
    }
    return {description.name: description.mean(values, resamples, seed) for description, values in rows.items()}


def _c2st(real: np.ndarray, points: np.ndarray, resamples: int, seed: int) -> dict[str, Metric]:
    size = min(len(real), len(points), MOST_PAIRWISE)
    right = c2st_predictions(real[:size], points[:size], seed=seed)
    return {C2ST.name: C2ST.mean(right, resamples, seed)}
