"""How good drawn rows are: `python judge.py '{"train": …, "test": …, "drawn": …, "label": …}'` prints figures as JSON.

`quality`, `shapes`, `trends` and `valid` are SDMetrics' (against the held-out rows; `valid` against the training's),
`utility` how well gradient-boosted trees that learned from drawn rows predict the label of held-out ones (area under
the ROC curve, one class against the rest; of a number, R²), `impossible` the share of drawn rows with a pair of values
(of columns of at most 60) that no training row has although independence would give it twenty times.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype
from sdmetrics.reports.single_table import DiagnosticReport, QualityReport
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

FEW = 60
"""Values of a column up to which pairs are looked at."""

OFTEN = 20
"""Rows that independence would give a pair that never occurs, from which on it is called impossible."""

RARE = 0.01
"""Share of a class below which the trees are not asked for it: a handful of rows makes boosting diverge."""


def _dates(column: pd.Series) -> bool:
    """Whether texts are dates, as ISO writes them."""
    known = column.dropna()
    return known.dtype == object and len(known) > 0 and known.astype(str).str.match(r"\d{4}-\d\d-\d\d").all()


def kind(column: pd.Series) -> str:
    """SDMetrics' type of a column."""
    if is_datetime64_any_dtype(column) or _dates(column):
        return "datetime"
    return "numerical" if is_numeric_dtype(column) and not is_bool_dtype(column) else "categorical"


def free(column: pd.Series) -> bool:
    """Whether most cells are texts of their own (identifiers, remarks): left out of all figures."""
    return kind(column) == "categorical" and column.nunique() > column.notna().sum() / 2


def alike(frame: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """The frame with the training rows' types; what cannot be read as one is missing."""
    result = {}
    for name, column in train.items():
        found = frame[name]
        if kind(column) == "datetime":
            result[name] = pd.to_datetime(found, errors="coerce", format=None if found.dtype.kind == "M" else "ISO8601")
        elif kind(column) == "numerical":
            result[name] = pd.to_numeric(found, errors="coerce").astype(float)
        else:
            result[name] = found.astype(object).where(found.notna(), None).map(lambda v: v if v is None else str(v))
    return pd.DataFrame(result)


def impossible(train: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """Share of drawn rows that hold a pair of values that cannot be."""
    few = [name for name in train if train[name].nunique() <= FEW]
    codes = {}
    for name in few:
        values = train[name].astype(object).where(train[name].notna(), "(missing)").astype(str)
        found, known = pd.factorize(values)
        other = drawn[name].astype(object).where(drawn[name].notna(), "(missing)").astype(str)
        codes[name] = (found, pd.Index(known).get_indexer(other), len(known))
    bad = np.zeros(len(drawn), bool)
    for one, two in itertools.combinations(few, 2):
        (a, drawn_a, rows), (b, drawn_b, columns) = codes[one], codes[two]
        counts = np.zeros((rows, columns))
        np.add.at(counts, (a, b), 1)
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / len(train)
        never = (counts == 0) & (expected >= OFTEN)
        bad |= (drawn_a >= 0) & (drawn_b >= 0) & never[drawn_a, drawn_b]
    return float(bad.mean())


def utility(learned: pd.DataFrame, test: pd.DataFrame, label: str) -> float:
    """How well trees that learned from these rows predict the held-out ones' label."""
    features = [name for name in test if name != label]
    both = pd.concat([learned, test], keys=[0, 1])
    x = {}
    for name in features:
        column = both[name]
        if kind(column) == "datetime":
            x[name] = column.astype("int64").where(column.notna(), np.nan).astype(float)
        elif kind(column) == "numerical":
            x[name] = column.astype(float)
        else:
            top = column.loc[0].value_counts().index[:200]
            x[name] = pd.Categorical(column.where(column.isin(top)))
    x = pd.DataFrame(x, index=both.index)
    y = both[label]
    given, asked = y.loc[0].notna(), y.loc[1].notna()
    if kind(y) == "numerical" and y.nunique() > 20:
        model = HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=0)
        model.fit(x.loc[0][given], y.loc[0][given])
        return float(r2_score(y.loc[1][asked], model.predict(x.loc[1][asked])))
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    common = y.loc[0].astype(str).map(y.loc[0].astype(str).value_counts(normalize=True)) >= RARE
    model.fit(x.loc[0][given & common], y.loc[0][given & common].astype(str))
    truth, chance = y.loc[1][asked].astype(str), model.predict_proba(x.loc[1][asked])
    classes = list(model.classes_)
    areas = [
        roc_auc_score(truth == name, chance[:, classes.index(name)] if name in classes else np.zeros(len(truth)))
        for name in sorted(truth.unique())
        if RARE <= (truth == name).mean() < 1
    ]
    return float(np.mean(areas))


def figures(train: pd.DataFrame, test: pd.DataFrame, drawn: pd.DataFrame, label: str) -> dict[str, Any]:
    """All figures of drawn rows."""
    learned = [name for name in train if name == label or not free(train[name])]
    train, test, drawn = (alike(frame, train[learned]) for frame in (train, test, drawn))
    metadata = {"columns": {name: {"sdtype": kind(column)} for name, column in train.items()}}
    quality, valid = QualityReport(), DiagnosticReport()
    quality.generate(test, drawn, metadata, verbose=False)
    valid.generate(train, drawn, metadata, verbose=False)
    shapes, trends = quality.get_properties()["Score"]
    return {
        "quality": quality.get_score(),
        "shapes": shapes,
        "trends": trends,
        "valid": valid.get_score(),
        "utility": utility(drawn, test, label) if label else None,
        "impossible": impossible(train, drawn),
    }


def main() -> None:
    """Do what the command line's JSON asks for."""
    asked = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    train, test, drawn = (pd.read_parquet(asked[name]) for name in ("train", "test", "drawn"))
    print(json.dumps(figures(train, test, drawn, asked["label"])))


if __name__ == "__main__":
    main()
