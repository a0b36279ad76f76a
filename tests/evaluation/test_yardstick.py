"""Every metric of the yardstick against an answer found another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score

from data.image_grid import grid, paired
from models.rng import Streams
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.domains.grid import GridFeatureEncoder, IndependentPixels, corrupted
from pipelines.evaluation.domains.table import TableFeatureEncoder
from pipelines.evaluation.inference import proportional_labels
from pipelines.evaluation.leaderboard import best, rows
from pipelines.evaluation.metrics import anomaly, memorization
from pipelines.evaluation.metrics.base import counts, interval, mean_interval, metric
from pipelines.evaluation.metrics.c2st import c2st_predictions
from pipelines.evaluation.metrics.distribution import (
    Kernels,
    distribution_metrics,
    frechet,
    frechet_draws,
    frechet_of_moments,
    neighbourhoods,
)
from pipelines.evaluation.metrics.likelihood import bits_per_dim
from pipelines.evaluation.metrics.probe import probe
from pipelines.evaluation.reference.baseline import ClassicalBaseline
from pipelines.evaluation.use_cases import USE_CASES
from pipelines.serving.interpolation import spherical


def points(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)) + shift


# Fréchet and kernel distance


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 1.0])
    expected = 3 * 0.5**2 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_of_moments(np.zeros(3), np.diag(a), np.full(3, 0.5), np.diag(b)) == pytest.approx(expected, 1e-12)


def test_frechet_of_samples_agrees_with_the_matrix_square_root():
    a, b = points(300, 5, 0) @ np.triu(points(5, 5, 1)), points(200, 5, 2, 0.3)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet(a, b) == pytest.approx(expected, 1e-9)


def test_frechet_survives_features_that_never_vary():
    a = points(50, 4, 0)
    a[:, 2] = 1.0
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 2.0) == pytest.approx(16, 1e-9)


def test_frechet_of_gaussian_samples_tends_to_that_of_the_gaussians():
    a, b = points(40_000, 3, 0), 2 * points(40_000, 3, 1, 0.5)
    assert frechet(a, b) == pytest.approx(3 * (1.0 + 1.0), rel=0.03)  # mean 1 and deviation 2 in each dimension


def test_frechet_draws_resample_rows():
    a, b = points(60, 3, 0), points(40, 3, 1)
    w, v = counts(60, 3, 5), counts(40, 3, 6)
    expected = [frechet(np.repeat(a, i, 0), np.repeat(b, j, 0)) for i, j in zip(w, v, strict=True)]
    assert frechet_draws(a, b, 3, 5) == pytest.approx(expected, rel=1e-6)


def brute_kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_is_the_double_sum():
    a, b = points(9, 4, 0), points(7, 4, 1, 0.5)
    assert Kernels.cubic(a, b).distance() == pytest.approx(brute_kernel_distance(a, b), 1e-10)


def test_kernel_distance_is_unbiased():
    values = [Kernels.cubic(points(20, 3, 2 * i), points(20, 3, 2 * i + 1)).distance() for i in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))


def brute_kernel_draw(a: np.ndarray, b: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    """The distance of the rows repeated as often as drawn, a row never paired with its own copy."""

    def within(x: np.ndarray, times: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(x)), times)
        pairs = [(i, j) for i in rows for j in rows if i != j]
        return sum((float(x[i] @ x[j]) / x.shape[1] + 1) ** 3 for i, j in pairs) / len(pairs)

    both = [(x, y) for x in np.repeat(a, w, 0) for y in np.repeat(b, v, 0)]
    between = sum((float(x @ y) / len(x) + 1) ** 3 for x, y in both) / len(both)
    return within(a, w) + within(b, v) - 2 * between


@pytest.mark.parametrize("stratified", [False, True])
def test_kernel_draws_resample_the_rows_of_each_side(stratified: bool):
    a, b = points(9, 4, 0), points(8, 4, 1, 0.5)
    strata = (np.arange(9) % 2, np.arange(8) % 3) if stratified else (None, None)
    drawn = zip(counts(9, 4, 5, strata[0]), counts(8, 4, 6, strata[1]), strict=True)
    expected = [brute_kernel_draw(a, b, w, v) for w, v in drawn]
    assert Kernels.cubic(a, b).draws(4, 5, strata) == pytest.approx(expected, rel=1e-9)


# Precision, recall, density, coverage


def brute_neighbourhoods(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def radius(x: np.ndarray, i: int) -> float:
        return sorted(math.dist(x[i], x[j]) for j in range(len(x)) if j != i)[k - 1]

    real_radius, fake_radius = ([radius(x, i) for i in range(len(x))] for x in (real, fake))
    inside = [[math.dist(r, f) < real_radius[i] for f in fake] for i, r in enumerate(real)]
    reached = [any(math.dist(r, f) < fake_radius[j] for j, f in enumerate(fake)) for r in real]
    return {
        "precision": sum(any(row[j] for row in inside) for j in range(len(fake))) / len(fake),
        "recall": sum(reached) / len(real),
        "density": sum(map(sum, inside)) / (k * len(fake)),
        "coverage": sum(any(row) for row in inside) / len(real),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 15), st.integers(4, 15), st.integers(1, 3))
def test_neighbourhoods_agree_with_brute_force(seed: int, n: int, m: int, k: int):
    real, fake = points(n, 2, seed), points(m, 2, seed + 1, 0.5)
    found = neighbourhoods(real, fake, k)
    for name, expected in brute_neighbourhoods(real, fake, k).items():
        assert getattr(found, name).mean() == pytest.approx(expected), name


def test_neighbourhoods_on_points_one_can_draw():
    real = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    fake = np.array([[0.05], [0.2], [0.9], [1.1], [2.1], [50.0]])  # the left cluster, and one far away
    found = neighbourhoods(real, fake, k=1)
    assert found.precision.tolist() == [True] * 4 + [True, False]
    assert found.coverage.tolist() == [True] * 3 + [False] * 3
    assert found.recall.all()  # the ball around 50 reaches to 2.1
    assert found.density.tolist() == [2, 2, 2, 2, 1, 0]


def test_coverage_of_the_same_distribution_is_one_minus_two_to_the_minus_k():
    found = neighbourhoods(points(1500, 6, 0), points(1500, 6, 1), k=3)
    assert found.coverage.mean() == pytest.approx(1 - 2**-3, abs=0.03)


def test_every_chunk_of_samples_is_looked_at():
    """The second half of the samples lies far from everything: each number is the mean over both halves."""
    real, near = points(60, 3, 0), points(60, 3, 1)
    both = np.concatenate([near, points(60, 3, 2, 50.0), near[:45]])  # an incomplete chunk is left out
    found = distribution_metrics({"classifier": real}, {"classifier": both}, resamples=0, seed=0)
    for name, half in brute_neighbourhoods(real, near, 5).items():
        far = brute_neighbourhoods(real, both[60:120], 5)[name]  # nothing, but that its balls reach to real rows
        assert found[name].value == pytest.approx((half + far) / 2), name
    assert found["precision"].value < 0.5


def test_pairwise_metrics_look_at_the_first_rows_alone_the_frechet_distance_at_all():
    a, b = points(2_010, 2, 0), points(2_020, 2, 1)
    cut = distribution_metrics({"classifier": b[:2_000]}, {"classifier": a[:2_000]}, resamples=0, seed=0)
    a[2_000:], b[2_000:] = 30, -30
    whole = distribution_metrics({"classifier": b}, {"classifier": a}, resamples=0, seed=0)
    for name in ("kernel", "precision", "recall", "density", "coverage", "c2st"):
        assert whole[name].value == cut[name].value, name
    assert whole["frechet"].value == pytest.approx(frechet(a, b))
    assert whole["frechet"].low is None


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="more than 5 points a side, got 5, 9"):
        neighbourhoods(points(5, 2, 0), points(9, 2, 0), 5)


# Bootstrap


def test_intervals_of_a_mean_cover_it_as_often_as_they_say():
    random = np.random.default_rng(0)
    inside = []
    for i in range(400):
        low, high = mean_interval(random.exponential(2.0, 80), 200, i)
        inside.append(low <= 2.0 <= high)
    assert 0.90 <= np.mean(inside) <= 0.98


def test_intervals_hold_the_estimate_of_a_biased_statistic():
    a, b = points(200, 8, 0), points(200, 8, 1)
    low, high = interval(frechet(a, b), frechet_draws(a, b, 100, 0))
    assert low < frechet(a, b) < high


def test_strata_keep_their_shares():
    strata = np.repeat([0, 1, 2], [5, 3, 12])
    drawn = counts(20, 50, 0, strata)
    assert (drawn.sum(1) == 20).all()
    for s, size in enumerate((5, 3, 12)):
        assert (drawn[:, strata == s].sum(1) == size).all()
    assert len(np.unique(drawn, axis=0)) > 40


def test_resamples_draw_every_row_alike_and_anew_for_each_seed():
    """Each row's count is binomial: of 2,000 resamples its mean is within 0.1 of 1, its variance of 1 - 1/n."""
    drawn = counts(20, 2_000, 0)
    assert (drawn.sum(1) == 20).all()
    assert drawn.mean(0) == pytest.approx(np.ones(20), abs=0.1)
    assert drawn.var(0) == pytest.approx(np.full(20, 0.95), abs=0.15)
    other = counts(20, 2_000, 1)
    assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.03
    assert not (drawn == other).all(1).any()


def test_an_interval_is_the_middle_of_the_draws_around_the_estimate():
    draws = np.random.default_rng(0).permutation(1001.0 + np.arange(1001))
    assert interval(7.0, draws) == pytest.approx((7 - 475, 7 + 475))
    assert interval(7.0, draws, 0.5) == pytest.approx((7 - 250, 7 + 250))
    assert interval(0.0, np.array([0.0] * 99 + [100.0]), 0.9) == pytest.approx(
        (-1, -1)
    )  # their mean is at the estimate
    assert interval(1.0, np.zeros(0)) is None


# Two samples, copies, conditional, likelihood, codes


def test_two_sample_test_knows_alike_from_unlike():
    assert c2st_predictions(points(200, 4, 0), points(200, 4, 1)).mean() == pytest.approx(0.5, abs=0.1)
    # means two deviations apart: the best classifier is right with probability Phi(1)
    assert c2st_predictions(points(2000, 1, 0), points(2000, 1, 1, 2.0)).mean() == pytest.approx(0.8413, abs=0.015)
    # as many dimensions as would let a classifier recognize every row that it was fitted to
    assert c2st_predictions(points(100, 80, 0), points(100, 80, 1)).mean() == pytest.approx(0.5, abs=0.1)
    # real rows first: these are all in one place, and so are recognized more often
    right = c2st_predictions(0.01 * points(300, 1, 0), points(300, 1, 1, 0.3))
    assert right[:300].mean() > right[300:].mean() + 0.2
    assert right[:300].mean() > 0.9


def images(n: int, seed: int, levels: int = 17) -> torch.Tensor:
    level = torch.randint(levels, (n, 8, 8, 1), generator=torch.Generator().manual_seed(seed))
    return (level * (255 / (levels - 1))).round().to(torch.uint8)


GREY = GridFeatureEncoder(channels=1, height=8, width=8, levels=17)


def test_nearest_is_brute_force():
    rows, train = images(15, 0), images(50, 1)
    found = memorization.nearest_training_rows(rows, train, GREY, chunk=16)
    distance = np.sqrt(np.square(GREY.flat(rows)[:, None] - GREY.flat(train)[None]).mean(2))
    order = np.sort(distance, 1)
    assert found.index.tolist() == distance.argmin(1).tolist()
    assert found.distance == pytest.approx(order[:, 0], rel=1e-5)
    assert found.closeness == pytest.approx(order[:, 0] / order[:, 1:6].mean(1), rel=1e-5)


def test_the_nearest_is_told_where_squares_of_distances_cancel():
    """Values four deviations out and a two-thousandth apart: its square is less than the rounding of theirs."""
    number = {"type": "continuous", "name": "n", "mean": 0.0, "std": 1.0, "min": -1e5, "max": 1e5, "missing": 0}
    inputs = evaluation_domain({"kind": "table", "columns": [number]}).encoder
    train = 4 + torch.tensor([[2.0], [0.0], [1.0], [3.0]]).double() / 2048
    found = memorization.nearest_training_rows(train, train, inputs)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.distance.tolist() == [0, 0, 0, 0]


def test_copies_are_caught_and_fresh_draws_are_not():
    train, test = images(400, 0), images(200, 1)
    ordinary = memorization.nearest_training_rows(test, train, GREY)

    def verdict(rows: torch.Tensor) -> memorization.CopyCheck:
        return memorization.check_copies(memorization.nearest_training_rows(rows, train, GREY), ordinary)

    fresh = verdict(images(300, 2))
    assert fresh.clean
    assert fresh.exact == 0
    assert fresh.nearer == pytest.approx(0.5, abs=0.07)
    exact = verdict(torch.cat([images(295, 2), train[:5]]))
    assert not exact.clean
    assert exact.exact == pytest.approx(5 / 300)
    shade = (train[:30].int() + 16 * (images(30, 3) > 127)).clamp(max=255).to(torch.uint8)
    near = verdict(torch.cat([images(270, 2), shade]))
    assert not near.clean
    assert near.exact == 0
    assert near.near.mean() >= 0.1


def nearest_of(distance: list[float], closeness: list[float]) -> memorization.Nearest:
    n = len(distance)
    return memorization.Nearest(index=np.zeros(n, int), distance=np.array(distance), closeness=np.array(closeness))


def test_the_verdict_on_copies_by_hand():
    test = nearest_of([2.0] * 100, [0.5] + [0.8] * 99)  # the 1 % quantile of the closeness is 0.797
    ordinary = memorization.check_copies(
        nearest_of([1.0] * 30 + [2.0] * 20 + [3.0] * 50, [0.79] * 5 + [0.8] * 95), test
    )
    assert ordinary.near.tolist() == [True] * 5 + [False] * 95
    assert ordinary.clean  # 5 % near copies are allowed
    assert ordinary.nearer == pytest.approx(0.3 + 0.2 / 2)  # a tie counts half
    assert (ordinary.exact, ordinary.exact_test) == (0, 0)
    assert not memorization.check_copies(nearest_of([2.0] * 100, [0.79] * 6 + [0.8] * 94), test).clean
    one = memorization.check_copies(nearest_of([0.0] + [2.0] * 999, [0.9] * 1000), test)
    assert one.near.sum() == 1  # an exact copy is near whatever its closeness
    assert one.clean  # 0.2 % exact copies are allowed
    assert memorization.check_copies(nearest_of([0.0] * 2 + [2.0] * 998, [0.9] * 1000), test).clean
    assert not memorization.check_copies(nearest_of([0.0] * 3 + [2.0] * 997, [0.9] * 1000), test).clean
    repeats = nearest_of([0.0] * 20 + [2.0] * 80, [0.8] * 100)  # test rows of which a fifth repeat training rows
    assert memorization.check_copies(nearest_of([0.0] * 20 + [2.0] * 80, [0.9] * 100), repeats).clean
    assert not memorization.check_copies(nearest_of([0.0] * 21 + [2.0] * 79, [0.9] * 100), repeats).clean


def test_faint_samples_are_not_called_copies():
    train, test = images(400, 0), images(200, 1)
    faint = (images(100, 2).float() * 0.3 + 90).to(torch.uint8)  # near the mean, so near to every training image
    found = memorization.check_copies(
        memorization.nearest_training_rows(faint, train, GREY), memorization.nearest_training_rows(test, train, GREY)
    )
    assert found.nearer > 0.99
    assert found.clean


def test_bits_per_dim_of_uniform_noise():
    nats = np.full(3, -64 * math.log(17))
    assert bits_per_dim(nats, 64) == pytest.approx([math.log2(17)] * 3)


def test_probe_finds_what_is_linear_and_nothing_else():
    x = points(600, 3, 0)
    x[:, 2] = 7.0  # a code that never varies
    x[:, 0] *= 0.01  # and one of small scale
    linear, hidden = (x[:, 0] > 0.005).astype(int), (x[:, 0] * x[:, 1] > 0).astype(int)
    assert probe(x[:300], linear[:300], x[300:], linear[300:]).mean() > 0.97
    alone = [probe(x[:300], linear[:300], x[i : i + 1], linear[i : i + 1])[0] for i in range(300, 320)]
    assert alone == probe(x[:300], linear[:300], x[300:320], linear[300:320]).tolist()  # whoever is asked beside it
    assert probe(x[:300], hidden[:300], x[300:], hidden[300:]).mean() == pytest.approx(0.5, abs=0.1)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(sum), st.integers(1, 300))
def test_labels_are_asked_for_in_proportion(sizes: list[int], n: int):
    got = np.bincount(proportional_labels(sizes, n, 0).numpy(), minlength=len(sizes))
    assert got.sum() == n
    assert np.abs(got - np.array(sizes) / sum(sizes) * n).max() < 1


def test_labels_stand_in_an_order_of_their_seed():
    one, two = (proportional_labels([5, 3, 2], 1000, seed) for seed in (0, 1))
    assert np.bincount(one).tolist() == [500, 300, 200]
    assert not torch.equal(one, two)
    for start in range(0, 1000, 250):  # any stretch is mixed: the share of a class is right within 10 points
        assert np.bincount(one[start : start + 250], minlength=3) / 250 == pytest.approx([0.5, 0.3, 0.2], abs=0.1)
    assert np.bincount(proportional_labels([1, 1, 5], 3, 0), minlength=3).tolist() == [1, 0, 2]  # largest remainders


# Anomalies


def test_auroc_and_its_draws_agree_with_scikit_learn():
    ordinary, strange = points(40, 1, 0)[:, 0].round(1), points(30, 1, 1, 0.7)[:, 0].round(1)  # with ties
    w, v = counts(40, 4, 3), counts(30, 4, 4)
    expected = [
        roc_auc_score(np.repeat([0, 1], [40, 30]), np.concatenate([np.repeat(ordinary, i), np.repeat(strange, j)]))
        for i, j in zip(w, v, strict=True)
    ]
    assert anomaly.auroc_draws(ordinary, strange, 4, 3) == pytest.approx(expected)


def test_corruptions_keep_what_they_promise():
    x, label = images(40, 0), torch.arange(40) % 4
    made = corrupted(x, label, 17, seed=1)
    again = corrupted(x, label, 17, seed=1)
    for kind, strange in made.items():
        assert torch.equal(strange, again[kind]), kind
        assert strange.shape == x.shape
        assert not (strange == x).flatten(1).all(1).any(), kind
        assert set(strange.unique().tolist()) <= {round(k * 255 / 16) for k in range(17)}, kind
    for kind in ("quadrants", "shuffled"):
        assert torch.equal(made[kind].flatten(1).sort(1).values, x.flatten(1).sort(1).values), kind
    assert torch.equal(made["cut"][:, :, :4], x[:, :, :4])
    assert int((made["shuffled"] != x).flatten(1).sum(1).max()) <= 16


def test_corruptions_by_hand():
    x = torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[11, 12, 13], [14, 15, 16], [17, 18, 19]]])
    x = x.to(torch.uint8)[..., None]
    made = corrupted(x, torch.tensor([0, 1]), 256, seed=0)
    assert made["quadrants"][0, :, :, 0].tolist() == [[9, 2, 7], [4, 5, 6], [3, 8, 1]]
    assert made["cut"][0, :, :, 0].tolist() == [[1, 12, 13], [4, 15, 16], [7, 18, 19]]  # the other one's right part
    assert made["cut"][1, :, :, 0].tolist() == [[11, 2, 3], [14, 5, 6], [17, 8, 9]]
    assert made["blended"][0, :, :, 0].tolist() == [
        [round(0.6 * v + 0.4 * (v + 10)) for v in row] for row in (x[0, :, :, 0]).tolist()
    ]
    ends = torch.tensor([255, 0], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 4, 4, 1)
    found = corrupted(ends, torch.tensor([0, 1]), 256, seed=0)["blended"]
    assert found[0].unique().tolist() == [153]
    assert found[1].unique().tolist() == [102]
    coarse = corrupted(ends, torch.tensor([0, 1]), 3, seed=0)["blended"]  # 0.6 of two steps is one
    assert coarse.unique().tolist() == [128]
    every = torch.arange(256).to(torch.uint8).view(1, 16, 16, 1).repeat(50, 1, 1, 1)
    moved = corrupted(every, torch.zeros(50), 256, seed=0)["shuffled"] != every
    assert (moved.flatten(1).sum(1) == 64).all()  # a quarter, each to another's place
    assert moved.any(0).all()


def test_partners_are_of_another_class():
    label = torch.arange(60) % 3
    x = label.view(-1, 1, 1, 1).mul(100).to(torch.uint8).expand(60, 8, 8, 1).clone()
    cut = corrupted(x, label, 256, seed=0)["cut"]
    assert (cut[:, 0, 0, 0] != cut[:, 0, 7, 0]).all()
    unlike = (label.view(-1, 1, 1, 1) * 3 + torch.arange(60).view(-1, 1, 1, 1) * 4).to(torch.uint8).expand(60, 8, 8, 1)
    unknown = corrupted(unlike.clone(), torch.full((60,), -1), 256, seed=0)["cut"]
    assert (unknown[:, 0, 0, 0] != unknown[:, 0, 7, 0]).all()  # never itself


# Inputs and the baseline


def test_image_inputs_and_back():
    x = images(20, 0)
    assert torch.equal(GREY.inverse(GREY(x).flatten(1)), x)
    assert float(GREY(x).min()) == -1
    assert float(GREY(x).max()) == 1


def test_table_inputs_and_back():
    columns = [
        {"name": "a", "type": "continuous", "mean": 2.0, "std": 3.0, "min": -9.0, "max": 9.0, "missing": 0},
        {"name": "b", "type": "integer", "mean": 5.0, "std": 2.0, "min": 0.0, "max": 9.0, "missing": 3},
        {"name": "c", "type": "categorical", "categories": ["x", "y", "z"], "missing": 1},
    ]
    table = evaluation_domain({"kind": "table", "columns": columns}).encoder
    assert isinstance(table, TableFeatureEncoder)
    x = torch.tensor([[2.5, 7.0, 2.0], [-1.0, torch.nan, 0.0], [0.0, 0.0, torch.nan]], dtype=torch.float64)
    y = table(x)
    assert y.shape == (3, *table.shape)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(table.inverse(y), x, equal_nan=True, rtol=1e-6, atol=1e-6)
    a, b = y[0, 3:6], y[1, 3:6]
    assert float((a - b).norm()) == pytest.approx(1)  # two categories lie one unit apart
    extreme = torch.tensor([[1e6, 0.0, 0.0]], dtype=torch.float64)
    assert float(table(extreme)[0, 0]) == 5
    assert table.flat(extreme)[0, 0] > 1e5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="image, table, not data of kind 'sound'"):
        evaluation_domain({"kind": "sound"})


def test_independent_pixels_sum_to_one():
    level, label = np.random.default_rng(0).integers(3, size=(30, 2)), np.arange(30) % 2
    model = IndependentPixels(level, label, 3)
    grid = np.array([[i, j] for i in range(3) for j in range(3)])
    assert np.exp(model.log_prob(grid)).sum() == pytest.approx(1)


def test_independent_pixels_are_counted():
    """Nine rows of one class and one of another; each level's count is raised by a third."""
    level = np.array([[0, 2]] * 6 + [[1, 2]] * 3 + [[2, 0]])
    model = IndependentPixels(level, np.array([0] * 9 + [1]), 3)
    first = 0.9 * (6 + 1 / 3) / 10 * (9 + 1 / 3) / 10
    second = 0.1 * (1 / 3) / 2 * (1 / 3) / 2
    assert np.exp(model.log_prob(np.array([[0, 2]]))) == pytest.approx([first + second])


@pytest.mark.parametrize("columns", [1, 2])
def test_the_baselines_density_has_mass_one_and_the_classes_their_shares(columns: int):
    """Nine rows in ten are of one class; the second column is left out by the one component, and is noise."""
    random = np.random.default_rng(0)
    number = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -9.0, "max": 9.0, "missing": 0}
    label = torch.from_numpy((np.arange(400) % 10 == 0).astype(np.int64))
    x = torch.from_numpy(random.standard_normal((400, columns)) * [1.0, 0.4][:columns])
    x[:, 0] += torch.where(label == 1, 4.0, -4.0)
    spec = {"kind": "table", "columns": [number | {"name": name} for name in "ab"[:columns]]}
    baseline = ClassicalBaseline(x, label, evaluation_domain(spec), components=1, seed=0)
    side = np.linspace(-12, 12, 481)
    cells = np.stack(np.meshgrid(*[side] * columns, indexing="ij"), -1).reshape(-1, columns)
    mass = (
        np.exp(-baseline.anomaly_score(torch.from_numpy(cells), Streams.seeded(0)).numpy())
        * (side[1] - side[0]) ** columns
    )
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    assert mass[cells[:, 0] > 0].sum() == pytest.approx(0.1, abs=0.005)
    if columns == 2:
        spread = (mass * cells[:, 1] ** 2).sum()
        assert spread == pytest.approx(float(x[:, 1].var()), rel=0.1)


def test_the_baseline_learns_a_mixture():
    random = np.random.default_rng(0)
    columns = [
        {"name": n, "type": "continuous", "mean": 0.0, "std": 1.0, "min": -99.0, "max": 99.0, "missing": 0}
        for n in "abc"
    ]
    table = evaluation_domain({"kind": "table", "columns": columns})
    label = torch.arange(2000) % 2
    centre = np.where((np.arange(2000) % 2)[:, None], 3.0, -3.0)
    x = torch.from_numpy(centre + random.standard_normal((2000, 3)) * [1.0, 2.0, 0.5])
    baseline = ClassicalBaseline(x, label, table, components=3, seed=0)
    drawn = baseline.sample(2000, label, Streams.seeded(1))
    assert torch.equal(drawn, baseline.sample(2000, label, Streams.seeded(1)))
    for c in (0, 1):
        assert frechet(drawn[label == c].numpy(), x[label == c].numpy()) < 0.05
    assert baseline.anomaly_score(x + 20, Streams.seeded(0)).min() > baseline.anomaly_score(x, Streams.seeded(0)).max()
    few = ClassicalBaseline(x, label, table, components=2, seed=0)
    flat = x.numpy() - x.numpy().mean(0)
    axes = np.linalg.svd(flat, full_matrices=False)[2][:2]
    assert np.abs(few.encode(x).numpy()) == pytest.approx(np.abs(flat @ axes.T), abs=1e-5)
    assert few.reconstruct(x, Streams.seeded(0)).numpy() == pytest.approx(
        flat @ axes.T @ axes + x.numpy().mean(0), abs=1e-5
    )


def test_the_baseline_draws_from_lumps_of_unequal_size_and_slanting_shape():
    """Four rows in five lie in one of two lumps, each with columns that hang together (correlation 0.8)."""
    random = np.random.default_rng(0)
    rows = random.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 1000)
    rows[:, 0] += np.where(np.arange(1000) % 5 == 0, 9, -9)
    number = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -99.0, "max": 99.0, "missing": 0}
    table = evaluation_domain({"kind": "table", "columns": [number | {"name": name} for name in "ab"]})
    x = torch.from_numpy(rows) / 4  # networks see five deviations
    one = torch.zeros(1000, dtype=torch.int64)
    baseline = ClassicalBaseline(x, one, table, components=2, seed=0)
    drawn = 4 * baseline.sample(1000, one, Streams.seeded(1)).numpy()
    right = drawn[:, 0] > 0
    assert right.mean() == pytest.approx(0.2, abs=0.05)
    for side, place in ((right, 9), (~right, -9)):
        assert drawn[side].mean(0) == pytest.approx([place, 0], abs=0.35)
        assert np.cov(drawn[side].T) == pytest.approx(np.array([[1, 0.8], [0.8, 1]]), abs=0.3)
    assert baseline.models[0].mixture.n_components == 2
    assert not np.array_equal(drawn, 4 * baseline.sample(1000, one, Streams.seeded(2)).numpy())


# Putting them together


def test_every_sample_metric_prefers_the_truth_to_a_shift():
    real = {"classifier": points(120, 6, 0), "random": points(120, 6, 10)}
    good = {"classifier": points(300, 6, 1), "random": points(300, 6, 11)}
    bad = {name: values * 0.5 + 1.0 for name, values in good.items()}
    better, worse = (distribution_metrics(real, x, resamples=20, seed=0) for x in (good, bad))
    assert set(better) >= {"frechet", "kernel", "precision", "recall", "density", "coverage", "c2st", "frechet_random"}
    for name in set(better) - {"precision", "density"}:  # a shrunken set may lie in the densest part
        lower = better[name].better == "lower"
        assert (better[name].value < worse[name].value) is lower, name
        if name not in ("precision", "density"):
            assert better[name].low <= better[name].value <= better[name].high, name


def test_what_follows_from_labels_alone_does_not_vary():
    """Points that are a function of their label: resampled within labels, their distance stands still."""
    label, real = np.arange(60) % 3, np.arange(90) % 3
    place = points(3, 2, 0)
    spaces = [{"classifier": place[rows] + 1e-9 * points(len(rows), 2, 1)} for rows in (real, label)]
    widths = {}
    for strata in ((label, real), (None, None)):
        found = distribution_metrics(*spaces, resamples=40, seed=0, strata=strata)
        widths[strata[0] is None] = {name: found[name].high - found[name].low for name in ("frechet", "kernel")}
    assert widths[False]["frechet"] < 1e-6 < widths[True]["frechet"]
    assert widths[False]["kernel"] < 0.3 * widths[True]["kernel"]


def test_a_metric_beats_another_only_beyond_its_interval():
    holder = metric(value=2.0, interval=(1.5, 2.5), unit="", better="lower")
    assert not metric(value=1.7, unit="", better="lower").beats(holder)
    assert metric(value=1.4, unit="", better="lower").beats(holder)
    high = metric(value=0.9, interval=(0.85, 0.95), unit="", better="higher")
    assert metric(value=0.96, unit="", better="higher").beats(high)
    assert not metric(value=0.94, unit="", better="higher").beats(high)
    for better, value in (("lower", 1.9), ("higher", 2.1)):  # without an interval the value decides
        assert metric(value=value, unit="", better=better).beats(metric(value=2.0, unit="", better=better))
        assert not metric(value=2.0, unit="", better=better).beats(metric(value=value, unit="", better=better))


def entry(value: float, better: str) -> dict:
    return metric(value=value, unit="", better=better).as_dict()


def test_jobs_go_to_the_best_family_that_can_do_them():
    results = {
        "one": {"metrics": {"frechet": entry(3.0, "lower"), "bits_per_dim": entry(2.1, "lower")}},
        "two": {"metrics": {"frechet": entry(2.0, "lower"), "bits_per_dim_bound": entry(1.9, "lower")}},
        "three": {"metrics": {"frechet": entry(9.0, "lower"), "anomaly_auroc": entry(0.7, "higher")}},
    }
    assert best("imputation", results) is None
    assert best("generation", results)[0] == "two"
    assert best("density", results)[:2] == ("two", "bits_per_dim_bound")
    assert best("anomaly", results)[0] == "three"
    assert best("representation", results) is None
    table = rows({"floors": {"frechet": entry(1.0, "lower")}, "baseline": {}}, results)
    assert [row["kind"] for row in table] == ["real", "baseline", "family", "family", "family"]
    assert [row["jobs"] for row in table[2:]] == [[], ["generation", "density"], ["anomaly"]]
    assert set(USE_CASES) == {"generation", "density", "imputation", "anomaly", "representation"}


def test_what_decides_a_job_and_in_which_direction():
    """Of two families the second is better by the deciding number, and the first by every other."""
    deciding = {
        "generation": ("frechet", "lower"),
        "density": ("bits_per_dim", "lower"),
        "imputation": ("imputation_crps", "lower"),
        "anomaly": ("anomaly_auroc", "higher"),
        "representation": ("probe_accuracy", "higher"),
    }
    others = {"coverage": "higher", "imputation_rmse": "lower", "anomaly_ap": "higher", "accuracy": "higher"}
    for job, (name, better) in deciding.items():
        low, high = entry(0.25, better), entry(0.75, better)
        loser, winner = (high, low) if better == "lower" else (low, high)
        rest = [{n: entry(v if b == "lower" else -v, b) for n, b in others.items()} for v in (0.0, 1.0)]
        results = {"a": {"metrics": {name: loser} | rest[0]}, "b": {"metrics": {name: winner} | rest[1]}}
        assert best(job, results)[:2] == ("b", name)
        assert best(job, {"b": {"metrics": {name: low}}, "a": {"metrics": {name: low}}})[0] == "a"  # a tie: by name
    exact = {"bits_per_dim": entry(3.0, "lower"), "bits_per_dim_bound": entry(1.0, "lower")}
    assert best("density", {"a": {"metrics": exact}})[1:] == (
        "bits_per_dim",
        metric(value=3.0, unit="", better="lower"),
    )
    for name in ("nats_per_row", "nats_per_row_bound"):
        assert best("density", {"a": {"metrics": {name: entry(1.0, "lower")}}})[1] == name


# What is seen


def test_between_two_codes_lies_one_of_a_length_between():
    """On the arc between two codes of right angles, in equal steps of 22.5 degrees, and as long as these."""
    first, last = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 3.0], [0.0, 6.0]])
    path = spherical(first, last, 5)
    assert path.shape == (2, 5, 2)
    assert torch.allclose(path[:, 0], first)
    assert torch.allclose(path[:, -1], last)
    assert path[0, 1] == pytest.approx([3 * math.cos(math.pi / 8), 3 * math.sin(math.pi / 8)], rel=1e-6)
    assert path[0, 2] == pytest.approx([3 / math.sqrt(2)] * 2, rel=1e-6)
    assert path[1] == pytest.approx(torch.tensor([[0.0, v] for v in (2, 3, 4, 5, 6)]), rel=1e-6)


def test_a_grid_is_row_by_row_with_white_between():
    x = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 20, 16, 1)
    seen = grid(x, 2, row_gaps=(2,))
    assert seen.shape == (3 * 40 + 2 * 2 + 8, 2 * 32 + 2, 1)  # each pixel is a block of two
    for image, (top, left) in enumerate([(0, 0), (0, 34), (42, 0), (42, 34), (92, 0)]):
        assert (seen[top : top + 40, left : left + 32] == image).all()
        seen[top : top + 40, left : left + 32] = 255
    assert (seen == 255).all()
    pairs = paired(x[:4], x[:4] + 10, 3)  # the incomplete pair of rows is left out
    assert pairs.shape == (2 * 40 + 2, 3 * 32 + 2 * 2, 1)
    assert pairs[::42, ::34, 0].tolist() == [[0, 1, 2], [10, 11, 12]]
