"""What samples tell of training rows: nothing if they are fresh draws of the truth, everything if they are copies."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binomtest

from data.dataset import Examples
from pipelines.evaluation.domains import evaluation_domain
from pipelines.evaluation.metrics import (
    attribute_inference,
    closest_record,
    describe,
    membership,
    sample_metrics,
    singling_out,
)
from pipelines.evaluation.metrics.attacks import excess, wilson

NUMBER = {"type": "continuous", "mean": 0.0, "std": 1.0, "min": -9.0, "max": 9.0, "missing": 1}
CATEGORY = {"type": "categorical", "categories": ["x", "y", "z"], "frequencies": [1, 1, 1], "missing": 1}
FILES = (closest_record, membership, singling_out, attribute_inference)
NAMES = ("closest_record", "membership_distance", "singling_out", "attribute_inference")


def rows(n: int, seed: int) -> Examples:
    """Three numbers and two categories that hang together, with gaps; the label follows from the first, mostly."""
    random = np.random.default_rng(seed)
    a = random.standard_normal(n)
    b, c, d, e = (0.6 * a[:, None] + random.standard_normal((n, 4))).T
    x = np.column_stack([a, b, c, np.digitize(d, [-0.5, 0.5]), np.digitize(e, [0, 1])]).astype(float)
    x[random.random((n, 5)) < 0.05] = np.nan
    return Examples(x=torch.from_numpy(x), label=torch.from_numpy((a + random.standard_normal(n) > 0).astype(np.int64)))


def sample_set(train: Examples, test: Examples, drawn: Examples, **options: int) -> SimpleNamespace:
    """What a metric of samples is given."""
    kinds = [NUMBER] * 3 + [CATEGORY] * 2
    domain = {"kind": "table", "columns": [kind | {"name": f"c{i}"} for i, kind in enumerate(kinds)]}
    options = {"resamples": 100, "seed": 0} | options
    return SimpleNamespace(
        every=train.x,
        train=train,
        test=test,
        drawn=drawn.x,
        label=drawn.label,
        compared=len(drawn.x),
        domain=domain,
        inputs=evaluation_domain(domain).encoder,
        options=options,
        **options,
    )


def measured(*sides: Examples, **options: int) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for file in FILES:
        found = file.measure(sample_set(*sides, **options))
        metrics |= found.metrics
        details |= found.details
    return metrics, details


def test_a_replay_of_training_rows_is_shown_at_one():
    train = rows(1200, 0)
    metrics, details = measured(train, rows(1200, 1), train)
    assert tuple(metrics) == NAMES
    for name in NAMES:
        assert metrics[name].value == pytest.approx(1, abs=0.02), name
        assert metrics[name].low > 0.8, name
    assert details["singling_out"]["training"][0] == 1
    # the label is one of six secrets, and who knows the rest guesses it best without the model: it is told least
    told = details["attribute_inference"]["columns"]
    assert {entry["column"] for entry in told} == {f"c{i}" for i in range(5)}
    assert {entry["attacks"] for entry in told} == {1200 / 6}
    gained = [entry["training"][0] - entry["holdout"][0] for entry in told]
    assert gained == sorted(gained, reverse=True)


@pytest.mark.parametrize("seed", range(2))
def test_fresh_draws_from_the_truth_are_at_the_floor_within_their_interval(seed: int):
    """Of unequal numbers of training and test rows."""
    metrics, details = measured(rows(3000, 3 * seed + 5), rows(700, 3 * seed + 6), rows(800, 3 * seed + 7), seed=seed)
    for name in NAMES:
        entry = metrics[name]
        assert entry.floor == (0 if name in ("singling_out", "attribute_inference") else 0.5)
        assert entry.low <= entry.floor <= entry.high, (name, entry)
        assert entry.high - entry.low < 0.35, name
    assert details["attribute_inference"]["holdout"][0] > 0.15  # who knows the population guesses some right


def test_copies_among_fresh_draws_are_told_by_their_share_of_closest_records():
    """A third of the samples are training rows, the others independent: 1/3 + 2/3 · 1/2 with as many test rows."""
    train, fresh = rows(4000, 0), rows(900, 2)
    copied = torch.cat([train.x[:300], fresh.x[:600]])
    sides = train, rows(1000, 1), Examples(x=copied, label=fresh.label)
    found = closest_record.measure(sample_set(*sides)).metrics["closest_record"]
    owned = 1 / 3 + 2 / 3 * 0.8  # of the samples, of which four of five fresh ones go to a training row
    assert found.value == pytest.approx(owned / 4 / (owned / 4 + (1 - owned)), abs=0.04)
    assert found.low > 0.5


@pytest.mark.parametrize("file", [closest_record, singling_out])
def test_copies_of_rows_that_the_reference_does_not_keep_are_seen(file: ModuleType):
    every = rows(600, 0)
    kept, copied = (Examples(x=every.x[part], label=every.label[part]) for part in (slice(300), slice(300, 600)))
    samples = sample_set(kept, rows(600, 1), copied)
    samples.every = every.x
    found = file.measure(samples).metrics[file.__name__.rpartition(".")[2]]
    assert found.low > found.floor + 0.1


def test_repeating_every_sample_tells_no_more():
    train, test, fresh = rows(500, 0), rows(500, 1), rows(400, 2)
    repeated = Examples(x=fresh.x.repeat(4, 1), label=fresh.label.repeat(4))
    once, often = (closest_record.measure(sample_set(train, test, drawn)) for drawn in (fresh, repeated))
    one, other = (found.metrics["closest_record"] for found in (once, often))
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize("file", [membership, singling_out])
def test_chance_is_of_the_seed_alone(file: ModuleType):
    sides = rows(200, 0), rows(200, 1), rows(200, 2)
    zero, again, one = (next(iter(file.measure(sample_set(*sides, seed=s)).metrics.values())) for s in (0, 0, 1))
    assert zero == again
    assert (zero.low, zero.high) != (one.low, one.high)


def test_rows_equally_near_share_a_sample():
    """Two categories only: every sample equals many rows of both sides, and nothing is told."""
    random = np.random.default_rng(0)

    def few(n: int) -> Examples:
        x = torch.full((n, 5), torch.nan, dtype=torch.float64)
        x[:, 3:] = torch.from_numpy(random.integers(0, 3, (n, 2))).double()
        return Examples(x=x, label=torch.zeros(n, dtype=torch.int64))

    samples = sample_set(few(2000), few(300), few(1500))
    assert closest_record.measure(samples).metrics["closest_record"].value == pytest.approx(0.5, abs=0.02)
    given = closest_record.owned(samples.drawn, samples.every, samples.inputs, chunk=100)
    a, b = (samples.inputs.flat(x) for x in (samples.drawn, samples.every))
    nearest = cdist(a, b) == cdist(a, b).min(1, keepdims=True)
    assert given == pytest.approx((nearest / nearest.sum(1, keepdims=True)).sum(0))


def test_excess_is_the_share_of_what_was_to_win():
    """Wilson's intervals by scipy; Newcombe's example: 56/70 less 48/80 is 0.2, from 0.0524 to 0.3339."""
    for k, n in ((0, 9), (5, 9), (56, 70), (70, 70)):
        theirs = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k / n, n) == pytest.approx((theirs.low, theirs.high))
    one, other = (np.arange(n) < k for k, n in ((56, 70), (48, 80)))
    found, details = excess(singling_out.SINGLING_OUT, one, other)
    assert found.value == pytest.approx(0.2 / 0.4)
    assert (found.low, found.high) == pytest.approx((0.0524 / 0.4, 0.3339 / 0.4), abs=2e-4)
    assert details["training"][0] == 0.8
    always, _ = excess(singling_out.SINGLING_OUT, np.ones(100, bool), np.ones(100, bool))
    assert always.value == 0
    assert always.low < 0 < always.high


def test_descriptions_fit_the_rows_that_they_describe():
    drawn = rows(400, 3).x.numpy()
    columns = sample_set(*[rows(60, 0)] * 3).domain["columns"]
    attacks = singling_out.Descriptions(drawn, columns, np.random.default_rng(0))
    other = rows(300, 4).x.numpy()
    hit = attacks.only(other)
    middle = np.array([np.sort(c[~np.isnan(c)])[(np.isfinite(c).sum() - 1) // 2] for c in drawn.T])

    def fit(cell: float, value: float, column: int) -> bool:
        if np.isnan(cell):
            return bool(np.isnan(value))
        if column > 2:
            return cell == value
        return value >= cell if cell > middle[column] else value <= cell

    for attack in range(0, singling_out.TRIES, 100):
        said, columns_of = drawn[attacks.row[attack]], attacks.columns[attack]
        fits = [i for i, row in enumerate(other) if all(fit(said[c], row[c], c) for c in columns_of)]
        assert hit[attack] == (fits[0] if len(fits) == 1 else -1)
    single = attacks.only(drawn)
    assert (single >= 0).any()
    assert (single[single >= 0] == attacks.row[single >= 0]).all()  # each fits the sample it was read off
    assert singling_out.repeated(np.array([3, 3, 3, 7, -1])) == 2.5


def test_a_secret_is_guessed_from_the_nearest_sample_in_the_other_columns():
    train, test, drawn = rows(300, 0), rows(300, 1), rows(200, 2)
    samples = sample_set(train, test, drawn)
    secret = np.arange(300) % 6
    right = attribute_inference.guessed(samples, test, secret)
    flat = [samples.inputs.flat(side) for side in (test.x, drawn.x)]
    widths = [samples.inputs._width(column) for column in samples.domain["columns"]]
    for i in range(0, 300, 7):
        c = secret[i]
        kept = np.repeat(np.arange(5), widths) != c
        near = int(cdist(flat[0][i : i + 1, kept], flat[1][:, kept])[0].argmin())
        if c == 5:
            assert right[i] == (test.label[i] == drawn.label[near])
            continue
        true, guess = float(test.x[i, c]), float(drawn.x[near, c])
        known = train.x[:, c][~train.x[:, c].isnan()].numpy()
        inside = ((known > min(true, guess)) & (known < max(true, guess))).mean()
        close = c < 3 and not math.isnan(true + guess) and inside <= 0.025
        assert right[i] == (true == guess or (math.isnan(true) and math.isnan(guess)) or close), (i, c)


def test_a_density_that_remembers_tells_members():
    random = np.random.default_rng(0)
    nats = random.standard_normal((2, 400))
    found = membership.density_attack(nats[0] + 1, nats[1], resamples=100, seed=0)["membership_density"]
    assert found.value == pytest.approx(0.76, abs=0.04)  # Φ(1/√2)
    assert found.low > 0.5 == found.floor
    alike = membership.density_attack(nats[0], nats[1], resamples=100, seed=0)["membership_density"]
    assert alike.low < 0.5 < alike.high
    assert not membership.density_attack(nats[0][:49], nats[1], resamples=100, seed=0)


def test_too_few_rows_are_said_and_images_have_no_columns_to_attack():
    few, many = rows(49, 0), rows(300, 1)
    for sides in ((many, few, many), (many, many, few)):
        for file in FILES:
            found = file.measure(sample_set(*sides))
            if file is membership and sides[2] is few:
                continue  # the attacked rows are real ones
            assert not found.metrics
            assert all(reason.startswith("needs 50 rows a side") for reason in found.left_out.values())
            assert found.left_out
    of_images = {entry.file for entry in sample_metrics("image")}
    assert {"closest_record", "membership"} <= of_images
    assert not {"singling_out", "attribute_inference"} & of_images
    for name in (*NAMES, "membership_density"):
        assert describe(name).group.startswith("Privacy")
