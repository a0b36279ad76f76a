"""Callers' tables: DataFrames checked on the way in, original types on the way out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .base import Conversion, Given, Rows, Shape


class Tables(Conversion):
    """Conversion between what callers hold and what the model is given, for tables.

    Arguments:
        domain: The model's domain: `columns`, each with `name`, `type`, `dtype`, `categories`; and `label`, the
            `name` and `classes` of the column that names a row's class, if there is one.
    """

    def __init__(self, domain: Mapping[str, Any]) -> None:
        self.columns = list(domain["columns"])
        self.names = [str(column["name"]) for column in self.columns]
        label = domain.get("label") or {}
        self.takes_labels = bool(label) and str(label["name"]) not in self.names
        self.label, self.classes = str(label.get("name", "")), [str(name) for name in label.get("classes", ())]

    @property
    def expected(self) -> str:
        """How rows must look, for messages."""
        more = f" and {len(self.names) - 20} more" if len(self.names) > 20 else ""
        return f"a DataFrame with the columns {', '.join(self.names[:20])}{more}"

    @property
    def schema(self) -> Shape:
        """The columns as they come back, the label's last."""
        label = [(self.label, column_kind(self._label_column))] if self.takes_labels else []
        return [(str(column["name"]), column_kind(column)) for column in self.columns] + label

    def example(self) -> Any:
        """A row of medians and most frequent categories: no row of the data."""
        import pandas as pd

        middle = torch.tensor([[_middle(column) for column in self.columns]], dtype=torch.float64)
        return self.write(middle) if self.columns else pd.DataFrame()

    def read(self, model_input: Any, task: str, *, on_unknown: str = "fail") -> Rows:
        """The caller's rows as tensors; missing cells stay NaN.

        Arguments:
            model_input: A DataFrame of pandas, polars or Arrow, or what holds its cells by column name.
            task: For messages.
            on_unknown: Whether a category that training did not have is refused (`fail`) or `missing`.
        Raises:
            ValueError: If a column is missing, or a cell is not what its column holds.
        """
        frame = self._frame(model_input, task)
        values = self._values(frame, on_unknown)
        if self.takes_labels and self.label in frame.columns and on_unknown == "fail":
            self._cells(frame[self.label], self._label_column, on_unknown)
        x = torch.from_numpy(values.astype(np.float64))
        return Rows(x, ~torch.isnan(x), lambda answer: self._restored(answer, frame))

    def _values(self, frame: Any, on_unknown: str) -> np.ndarray:
        """The cells of the columns that are learned, `[rows, columns]`, NaN where missing."""
        return np.stack([self._cells(frame[c["name"]], c, on_unknown) for c in self.columns], axis=1)

    @property
    def _label_column(self) -> dict[str, Any]:
        return {
            "name": self.label,
            "type": "categorical",
            "categories": self.classes,
            "dtype": class_dtype(self.classes),
        }

    def _restored(self, answer: Any, frame: Any) -> Any:
        """An answer about rows with their index, label and further columns, once for each draw."""
        import pandas as pd

        others = [name for name in frame.columns if name not in self.names]
        clash = [name for name in others if name in answer.columns]
        if clash:
            raise ValueError(f"column {clash[0]!r} is the name of a column of the answer: rename it in the rows given.")
        copies = len(answer) // len(frame) if len(frame) else 1
        repeated = frame[others].iloc[np.tile(np.arange(len(frame)), copies)]
        return pd.concat([answer.set_axis(repeated.index), repeated], axis=1)

    def labelled(self, examples: Any, labels: torch.Tensor) -> Any:
        """Rows with the column of their labels, in the type of its source: whole numbers, booleans or texts."""
        import pandas as pd

        found = self._originals(labels.cpu().numpy(), self._label_column)
        values = found.array if isinstance(found, pd.Series) else np.asarray(found)  # nullable where one is missing
        return examples.assign(**{self.label: pd.Series(values, index=examples.index, dtype=values.dtype)})

    def read_given(self, given: Mapping[str, Any]) -> Given:
        """What is known by the names of columns, the label's among them.

        A value each; or of numbers, dates and times a range `[least, most]` (`None` for an open end), of categories a
        list of those that may be.

        Raises:
            ValueError: If a column is unknown, or a value is not what its column holds.
        """
        import pandas as pd

        names = [*self.names, *([self.label] if self.takes_labels else [])]
        unknown = [name for name in given if name not in names]
        if unknown:
            near = difflib.get_close_matches(unknown[0], names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"given has no column {unknown[0]!r} of {', '.join(names)}{hint}")
        listed = {name: list(value) for name, value in given.items() if isinstance(value, (list, tuple))}
        single = {name: None if name in listed else given.get(name) for name in names}
        cells = pd.DataFrame({name: pd.Series([single[name]], dtype=object).infer_objects() for name in names})
        label = None
        if self.takes_labels:
            if self.label in listed:
                raise ValueError(f"given: column {self.label!r} is the label: give one class, not a list.")
            code = self._cells(cells[self.label], self._label_column, "fail")[0]
            label = None if np.isnan(code) else int(code)
        x, known = self._known(self._values(cells[self.names], "fail").astype(np.float64))
        limits = [self._limit(name, values) for name, values in listed.items()]
        found = Given(torch.from_numpy(x), known, label)

        def fits(x: torch.Tensor, seed: int) -> torch.Tensor:
            rows = self._rows(x, seed, found.repeated(len(x)))
            return torch.from_numpy(np.logical_and.reduce([limit(rows) for limit in limits]))

        return found._replace(fits=fits) if limits else found

    def _known(self, cells: np.ndarray) -> tuple[np.ndarray, Any]:
        """A row of which some cells are given as the model has it, and what is given, for `write`."""
        return cells, None

    def _rows(self, x: torch.Tensor, seed: int, given: Any) -> np.ndarray:
        """Examples as rows of cells, `[rows, columns]`; arguments as of `write`."""
        return x.cpu().numpy()

    def _limit(self, name: str, values: list[Any]) -> Callable[[np.ndarray], np.ndarray]:
        """Which rows have a cell of this column that is one of the values, or of numbers in the range.

        Raises:
            ValueError: If they are none.
        """
        import pandas as pd

        cells = pd.Series(values, dtype=object)
        place, columns = self.names.index(name), self.columns
        if columns[place]["type"] == "categorical":
            return self._among(name, self._cells(cells, columns[place], "fail"), place)
        return self._between(name, values, self._cells(cells, columns[place], "fail"), lambda rows: rows[:, place])

    @staticmethod
    def _among(name: str, codes: np.ndarray, place: int) -> Callable[[np.ndarray], np.ndarray]:
        if not len(codes) or np.isnan(codes).any():
            raise ValueError(f"given: column {name!r}: expected a list of categories that may be, got an empty one.")
        return lambda rows: np.isin(rows[:, place], codes)

    @staticmethod
    def _between(
        name: str, values: list[Any], ends: np.ndarray, measured: Callable[[np.ndarray], np.ndarray]
    ) -> Callable[[np.ndarray], np.ndarray]:
        """`measured`: the cells of rows on the scale of `ends`, NaN where missing."""
        low, high = (*ends, math.nan, math.nan)[:2]
        if len(ends) != 2 or low > high or (np.isnan(low) and np.isnan(high)):
            raise ValueError(
                f"given: column {name!r}: expected a value, or a range [least, most] with null for an open end, "
                f"got {values!r}."
            )
        low, high = -math.inf if np.isnan(low) else low, math.inf if np.isnan(high) else high

        def fits(rows: np.ndarray) -> np.ndarray:
            found = measured(rows)
            return (found >= low) & (found <= high)  # a missing one is in no range

        return fits

    def described(self) -> dict[str, Any]:
        """The columns, with their categories or range."""
        keys = ("name", "type", "dtype", "categories", "min", "max")
        columns = [{key: column[key] for key in keys if key in column} for column in self.columns]
        return {"columns": columns, "label": self.label if self.takes_labels else None}

    def _frame(self, model_input: Any, task: str) -> Any:
        import pandas as pd

        model_input = _as_pandas(model_input)
        if isinstance(model_input, Mapping):
            sized = {
                name: hasattr(cells, "__len__") and not isinstance(cells, str) for name, cells in model_input.items()
            }
            if not all(sized.values()) or len({len(cells) for cells in model_input.values()}) > 1:
                raise ValueError(f"task {task!r} takes {self.expected}, or lists of equal length by these names.")
            model_input = pd.DataFrame(dict(model_input))
        if not hasattr(model_input, "columns"):
            try:
                array = np.asarray(model_input)
            except ValueError:  # rows of unequal length
                array = np.empty(0, object).reshape(0, 0, 0)  # of no shape that is taken
            if array.ndim == 1 and not len(array) and model_input is not None:
                return pd.DataFrame({name: [] for name in self.names})
            if array.ndim != 2 or array.shape[-1] != len(self.names):
                raise ValueError(f"task {task!r} takes {self.expected}, got {type(model_input).__name__}.")
            model_input = pd.DataFrame(array, columns=self.names)
        frame = model_input.set_axis([str(name) for name in model_input.columns], axis=1)
        if not len(frame) and not len(frame.columns):
            return pd.DataFrame({name: [] for name in self.names})
        absent = [name for name in self.names if name not in frame.columns]
        extra = [name for name in frame.columns if name not in self.names]
        twice = frame.columns[frame.columns.duplicated()]
        if absent or len(twice):
            near = [match for name in absent for match in difflib.get_close_matches(name, extra, 1)]
            raise ValueError(
                f"task {task!r} takes {self.expected}; missing: {', '.join(absent[:20]) or 'none'}, unknown: "
                f"{', '.join(extra[:20]) or 'none'}{f' (rename {near[0]}?)' if near else ''}, "
                f"given twice: {', '.join(twice) or 'none'}."
            )
        return frame

    def _cells(self, cells: Any, column: Mapping[str, Any], on_unknown: str) -> np.ndarray:
        missing = cells.isna().to_numpy(dtype=bool)
        known = [cell for cell, gap in zip(cells, missing, strict=True) if not gap]
        values = np.full(len(cells), np.nan)
        if column["type"] == "categorical":
            names = [str(name) for name in column["categories"]]
            values[~missing] = _codes(known, column)
            if on_unknown == "missing":
                values[values == -1] = np.nan
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

    def write(self, x: torch.Tensor, *, seed: int = 0, given: Any = None) -> Any:
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
            cells = pd.Series([None] * len(values), dtype=nullable)
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


def _middle(column: Mapping[str, Any]) -> float:
    """A column's median, or the code of its most frequent category."""
    if column["type"] == "categorical":
        return float(np.argmax(column.get("frequencies") or [1]))
    quantiles = column.get("quantiles") or [0.0]
    middle = float(quantiles[len(quantiles) // 2])
    return float(round(middle)) if column["type"] == "integer" else middle


def class_dtype(classes: list[str]) -> str:
    """The type of the label's column: whole numbers if all classes are written as such."""
    whole = [name.removeprefix("-").isdecimal() and str(int(name)) == name for name in classes]
    return "int64" if whole and all(whole) else ""


def _as_pandas(frame: Any) -> Any:
    """A frame of polars or Arrow as pandas'; anything else as it is."""
    if hasattr(frame, "to_pandas"):
        try:
            return frame.to_pandas()
        except ImportError:  # polars needs pyarrow for it
            import pandas as pd

            return pd.DataFrame(frame.to_dict(as_series=False))
    return frame


def column_kind(column: Mapping[str, Any]) -> str:
    """MLflow's name for the type that a table's column has when it comes back."""
    dtype = str(column.get("dtype") or "")
    if _boolean(column):
        return "boolean"
    if column["type"] == "categorical" and not dtype.startswith(("int", "uint", "float")):
        return "string"
    return "long" if dtype.startswith(("int", "uint")) else "double"


def _boolean(column: Mapping[str, Any]) -> bool:
    """Whether a column holds true and false as such; as text they are categories like others."""
    return str(column.get("dtype") or "") == "bool"


def _codes(cells: Sequence[Any], column: Mapping[str, Any]) -> list[int]:
    """Codes of a column's categories, -1 for others: as the source writes them, or as pandas reads and writes these.

    True and false come in any case (pandas reads `TRUE` in CSV as `True`), numbers with a point (it writes `3.0`
    beside a gap).
    """
    names = [str(name) for name in column["categories"]]
    codes = {name: code for code, name in enumerate(names)}
    if {name.lower() for name in names} <= {"true", "false"}:
        folded = {name.lower(): code for name, code in codes.items()}
        return [codes.get(str(cell), folded.get(str(cell).lower(), -1)) for cell in cells]
    if str(column.get("dtype") or "").startswith(("int", "uint", "float")):
        cells = [_as_number(cell) if isinstance(cell, str) and cell not in codes else cell for cell in cells]
    return [codes.get(_category_text(cell), -1) for cell in cells]


def _as_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _category_text(cell: Any) -> str:
    """A category as the dataset spells it: whole numbers without a point, booleans in lower case."""
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell)).lower()
    if isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _number(cell: Any) -> float:
    try:
        return np.inf if isinstance(cell, (bytes, bytearray)) else float(cell)
    except (TypeError, ValueError, OverflowError):
        return np.inf  # refused by the caller, with row and column
