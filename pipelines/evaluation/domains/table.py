"""Evaluating tables: network inputs, feature networks, augmentation, mixed rows, figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from data.files import json_text
from models.domains.table import Table
from pipelines.evaluation.domain import (
    DIM,
    EvaluationDomain,
    FeatureEncoder,
    FigureWriter,
    LogDensity,
    rows_of_other_classes,
)
from pipelines.evaluation.metrics.base import MOST_PAIRWISE
from pipelines.evaluation.metrics.likelihood import independent_columns
from pipelines.evaluation.metrics.tabular import Associations, column_distances
from pipelines.serving.interpolation import spherical

if TYPE_CHECKING:
    from data.dataset import Examples
    from pipelines.evaluation.explorer import Exploration


def swap_half_the_cells(x: Float[Tensor, "n columns"], seed: int) -> Float[Tensor, "n columns"]:
    """Rows of which half of the cells are another row's.

    Arguments:
        x: Test rows.
        seed: Seed of partners and cells.
    """
    random = np.random.default_rng([seed, len(x)])
    other = x[rows_of_other_classes(np.full(len(x), -1), random)]
    half = random.random(x.shape).argsort(1) < x.shape[1] // 2
    return torch.where(torch.from_numpy(half), other, x)


FURTHEST = 5.0
"""Standard deviations from the mean beyond which a number in a table looks the same to a network."""


class TableFeatureEncoder(FeatureEncoder):
    r"""Rows of a table: numbers standardized, categories one-hot times :math:`1/\sqrt 2`.

    Two different categories are then one unit apart, as two numbers one standard deviation apart
    are. A missing number becomes the mean, a missing category no category; columns with missing
    cells get a column that says so. Networks see no number further out than `FURTHEST` deviations: a
    single extreme row would otherwise decide every distance.

    Arguments:
        columns: The columns of the dataset's domain.
    """

    error_unit = "standard deviations"

    def __init__(self, *, columns: list[dict[str, Any]]) -> None:
        self.columns = columns
        self.shape = (sum(self._width(column) for column in columns),)

    @staticmethod
    def _width(column: dict[str, Any]) -> int:
        values = len(column["categories"]) if column["type"] == "categorical" else 1
        return values + bool(column.get("missing"))

    def __call__(self, x: Num[Tensor, "n columns"]) -> Float[Tensor, "n flat"]:
        return self._scaled(x).clamp(-FURTHEST, FURTHEST)

    def flat(self, x: Num[Tensor, "n columns"]) -> Float[np.ndarray, "n flat"]:
        """Rows of numbers, extremes and all."""
        return self._scaled(x).double().numpy()

    def _scaled(self, x: Num[Tensor, "n columns"]) -> Float[Tensor, "n flat"]:
        parts = []
        for column, values in zip(self.columns, x.cpu().double().unbind(1), strict=True):
            missing = values.isnan()
            if column["type"] == "categorical":
                known = torch.nn.functional.one_hot(values.nan_to_num().long(), len(column["categories"]))
                parts.append(known * ~missing[:, None] * 0.5**0.5)
            else:
                scaled = (values - column["mean"]) / (column["std"] or 1.0)
                parts.append(scaled.nan_to_num()[:, None])
            if column.get("missing"):
                parts.append(missing[:, None] * 0.5**0.5)
        return torch.cat([part.float() for part in parts], 1)

    def inverse(self, y: Float[Tensor, "n flat"]) -> Num[Tensor, "n columns"]:
        values, at = [], 0
        for column in self.columns:
            part = y[:, at : at + self._width(column)].double()
            at += self._width(column)
            if column["type"] == "categorical":
                value = part[:, : len(column["categories"])].argmax(1).double()
            else:
                value = (part[:, 0] * (column["std"] or 1.0) + column["mean"]).clamp(column["min"], column["max"])
                value = value.round() if column["type"] == "integer" else value
            if column.get("missing"):
                value = value.masked_fill(part[:, -1] > 0.5**1.5, torch.nan)
            values.append(value)
        return torch.stack(values, 1)

    def augment(self, y: Float[Tensor, "n flat"], generator: torch.Generator) -> Float[Tensor, "n flat"]:
        return noisy(y, generator)


class RowClassifier(nn.Module):
    """The judge of conditional samples, for rows of tables, `layers` deep."""

    def __init__(self, *, shape: tuple[int, ...], classes: int, width: int = 96, layers: int = 3) -> None:
        super().__init__()
        sizes = [shape[0]] + [width] * layers
        body: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            body += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.body = nn.Sequential(*body)
        self.neck = nn.Linear(width, DIM)
        self.head = nn.Linear(DIM, classes)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.neck(self.body(x))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        return self.head(F.silu(self.features(x)))


class EncodedRows(nn.Module):
    """The feature space "classifier" of tables: the encoded rows themselves, at most `DIM` random directions of them.

    A classifier of a few classes keeps of a row what tells these apart and forgets the rest. Here a
    feature is a sum of numbers in standard deviations and of categories, all directions alike, so it is
    not standardized again: that would give the rarest category the loudest voice.
    """

    standardized = False

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.directions = nn.Linear(shape[0], min(shape[0], DIM), bias=False)
        nn.init.orthogonal_(self.directions.weight)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.directions(x)


class RandomRows(nn.Module):
    """One random hidden layer, projected, for rows of tables."""

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 256), nn.ReLU(), nn.Linear(256, DIM, bias=False))

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n dim"]:
        return self.body(x)


def noisy(x: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Rows with a little Gaussian noise."""
    return x + 0.05 * torch.randn(x.shape, generator=generator)


FILE = "exhibits.json"
BINS = 16
"""Bars of a number's histogram."""
MOST_BARS = 12
"""Categories with a bar of their own; the rest share one."""
MOST_COLUMNS = 40
"""Columns that are shown."""
MOST_TEXT = 24
"""Characters of a cell in the explorer."""

Row = dict[str, Any]
"""A shown row: what it is (`name`), its cells as text, and which of them are marked."""


class TableFigureWriter(FigureWriter):
    """Example figures of tables: rows, histograms and associations.

    Arguments:
        domain: The dataset's domain.
        class_names: Names of the classes.
        real: Test rows, with which samples are shown.
        label: Their labels.
    """

    def __init__(self, domain: dict[str, Any], class_names: Sequence[str], real: Tensor, label: Tensor) -> None:
        self.columns: list[dict[str, Any]] = list(domain["columns"])
        self.class_names, self.real, self.label = list(class_names), real, label
        self.tables: dict[str, list[Row]] = {}
        self.found: dict[str, Any] = {}
        self.explorer: dict[str, Any] = {}

    def samples(self, drawn: Tensor, label: Tensor | None, *, rows: int = 8) -> None:
        """Samples beside real rows, each column's histogram over both, and the associations of the columns."""
        known = self.label[:rows] if label is not None else None
        self.tables["samples"] = [
            *self._rows("sample", drawn[:rows], label),
            *self._rows("real", self.real[:rows], known),
        ]
        real, made = self.real.double().numpy(), drawn.double().numpy()
        distance = column_distances(real, made, self.columns)[0]
        shown = range(min(len(self.columns), MOST_COLUMNS))
        self.found["histograms"] = [
            {"column": c["name"], "distance": round(float(distance[i]), 4)} | _histogram(real[:, i], made[:, i], c)
            for i, c in zip(shown, self.columns, strict=False)
        ]
        scale = Associations(real[:MOST_PAIRWISE], self.columns)
        matrices = {"real": scale.matrix(scale.real), "samples": scale.matrix(made[:MOST_PAIRWISE])}
        names = [column["name"] for column in self.columns[:MOST_COLUMNS]]
        kept = {k: m[:MOST_COLUMNS, :MOST_COLUMNS].round(3).tolist() for k, m in matrices.items()}
        self.found["associations"] = {"columns": names, **kept}

    def nearest(self, drawn: Tensor, neighbours: Tensor) -> None:
        """Samples, each over its nearest training row; what differs is marked."""
        self.tables["nearest"] = self._pairs(("sample", "training row"), drawn[:5], neighbours[:5])

    def reconstructions(self, x: Tensor, rebuilt: Tensor) -> None:
        """Originals, each over its reconstruction; what differs is marked."""
        self.tables["reconstructions"] = self._pairs(("test row", "rebuilt"), x[:5], rebuilt[:5])

    def interpolations(self, codes: Tensor, decode: Callable[[Tensor], Tensor], *, steps: int = 7) -> None:
        """From one row to another through their codes."""
        rows = decode(spherical(codes[:1], codes[1:2], steps).flatten(0, 1))
        self.tables["interpolations"] = self._rows("step", rows, None)

    def exploration(self, found: Exploration) -> None:
        """The cells of every row decoded."""
        self.explorer = {
            "examples": found.names,
            "places": found.places,
            "directions": [
                {"share": round(share, 4), "rows": self._decoded(rows)}
                for share, rows in zip(found.shares, found.directions, strict=True)
            ],
            "pairs": found.pairs,
            "ways": self._decoded(found.ways),
            "header": [column["name"] for column in self.columns[:MOST_COLUMNS]],
        }

    def _decoded(self, rows: Tensor) -> list[list[list[str]]]:
        return [[[cell[:MOST_TEXT] for cell in self._cells(values)] for values in steps] for steps in rows]

    def anomalies(self, x: Tensor, score: np.ndarray) -> None:
        """The most anomalous rows, in that order."""
        order = np.argsort(-score, kind="stable")[:10]
        rows = self._rows("", x[torch.from_numpy(order)], None)
        self.tables["anomalies"] = [row | {"name": f"{score[i]:.3g}"} for row, i in zip(rows, order, strict=True)]

    def imputations(self, x: Tensor, hidden: Tensor, draws: Tensor, *, rows: int = 4) -> None:
        """Rows with hidden cells marked: the truth, then a few draws."""
        found: list[Row] = []
        for i in range(min(rows, len(x))):
            marks = hidden[i].nonzero()[:, 0].tolist()
            found.append({"name": "truth", "cells": self._cells(x[i]), "marks": marks})
            for draw in draws[:3, i]:
                cells = [cell if j in marks else "" for j, cell in enumerate(self._cells(draw))]
                found.append({"name": "draw", "cells": cells, "marks": marks})
        self.tables["imputations"] = found

    def write(self, folder: Path) -> None:
        """Write everything into `folder` as `exhibits.json`."""
        header = [column["name"] for column in self.columns[:MOST_COLUMNS]]
        text = json_text({"header": header, "tables": self.tables, **self.found})
        (folder / FILE).write_text(text, encoding="utf-8")
        if self.explorer:
            (folder / "explorer.json").write_text(json_text(self.explorer), encoding="utf-8")

    # Rows as text

    def _rows(self, name: str, x: Tensor, label: Tensor | None) -> list[Row]:
        rows = []
        for i, values in enumerate(x):
            known = label is not None and int(label[i]) >= 0 and self.class_names
            said = f"{name} · {self.class_names[int(label[i])]}" if known and label is not None else name
            rows.append({"name": said, "cells": self._cells(values), "marks": []})
        return rows

    def _pairs(self, names: tuple[str, str], above: Tensor, below: Tensor) -> list[Row]:
        rows: list[Row] = []
        for first, second in zip(above, below, strict=True):
            one, other = self._cells(first), self._cells(second)
            marks = [j for j, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
            rows.append({"name": names[0], "cells": one, "marks": []})
            rows.append({"name": names[1], "cells": other, "marks": marks})
        return rows

    def _cells(self, values: Tensor) -> list[str]:
        return [cell_text(v, c) for v, c in zip(values.tolist(), self.columns[:MOST_COLUMNS], strict=False)]


def cell_text(value: float, column: dict[str, Any]) -> str:
    """A cell as people read it; nothing where it is missing."""
    if value != value:
        return ""
    if column["type"] == "categorical":
        return str(column["categories"][int(value)])
    return str(round(value)) if column["type"] == "integer" else f"{value:.5g}"


def _histogram(real: np.ndarray, made: np.ndarray, column: dict[str, Any]) -> dict[str, Any]:
    """Shares of both sides in common bins: of a number between the real rows' 1st and 99th percentile."""
    real, made = real[~np.isnan(real)], made[~np.isnan(made)]
    if column["type"] == "categorical":
        codes = np.arange(len(column["categories"]))
        parts = [(side[:, None] == codes).mean(0) if len(side) else np.zeros(len(codes)) for side in (real, made)]
        order = np.argsort(-parts[0], kind="stable")
        kept, rest = order[:MOST_BARS], order[MOST_BARS:]
        labels = [str(column["categories"][c]) for c in kept] + (["others"] if len(rest) else [])
        shares = [[*part[kept], *([part[rest].sum()] if len(rest) else [])] for part in parts]
    else:
        low, high = np.quantile(real, [0.01, 0.99]) if len(real) else (0.0, 1.0)
        low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
        whole = column["type"] == "integer" and high - low < BINS
        edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high, BINS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        labels = [f"{middle:.4g}" for middle in middles]
        shares = [np.histogram(side.clip(edges[0], edges[-1]), edges)[0] / max(len(side), 1) for side in (real, made)]
    real_share, made_share = ([round(float(part), 4) for part in side] for side in shares)
    return {"labels": labels, "real": real_share, "samples": made_share}


HIDDEN_SHARE = 0.3
"""Share of the known cells that is hidden for imputation."""


class TableEvaluation(EvaluationDomain):
    """What evaluation asks of the rows of tables."""

    networks = {"classifier": EncodedRows, "judge": RowClassifier, "random": RandomRows}  # noqa: RUF012
    trained_features = False
    error_unit = "standard deviations"
    imputation_rows = 300
    imputation_draws = 50

    def _encoder(self, options: dict[str, Any]) -> FeatureEncoder:
        return TableFeatureEncoder(**options)

    def corruptions(self, test: Examples, seed: int) -> dict[str, Float[Tensor, "n columns"]]:
        return {"mixed": swap_half_the_cells(test.x, seed)} if test.x.shape[1] > 1 else {}

    def hidden_cells(self, x: Float[Tensor, "n columns"], seed: int) -> Bool[Tensor, "n columns"]:
        random = np.random.default_rng([seed, len(x)])
        return torch.from_numpy(random.random(x.shape) < HIDDEN_SHARE) & ~x.isnan()

    def value_scale(self, values: int) -> tuple[Float[Tensor, " values"], Bool[np.ndarray, " values"]]:
        columns = self.spec["columns"]
        categories = np.array([column["type"] == "categorical" for column in columns])
        scale = [1.0 if c["type"] == "categorical" else c["std"] or 1.0 for c in columns]
        return torch.tensor(scale, dtype=torch.float64), categories

    def categories(self, values: int) -> list[int]:
        return [max(len(c["categories"]), 1) if c["type"] == "categorical" else 0 for c in self.spec["columns"]]

    def baseline_density(self, x: Float[Tensor, "n columns"], label: Int[Tensor, " n"]) -> tuple[str, LogDensity]:
        """The columns' distributions are the domain's own, so nothing is learned from the rows."""
        table = Table(columns=self.spec["columns"])
        what = "independent columns with their training distributions"
        return what, lambda rows: torch.from_numpy(independent_columns(rows, table))

    def figures(self, class_names: Sequence[str], test: Examples) -> FigureWriter:
        return TableFigureWriter(self.spec, class_names, test.x, test.label)
