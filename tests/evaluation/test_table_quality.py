"""The metrics that see what distances between distributions hide: impossible rows, tails, shapes, trends, trees."""

from __future__ import annotations

import importlib
import itertools
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp

from data.dataset import Examples
from data.formats import Instants, Part, parts_of
from pipelines.evaluation.metrics import (
    coherence,
    dates,
    describe,
    gaps,
    last_digits,
    rules,
    sample_metrics,
    shapes_trends,
    tails,
    tree_c2st,
)
from pipelines.evaluation.metrics.base import counts

NUMBER = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -9.0, "max": 9.0, "missing": 0}
CATEGORY = {"type": "categorical", "categories": ["x", "y", "z"], "frequencies": [1, 1, 1], "missing": 0}


def columns(kinds: str) -> list[dict[str, Any]]:
    """Columns by letter: n(umber) or c(ategory)."""
    return [{"n": NUMBER, "c": CATEGORY}[kind] | {"name": f"{kind}{i}"} for i, kind in enumerate(kinds)]


def sample_set(kinds: str, train: np.ndarray, test: np.ndarray, drawn: np.ndarray, **options: int) -> SimpleNamespace:
    """What a metric of samples is given."""
    options = {"resamples": 0, "seed": 0} | options
    rows = Examples(x=torch.from_numpy(test), label=torch.full((len(test),), -1))
    return SimpleNamespace(
        every=torch.from_numpy(train),
        test=rows,
        drawn=torch.from_numpy(drawn),
        label=None,
        compared=len(drawn),
        domain={"kind": "table", "columns": columns(kinds)},
        options=options,
        **options,
    )


# Impossible rows


def brute_impossible(train: np.ndarray, drawn: np.ndarray, columns: list[int]) -> np.ndarray:
    def key(value: float) -> float | str:
        return "missing" if np.isnan(value) else value

    found = np.zeros(len(drawn), bool)
    for i, j in itertools.combinations(columns, 2):
        for row, new in enumerate(drawn):
            a, b = key(new[i]), key(new[j])
            first, second = ([key(v) for v in train[:, k]] for k in (i, j))
            together = sum(x == a and y == b for x, y in zip(first, second, strict=True))
            found[row] |= together == 0 and first.count(a) * second.count(b) / len(train) >= 20
    return found


def test_impossible_rows_are_those_of_the_definition():
    """Column 1 follows from column 0, column 3 has sixty-one values, of which only the gaps count."""
    random = np.random.default_rng(0)

    def rows(n: int, tied: float) -> np.ndarray:
        first = random.integers(0, 3, n).astype(float)
        second = np.where(random.random(n) < tied, first, random.integers(0, 3, n))
        x = np.column_stack([first, second, random.integers(0, 40, n), random.integers(0, 61, n)]).astype(float)
        x[:, 3][(first == 1) & (random.random(n) < 0.5)] = np.nan  # missing in class 1 alone
        x[::17, 2] = np.nan
        return x

    train, drawn = rows(600, 1.0), rows(150, 0.6)
    drawn[:4, 3] = np.nan
    drawn[4, 0] = 7.0  # never seen: chance would bring none
    marked = [np.column_stack([side[:, :3], np.isnan(side[:, 3])]) for side in (train, drawn)]
    expected = brute_impossible(*marked, [0, 1, 2, 3])
    found = coherence.measure(sample_set("cccn", train, train, drawn, resamples=50))
    entry = found.metrics["impossible_pairs"]
    assert entry.value == pytest.approx(expected.mean())
    assert 0.2 < entry.value < 0.4
    assert entry.low < entry.value < entry.high
    worst = found.details["impossible_pairs"][0]
    assert worst["columns"] == ["c0", "c1"]
    assert worst["share"] == pytest.approx(np.mean((drawn[:, 0] != drawn[:, 1]) & (drawn[:, 0] != 7)), abs=1e-6)
    assert coherence.measure(sample_set("cccn", train, train, train)).metrics["impossible_pairs"].value == 0


@pytest.mark.parametrize(("n", "impossible"), [(79, 0.0), (80, 1.0)])
def test_a_pair_is_impossible_only_where_chance_would_bring_twenty(n: int, impossible: float):
    """Two values of two columns, half and half and always alike: chance would bring a quarter of the rows."""
    train = np.repeat(np.arange(n)[:, None] % 2, 2, 1).astype(float)
    found = coherence.measure(sample_set("cc", train, train, np.array([[0.0, 1.0]] * 3)))
    assert found.metrics["impossible_pairs"].value == impossible


# Tails


@pytest.mark.parametrize(("n", "level"), [(4000, 0.999), (200, 0.995)])  # of few rows the outermost one
def test_tails_are_errors_of_the_outermost_thousandths_and_of_the_excess(n: int, level: float):
    random = np.random.default_rng(0)
    real, drawn = np.exp(2 * random.standard_normal((n, 1))), np.exp(2.3 * random.standard_normal((3000, 1)))
    found = tails.measure(sample_set("n", real, real, drawn)).metrics
    errors, excesses = [], []
    for sign in (1, -1):
        a, b = sign * real[:, 0], sign * drawn[:, 0]
        far, middle = np.quantile(a, level, method="inverted_cdf"), np.quantile(a, 0.5, method="inverted_cdf")
        errors.append(abs(np.quantile(b, level, method="inverted_cdf") - far) / (far - middle))
        edge = np.quantile(a, 0.99, method="inverted_cdf")
        one, other = (np.maximum(side - edge, 0).mean() for side in (a, b))
        excesses.append(abs(other - one) / one)
    assert found["tail_quantile"].value == pytest.approx(np.mean(errors))
    assert found["tail_excess"].value == pytest.approx(np.mean(excesses))
    assert found["tail_excess"].low is None


def test_tails_notice_what_column_distances_cannot_see():
    """A thousandth of the mass moved tenfold further out: the distance between the columns is a thousandth."""
    random = np.random.default_rng(1)
    real, good = random.standard_normal((2, 20_000, 1))
    bad = np.where(good > np.quantile(good, 0.999), 10 * good, good)
    assert ks_2samp(bad[:, 0], good[:, 0]).statistic < 1.01e-3
    near, far = (tails.measure(sample_set("n", real, real, x, resamples=30)).metrics for x in (good, bad))
    assert near["tail_excess"].value < 0.3 < 1 < far["tail_excess"].low
    assert near["tail_excess"].beats(far["tail_excess"])


def test_draws_of_the_tails_resample_rows():
    random = np.random.default_rng(2)
    real, drawn = random.standard_normal((200, 1)), random.standard_normal((150, 1))
    real[::7] = np.nan
    w, v = counts(200, 3, 5), counts(150, 3, 6)
    found = tails.quantiles(drawn[:, 0], v, 0.99)
    assert found == pytest.approx(
        [np.quantile(np.repeat(drawn[:, 0], times), 0.99, method="inverted_cdf") for times in v]
    )
    assert np.isfinite(tails.tail_errors(real, drawn, columns("n"), (w, v))).all()


def test_what_has_no_tail_is_left_out():
    flat = np.zeros((300, 2))
    flat[:2, 0] = 1.0  # the 99 % quantile is the median: nothing lies beyond but the two
    once = np.ones((2, len(flat)), np.int64)
    assert len(tails.tail_errors(flat, flat, columns("nc"), (once, once))) == 1  # the upper end of the number
    found = tails.measure(sample_set("nc", flat, flat, flat)).metrics
    assert {name: entry.value for name, entry in found.items()} == {"tail_quantile": 0, "tail_excess": 0}
    assert not tails.measure(sample_set("nc", flat * 0, flat * 0, flat)).metrics
    few = flat[:49]
    for test, drawn, rows in ((few, flat, "49 test rows and 300 samples"), (flat, few, "300 test rows and 49 samples")):
        found = tails.measure(sample_set("nc", test, test, drawn))
        assert not found.metrics
        assert found.left_out == dict.fromkeys(
            ("tail_quantile", "tail_excess"), f"needs 50 rows a side, there are {rows}"
        )
    assert not tails.measure(sample_set("cc", few, few, few)).left_out  # categories have no tails, however many rows


def test_gaps_in_samples_take_no_column_out_of_the_tails():
    """Of two columns one is drawn as it is; the other has gaps alone, or 49 known values: both its ends are wrong."""
    random = np.random.default_rng(3)
    real = random.standard_normal((300, 2))
    for known in (0, 49):
        drawn = real.copy()
        drawn[known:, 1] = np.nan
        found = tails.measure(sample_set("nn", real, real, drawn, resamples=20)).metrics
        assert {name: entry.value for name, entry in found.items()} == {"tail_quantile": 0.5, "tail_excess": 0.5}


# Gaps


def test_gaps_are_counted_column_by_column():
    """A column with 30 gaps of 100 drawn with 10, a category with none drawn with 40, and one as it is."""
    test, drawn = np.zeros((100, 3)), np.zeros((200, 3))
    test[:30, 0], drawn[:20, 0] = np.nan, np.nan
    drawn[:80, 1] = np.nan
    found = gaps.measure(sample_set("ncn", test, test, drawn, resamples=200)).metrics["gap_share"]
    assert found.value == pytest.approx((0.2 + 0.4 + 0) / 3)
    assert 0.15 < found.low < found.value < found.high < 0.25
    assert gaps.measure(sample_set("ncn", test, test, test)).metrics["gap_share"].value == 0
    none = np.zeros((100, 3))
    assert not gaps.measure(sample_set("ncn", none, none, none)).metrics
    assert gaps.measure(sample_set("ncn", none, none, drawn)).metrics["gap_share"].value == pytest.approx(0.5 / 3)


# Shapes and trends


def mixed(n: int, seed: int, tied: float) -> np.ndarray:
    """Two numbers and two categories that hang together, with gaps."""
    random = np.random.default_rng(seed)
    a = random.standard_normal(n)
    b, c, d = (tied * a[:, None] + random.standard_normal((n, 3))).T
    x = np.column_stack([a, b, np.digitize(c, [-0.5, 0.5]), np.digitize(d, [0, 0.5])]).astype(float)
    x[::11, 1], x[::7, 2] = np.nan, np.nan
    return x


def both_scores(real: np.ndarray, drawn: np.ndarray, kinds: str) -> tuple[float, float]:
    once = np.ones((1, len(real)), np.int64), np.ones((1, len(drawn)), np.int64)
    scores = (shapes_trends.shapes, shapes_trends.trends)
    return tuple(float(score(real, drawn, columns(kinds), once)[0]) for score in scores)


def test_shapes_and_trends_of_a_few_rows_by_hand():
    nan = np.nan
    real = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, nan]])
    drawn = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    # categories: a has shares 2:2 and 1:3; b, gaps aside, 1:2 and 2:2
    shapes, trends = both_scores(real, drawn, "cc")
    assert shapes == pytest.approx(1 - (1 / 4 + 1 / 6) / 2)
    # pairs: 00 1:1, 01 1:0, 11 1:2, 1- 1:0, 10 0:1 quarters
    assert trends == pytest.approx(1 - (1 + 1 + 1 + 1) / 4 / 2)
    line = np.column_stack([np.arange(4.0), np.arange(4.0)])
    assert both_scores(line, line * [1, -1], "nn")[1] == pytest.approx(0)  # correlations 1 and -1
    assert both_scores(line, line * 2, "nn")[1] == pytest.approx(1)
    assert np.isnan(both_scores(line, line * [1, 0], "nn")[1])  # a constant has no correlation
    assert both_scores(line, line[::-1] + 4, "nn")[0] == pytest.approx(0)


def test_draws_of_shapes_and_trends_resample_rows():
    real, drawn = mixed(150, 0, 0.8), mixed(120, 1, 0.3)
    real[:, 0], drawn[:, 0] = (np.digitize(side[:, 0], [-1, 0, 1]) for side in (real, drawn))
    w, v = counts(150, 3, 5), counts(120, 3, 6)
    for score in (shapes_trends.shapes, shapes_trends.trends):
        found = score(real[:, [0, 2, 3]], drawn[:, [0, 2, 3]], columns("ccc"), (w, v))
        repeated = [
            (np.repeat(real, a, 0)[:, [0, 2, 3]], np.repeat(drawn, b, 0)[:, [0, 2, 3]])
            for a, b in zip(w, v, strict=True)
        ]
        index = 0 if score is shapes_trends.shapes else 1
        assert found == pytest.approx([both_scores(one, other, "ccc")[index] for one, other in repeated])
    numbers = shapes_trends.trends(real[:, :2], drawn[:, :2], columns("nn"), (w, v))
    expected = []
    for times, others in zip(w, v, strict=True):
        pair = [np.repeat(real, times, 0), np.repeat(drawn, others, 0)]
        a, b = (np.corrcoef(x[~np.isnan(x[:, 1]), :2].T)[0, 1] for x in pair)
        expected.append(1 - abs(a - b) / 2)
    assert numbers == pytest.approx(expected)


def test_shapes_and_trends_are_those_that_sdmetrics_found():
    """Scores of `sdmetrics` 0.32.0 on the tables of the next test, which makes them anew where it is installed."""
    assert both_scores(mixed(700, 0, 0.8), mixed(500, 1, 0.3), "nncc") == pytest.approx(
        (0.9420954645536859, 0.7664405162355408), abs=1e-9
    )


def test_shapes_and_trends_are_those_of_sdmetrics():
    reports = pytest.importorskip("sdmetrics.reports.single_table", reason="needs the extra `field` (sdmetrics)")
    properties = importlib.import_module("sdmetrics.reports.single_table._properties")
    assert reports
    real, drawn = mixed(700, 0, 0.8), mixed(500, 1, 0.3)
    kinds = {"n": "numerical", "c": "categorical"}
    metadata = {"columns": {c["name"]: {"sdtype": kinds[c["name"][0]]} for c in columns("nncc")}}
    tables = []
    for side in (real, drawn):
        table = pd.DataFrame(side, columns=[c["name"] for c in columns("nncc")])
        for name in ("c2", "c3"):
            table[name] = table[name].map({0.0: "x", 1.0: "y", 2.0: "z"}).astype(object)
        tables.append(table)
    found = both_scores(real, drawn, "nncc")
    theirs = [kind().get_score(*tables, metadata) for kind in (properties.ColumnShapes, properties.ColumnPairTrends)]
    assert found == pytest.approx(theirs, abs=1e-9)


# Small trees


def test_trees_name_the_columns_that_give_samples_away():
    """Three columns alike on both sides one by one, two of which hang together in real rows alone."""
    random = np.random.default_rng(0)

    def rows(n: int, *, tied: bool) -> np.ndarray:
        x = random.integers(0, 4, (n, 4)).astype(float)
        if tied:
            x[:, 2] = x[:, 1]
        return x

    found = tree_c2st.measure(sample_set("cccc", rows(9, tied=True), rows(1600, tied=True), rows(1600, tied=False)))
    told = found.details["told_apart"]
    assert {"c1", "c2"} <= set(told[0]["columns"])
    assert found.metrics["c2st_trees"].value == pytest.approx(7 / 8, abs=0.05)  # a quarter of the samples look real
    alike = tree_c2st.measure(sample_set("cccc", rows(9, tied=True), rows(1600, tied=True), rows(1600, tied=True)))
    assert alike.metrics["c2st_trees"].value == pytest.approx(0.5, abs=0.07)


def test_the_best_of_many_trees_is_judged_on_rows_that_did_not_choose_it():
    """Of some ninety trees the best is right on 0.63 of the eighty rows that chose it, though nothing is to be told."""
    random = np.random.default_rng(1)
    sides = random.standard_normal((2, 160, 10))
    found = [tree_c2st.tree_predictions(*sides, seed=seed)[0].mean() for seed in range(4)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    assert len(set(found)) > 1  # each seed divides the rows anew


# The table of metrics


@pytest.mark.parametrize("file", [gaps, shapes_trends, tails, tree_c2st])
def test_rows_that_are_compared_decide_both_sides_are_resampled_and_the_seed_says_how(file: ModuleType):
    x = mixed(300, 0, 0.8)
    few, more = (sample_set("nncc", x, x, drawn, resamples=40) for drawn in (x, np.vstack([x, 9 + x[::-1]])))
    more.compared = len(x)
    found = file.measure(few).metrics
    assert file.measure(more).metrics == found
    other = file.measure(sample_set("nncc", x, x, x, resamples=40, seed=1)).metrics
    for name, entry in found.items():
        assert entry.low < entry.high, name  # the same rows on both sides, but not the same resamples of them
        assert (entry.low, entry.high) != (other[name].low, other[name].high), name
        assert entry.unit != "score" or entry.value == entry.high == 1, name


def test_every_metric_of_tables_has_words_a_direction_and_a_line_in_the_table():
    files = [entry.file for entry in sample_metrics("table")]
    of_tables = ("gaps", "shapes_trends", "coherence", "tails", "tree_c2st")
    assert set(of_tables) <= set(files)
    assert not set(of_tables) & {e.file for e in sample_metrics("image")}
    x = mixed(300, 0, 0.8)
    for entry in sample_metrics("table"):
        if entry.file in of_tables:
            found = entry.measure(sample_set("nncc", x, mixed(300, 1, 0.8), mixed(300, 2, 0.0), resamples=5))
            assert found.metrics, entry.file
            for name, value in found.metrics.items():
                words = describe(name)
                assert words is not None
                assert (value.unit, value.better) == (words.unit, words.better)
                assert words.title
                assert words.sentence.endswith(".")
                assert value.low <= value.value <= value.high
    assert describe("anomaly_auroc_mixed").title.format("mixed") == "AUROC, mixed"
    assert describe("nothing of the sort") is None


# Rules


def ruled(n: int, seed: int) -> np.ndarray:
    """City (6 values) fixes country (3); total = price × count, rounded; paid <= total; a gap now and then."""
    random = np.random.default_rng(seed)
    city = random.integers(0, 6, n).astype(float)
    price, count = random.lognormal(3, 1, n).round(2), random.integers(1, 6, n).astype(float)
    total = (price * count).round(2)
    paid = (total * random.uniform(0, 1, n)).round(2)
    x = np.column_stack([city, city // 2, price, count, total, paid])
    x[::13, 1], x[::17, 4] = np.nan, np.nan
    return x


RULED = "ccnnnn"
RULES = {"c1 follows from c0", "n5 is at most n4", "n2 is at most n4", "n4 is n2 × n3"}


def test_rules_that_training_rows_keep_are_found_and_kept_by_others():
    train, test = ruled(800, 0), ruled(400, 1)
    assert {rule.text for rule in rules.rules(train, columns(RULED))} == RULES
    assert rules.measure(sample_set(RULED, train, test, test)).metrics["broken_rules"].value == 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda x: x.__setitem__((slice(0, 40), 1), (x[:40, 1] + 1) % 3), "c1 follows from c0"),
        (lambda x: x.__setitem__((slice(0, 40), 5), x[:40, 4] + 1), "n5 is at most n4"),
        (lambda x: x.__setitem__((slice(0, 40), 4), x[:40, 4] * 1.02 + 0.02), "n4 is n2 × n3"),
    ],
)
def test_a_broken_rule_is_counted_where_its_cells_are_known(change, rule):
    drawn = ruled(400, 2)
    change(drawn)
    known = {"c1 follows from c0": [0, 1], "n5 is at most n4": [4, 5], "n4 is n2 × n3": [2, 3, 4]}[rule]
    share = (~np.isnan(drawn[:40][:, known]).any(1)).sum() / 400
    found = rules.measure(sample_set(RULED, ruled(800, 0), ruled(400, 1), drawn))
    assert found.metrics["broken_rules"].value == pytest.approx(share)
    assert found.details["broken_rules"] == [{"rule": rule, "share": pytest.approx(share, abs=1e-6)}]


def test_chance_and_names_of_rows_make_no_rules():
    random = np.random.default_rng(0)
    x = np.column_stack([np.arange(300.0), random.integers(0, 3, 300), random.standard_normal(300), np.full(300, 9.0)])
    assert rules.rules(x, columns("ccnn")) == []  # everything follows from a name; a constant is above everything
    assert rules.measure(sample_set("ccnn", x, x, x)).metrics == {}


# Dates

PARTS = tuple(map(Part.parse, ["year", "week", "weekday"]))


def learned(days: np.ndarray) -> np.ndarray:
    """Days since 1970 as year, week and weekday."""
    zero = np.zeros(len(days), np.int64)
    return parts_of(Instants(np.asarray(days, np.int64), zero, zero), PARTS)[0]


def dated(*sources: str) -> list[dict[str, Any]]:
    """The columns of dates learned so."""
    return [
        {
            "name": f"{source}.{part.name}",
            "type": "categorical" if part.values else "integer",
            "categories": list(part.categories),
            "source": source,
            "part": part.name,
        }
        for source in sources
        for part in PARTS
    ]


def test_dates_outside_those_of_training_are_counted():
    """Training from 2024-01-01 to 2025-05-14: a May of either year is inside, as its parts are; 2025-08-04 is not."""
    train = learned(np.arange("2024-01-01", "2025-05-15", dtype="datetime64[D]"))
    drawn = ["2024-08-05", "2025-05-14", "2025-05-15", "2025-08-04", "2023-12-31"]
    drawn = learned(np.array(drawn, dtype="datetime64[D]"))
    drawn = np.vstack([drawn, np.full((5, 3), np.nan)])  # a missing date is not outside
    samples = sample_set("nnn", train, train[:100], drawn)
    samples.domain = {"kind": "table", "columns": dated("opened")}
    found = dates.measure(samples)
    assert found.metrics["outside_dates"].value == pytest.approx(3 / 10)
    assert found.details["outside_dates"] == [{"columns": ["opened"], "share": 0.3}]
    samples.drawn = torch.from_numpy(train[100:200])
    assert dates.measure(samples).metrics["outside_dates"].value == 0
    assert dates.measure(sample_set("nnc", *[mixed(60, seed, 0.8)[:, [0, 1, 2]] for seed in range(3)])).metrics == {}


def test_dates_are_put_in_order_by_their_days():
    """Two dates learned as year, week and weekday: the second is never before the first."""
    random = np.random.default_rng(0)
    first = 18_000 + random.integers(0, 900, 300)

    def rows(gap: np.ndarray) -> np.ndarray:
        return np.column_stack([learned(first), learned(first + gap)])

    described = dated("sent", "came")
    train = rows(random.integers(0, 400, 300))
    (rule,) = rules.rules(train, described)
    assert rule.text == "sent is at most came"
    judged, wrong = rule.test(rows(np.where(np.arange(300) < 30, -3, 3)))
    assert judged.all()
    assert wrong.sum() == 30


def test_linear_functions_of_one_column_or_two_are_rules():
    """Fahrenheit from Celsius, a decimal date from year and month; a third number has nothing to do with them."""
    random = np.random.default_rng(0)

    def rows(n: int) -> np.ndarray:
        celsius, year, month = (
            random.normal(12, 8, n).round(1),
            random.integers(2000, 2016, n),
            random.integers(1, 13, n),
        )
        date = (year + (month - 1) / 12).round(6)
        return np.stack([celsius, (1.8 * celsius + 32).round(1), year, month, date, random.normal(size=n)], 1)

    train, drawn = rows(400), rows(100)
    drawn[:20, 1] += 1.0  # a degree off
    drawn[10:40, 4] += 0.5  # half a year off
    found = rules.measure(sample_set("nnnnnn", train, rows(100), drawn))
    assert found.metrics["broken_rules"].value == pytest.approx(0.4)
    shares = {entry["rule"]: entry["share"] for entry in found.details["broken_rules"]}
    assert shares == {"n1 is linear in n0": 0.2, "n4 is linear in n2 and n3": 0.3}
    assert rules.measure(sample_set("nnnnnn", train, rows(100), rows(100))).metrics["broken_rules"].value == 0


# Last digits


def test_numbers_that_end_otherwise_are_seen_where_distances_do_not():
    """Prices of which six of ten end in .99, and drawn ones that lie as near as a cent but end evenly."""
    random = np.random.default_rng(0)
    whole = np.floor(np.exp(random.normal(3.5, 0.8, (3, 5_000))))
    prices = np.where(
        random.random(whole.shape) < 0.6, whole + 0.99, whole + random.integers(0, 100, whole.shape) / 100
    )
    readings = np.round(random.normal(50, 9, (3, 5_000)), 1)
    rows = np.stack([prices, readings], 2)

    def distance(drawn: np.ndarray) -> Any:
        return last_digits.measure(sample_set("nn", rows[0], rows[1][:2_000], drawn, resamples=200))

    fresh = distance(rows[2])
    assert fresh.metrics["last_digits"].value < 0.04  # by chance, of 30 endings of 5,000 rows each
    near = rows[2].copy()
    near[:, 0] = np.maximum(near[:, 0] + random.integers(-99, 100, 5_000) / 100, 0).round(2)
    found = distance(near)
    lost = 0.6 * 0.9  # of those that ended in 9 one in ten still does by chance
    assert found.metrics["last_digits"].value == pytest.approx(lost / 2, abs=0.02)
    assert fresh.metrics["last_digits"].high < found.metrics["last_digits"].low < found.metrics["last_digits"].value
    assert [entry["columns"] for entry in found.details["last_digits"]] == [["n0"], ["n1"]]
    assert ks_2samp(near[:, 0], rows[0][:, 0]).statistic < 0.05


def test_decimals_and_zeros_count_as_endings():
    """Salaries in thousands against salaries to the unit: one in a thousand of these is one of those."""
    random = np.random.default_rng(0)
    thousands, units = random.integers(10, 200, 4_000) * 1000.0, random.integers(10_000, 200_000, 4_000) * 1.0
    found = last_digits.measure(sample_set("n", thousands[:, None], thousands[:100, None], units[:, None]))
    assert found.metrics["last_digits"].value == pytest.approx(1.0, abs=0.01)
    halved = last_digits.measure(sample_set("n", thousands[:, None], thousands[:100, None], thousands[:, None] / 1e4))
    assert halved.metrics["last_digits"].value > 0.85  # 12.3 is no salary in thousands
    measured = random.normal(size=(400, 1))
    assert last_digits.measure(sample_set("n", measured, measured, measured)).metrics == {}
    gone = np.full((400, 1), np.nan)
    assert last_digits.measure(sample_set("n", thousands[:, None], thousands[:, None], gone)).metrics == {}
