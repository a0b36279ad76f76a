"""What `prepare` writes is what it read, in however many shards: every row once, statistics of the training split."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import genpareto
from test_data_sources import prepared

from data.batches import Batches
from data.dataset import Dataset
from data.tails import MOST, log_likelihood, tails_of

ROWS = 400_000
"""More than one shard holds, more than the labels read at once, more than quantiles are taken of."""


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """Numbers with gaps, whole numbers that come twice each, words, and a label."""
    random = np.random.default_rng(0)
    value = random.lognormal(0, 1, ROWS) * np.repeat([1.0, 1.5], ROWS // 2)
    value[random.random(ROWS) < 0.1] = np.nan
    whole = random.permutation(ROWS) // 2  # all different they would be an identifier, and not learned
    word = np.array(["oak", "elm", "fir"])[random.choice(3, ROWS, p=[0.6, 0.3, 0.1])]
    label = np.array(["a", "b", "c"])[random.choice(3, ROWS, p=[0.7, 0.2, 0.1])]
    rest = random.normal(0, 1, ROWS)
    return pd.DataFrame({"value": value, "rest": rest, "whole": whole, "word": word, "label": label})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, truth: pd.DataFrame) -> Dataset:
    root = tmp_path_factory.mktemp("table")
    truth.to_parquet(root / "t.parquet")
    return prepared(root, root / "t.parquet", label="label")


def test_every_row_is_in_one_split_with_its_values_and_its_label(table: Dataset, truth: pd.DataFrame) -> None:
    shards = [shard["rows"] for shard in table.manifest["splits"]["train"]["shards"]]
    assert shards == [2**17, 2**17, 320_000 - 2**18]  # 4 MiB of four numbers each
    categories = {column["name"]: column.get("categories") for column in table.domain["columns"]}
    origins = []
    for name in table.splits:
        split = table.split(name)
        rows, origin = split.all(), split.sources.numpy()
        origins.append(origin)
        source = truth.iloc[origin]
        np.testing.assert_array_equal(rows.x[:, 0], source["value"])
        np.testing.assert_array_equal(rows.x[:, 1], source["rest"])
        np.testing.assert_array_equal(rows.x[:, 2], source["whole"])
        np.testing.assert_array_equal(np.array(categories["word"])[rows.x[:, 3].numpy().astype(int)], source["word"])
        np.testing.assert_array_equal(np.array(table.class_names)[rows.label.numpy()], source["label"])
        np.testing.assert_array_equal(rows.label, split.labels)
        edges = np.cumsum([shard["rows"] for shard in table.manifest["splits"][name]["shards"]])
        order = np.r_[np.random.default_rng(1).integers(0, len(split), 1000), edges[:-1], edges - 1, 0]
        taken = split.take(order)
        np.testing.assert_array_equal(taken.x, rows.x[order])
        np.testing.assert_array_equal(taken.label, rows.label[order])
        assert len(np.unique(origin)) == len(origin) == table.manifest["splits"][name]["count"]
        frequencies = source["label"].value_counts()
        assert table.manifest["splits"][name]["labels"] == dict(frequencies.sort_index())
        for label, count in truth["label"].value_counts().items():
            share = {"train": 0.8, "val": 0.1, "test": 0.1}[name]
            assert abs(frequencies[label] - share * count) <= 1
        correlation = np.corrcoef(np.arange(len(origin)), origin)[0, 1]
        assert abs(correlation) < 5 / len(origin) ** 0.5  # shuffled: five standard errors
    np.testing.assert_array_equal(np.sort(np.concatenate(origins)), np.arange(ROWS))


def test_statistics_are_those_of_the_training_split(table: Dataset, truth: pd.DataFrame) -> None:
    train = truth.iloc[table.split("train").sources.numpy()]
    *numbers, word = table.domain["columns"]
    for column in numbers:
        name = column["name"]
        known = train[name].dropna().to_numpy()
        assert (column["count"], column["missing"]) == (len(known), len(train) - len(known))
        expected = (known.min(), known.max(), known.mean(), known.std())
        stated = [column[key] for key in ("min", "max", "mean", "std")]
        np.testing.assert_allclose(stated, expected, rtol=1e-10)
        assert (column["quantiles"][0], column["quantiles"][-1]) == expected[:2]
        ranks = np.searchsorted(np.sort(known), column["quantiles"][1:-1]) / len(known)
        # of 2^18 rows drawn at random: Kolmogorov's bound at a probability of one in a million
        assert np.abs(ranks - np.linspace(0, 1, 1001)[1:-1]).max() < 0.0053 + 1e-3 * (name == "whole")
    assert dict(zip(word["categories"], word["frequencies"], strict=True)) == dict(train["word"].value_counts())


def test_an_epoch_shows_every_row_once(table: Dataset) -> None:
    """Beyond the 65,536 positions whose order is computed at once."""
    split = table.split("train")
    size = len(split) // 4
    batches = Batches(split, size, seed=5, memory="mapped")
    ids = np.concatenate([batches.ids(step) for step in range(4)])
    np.testing.assert_array_equal(np.sort(ids), np.arange(len(split)))
    assert abs(np.corrcoef(np.arange(len(ids)), ids)[0, 1]) < 5 / len(ids) ** 0.5
    for step in (2, 3):  # the second was read ahead
        np.testing.assert_array_equal(batches.get(step).x, split.all().x[ids[step * size :][:size]])
    small = Batches(split, 1000, seed=5, memory="mapped")
    np.testing.assert_array_equal(np.concatenate([small.ids(step) for step in range(200)]), ids[:200_000])


def test_images_of_several_shards(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = (random.integers(0, 256, (700, 64, 64, 3)) * np.array([1.0, 0.5, 0.1])).astype(np.uint8)
    x[:350] //= 2
    y = random.integers(0, 4, 700)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = prepared(tmp_path, tmp_path / "a.npz", "splits: {train: 0.6, val: 0.1, test: 0.2, seed: 3}")
    assert len(data.manifest["splits"]["train"]["shards"]) == 2
    assert {name: len(data.split(name)) for name in data.splits} == {"train": 420, "val": 70, "test": 140}
    origins = []
    for name in data.splits:
        split = data.split(name)
        origin = split.sources.numpy()
        origins += origin.tolist()
        np.testing.assert_array_equal(split.all().x, x[origin])
        np.testing.assert_array_equal(split.slice(20, 400).x, x[origin][20:400])
        np.testing.assert_array_equal([int(data.class_names[i]) for i in split.labels], y[origin])
    assert len(set(origins)) == len(origins) == 630  # a tenth is used by no split
    assert json.loads((data.folder / "report.json").read_text())["unused"] == 70
    train = x[data.split("train").sources.numpy()].reshape(-1, 3).astype(float)
    statistics = data.manifest["statistics"]
    np.testing.assert_allclose(statistics["mean"], train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], train.std(0), rtol=1e-9)
    assert statistics["pixels"] == len(train)
    (tmp_path / "data/catalog/d.yaml").unlink()
    other = prepared(tmp_path, tmp_path / "a.npz", "splits: {train: 0.6, val: 0.1, test: 0.2, seed: 4}")
    assert set(other.split("test").sources.tolist()) != set(data.split("test").sources.tolist())


def test_published_splits_are_kept_apart_from_the_end(tmp_path: Path) -> None:
    """Test rows stay, validation rows yield to them, training rows to both; other rows stay where they were."""
    folds = ["train"] * 300 + ["valid"] * 50 + ["test"] * 50
    values = np.arange(400)
    values[[0, 1]] = 350, 351  # training rows that are test rows, too
    values[2] = 300  # and a validation row
    values[301] = 352
    pd.DataFrame({"v": values, "w": values / 7, "fold": folds}).to_csv(tmp_path / "t.csv", index=False)
    data = prepared(tmp_path, tmp_path / "t.csv", "splits: {column: fold}")
    kept = {name: set(data.split(name).sources.tolist()) for name in data.splits}
    assert kept == {"train": set(range(3, 300)), "val": {300, *range(302, 350)}, "test": set(range(350, 400))}
    found = json.loads((data.folder / "report.json").read_text())["duplicates"]
    first = found.pop("first_positions")
    assert len(first) == 3
    assert all(pair in ([0, 350], [1, 351], [2, 300], [301, 352]) for pair in first)
    assert found == {
        "contents_repeated": 4, "extra_copies": 4, "across_splits": 4, "conflicting_labels": 0, "dropped": 4,
        "moved": 0, "policy": "separate",
    }  # fmt: skip

    (tmp_path / "data/catalog/d.yaml").unlink()
    other = prepared(tmp_path, tmp_path / "t.csv", "splits: {column: fold, seed: 1}")
    orders = [found.split("test").sources.tolist() for found in (data, other)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    values[3] = 353  # the fifth of 400: more than one in a hundred
    pd.DataFrame({"v": values, "w": values / 7, "fold": folds}).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "data/catalog/d.yaml").unlink()
    with pytest.raises(ValueError, match=r"5 examples of the training data also occur in a published"):
        prepared(tmp_path, tmp_path / "t.csv", "splits: {column: fold}")


def test_copies_go_where_one_of_them_is(tmp_path: Path) -> None:
    """Compared with the same division that keeps them: only copies move, to one split each; no content is lost."""
    values = np.concatenate([np.arange(3000), np.arange(300)])
    pd.DataFrame({"v": values, "w": values / 7}).to_csv(tmp_path / "t.csv", index=False)
    homes = {}
    for policy in ("keep", "separate"):
        shares = "splits: {train: 0.6, val: 0.1, test: 0.1}"
        data = prepared(tmp_path, tmp_path / "t.csv", shares, f"duplicates: {policy}")
        homes[policy] = np.full(len(values), "unused")
        for name in data.splits:
            homes[policy][data.split(name).sources.numpy()] = name
        (tmp_path / "data/catalog/d.yaml").unlink()
    before, after = homes["keep"], homes["separate"]
    found = json.loads((data.folder / "report.json").read_text())["duplicates"]
    assert found["contents_repeated"] == found["extra_copies"] == 300
    assert found["moved"] == (before != after).sum() > 50
    assert (before[300:3000] == after[300:3000]).all()
    firsts, copies = after[:300], after[3000:]
    assert (firsts == copies).all()
    used = (before[:300] != "unused") | (before[3000:] != "unused")
    assert (firsts[used] != "unused").all()


ALIKE = [
    ("0.0,1.5,x,a", "-0.0,1.5,x,a", 1, 0),  # zero has no sign
    (",1.5,x,a", ",1.5,x,a", 1, 0),  # nothing is nothing
    ("7.0,1.5,x,a", "7.0,1.5,x,b", 1, 1),  # the label is not content
    ("7.0,1.5,x,a", "7.0,1.5,x,", 1, 0),  # one that is not known contradicts none
    ("1.5,7.0,x,a", "7.0,1.5,x,a", 0, 0),  # each column has its own
    ("7.0,,x,a", ",7.0,x,a", 0, 0),
    ("7.0,1.5,x,a", "7.0,1.5,y,a", 0, 0),
]


@pytest.mark.parametrize(("one", "other", "repeated", "conflicts"), ALIKE)
def test_rows_are_alike_if_all_their_cells_are(
    tmp_path: Path, one: str, other: str, repeated: int, conflicts: int
) -> None:
    rest = "".join(f"{i + 10}.5,{i / 8},{'xy'[i % 2]},{'ab'[i % 3 == 0]}\n" for i in range(100))
    (tmp_path / "t.csv").write_text("a,b,c,label\n" + rest + f"{one}\n{other}\n")
    data = prepared(tmp_path, tmp_path / "t.csv", label="label")
    found = json.loads((data.folder / "report.json").read_text())["duplicates"]
    assert (found["contents_repeated"], found["extra_copies"]) == (repeated, repeated)
    assert found["conflicting_labels"] == conflicts
    assert sum(len(data.split(name)) for name in data.splits) == 102
    assert sum(bool({100, 101} & set(data.split(name).sources.tolist())) for name in data.splits) <= 2 - repeated


def test_a_copy_among_the_anomalies_does_not_cross_splits(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 7:.3f},0\n" for i in range(100))
    (tmp_path / "t.csv").write_text("a,b,bad\n" + rows + "5,0.714,1\n")
    data = prepared(tmp_path, tmp_path / "t.csv", "duplicates: fail", anomaly="bad=1")
    found = json.loads((data.folder / "report.json").read_text())["duplicates"]
    assert (found["contents_repeated"], found["across_splits"]) == (1, 0)
    assert data.split("anomaly").sources.tolist() == [100]


LAWS = {
    "pareto": (genpareto(0.2), 0.1),
    "heavy, around 0": (genpareto(0.5, loc=-3), 0.1),
    "exponential": (genpareto(0.0), 0.1),
    "logarithms of a heavy tail": (SimpleNamespace(
        ppf=lambda u: np.exp(genpareto(0.1).ppf(u)), sf=lambda x: genpareto(0.1).sf(np.log(x))
    ), 0.3),
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_tails_go_on_by_the_law_of_the_data(law: str) -> None:
    """A column of 20,000 exact quantiles: a ten-millionth of the mass lies where the law puts it, at either end."""
    (truth, error), n = LAWS[law], 20_000
    values = truth.ppf((np.arange(n) + 0.5) / n)
    upper = tails_of(values[: MOST + 1], values[::-1][: MOST + 1], n)["upper"]
    x, beyond = np.array(upper["x"]), 1 - np.array(upper["u"])
    seen, further = beyond > 4e-4, (beyond <= 4e-4) & (beyond > 1e-7)
    assert seen.sum() > 5
    assert further.sum() > 20
    assert truth.sf(x[seen]) == pytest.approx(beyond[seen], rel=0.01)
    assert np.log(truth.sf(x[further])) == pytest.approx(np.log(beyond[further]), abs=error)
    lower = tails_of(-values[::-1][: MOST + 1], -values[: MOST + 1], n)["lower"]
    assert lower["x"] == (-x[::-1]).tolist()
    assert lower["u"] == pytest.approx(beyond[::-1], abs=1e-15)


def test_what_ends_or_is_too_few_has_no_tail() -> None:
    even = np.linspace(0, 1, 5000)
    assert tails_of(even[: MOST + 1], even[::-1][: MOST + 1], 5000) == {}
    few = genpareto(0.2).ppf((np.arange(199) + 0.5) / 199)
    assert tails_of(few, few[::-1], 199) == {}
    half = np.concatenate([few, np.full(5000, few.max())])  # the largest value again and again
    assert "upper" not in tails_of(np.sort(half)[: MOST + 1], np.sort(half)[::-1][: MOST + 1], len(half))


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.5])
def test_the_likelihood_of_a_tail_is_that_of_scipy(shape: float) -> None:
    excess = genpareto(shape, scale=2.0).ppf(np.linspace(0.01, 0.99, 50))
    expected = genpareto(shape, scale=2.0).logpdf(excess).mean()
    assert log_likelihood(excess, shape, 2.0) == pytest.approx(expected)
    assert log_likelihood(excess, 0.1, 3.0) < expected


def test_what_the_card_says_of_the_data_is_in_the_manifest(tmp_path: Path) -> None:
    pd.DataFrame({"v": np.arange(60) % 13, "w": np.arange(60) / 7}).to_csv(tmp_path / "t.csv", index=False)
    said = {"title": "Numbers", "licence": "CC0-1.0", "citation": "Nobody, 2026"}
    data = prepared(tmp_path, tmp_path / "t.csv", *(f"{key}: {text!r}" for key, text in said.items()))
    assert {key: data.manifest[key] for key in said} == said
