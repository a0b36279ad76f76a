"""The yardstick's metrics of tables and of imputation, against known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, rankdata, spearmanr
from scipy.stats.contingency import association

from data.dataset import Examples
from models.domains.table import Table
from models.rng import Streams
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.domains.table import swap_half_the_cells
from pipelines.evaluation.metrics.base import counts
from pipelines.evaluation.metrics.compression import rounded
from pipelines.evaluation.metrics.imputation import imputation_metrics
from pipelines.evaluation.metrics.likelihood import independent_columns
from pipelines.evaluation.metrics.memorization import check_copies, nearest_training_rows
from pipelines.evaluation.metrics.tabular import (
    Associations,
    column_distances,
    distance_draws,
    row_metrics,
    utility_metrics,
)
from pipelines.evaluation.reference.imputers import sklearn_imputers

COLUMNS = [
    {"name": "a", "type": "continuous", "mean": 0.0, "std": 1.0, "min": -4.0, "max": 4.0, "missing": 0},
    {"name": "b", "type": "integer", "mean": 0.0, "std": 2.0, "min": -8.0, "max": 8.0, "missing": 0},
    {"name": "c", "type": "categorical", "categories": ["x", "y", "z"], "frequencies": [1, 1, 1], "missing": 0},
    {"name": "d", "type": "categorical", "categories": ["p", "q"], "frequencies": [1, 1], "missing": 0},
]
DOMAIN = {"kind": "table", "columns": COLUMNS}
EVALUATION = evaluation_domain(DOMAIN)


def rows(n: int, seed: int, tied: float = 0.8) -> np.ndarray:
    """Rows whose columns all hang on the first."""
    random = np.random.default_rng(seed)
    a = random.standard_normal(n)
    noise = random.standard_normal((n, 3))
    b, c, d = (tied * a[:, None] + math.sqrt(1 - tied**2) * noise).T
    return np.column_stack([a, (2 * b).round().clip(-8, 8), np.digitize(c, [-0.5, 0.5]), d > 0])


def test_column_distances_are_kolmogorov_smirnov_and_total_variation():
    real, made = rows(300, 0), rows(200, 1) + np.array([0.3, 1, 0, 0])
    real[::7, 0] = np.nan
    found = column_distances(real, made, COLUMNS)[0]
    for i in (0, 1):
        known = real[~np.isnan(real[:, i]), i]
        assert found[i] == pytest.approx(ks_2samp(known, made[:, i]).statistic, abs=1e-12)
    shares = [np.bincount(side[:, 2].astype(int), minlength=3) / len(side) for side in (real, made)]
    assert found[2] == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2, abs=1e-12)
    real[:60, 2], made[:20, 2] = np.nan, np.nan  # missing is one more category
    shares = [[np.mean(side[:, 2] == c) for c in range(3)] + [np.isnan(side[:, 2]).mean()] for side in (real, made)]
    expected = np.abs(np.subtract(*shares)).sum() / 2
    assert column_distances(real, made, COLUMNS)[0, 2] == pytest.approx(expected, abs=1e-12)
    real[:60, 2], made[:20, 2] = 0, 0
    repeated = [
        (np.repeat(real, w, 0), np.repeat(made, v, 0))
        for w, v in zip(counts(300, 3, 7), counts(200, 3, 8), strict=True)
    ]
    expected = [column_distances(a, b, COLUMNS).mean() for a, b in repeated]
    assert distance_draws(real, made, COLUMNS, resamples=3, seed=7) == pytest.approx(expected)


def test_associations_are_spearman_and_cramer():
    real = rows(500, 0)
    scale = Associations(real, COLUMNS)
    found = scale.matrix(real)
    assert found[0, 1] == pytest.approx(abs(spearmanr(real[:, 0], real[:, 1]).statistic), abs=1e-9)
    table = np.histogram2d(real[:, 2], real[:, 3], [np.arange(4) - 0.5, np.arange(3) - 0.5])[0].astype(int)
    assert found[2, 3] == pytest.approx(association(table, method="cramer"), abs=1e-9)
    assert np.diag(found) == pytest.approx(np.ones(4), abs=1e-9)
    assert scale.distance(real) == 0
    close, far = (scale.distance(rows(500, 1, tied)) for tied in (0.8, 0.0))
    assert close < 0.1 < 0.3 < far
    assert scale.draws(rows(500, 1), 20, 0).mean() > close  # resampling adds noise of its own


def test_the_association_distance_is_the_mean_over_pairs_of_columns():
    """Of numbers: the difference of the covariances of their ranks in the real rows, standardized over these."""
    real, made = rows(300, 0)[:, :1].repeat(3, 1), rows(200, 1)
    real[:, 1:] += np.random.default_rng(2).standard_normal((300, 2))
    made = np.column_stack([made[:, 0], made[::-1, 0], made[:, 0] * 2])
    columns = [COLUMNS[0] | {"name": name} for name in "abc"]
    ranks = np.stack([rankdata(column) - 0.5 for column in real.T], 1)

    def scores(x: np.ndarray) -> np.ndarray:
        order = np.sort(real, 0)
        places = [
            (np.searchsorted(o, c, "left") + np.searchsorted(o, c, "right")) / 2
            for o, c in zip(order.T, x.T, strict=True)
        ]
        return (np.stack(places, 1) - ranks.mean(0)) / ranks.std(0)

    def distance(a: np.ndarray, b: np.ndarray, pairs: list[tuple[int, int]]) -> float:
        one, other = (np.cov(scores(x).T, bias=True) for x in (a, b))
        return float(np.mean([abs(one[i, j] - other[i, j]) for i, j in pairs]))

    scale = Associations(real, columns)
    every = [(0, 1), (0, 2), (1, 2)]
    assert scale.distance(made) == pytest.approx(distance(real, made, every))
    two = Associations(real[:, :2], columns[:2])
    assert two.distance(made[:, :2]) == pytest.approx(distance(real, made, every[:1]))
    drawn = zip(counts(300, 3, 4), counts(200, 3, 5), strict=True)
    expected = [distance(np.repeat(real, w, 0), np.repeat(made, v, 0), every) for w, v in drawn]
    assert scale.draws(made, 3, 4) == pytest.approx(expected)
    gap = real.copy()
    gap[:100, 0] = np.nan  # a missing cell counts as an ordinary one
    assert Associations(real, columns).matrix(gap)[0, 1] < Associations(real, columns).matrix(real)[0, 1]


def test_associations_of_columns_with_thousands_of_categories_stay_small():
    """Two equal columns hang together wholly, shuffled ones do not, and a row has no score for every category."""
    random = np.random.default_rng(0)
    names = [str(i) for i in range(10_000)]
    columns = [{"name": c, "type": "categorical", "categories": names, "missing": 0.0} for c in "ab"]
    a = np.minimum(random.zipf(1.3, 2000) - 1, 9_999).astype(float)
    same, shuffled = np.stack([a, a], 1), np.stack([a, random.permutation(a)], 1)
    scale = Associations(same, columns)
    assert scale.scores(same).shape[1] <= 1024
    assert scale.matrix(same)[0, 1] == pytest.approx(1, abs=1e-9)
    # of independent columns the expected squared association is (free dimensions) / (rows - 1)
    assert scale.matrix(shuffled)[0, 1] < 3 * np.sqrt(scale.free[0] / (len(a) - 1))
    assert scale.distance(shuffled) > 0.5
    frequent = np.array([0, 1, 2])
    group = scale.groups[0]
    assert all((group == group[c]).sum() == 1 for c in frequent)


def test_utility_is_that_of_what_was_taught():
    def labelled(n: int, seed: int, *, true: bool) -> tuple[np.ndarray, np.ndarray]:
        x = rows(n, seed)
        label = (x[:, 0] + x[:, 2] > 1).astype(int)
        return x, label if true else np.random.default_rng(seed).permutation(label)

    judged = labelled(400, 2, true=True)
    good, bad = (
        utility_metrics(labelled(600, 1, true=true), judged, COLUMNS, resamples=30, seed=0) for true in (True, False)
    )
    assert good["utility_auroc"].value > 0.98
    assert abs(bad["utility_auroc"].value - 0.5) < 0.12
    low, high = good["utility_auroc"].low, good["utility_auroc"].high
    assert low is not None
    assert high is not None
    assert low <= good["utility_auroc"].value <= high
    half = np.where(np.arange(600) % 2, judged_label := labelled(600, 1, true=True)[1], -1)
    some = utility_metrics((labelled(600, 1, true=True)[0], half), judged, COLUMNS, resamples=0, seed=0)
    assert some["utility_auroc"].value > 0.95  # rows of unknown label teach nothing
    assert judged_label.max() == 1
    unlabelled = (judged[0], np.full(400, -1))
    assert utility_metrics(unlabelled, judged, COLUMNS, resamples=3, seed=0) == {}


def test_the_utility_of_three_classes_is_the_mean_over_them():
    """A number tells class 0 from the others and nothing tells 1 from 2: areas 1, 3/4 and 3/4, accuracy 2/3."""
    random = np.random.default_rng(0)
    label = np.arange(900) % 3
    x = np.column_stack([np.where(label == 0, 5.0, 0.0), random.integers(0, 9, 900)])
    columns = [COLUMNS[0], COLUMNS[0] | {"name": "e"}]
    found = utility_metrics((x[:450], label[:450]), (x[450:], label[450:]), columns, resamples=0, seed=0)
    assert found["utility_auroc"].value == pytest.approx((1 + 0.75 + 0.75) / 3, abs=0.05)
    assert found["utility_accuracy"].value == pytest.approx(2 / 3, abs=0.06)
    named = np.where(label == 1, 3, label)  # classes that the samples lack, or the real rows, are no classes
    less = utility_metrics((x[:450], named[:450]), (x[450:], label[450:]), columns, resamples=0, seed=0)
    assert less["utility_auroc"].value == pytest.approx(0.75, abs=0.08)
    assert less["utility_accuracy"].value == pytest.approx((1 + 0 + 0.5) / 3, abs=0.08)


def test_every_row_metric_prefers_the_truth():
    test, good, bad = (
        Examples(x=torch.from_numpy(x), label=torch.from_numpy((x[:, 0] > 0).astype(np.int64)))
        for x in (rows(400, 0), rows(400, 1), rows(400, 2, 0.0) + np.array([0.5, 0, 0, 0]))
    )
    near, far = (row_metrics(test, drawn, COLUMNS, resamples=5, seed=0) for drawn in (good, bad))
    assert set(near) == {"column_distance", "association_distance", "utility_auroc", "utility_accuracy"}
    assert all(near[name].beats(far[name]) for name in near)


def test_the_ranked_score_of_a_gaussian_is_the_closed_form():
    """CRPS of N(0, 1) at y (Gneiting and Raftery, 2007, eq. 5): y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)."""
    domain = evaluation_domain({"kind": "table", "columns": [COLUMNS[0] | {"std": 2.0}]})
    y = torch.linspace(-2, 2, 5, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    exact = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - math.pi**-0.5
    draws = torch.randn(4000, 5, 1, generator=torch.Generator().manual_seed(0)).double()
    hidden = torch.ones(5, 1, dtype=torch.bool)
    found = imputation_metrics(2 * y[:, None], hidden, 2 * draws, domain, resamples=5, seed=0)
    assert found["imputation_crps"].value == pytest.approx(exact.mean().item(), abs=0.02)
    assert found["imputation_rmse"].value == pytest.approx(math.sqrt(2), abs=0.05)
    assert "imputation_accuracy" not in found


def test_the_ranked_score_is_unbiased():
    """Draws at 0 and 1, truth 0: half a unit off, less half their mean distance, which is 1."""
    domain = evaluation_domain({"kind": "table", "columns": [COLUMNS[0]]})
    hidden = torch.ones(1, 1, dtype=torch.bool)

    def score(draws: list[float], truth: float = 0.0) -> float:
        x = torch.tensor(draws, dtype=torch.float64).view(-1, 1, 1)
        y = torch.full((1, 1), truth, dtype=torch.float64)
        return imputation_metrics(y, hidden, x, domain, resamples=0, seed=0)["imputation_crps"].value

    assert score([0, 1]) == pytest.approx(0)
    assert score([3, 0, 1, 1], 2) == pytest.approx(5 / 4 - (3 + 2 + 2 + 1 + 1 + 0) / 12)
    assert score([3], 1) == pytest.approx(2)


def test_errors_are_averaged_over_cells_each_in_its_columns_unit():
    """Two rows of two numbers and two categories, of which five cells are judged."""
    x = torch.tensor([[1.0, 4.0, 0.0, 1.0], [0.0, -2.0, 2.0, 0.0]]).double()
    hidden = torch.tensor([[True, True, False, True], [False, True, True, False]])
    off = torch.tensor([[2.0, -6.0, 9.0, 0.0], [9.0, 4.0, 1.0, 9.0]]).double()  # columns a and b deviate by 1 and by 2
    right = torch.tensor([[False, False, False, True], [False, False, False, False]])
    draws = torch.where(right, x, torch.where(torch.tensor([True, True, False, False]), x + off, (x + 1) % 2))[None]
    found = imputation_metrics(x, hidden, draws, EVALUATION, resamples=0, seed=0)
    assert found["imputation_rmse"].value == pytest.approx(math.sqrt((2**2 + 3**2 + 2**2) / 3))
    assert found["imputation_crps"].value == pytest.approx((2 + 3 + 2 + 0 + 1) / 5)
    assert found["imputation_accuracy"].value == pytest.approx(1 / 2)
    assert found["imputation_rmse"].low is None
    many = imputation_metrics(
        x.repeat(200, 1), hidden.repeat(200, 1), draws.repeat(1, 200, 1), EVALUATION, resamples=200, seed=0
    )
    # rows of 3 and of 2 cells, 2.5 and 1.5 off: the ratio of sums by the delta method
    totals, cells = np.array([5.0, 3.0]), np.array([3.0, 2.0])
    error = (totals - 8 / 5 * cells).std() / cells.mean() / math.sqrt(400)
    width = many["imputation_crps"].high - many["imputation_crps"].low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.35)
    squares, numbers = np.array([13.0, 4.0]), np.array([2.0, 1.0])
    error = (squares - 17 / 3 * numbers).std() / numbers.mean() / math.sqrt(400) / (2 * math.sqrt(17 / 3))
    width = many["imputation_rmse"].high - many["imputation_rmse"].low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.35)


def test_scores_of_categories_and_of_one_draw():
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double()
    hidden = torch.tensor([[False, False, True, False]])
    draws = x.repeat(4, 1, 1)
    draws[:, 0, 2] = torch.tensor([1.0, 1.0, 2.0, 0.0])
    found = imputation_metrics(x, hidden, draws, EVALUATION, resamples=3, seed=0)
    apart = np.mean([a != b for a, b in itertools.permutations([1, 1, 2, 0], 2)])
    assert found["imputation_crps"].value == pytest.approx(0.5 - apart / 2)
    assert found["imputation_accuracy"].value == 1
    assert imputation_metrics(x, hidden, draws[2:3], EVALUATION, resamples=3, seed=0)["imputation_crps"].value == 1


@pytest.mark.parametrize("kind", ["table", "image"])
def test_hidden_cells_are_known_ones_in_the_stated_share(kind: str):
    hidden_cells = evaluation_domain({"kind": kind, "columns": COLUMNS}).hidden_cells
    if kind == "table":
        x = torch.from_numpy(rows(500, 0))
        x[::5, 1] = torch.nan
        hidden = hidden_cells(x, 0)
        assert not hidden[x.isnan()].any()
        assert hidden[~x.isnan()].double().mean() == pytest.approx(0.3, abs=0.03)
    else:
        hidden = hidden_cells(torch.zeros(500, 8, 10, 3, dtype=torch.uint8), 0)
        assert (hidden.flatten(1).sum(1) == 4 * 5 * 3).all()
        assert hidden.any(0).all()
        boxes = hidden[:, :, :, 0]
        sides = [boxes.any(axis).sum(1).unique().tolist() for axis in (2, 1)]
        assert sides == [[4], [5]]  # rows and columns of one box
        x = torch.zeros(500, 8, 10, 3, dtype=torch.uint8)
    assert torch.equal(hidden, hidden_cells(x, 0))
    assert not torch.equal(hidden, hidden_cells(x, 1))


def classical_imputation(train: torch.Tensor, x: torch.Tensor, spec: dict) -> dict[str, dict]:
    """The metrics of each of scikit-learn's ways to fill in the cells that are hidden."""
    domain, streams = evaluation_domain(spec), Streams.seeded(0)
    hidden = domain.hidden_cells(x, 0)
    draws = {way: imputer.impute(x, ~hidden, streams) for way, imputer in sklearn_imputers(train, domain, seed=0)}
    return {way: imputation_metrics(x, hidden, made, domain, resamples=3, seed=0) for way, made in draws.items()}


def test_classical_imputation_of_a_gaussian_is_near_its_conditional():
    columns = [COLUMNS[0] | {"name": name} for name in "ab"]
    random = np.random.default_rng(0)
    first = random.standard_normal((2300, 1))
    x = torch.from_numpy(np.hstack([first, 0.9 * first + math.sqrt(0.19) * random.standard_normal((2300, 1))]))
    domain = {"kind": "table", "columns": columns}
    found = classical_imputation(x[:2000], x[2000:], domain)
    hidden = evaluation_domain(domain).hidden_cells(x[2000:], 0)
    alone = (hidden.sum(1) == 1).double().mean() / hidden.double().sum(1).mean()
    expected = math.sqrt(0.19 * float(alone) + 1.0 * (1 - float(alone)))
    assert found["iterative"]["imputation_rmse"].value == pytest.approx(expected, abs=0.1)
    assert found["mean"]["imputation_rmse"].value == pytest.approx(1, abs=0.15)
    assert found["iterative"]["imputation_crps"].value < found["mean"]["imputation_crps"].value
    images = torch.randint(0, 2, (60, 4, 4, 1), generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    plain = classical_imputation(images[:50], images[50:], {"kind": "image"})
    assert plain["mean"]["imputation_rmse"].value == pytest.approx(0.5, abs=0.05)


def test_independent_columns_sum_to_one():
    columns = [c | {"frequencies": f} for c, f in zip(COLUMNS[2:], ([5, 0, 2], [1, 9]), strict=True)]
    table = Table(columns=columns)
    every = torch.tensor(list(itertools.product(range(3), range(2)))).double()
    assert np.exp(independent_columns(every, table)).sum() == pytest.approx(1, abs=1e-5)
    gap = torch.tensor([[0.0, torch.nan]]).double()
    assert np.exp(independent_columns(gap, table)) == pytest.approx(6 / 10, abs=1e-5)


def test_mixed_rows_keep_every_column_and_break_what_ties_them():
    x = torch.from_numpy(rows(2000, 0))
    made = swap_half_the_cells(x, 1)
    assert (made == x)[:, 0].double().mean() == pytest.approx(0.5, abs=0.04)
    assert column_distances(x.numpy(), made.numpy(), COLUMNS).max() < 0.06
    scale = Associations(x.numpy(), COLUMNS)
    assert scale.matrix(made.numpy())[0, 1] < 0.7 * scale.matrix(x.numpy())[0, 1]


def test_rows_that_repeat_by_nature_are_no_copies():
    few = np.random.default_rng(0).integers(0, 3, (900, 2)).astype(float)
    columns = [COLUMNS[2] | {"name": name} for name in "cd"]
    train, test, drawn = torch.from_numpy(few).split(300)
    inputs = evaluation_domain({"kind": "table", "columns": columns}).encoder
    check = check_copies(*(nearest_training_rows(part, train, inputs) for part in (drawn, test)))
    assert check.clean
    assert check.exact_test == 1


def test_rounded_codes_are_those_of_16_bits():
    codes = torch.tensor([[1.0, 1e9, -3.14159, -1e9]])
    assert rounded(codes).tolist() == [[1.0, 65504.0, -3.140625, -65504.0]]
    assert rounded(codes).dtype == torch.float32
