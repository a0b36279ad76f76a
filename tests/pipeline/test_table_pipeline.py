"""A table from its CSV file to the report and the registry: what is measured, what is served, what is shown."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_registry import downstream
from test_report import FAINT, WIDER_THAN_THE_PAGE, browser
from test_tracking import free_port, migrated, started

from data.dataset import Dataset
from models import build
from pipelines import tracking
from pipelines.cli import sample
from pipelines.cli.data import add
from pipelines.config import load
from pipelines.evaluation.config import ReferenceConfig
from pipelines.stages import register
from pipelines.stages.evaluate import evaluate
from pipelines.stages.features import features
from pipelines.stages.prepare import prepare
from pipelines.stages.report import report
from pipelines.storage import model_folder
from pipelines.training import config, loop
from pipelines.training.worker import TrainingData

pd = pytest.importorskip("pandas")
__all__ = ["browser", "free_port", "migrated"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

ROOT = Path(__file__).parents[2]
CONFIGS: dict[str, dict[str, Any]] = {"vae": {"latent": 4, "width": 16}, "flow": {"steps": 2, "width": 16}}
NAMES = ["age", "spent", "city", "member", "grade"]


def shop(n: int) -> Any:
    """Customers whose columns hang together, with gaps, and whether they bought."""
    random = np.random.default_rng(0)
    city = random.integers(3, size=n)
    age = (30 + 10 * city + random.normal(0, 5, n)).round().astype(int)
    frame = pd.DataFrame(
        {
            "age": age,
            "spent": (np.exp(random.normal(0, 0.5, n)) * age).round(2),
            "city": np.array(["Oslo", "New York", "Rome"])[city],
            "member": random.random(n) < 0.2 + 0.3 * city,
            "grade": random.integers(1, 4, n),
            "bought": np.where(age + random.normal(0, 4, n) > 40, "yes", "no"),
        }
    )
    frame.loc[random.random(n) < 0.05, "spent"] = None
    frame.loc[random.random(n) < 0.05, "city"] = None
    return frame


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Path]:
    """A project in which two families went from CSV to the registry."""
    root = tmp_path_factory.mktemp("tables")
    shutil.copy(migrated, root / "mlflow.db")
    shutil.copy(ROOT / "params.yaml", root)
    shop(900).to_csv(root / "shop.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        add("shop.csv", "shop", label="bought", root=root, quiet=True)
        prepare("shop", root=root)
        features(
            "shop", settings=ReferenceConfig(examples=6_000, samples=500, bootstrap=20, components=(4,)), root=root
        )
        for family in CONFIGS:
            finish(root, family)
            evaluate("shop", family, samples=500, bootstrap=20, bound_samples=4, root=root)
        register.register("shop", list(CONFIGS), root=root, say=lambda _: None)
        report("shop", list(CONFIGS), root=root)
        yield root


def finish(root: Path, family: str) -> None:
    """Train a little, without Ray, and leave a finished model with its run."""
    data = Dataset.open(root / "data/prepared/shop")
    spec = {"family": family, "config": CONFIGS[family], "domain": data.domain, "classes": len(data.class_names)}
    torch.manual_seed(0)
    settings = config.TrainingConfig(total_examples=20_000, batch_size=64, lr=2e-3, evaluations=1, reports=2)
    model = loop.train(build(spec), TrainingData(data, settings, 0, "cpu"), settings, seed=0, report=lambda _: None)
    with tracking.TrainingRun.open(
        dataset="shop", family=family, run_key=family, params={}, manifest=data.manifest
    ) as run:
        run.log([{"examples": 20_000, "metrics": {"loss": 1.0}}])
    facts = {**spec, "dataset": "shop", "class_names": data.class_names, "data_digest": data.digest}
    model_folder.save(model, root / "runs/shop/models" / family, facts | {"run_id": run.run_id})


# Measured


def test_tables_are_measured_by_what_suits_them(project: Path) -> None:
    found = json.loads((project / "runs/shop/results/flow.json").read_text())["metrics"]
    assert set(found) >= {
        "frechet", "coverage", "c2st", "column_distance", "association_distance", "utility_auroc", "utility_accuracy",
        "near_copies", "nats_per_row", "code_bytes", "code_rmse", "reconstruction_rmse", "anomaly_auroc_mixed",
        "imputation_crps", "imputation_rmse", "imputation_accuracy",
    }  # fmt: skip
    assert "nats_per_row_bound" in json.loads((project / "runs/shop/results/vae.json").read_text())["metrics"]
    for name in ("column_distance", "association_distance"):
        assert found[name]["floor"] < 0.2
        assert found[name]["value"] < 0.4
    assert found["utility_auroc"]["floor"] > 0.85
    assert found["utility_auroc"]["value"] > 0.75
    assert found["nats_per_row"]["value"] < found["nats_per_row"]["baseline"]  # independent columns
    assert found["anomaly_auroc_mixed"]["value"] > 0.55
    facts = json.loads((project / "runs/shop/yardstick/yardstick.json").read_text())
    ways = {way: metrics["imputation_crps"] for way, metrics in facts["imputation"].items()}
    assert set(ways) == {"mean", "knn", "iterative"}
    assert found["imputation_crps"]["baseline"] == pytest.approx(min(ways.values()), abs=1e-6)
    assert found["imputation_crps"]["value"] < ways["mean"]


def test_a_new_table_gets_a_recipe_that_params_accept(project: Path) -> None:
    settings = load(project / "params.yaml", dataset="shop")
    assert settings.family["autoencoder"].model.latent > load(ROOT / "params.yaml").family["autoencoder"].model.latent


# Served


@pytest.fixture(scope="module")
def served(project: Path) -> Any:
    return tracking.load_served("models:/shop@imputation")


def gappy() -> Any:
    frame = shop(12)[NAMES].astype(object).where(lambda f: f.notna(), None)
    for row in range(12):
        frame.iloc[row, row % 5] = None
    return frame


def test_the_best_at_filling_in_holds_the_alias(project: Path) -> None:
    record = json.loads((project / "runs/shop/registry.json").read_text())["jobs"]
    assert set(record) == {"generation", "density", "imputation", "anomaly", "representation"}
    assert record["imputation"]["metric"] == "imputation_crps"


def test_rows_come_back_with_their_types(served: Any) -> None:
    nothing = pd.DataFrame(columns=served.metadata.get_output_schema().input_names())
    drawn = served.predict(nothing, params={"n": 30, "label": 1})
    assert list(drawn.columns) == NAMES
    assert [str(dtype) for dtype in drawn.dtypes] == ["int64", "float64", "object", "bool", "int64"]
    assert set(drawn["city"]) <= {"Oslo", "New York", "Rome"}
    assert served.predict(nothing, params={"n": 30, "label": 1}).equals(drawn)
    kinds = [str(column.type) for column in served.metadata.get_output_schema().inputs]
    assert kinds == ["DataType.long", "DataType.double", "DataType.string", "DataType.boolean", "DataType.long"]


def test_given_cells_come_back_bit_for_bit(served: Any) -> None:
    given = gappy()
    filled = served.predict(given, params={"task": "impute", "draws": 4})
    assert filled["draw"].tolist() == [d for d in range(4) for _ in range(12)]
    assert not filled.isna().any().any()
    for draw in range(4):
        part = filled[filled["draw"] == draw].reset_index(drop=True)
        for name in NAMES:
            known = given[name].notna()
            assert part.loc[known, name].tolist() == given.loc[known, name].tolist()
    hidden = [filled.loc[filled.index % 12 == row, NAMES[row % 5]].nunique() for row in range(12)]
    assert max(hidden) > 1
    assert list(served.predict(given, params={"task": "impute"}).columns) == NAMES


@pytest.mark.parametrize("task", ["reconstruct", "anomaly_score", "log_prob", "elbo", "encode", "denoise", "translate"])
def test_every_task_takes_rows_with_gaps_and_none_at_all(project: Path, task: str) -> None:
    record = json.loads((project / "runs/shop/registry.json").read_text())
    for family in CONFIGS:
        model = tracking.load_served(f"models:/shop/{record['versions'][family]['version']}")
        given, params = gappy(), {"task": task, "sigma": 0.5}
        try:
            found = model.predict(given, params=params)
        except ValueError as error:
            assert f"this model ({family}) cannot do task {task!r}" in str(error)  # noqa: PT017
            continue
        assert len(found) == 12
        assert len(model.predict(given.iloc[:0], params=params)) == 0
        assert list(found.columns) == NAMES if hasattr(found, "columns") else np.isfinite(found).all()
        if task == "encode":
            assert list(model.predict(found, params={"task": "decode"}).columns) == NAMES


def test_sampling_into_csv_and_parquet(project: Path) -> None:
    for name, read in (("rows.csv", pd.read_csv), ("rows.parquet", pd.read_parquet)):
        frame = read(sample.sample("shop", project / name, n=20))
        assert list(frame.columns) == NAMES
        assert len(frame) == 20
    with pytest.raises(ValueError, match=r"rows\.png does not fit: shop draws a table: give a name that ends in \.csv"):
        sample.sample("shop", project / "rows.png")


TEAM = """
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
drawn = model.predict(pd.DataFrame(), params={"n": 5})
filled = model.predict(drawn.assign(city=None), params={"task": "impute"})
assert filled["age"].tolist() == drawn["age"].tolist() and filled["city"].notna().all()
print("served", drawn.shape)
"""


def test_a_downstream_team_needs_no_more_for_tables(project: Path) -> None:
    printed = downstream(
        project / "team", sys.executable, "models:/shop@generation", "absent", store=project, code=TEAM
    )
    assert printed == "served (5, 5)\n"


@pytest.mark.slow
def test_tables_over_http(project: Path, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/shop@imputation"]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(free_port)]

    def ready() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/ping", timeout=1).status == 200
        except OSError:
            return False

    def ask(frame: Any, **params: Any) -> tuple[int, Any]:
        body = {"dataframe_split": json.loads(frame.to_json(orient="split")), "params": params}
        content = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/invocations", json.dumps(body).encode(), content)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)["predictions"]
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with started([*command, *options], project, ready, tracking_uri=f"sqlite:///{project}/mlflow.db"):
        status, drawn = ask(gappy().iloc[:0], n=3)
        assert (status, len(drawn), set(drawn[0])) == (200, 3, set(NAMES))
        status, filled = ask(gappy(), task="impute", draws=2)
        assert (status, len(filled), set(filled[0])) == (200, 24, {"draw", *NAMES})
        status, message = ask(gappy().assign(city="Paris"), task="impute")
        assert status == 400
        assert "row 0, column 'city': expected one of 'New York', 'Oslo', 'Rome'" in message


# Shown


def test_the_report_shows_rows_histograms_and_associations(project: Path) -> None:
    html = (project / "runs/shop/report.html").read_text(encoding="utf-8")
    assert "data:image/png" not in html
    for what in (
        "New York",
        "Nats per row",
        "Utility, AUROC",
        "Associations in samples",
        "shop@imputation",
        "rows.csv",
    ):
        assert what in html, what
    assert html.count("<mark>") > 20


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_a_table_report(browser: Any, project: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((project / "runs/shop/report.html").as_uri(), wait_until="load")
    scroll, faint = page.evaluate("() => document.documentElement.scrollWidth"), page.evaluate(FAINT)
    bars = page.evaluate("() => document.querySelectorAll('rect.made').length")
    wide = page.evaluate(WIDER_THAN_THE_PAGE)
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(project / "runs/shop/report.html").as_uri()]
    assert bars > 20
    assert scroll <= width, wide
    assert faint == []
