"""A table from its CSV file to the report and the registry: what is measured, what is served, what is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_projects import MODELS, SmallProject
from test_registry import downstream
from test_report import FAINT, WIDER_THAN_THE_PAGE, browser
from truth import Rows

from pipelines import tracking
from pipelines.cli import sample
from pipelines.config import load

pd = pytest.importorskip("pandas")
__all__ = ["browser"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

ROOT = Path(__file__).parents[2]
CONFIGS = MODELS["shop"]
NAMES = list(Rows.columns)
WHOLE = [*NAMES, "tier"]
"""With the column of the label."""


@pytest.fixture(scope="module")
def project(shop: SmallProject) -> Iterator[Path]:
    """The project in which two families went from CSV to the registry; see `small_projects.py`."""
    with shop.entered() as root:
        yield root


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
    """Fourteen rows, each column missing in two of them."""
    random = np.random.default_rng(3)
    frame = Rows().draw(14, random)[0].astype(object)
    for row in range(14):
        frame.iloc[row, row % 7] = None
    return frame


def test_the_best_at_filling_in_holds_the_alias(project: Path) -> None:
    record = json.loads((project / "runs/shop/registry.json").read_text())["jobs"]
    assert set(record) == {"generation", "density", "imputation", "anomaly", "representation"}
    assert record["imputation"]["metric"] == "imputation_crps"


def test_rows_come_back_with_their_types(served: Any) -> None:
    nothing = pd.DataFrame(columns=served.metadata.get_output_schema().input_names())
    drawn = served.predict(nothing, params={"task": "sample", "n": 300, "label": 1})
    assert list(drawn.columns) == WHOLE
    assert [str(dtype) for dtype in drawn.dtypes] == ["float64"] * 3 + ["Int64", "object", "object", "bool", "object"]
    assert set(drawn["tier"]) == {"plus"}
    assert set(drawn.columns[drawn.isna().any()]) == set(Rows.gaps)  # drawn rows have gaps where the data do
    assert set(drawn["city"].dropna()) <= set(Rows.cities)
    kinds = [str(column.type) for column in served.metadata.get_output_schema().inputs]
    assert kinds == [
        *["DataType.double"] * 3, "DataType.long", "DataType.string", "DataType.string", "DataType.boolean",
        "DataType.string",
    ]  # fmt: skip


def test_given_cells_come_back_bit_for_bit(served: Any) -> None:
    given = gappy()
    filled = served.predict(given, params={"task": "impute", "draws": 4})
    assert filled["draw"].tolist() == [d for d in range(4) for _ in range(14)]
    assert not filled.isna().any().any()
    for draw in range(4):
        part = filled[filled["draw"] == draw].reset_index(drop=True)
        for name in NAMES:
            known = given[name].notna()
            assert part.loc[known, name].tolist() == given.loc[known, name].tolist()
    hidden = [filled.loc[filled.index % 14 == row, NAMES[row % 7]].nunique() for row in range(14)]
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
        assert len(found) == 14
        assert len(model.predict(given.iloc[:0], params=params)) == 0
        assert list(found.columns) == NAMES if hasattr(found, "columns") else np.isfinite(found).all()
        if task == "encode":
            assert list(model.predict(found, params={"task": "decode"}).columns) == NAMES


def test_sampling_into_csv_and_parquet(project: Path) -> None:
    for name, read in (("rows.csv", pd.read_csv), ("rows.parquet", pd.read_parquet)):
        frame = read(sample.sample("shop", project / name, n=20))
        assert list(frame.columns) == WHOLE
        assert len(frame) == 20
    with pytest.raises(ValueError, match=r"rows\.png does not fit: shop draws a table: give a name that ends in \.csv"):
        sample.sample("shop", project / "rows.png")


TEAM = """
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
drawn = model.predict(pd.DataFrame(), params={"n": 5})
filled = model.predict(drawn.assign(city=None), params={"task": "impute"})
assert filled["length"].tolist() == drawn["length"].tolist() and filled["city"].notna().all()
print("served", drawn.shape)
"""


def test_a_downstream_team_needs_no_more_for_tables(project: Path) -> None:
    printed = downstream(
        project / "team", sys.executable, "models:/shop@generation", "absent", store=project, code=TEAM
    )
    assert printed == "served (5, 8)\n"


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
