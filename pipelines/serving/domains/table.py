"""Callers' tables: DataFrames checked on the way in, original types on the way out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .base import Conversion, Rows


class Tables(Conversion):
    """Conversion between what callers hold and what the model is given, for tables.

    Arguments:
        domain: The model's domain: `columns`, each with `name`, `type`, `dtype`, `categories`.
    """

    def __init__(self, domain: Mapping[str, Any]) -> None:
        self.columns = list(domain["columns"])
        self.names = [str(column["name"]) for column in self.columns]

    @property
    def expected(self) -> str:
        """How rows must look, for messages."""
        return f"a DataFrame with the columns {', '.join(self.names)}"

    def read(self, model_input: Any, task: str) -> Rows:
        """The caller's rows as tensors; missing cells stay NaN.

        Raises:
            ValueError: If a column is missing or unknown, or a cell is not what its column holds.
        """
        frame = self._frame(model_input, task)
        values = np.stack([self._cells(frame[c["name"]], c) for c in self.columns], axis=1)
        x = torch.from_numpy(values.astype(np.float64))
        return Rows(x, ~torch.isnan(x))

    def _frame(self, model_input: Any, task: str) -> Any:
        import pandas as pd

        if isinstance(model_input, Mapping):
            model_input = pd.DataFrame(dict(model_input))
        if not hasattr(model_input, "columns"):
            array = np.asarray(model_input)
            if array.ndim != 2 or array.shape[1] != len(self.columns):
                raise ValueError(f"task {task!r} takes {self.expected}, got {type(model_input).__name__}.")
            model_input = pd.DataFrame(array, columns=self.names)
        frame = model_input.rename(columns=str)
        if not len(frame) and not len(frame.columns):
            return pd.DataFrame({name: [] for name in self.names})
        absent = [name for name in self.names if name not in frame.columns]
        extra = [name for name in frame.columns if name not in self.names]
        twice = frame.columns[frame.columns.duplicated()]
        if absent or extra or len(twice):
            near = [match for name in absent for match in difflib.get_close_matches(name, extra, 1)]
            raise ValueError(
                f"task {task!r} takes {self.expected}; missing: {', '.join(absent) or 'none'}, unknown: "
                f"{', '.join(extra) or 'none'}{f' (rename {near[0]}?)' if near else ''}, "
                f"given twice: {', '.join(twice) or 'none'}."
            )
        return frame

    def _cells(self, cells: Any, column: Mapping[str, Any]) -> np.ndarray:
        missing = cells.isna().to_numpy(dtype=bool)
        known = [cell for cell, gap in zip(cells, missing, strict=True) if not gap]
        values = np.full(len(cells), np.nan)
        if column["type"] == "categorical":
            names = [str(name) for name in column["categories"]]
            codes = {name.lower() if _boolean(column) else name: code for code, name in enumerate(names)}
            found = [codes.get(_category_text(cell), -1) for cell in known]
            values[~missing] = found
            self._refuse(cells, values == -1, column, f"one of {', '.join(map(repr, names[:12]))}")
            return values
        values[~missing] = [_number(cell) for cell in known]
        self._refuse(cells, ~missing & ~np.isfinite(values), column, "a finite number")
        if column["type"] == "integer":
            self._refuse(cells, ~missing & (values != np.round(values)), column, "a whole number")
        return values

    @staticmethod
    def _refuse(cells: Any, wrong: np.ndarray, column: Mapping[str, Any], expected: str) -> None:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"row {row}, column {column['name']!r}: expected {expected} (or nothing, if it is not known), "
                f"got {cells.iloc[row]!r}."
            )

    def column_types(self) -> list[tuple[str, str]]:
        """Name and MLflow's type of each column that comes back."""
        return [(str(column["name"]), column_kind(column)) for column in self.columns]

    def write(self, x: torch.Tensor, label: torch.Tensor | None = None, seed: int = 0) -> Any:
        """Data-space examples as callers get them: a DataFrame; of several draws, one below the other. Whole numbers
        and booleans with gaps have pandas' nullable types."""
        import pandas as pd

        rows = x.cpu().reshape(-1, len(self.columns)).numpy()
        data = {c["name"]: self._originals(rows[:, i], c) for i, c in enumerate(self.columns)}
        frame = pd.DataFrame(data)
        if x.ndim == 3:
            name = "draw" if "draw" not in self.names else "_draw"
            frame.insert(0, name, np.repeat(np.arange(len(x)), x.shape[1]))
        return frame

    @staticmethod
    def _originals(values: np.ndarray, column: Mapping[str, Any]) -> Any:
        import pandas as pd

        dtype = str(column.get("dtype") or "")
        missing = np.isnan(values)
        if missing.any() and (_boolean(column) or dtype.startswith(("int", "uint")) or column["type"] == "categorical"):
            known = Tables._originals(values[~missing], column)
            plain = str(getattr(known, "dtype", object))
            nullable = {"bool": "boolean"}.get(plain, plain.replace("int", "Int").replace("uI", "UI"))
            cells = pd.Series(None, index=range(len(values)), dtype=nullable)
            cells[~missing] = np.asarray(known)
            return cells
        if column["type"] == "categorical":
            names = [str(name) for name in column["categories"]] or [""]
            texts = [names[int(value)] for value in values]
            if _boolean(column):
                return pd.array([text.lower() == "true" for text in texts], dtype="bool")
            if dtype.startswith(("int", "uint", "float")):
                return np.array([float(text) for text in texts]).astype(dtype)
            return pd.Series(texts, dtype=object)
        if dtype.startswith(("int", "uint")):
            bounds = np.iinfo(dtype)
            inside = not len(values) or (values.min() >= bounds.min and values.max() <= bounds.max)
            return values.astype(dtype if inside else np.int64)
        return values.astype(dtype if dtype.startswith("float") else np.float64)

    def empty(self, rows: int = 0) -> torch.Tensor:
        """Rows of which nothing is known, `[rows, columns]`."""
        return torch.full((rows, len(self.columns)), torch.nan, dtype=torch.float64)


def column_kind(column: Mapping[str, Any]) -> str:
    """MLflow's name for the type that a table's column has when it comes back."""
    dtype = str(column.get("dtype") or "")
    if _boolean(column):
        return "boolean"
    if column["type"] == "categorical" and not dtype.startswith(("int", "uint", "float")):
        return "string"
    return "long" if dtype.startswith(("int", "uint")) else "double"


def _boolean(column: Mapping[str, Any]) -> bool:
    """Whether a column holds true and false, however its source spells them (pandas reads `True` in CSV as such)."""
    names = {str(name).lower() for name in column.get("categories") or ()}
    return column["type"] == "categorical" and bool(names) and names <= {"true", "false"}


def _category_text(cell: Any) -> str:
    """A category as the dataset spells it: whole numbers without a point, booleans in lower case."""
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell)).lower()
    if isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return np.inf  # refused by the caller, with row and column
