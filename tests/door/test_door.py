"""The Python door: rows in, rows like them out, and the very model that the pipeline would have trained."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import fivefold
from data.cards import SplitPlan
from data.dataset import Dataset
from data.ingest.build import build as prepare
from data.ingest.inspect import inspect
from fivefold.rows import Rows
from models import FAMILIES, build
from pipelines.storage import model_folder
from pipelines.training import loop
from pipelines.training.config import TrainingConfig
from pipelines.training.worker import TrainingData

SMALL = {"model.steps": 2, "model.width": 16, "training.batch_size": 64, "training.lr": 5e-3}
VAE = {"model.latent": 2, "model.width": 16}


def people(n: int = 400) -> pd.DataFrame:
    """Rows of every type of column; whether `hours` is above 40 is the label, and `id` is nobody's twice."""
    random = np.random.default_rng(0)
    hours = random.normal(40, 8, n).astype(np.float32)
    frame = pd.DataFrame(
        {
            "age": random.integers(17, 90, n),
            "income": np.where(hours > 40, ">50K", "<=50K"),
            "hours": hours,
            "job": pd.Categorical(random.choice(["a", "b"], n), categories=["b", "a", "never"], ordered=True),
            "married": random.random(n) < 0.5,
            "born": pd.Timestamp("1950-01-01") + pd.to_timedelta(random.integers(0, 20_000, n), "D"),
            "id": [f"p{number:06d}" for number in random.permutation(n * 9)[:n]],
            "kids": pd.array(random.integers(0, 4, n), dtype="Int64"),
        }
    )
    frame.loc[::7, "age"] = 40
    frame.loc[::5, "kids"] = pd.NA
    frame.loc[3, "job"] = None
    return frame


@pytest.fixture(scope="module")
def flow() -> fivefold.Model:
    return fivefold.fit(people(), family="flow", label="income", examples=12_000, settings=SMALL)


def test_frames_come_back_with_their_columns_types_and_categories(flow: fivefold.Model) -> None:
    """The oracle is the frame itself: pandas' own comparison of columns and types, categories and their order."""
    frame = people()
    gaps = frame.head(6).astype({"hours": "float32"})
    gaps.loc[0, "hours"] = np.nan
    drawn, filled, several = flow.sample(20), flow.impute(gaps), flow.impute(gaps, draws=3)
    for found in (drawn, filled):
        pd.testing.assert_series_equal(found.dtypes, frame.dtypes)
    assert list(several.columns) == ["draw", *frame.columns]
    assert several["draw"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    known = gaps.notna()
    for part in (filled, several[several["draw"] == 2].drop(columns="draw").reset_index(drop=True)):
        pd.testing.assert_frame_equal(part.where(known), gaps.where(known), check_dtype=False)
        assert part.drop(columns="income").notna().all(axis=None)


def test_rows_are_drawn_given_columns_ranges_and_the_class(flow: fivefold.Model) -> None:
    drawn = flow.sample(60, given={"job": ["a"], "age": [30, 50], "income": ">50K", "born": ["1980-01-01", None]})
    pd.testing.assert_series_equal(drawn.dtypes, people().dtypes)
    assert set(drawn["job"]) == {"a"}
    assert drawn["age"].between(30, 50).all()
    assert (drawn["born"] >= "1980-01-01").all()
    assert set(drawn["income"]) == {">50K"}
    free = flow.sample(60, given={"job": "a"}, seed=1)
    assert free["income"].nunique() == 2
    assert free["kids"].isna().any()
    pd.testing.assert_frame_equal(flow.sample(60, given={"job": "a"}, seed=1), free)
    with pytest.raises(ValueError, match="label and given both name the class"):
        flow.sample(2, ">50K", given={"income": "<=50K"})
    with pytest.raises(ValueError, match=r"given has no column 'jobs'.*did you mean 'job'"):
        flow.sample(2, given={"jobs": "a"})


def test_rows_given_a_sum_have_it_and_its_terms_lie_in_their_ranges() -> None:
    """`total = a + b` holds in all rows, so that the total is not learned: it is given, and the terms follow."""
    random = np.random.default_rng(0)
    a, b = random.integers(0, 60, (2, 600))
    frame = pd.DataFrame({"a": a, "b": b, "total": a + b})
    model = fivefold.fit(frame, "flow", examples=1_000, settings=SMALL)
    for given, low, high in (({"total": 60}, 0, 60), ({"total": 60, "a": [10, 20]}, 10, 20)):
        drawn = model.sample(100, given=given)
        assert set(drawn["total"]) == {60}
        assert (drawn["a"] + drawn["b"] == 60).all()
        assert drawn["a"].between(low, high).all()
        assert drawn["a"].nunique() > 5
    drawn = model.sample(100, given={"total": [50, 55]})
    assert drawn["total"].between(50, 55).all()
    assert (drawn["a"] + drawn["b"] == drawn["total"]).all()


@pytest.mark.parametrize("pipeline", [False, True], ids=["fitted", "of the pipeline"])
def test_what_is_not_learned_comes_back_as_it_was_given(flow: fivefold.Model, pipeline: bool) -> None:
    """Index, identifiers, labels and columns that training did not have; of several draws once for each."""
    model = fivefold.Model(flow.network, {k: v for k, v in flow.facts.items() if not (pipeline and k == "rows")})
    given = people().head(4).set_index(pd.Index(list("wxyz"), name="key"))
    given = given.assign(remark=[1, None, 3, 4], id=["a", "b", None, "d"], income=["?", None, *given["income"][2:]])
    beside = ["income", "id", "remark"]
    hidden = given.assign(hours=np.array([np.nan] * 4, np.float32))[["remark", *people().columns]]
    filled, several = model.impute(hidden), model.impute(hidden, draws=3)
    assert list(filled.columns) == [*people().columns, "remark"]
    assert list(several.columns) == ["draw", *people().columns, "remark"]
    pd.testing.assert_frame_equal(filled[beside], given[beside])
    pd.testing.assert_frame_equal(several[beside], pd.concat([given[beside]] * 3))
    assert filled["hours"].notna().all()
    bare = model.impute(hidden.drop(columns=beside))
    assert list(bare.columns) == [name for name in people().columns if name not in beside]  # and nothing is made up


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int8", [1, 0]), ("bool", [True, False]), ("string", ["b", "a"]), ("string", ["True", "False"])],
)
def test_labels_of_the_pipeline_have_the_type_of_their_source(dtype: str, expected: list[object]) -> None:
    classes = [str(value).lower() if dtype == "bool" else str(value) for value in expected[::-1]]
    number = {"name": "v", "type": "integer", "dtype": "int64", "categories": []}
    source = [
        {"name": "y", "role": "label", "dtype": dtype},
        {"name": "v", "role": "number", "dtype": "int64", "pattern": "", "columns": [0]},
    ]
    rows = Rows({"domain": {"kind": "table", "columns": [number]}, "class_names": classes, "table": source})
    drawn = rows.write(torch.ones(2, 1), torch.tensor([1, 0]))
    dtypes = {"string": object}.get(dtype, dtype)
    pd.testing.assert_frame_equal(drawn, pd.DataFrame({"y": pd.Series(expected, dtype=dtypes), "v": [1, 1]}))


def test_values_below_a_bound_come_back_as_the_bound_as_often() -> None:
    """A laboratory's `<0.5` among texts of numbers: neither gone nor a number, and taken back as what it was."""
    random = np.random.default_rng(0)
    true = random.exponential(1, 600)
    frame = pd.DataFrame(
        {"lead": [f"{v:.1f}" if v >= 0.5 else "<0.5" for v in true], "depth": random.normal(9, 2, 600)}
    )
    model = fivefold.fit(frame, "flow", examples=6_000, settings={"model.width": 16, "training.lr": 3e-3})
    drawn = model.sample(600)["lead"]
    assert drawn.str.fullmatch(r"<0\.5|\d+\.\d").all()
    assert abs((drawn == "<0.5").mean() - (frame["lead"] == "<0.5").mean()) < 0.1  # three standard errors, and learning
    assert np.isfinite(model.anomaly_score(frame.head(20))).all()


@pytest.mark.parametrize("names", [["gold", "silver"], [1.0, 2.0]], ids=["texts", "numbers"])
def test_rows_without_a_label_are_drawn_as_often_and_as_they_are(names: list[object]) -> None:
    """They lie six deviations off the others, which no row with a label may take on."""
    random = np.random.default_rng(0)
    tier = random.choice(3, 900, p=[0.3, 0.4, 0.3])
    frame = pd.DataFrame(
        {"x": random.normal(size=900) + 6 * (tier == 2), "tier": pd.Series([*names, None])[tier].array}
    )
    small = {"model.width": 16, "model.steps": 2, "training.lr": 5e-3}
    model = fivefold.fit(frame, "flow", label="tier", examples=16_000, settings=small)
    assert model.classes == [f"{name:g}" if isinstance(name, float) else name for name in names]
    drawn = model.sample(1000)
    without = drawn["tier"].isna()
    assert set(drawn["tier"].dropna()) == set(names)
    assert without.mean() == pytest.approx((tier == 2).mean(), abs=0.06)  # four standard errors
    assert (drawn["x"][without] > 3).mean() > 0.97
    assert (drawn["x"][~without] > 3).mean() < 0.03
    assert model.sample(50, label=names[0])["x"].mean() == pytest.approx(0, abs=0.8)


def test_labels_are_kept_and_asked_for(flow: fivefold.Model) -> None:
    """Hours are above 40 exactly where the label says so."""
    assert flow.classes == ["<=50K", ">50K"]
    high, mixed = flow.sample(200, label=">50K"), flow.sample(2, label=["<=50K", ">50K"])
    assert set(high["income"]) == {">50K"}
    assert mixed["income"].tolist() == ["<=50K", ">50K"]
    assert (high["hours"] > 38).mean() > 0.9 > 0.5 > (flow.sample(200, label="<=50K")["hours"] > 42).mean()
    drawn = flow.sample(2000)
    assert (drawn["income"] == ">50K").mean() == pytest.approx((people()["income"] == ">50K").mean(), abs=0.05)
    assert not set(drawn["id"]) & set(people()["id"])
    assert drawn["id"].is_unique
    assert drawn["born"].between("1949-12-25", "2005-01-10").all()
    pd.testing.assert_frame_equal(high, flow.sample(200, label=">50K"))
    assert not high.equals(flow.sample(200, label=">50K", seed=1))


def test_saved_and_loaded_it_is_the_same_model_and_the_pipelines_own_folder(
    flow: fivefold.Model, tmp_path: Path
) -> None:
    flow.save(tmp_path / "model")
    again = fivefold.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(9), flow.sample(9))
    network, facts = model_folder.load(tmp_path / "model")
    assert facts["family"] == "flow"
    assert all(map(torch.equal, network.state_dict().values(), flow.network.state_dict().values()))
    bare = {key: value for key, value in facts.items() if key != "rows"}  # as the stage `train` writes it
    model_folder.save(network, tmp_path / "bare", bare)
    rows = fivefold.load(tmp_path / "bare").sample(3, label=">50K")
    assert set(rows.columns) == set(people().columns)


def test_a_model_draws_otherwise_for_once_or_for_good(flow: fivefold.Model, tmp_path: Path) -> None:
    """At almost no temperature the rows of a class are one row, but for identifiers."""
    before = flow.sample(8, label=">50K")
    once = flow.sample(8, label=">50K", temperature=1e-9)
    assert len(once.drop(columns="id").drop_duplicates()) == 1 < len(before.drop(columns="id").drop_duplicates())
    cold = flow.with_sampling(temperature=1e-9)
    cold.save(tmp_path / "cold")
    for model in (cold, fivefold.load(tmp_path / "cold")):
        assert model.sampling == flow.sampling | {"temperature": 1e-9}
        pd.testing.assert_frame_equal(model.sample(8, label=">50K"), once)
    pd.testing.assert_frame_equal(flow.sample(8, label=">50K"), before)


def test_it_is_the_model_that_the_pipeline_trains(flow: fivefold.Model, tmp_path: Path) -> None:
    """Bit for bit the loop's weights on the same rows, prepared from their file as `fivefold prepare` does it."""
    people().to_parquet(tmp_path / "people.parquet")
    card = inspect("people.parquet", "people", tmp_path, label="income").card
    card = dataclasses.replace(card, duplicates="keep", splits=SplitPlan(train=1.0, val=0.0, test=0.0))
    prepare(card, tmp_path, tmp_path / "prepared", lambda function, items, size: map(function, items))
    data = Dataset.open(tmp_path / "prepared")
    few = {"warmup_examples": 2_000}  # a tenth of what the rules give so few rows
    settings = TrainingConfig(total_examples=12_000, batch_size=64, lr=5e-3, evaluations=1, **few)
    config = dataclasses.asdict(FAMILIES["flow"].Config(steps=2, width=16, dropout=0.2))
    torch.manual_seed(0)
    model = build({"family": "flow", "config": config, "domain": data.domain, "classes": 2})
    source = TrainingData(data, settings, 0, "cpu")
    trained = loop.train(model, source, settings, seed=0, report=lambda _: None)
    assert data.digest == flow.facts["data_digest"]
    assert all(map(torch.equal, trained.state_dict().values(), flow.network.state_dict().values()))


def test_densities_scores_and_gaps_are_those_of_a_gaussian() -> None:
    r"""Rows of numbers from a Gaussian of correlation .9: entropy, conditional and order of the scores are known."""
    random = np.random.default_rng(0)
    covariance = np.array([[1, 0.9], [0.9, 1]])
    x = random.multivariate_normal([0, 0], covariance, 3000)
    model = fivefold.fit(x, family="flow", examples=30_000, settings=SMALL | {"training.batch_size": 128})
    fresh = random.multivariate_normal([0, 0], covariance, 1000)
    entropy = 0.5 * math.log((2 * math.pi * math.e) ** 2 * np.linalg.det(covariance))
    assert model.log_density(fresh).mean() == pytest.approx(-entropy, abs=0.12)
    typical, strange = np.array([[1.0, 0.9]]), np.array([[1.5, -1.5]])
    assert model.anomaly_score(strange) > model.anomaly_score(typical)
    drawn = model.impute(np.array([[1.0, np.nan]]), draws=300)
    assert drawn.shape == (300, 1, 2)
    assert (drawn[..., 0] == 1.0).all()
    assert drawn[..., 1].mean() == pytest.approx(0.9, abs=0.15)
    assert drawn[..., 1].std() == pytest.approx(math.sqrt(1 - 0.81), abs=0.15)
    sample = model.sample(2000)
    assert sample.dtype == x.dtype
    assert np.corrcoef(sample.T)[0, 1] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("names", ["numbers", "two levels", "blanks"])
def test_columns_come_back_by_whatever_they_are_called(tmp_path: Path, names: str) -> None:
    """By numbers, on two levels, with blanks: months, hashes near the end of their type, squares beyond floats."""
    random = np.random.default_rng(0)
    cells = [
        pd.period_range("2015-01", periods=120, freq="M"),
        random.integers(2**63, 2**64, 120, dtype=np.uint64),
        random.normal(5, 1, 120) * 1e300,
        np.array(["ash", "elm"])[random.integers(2, size=120)],
    ]
    frame = pd.DataFrame(dict(enumerate(cells)))
    if names == "blanks":
        frame.columns = [" a", "b\nc", "a", "kind "]
    if names == "two levels":
        frame.columns = pd.MultiIndex.from_product([[2020, 2021], ["a", "b"]], names=["year", None])
    label = frame.columns[3]
    fivefold.fit(frame, "flow", label=label, examples=200, settings=SMALL).save(tmp_path / "m")
    model = fivefold.load(tmp_path / "m")
    drawn = model.sample(50, label="elm")
    assert drawn.columns.tolist() == frame.columns.tolist()
    assert drawn.columns.names == frame.columns.names
    assert drawn.dtypes.tolist() == frame.dtypes.tolist()
    assert set(drawn[label]) == {"elm"}
    assert drawn.iloc[:, 2].between(1e300, 9e300).all()
    assert model.impute(frame.head(3)).to_dict("list") == frame.head(3).to_dict("list")
    assert set(model.sample(20, given={label: "ash"})[label]) == {"ash"}


def test_tables_of_other_libraries_are_read_as_arrows(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    table = duckdb.sql(
        "SELECT i * i % 97 / 4 AS size, CASE i % 2 WHEN 0 THEN 'ash' ELSE 'elm' END AS kind FROM range(99) t(i)"
    )
    model = fivefold.fit(table, "flow", examples=200, settings=SMALL)
    assert model.sample(5).schema.names == ["size", "kind"]
    assert len(model.log_density(table)) == 99


def test_arrow_tables_and_images_come_back_as_they_were(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(people(200), preserve_index=False)
    rows = fivefold.fit(table, family="vae", label="income", examples=400, settings=VAE)
    assert rows.sample(3).schema.remove_metadata() == table.schema.remove_metadata()
    assert rows.decode(rows.encode(table)).num_rows == rows.reconstruct(table).num_rows == 200
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (64, 8, 8)).astype(np.uint8)
    images = fivefold.fit(x, family="diffusion", label=random.choice(["o", "x"], 64), examples=128)
    images.save(tmp_path / "images")
    images = fivefold.load(tmp_path / "images")
    assert images.classes == ["o", "x"]
    assert images.facts["training"]["batch_size"] == 16  # a quarter of so few: defaults suit the data here, too
    for found in (images.sample(2, label="x"), images.denoise(x[:2] + 20.0, 20.0), images.reconstruct(x[:2])):
        assert (found.shape, found.dtype) == ((2, 8, 8), np.uint8)
    holes = np.where(np.arange(8) < 4, x[:2], np.nan)
    assert (images.impute(holes)[..., :4] == x[:2, :, :4]).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: fivefold.fit(people(), "flaw"), "family must be one of .*'flaw'"),
        (lambda: fivefold.fit(people(), label="incom"), "label names no column: 'incom'; the columns are age"),
        (lambda: fivefold.fit(people(), settings={"model.wdth": 3}), "model.wdth is not a setting; did you mean"),
        (lambda: fivefold.fit(people(), settings={"model.temperature": 3}), "set sampling.temperature instead"),
        (lambda: fivefold.fit(people(), settings={"sampling.temperature": -1.0}), "temperature must be positive"),
        (lambda: fivefold.fit(people(), columns={"agee": "integer"}), "columns names no column: 'agee'; did you mean"),
        (lambda: fivefold.fit(np.zeros(5)), r"data must be a DataFrame.*got ndarray of float64 \[5\]"),
        (lambda: fivefold.fit(np.zeros((5, 2)), label=[1]), "one entry per row: expected 5, got 1"),
        (lambda: fivefold.fit(np.full((9, 4, 4), 0.5)), "expected whole numbers"),
        (lambda: fivefold.fit(pd.DataFrame({"n": [1, 2], "a": [1, "x"]})), r"column 'a' mixes cells of .*\(int, str\)"),
        (lambda: fivefold.fit(pd.DataFrame({"z": [1j, 2j]})), r"column 'z' is of a type that is not learned .*complex"),
        (lambda: fivefold.fit(pd.DataFrame([[1, 2]], columns=["n", "n"])), "several columns are called 'n'"),
        (lambda: fivefold.fit(people().head(0)), "data has no rows"),
        (lambda: fivefold.load("nowhere"), "There is no finished model in nowhere"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_sentence(wrong, sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda m: m.sample(0), "n must be a whole number of at least 1, got 0"),
        (lambda m: m.sample(3, label="50"), "expected one of '<=50K', '>50K'.*got '50'"),
        (lambda m: m.sample(3, label=["<=50K"]), "one for each row: expected 3, got 1"),
        (lambda m: m.sample(2, label=["<=50K", None]), "one for each row: row 1 has None. Leave label out"),
        (lambda m: m.log_density(people().drop(columns="age")), "missing: age"),
        (lambda m: m.impute(people(), draws=0), "draws must be a whole number of at least 1"),
        (lambda m: m.denoise(people(), 1.0), "the family flow cannot denoise; it can: sample"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(flow: fivefold.Model, wrong, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrong(flow)


def test_neither_ray_nor_mlflow_nor_dvc_is_loaded(tmp_path: Path) -> None:
    """Trained, saved, loaded and sampled in a process of its own, in a folder without params.yaml."""
    code = """
        import sys
        import numpy as np
        import fivefold
        x = np.random.default_rng(0).normal(size=(64, 2))
        fivefold.fit(x, "autoencoder", examples=64, settings={"model.latent": 2, "model.width": 8}).save("m")
        print(fivefold.load("m").sample(2).shape, sorted({"ray", "mlflow", "dvc"} & set(sys.modules)))
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "(2, 2) []"
