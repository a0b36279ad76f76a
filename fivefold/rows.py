"""Callers' rows: DataFrames, Arrow tables and arrays on the way in, the same on the way out.

What a column holds is decided by the readers and what a cell may be by `pipelines.serving.domains`, as for
every other model. Here stands only what these cannot know: what the caller's own rows looked like.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data import formats
from data.readers.columns import type_name
from data.readers.dialects import column_names
from pipelines.serving.domains import conversion
from pipelines.serving.domains.base import Rows as Read
from pipelines.serving.domains.table import Tables

if TYPE_CHECKING:
    import pandas as pd

LABEL = "label"
"""What the column of labels is called where the data have no name for it."""


def written(
    data: Any, label: str | Sequence[Any] | np.ndarray | None, folder: Path
) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """Write a caller's rows as a file that the readers read.

    Arguments:
        data: A DataFrame, an Arrow table (or what Arrow reads: of polars, DuckDB), rows of numbers `[n, columns]`, or
            images `[n, height, width(, channels)]`.
        label: Name of the column of labels; beside an array, the label of each row, `[n]`.
        folder: Where.
    Returns:
        The file; the layout, what the rows looked like, in JSON types; the types of columns that are certain.
    Raises:
        ValueError: If the rows or labels are not of such a form.
    """
    data = _table_of(data)
    if isinstance(data, pa.Table) or hasattr(data, "columns"):
        return (*_written_table(data, label, folder), {})
    array = np.asarray(data)
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "biuf":
        raise ValueError(
            "data must be a DataFrame, an Arrow table, numbers [rows, columns] or images [rows, height, width] or "
            f"[rows, height, width, channels], got {type(data).__name__} of {array.dtype} {list(array.shape)}."
        )
    if isinstance(label, str):
        raise ValueError(f"label names a column of a table; beside an array give one label per row, got {label!r}.")
    if label is not None and len(label) != len(array):
        raise ValueError(f"label must have one entry per row: expected {len(array)}, got {len(label)}.")
    if array.ndim == 2:
        return _written_numbers(array, label, folder)
    layout: dict[str, Any] = {
        "container": "images",
        "dimensions": array.ndim,
        "label": LABEL if label is not None else "",
    }
    arrays = {"images": np.ascontiguousarray(array)}
    if label is not None:
        names, codes = np.unique(np.asarray(label), return_inverse=True)
        layout |= {"label_dtype": str(names.dtype), "classes": [str(name) for name in names.tolist()]}
        arrays["labels"] = codes.astype(np.int64)
    path = folder / "rows.npz"
    np.savez(path, **arrays)
    return path, layout, {}


def _table_of(data: Any) -> Any:
    """Tables of other libraries as Arrow's; anything else as it is."""
    import pandas as pd

    if hasattr(data, "__arrow_c_stream__") and not isinstance(data, (pa.Table, pd.DataFrame)):
        return pa.table(data)
    return data


def _named(frame: pd.DataFrame, called: Mapping[str, str]) -> pd.DataFrame:
    """A frame whose columns are called as the readers call them, and whose periods are the moments at which they begin.

    Arguments:
        frame: A caller's rows.
        called: By a column's name as a text, what the readers call it where that is not the same.
    """
    import pandas as pd

    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"several columns are called {repeated[0]!r}. Give each a name of its own.")
    frame = frame.set_axis([called.get(name, name) for name in frame.columns], axis=1)
    periods = [name for name in frame.columns if isinstance(frame[name].dtype, pd.PeriodDtype)]
    return frame.assign(**{name: frame[name].dt.to_timestamp() for name in periods})


def _written_table(data: Any, label: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    layout: dict[str, Any] = {"container": "arrow" if isinstance(data, pa.Table) else "pandas"}
    frame: pd.DataFrame = data.to_pandas() if isinstance(data, pa.Table) else data
    if label is not None and not isinstance(label, (str, int, np.integer, tuple)):
        raise ValueError(f"label must be the name of a column, got {type(label).__name__}.")
    names, levels = frame.columns.tolist(), list(frame.columns.names)
    if label is not None and label not in names:
        raise ValueError(f"label names no column: {label!r}; the columns are {', '.join(map(str, frame.columns))}.")
    texts = [str(name) for name in names]
    called = dict(zip(texts, column_names(texts)[0], strict=True))  # blanks about a name, line breaks within it
    layout["label"] = "" if label is None else called[str(names[names.index(label)])]
    if not len(frame):
        raise ValueError("data has no rows. Give some to learn from.")
    if isinstance(data, pa.Table):
        layout["schema"] = base64.b64encode(data.schema.remove_metadata().serialize().to_pybytes()).decode()
    if names != list(called.values()):
        layout["names"], layout["levels"] = names, levels
    kinds = [str(kind) for kind in frame.dtypes]
    frame = _named(frame, called)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(_mixed(frame) or " ".join(str(error).split())) from None
    layout["columns"] = [
        {"name": name, "dtype": kind, **_categories(frame[name])}
        for name, kind in zip(frame.columns, kinds, strict=True)
    ]
    layout["label_dtype"] = type_name(table.schema.field(layout["label"]).type) if label is not None else ""
    path = folder / "rows.parquet"
    pq.write_table(table, path)
    return path, layout


def _mixed(frame: pd.DataFrame) -> str:
    """Of the first column that Arrow has no type for, which it is and how to mend it."""
    for name in frame.columns:
        try:
            pa.Array.from_pandas(frame[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            kinds = sorted({type(cell).__name__ for cell in frame[name].dropna()})
            return (
                f"column {str(name)!r} mixes cells of several types ({', '.join(kinds)}). Make it of one: "
                f"data[{name!r}] = data[{name!r}].astype('string')."
            )
        except pa.ArrowNotImplementedError:
            return f"column {str(name)!r} is of a type that is not learned from ({frame[name].dtype}). Leave it out."
    return ""


def _written_numbers(array: np.ndarray, label: Any, folder: Path) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """Rows of numbers: a table whose columns are named by their position."""
    names = [str(index) for index in range(array.shape[1])]
    columns = {name: array[:, index] for index, name in enumerate(names)}
    layout: dict[str, Any] = {"container": "numbers", "dtype": str(array.dtype), "label": ""}
    if label is not None:
        columns[LABEL] = np.asarray(label)
        layout["label"] = LABEL
    table = pa.table(columns)
    layout["label_dtype"] = type_name(table.schema.field(LABEL).type) if label is not None else ""
    path = folder / "rows.parquet"
    pq.write_table(table, path)
    kind = {"f": "continuous", "b": "categorical"}.get(array.dtype.kind, "integer")
    return path, layout, dict.fromkeys(names, kind)


def _categories(cells: pd.Series) -> dict[str, Any]:
    """Categories and order of a categorical column."""
    import pandas as pd

    if not isinstance(cells.dtype, pd.CategoricalDtype):
        return {}
    values = cells.dtype.categories.tolist()
    if not all(isinstance(value, (str, int, float, bool)) for value in values):
        raise ValueError(
            f"column {cells.name!r}: categories must be texts, numbers or booleans, got {values[:3]!r}. Make them so: "
            f"data[{cells.name!r}] = data[{cells.name!r}].astype(str)."
        )
    return {"categories": values, "ordered": bool(cells.dtype.ordered)}


class Rows:
    """Conversion between a caller's rows and a model's tensors.

    Arguments:
        facts: What `model.json` says of the model: `domain`, `class_names`, of tables `table` (the columns of the
            source), and `rows`, what the rows looked like (see `written`), which a model of the pipeline has not.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.conversion: Any = conversion({**facts, "class_names": ()}, {}, formats)  # labels are added here
        class_names, layout = facts.get("class_names") or (), facts.get("rows") or {}
        named = [entry for entry in facts.get("table") or () if entry["role"] == "label"]
        self.blank = str(named[0].get("blank", "")) if named else ""
        of_source = {"label": named[0]["name"], "label_dtype": named[0]["dtype"]} if named else {"label": LABEL}
        container = "pandas" if hasattr(self.conversion, "columns") else "images"
        self.layout = {"container": container, **of_source, **layout}
        label = {"name": self.layout["label"], "type": "categorical", "dtype": self.layout.get("label_dtype", "string")}
        self.classes = [name for name in class_names if not self.blank or name != self.blank]
        self.labels = Tables({"columns": [{**label, "categories": self.classes}]})
        self.frames = self.layout["container"] in ("pandas", "arrow")
        source = [entry["name"] for entry in facts.get("table") or () if entry["role"] != "skip"]
        self.order = [column["name"] for column in self.layout.get("columns", ())] or source
        self.given = [tuple(name) if isinstance(name, list) else name for name in self.layout.get("names", ())]
        self.called = dict(zip(map(str, self.given), self.order, strict=False))
        """By a name of the caller's, as a text, that of the column, where they are not the same."""

    def read(self, data: Any, task: str) -> tuple[torch.Tensor, torch.Tensor, Read]:
        """A caller's rows as a tensor, which of its cells are known, and what else is known of them.

        The rest are the index and the columns that are not learned (labels, identifiers, free text, further ones):
        they come back as they were given.

        Raises:
            ValueError: If the rows are not like those that the model learned from.
        """
        data = _table_of(data)
        if isinstance(data, pa.Table):
            data = data.to_pandas()
        if self.frames and hasattr(data, "set_axis"):
            data = _named(data, self.called)
        if self.layout["container"] == "images" and self.layout.get("dimensions") == 3 and np.ndim(data) == 3:
            data = np.asarray(data)[..., None]
        rows = self.conversion.read(data, task)
        if not (self.frames and hasattr(data, "columns")):
            rows = rows._replace(restore=lambda answer: answer)
        return rows.x, rows.observed, rows

    def codes(self, label: Any, n: int) -> torch.Tensor:
        """Codes of the labels asked for: one name for all, or one for each row.

        Raises:
            ValueError: If a name is not that of a class.
        """
        import pandas as pd

        one = isinstance(label, (str, bytes)) or np.ndim(label) == 0
        column = pd.Series([label] * n if one else list(label), dtype=object)
        if len(column) != n:
            raise ValueError(f"label must be one class, or one for each row: expected {n}, got {len(column)}.")
        if column.isna().any():
            row = int(column.isna().argmax())
            raise ValueError(
                f"label must be one class, or one for each row: row {row} has {column[row]!r}. Leave label out to have "
                "classes as often as in the data."
            )
        return self.labels.read(pd.DataFrame({self.labels.names[0]: column}), "sample").x[:, 0].long()

    def write(
        self, x: torch.Tensor, beside: torch.Tensor | Read | None = None, seed: int = 0, given: Any = None
    ) -> Any:
        """Examples `[n, *event]` or `[draws, n, *event]` as rows like the caller's own, with the labels given.

        Arguments:
            x: In data space.
            beside: Codes of the labels, or what `read` returned to put the rest of the caller's rows back.
            seed: Selects fresh identifiers, where no rows were given.
            given: What is known of these rows that is not in `x`, where `beside` does not say so.
        """
        given = beside.given if isinstance(beside, Read) else given
        written = self.conversion.write(x, seed=seed, given=given)
        if self.layout["container"] == "images":
            return written[..., 0] if self.layout.get("dimensions") == 3 else written
        if self.layout["container"] == "numbers":
            return written[self.conversion.names].to_numpy(self.layout["dtype"]).reshape(*x.shape[:-1], -1)
        if isinstance(beside, torch.Tensor):
            codes = torch.where(beside < len(self.classes), beside.double(), math.nan)  # the last may be of no label
            written[self.layout["label"]] = self.labels.write(codes[:, None]).iloc[:, 0]
        written = self._typed(written)
        return self._contained(beside.restore(written) if isinstance(beside, Read) else written)

    def _typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The columns in the types that they had in the rows of training."""
        import pandas as pd

        for column in self.layout.get("columns", ()):
            name = column["name"]
            if name not in frame:
                continue
            if "categories" in column:
                frame[name] = frame[name].astype(pd.CategoricalDtype(column["categories"], column["ordered"]))
            elif column["dtype"] == "object":
                frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
            else:
                with suppress(OverflowError):  # a fresh identifier may be longer than those there were
                    frame[name] = frame[name].astype(column["dtype"])
        return frame

    def _as_called(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame whose columns are called as in the rows of training, by numbers or on several levels, too."""
        import pandas as pd

        if not self.given:
            return frame
        known = dict(zip(self.order, self.given, strict=False))
        names = [known.get(name, name) for name in frame.columns]
        if all(isinstance(name, tuple) for name in names):
            return frame.set_axis(pd.MultiIndex.from_tuples(names, names=self.layout["levels"]), axis=1)
        return frame.set_axis(pd.Index(names, tupleize_cols=False, name=self.layout["levels"][0]), axis=1)

    def _contained(self, frame: pd.DataFrame) -> Any:
        """The number of the draw, the columns in the order of training, further ones, in the caller's container."""
        first = [name for name in frame.columns[:1] if name in ("draw", "_draw") and name not in self.order]
        own = [name for name in self.order if name in frame.columns]
        frame = frame.reindex(columns=[*first, *own, *(name for name in frame.columns if name not in (*first, *own))])
        frame = self._as_called(frame)
        if self.layout["container"] == "pandas":
            return frame
        table = pa.Table.from_pandas(frame, preserve_index=False)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.layout["schema"])))
        fields = [schema.field(f.name) if f.name in schema.names else f for f in table.schema]
        return table.cast(pa.schema(fields))
