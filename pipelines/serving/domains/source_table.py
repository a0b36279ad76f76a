"""Callers' tables as the dataset's source has them: dates, currencies, identifiers, in its own columns and formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .base import Rows
from .table import Tables, column_kind

UNLEARNED = ("identifier", "text", "constant", "label")


class SourceTables(Tables):
    """Conversion between a table as its source has it and the columns that the model learned.

    Arguments:
        domain: The model's domain.
        source: The manifest's `table`: the columns of the source.
        class_names: Names of the label's classes.
        formats: The module that reads and writes cells; it travels with the model.
    """

    def __init__(
        self,
        domain: Mapping[str, Any],
        source: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        formats: ModuleType,
    ) -> None:
        super().__init__(domain)
        self.table = formats.SourceTable(source=source, columns=self.columns, class_names=class_names)
        self.formats = formats
        self.learned = [entry for entry in source if entry.get("columns")]
        self.names = [str(entry["name"]) for entry in self.learned]
        self.others = {str(entry["name"]) for entry in source if not entry.get("columns")}

    def column_types(self) -> list[tuple[str, str]]:
        """Name and MLflow's type of each column that comes back, the label aside."""
        written = [entry for entry in self.table.written if entry["role"] != "label"]
        return [(str(entry["name"]), entry_kind(entry, self.columns)) for entry in written]

    def read(self, model_input: Any, task: str) -> Rows:
        """The caller's rows as tensors; what is not learned (identifiers, the label) may be given and is not looked at.

        Raises:
            ValueError: If a column is missing or unknown, or a cell is not what its column holds.
        """
        if hasattr(model_input, "columns"):
            given = [name for name in map(str, model_input.columns) if name in self.others]
            model_input = model_input.rename(columns=str).drop(columns=given)
        frame = self._frame(model_input, task)
        values = np.concatenate([self._entry(frame[entry["name"]], entry) for entry in self.learned], axis=1)
        x = torch.from_numpy(values.astype(np.float64))
        return Rows(x, ~torch.isnan(x))

    def _entry(self, cells: Any, entry: Mapping[str, Any]) -> np.ndarray:
        if entry["role"] == "category" or (entry["role"] == "number" and self.formats.is_plain(entry["pattern"])):
            return self._cells(cells, self.columns[entry["columns"][0]])[:, None]
        missing = cells.isna().to_numpy(dtype=bool)
        form = self.formats.format_of(entry["role"], entry["pattern"], tuple(entry.get("parts", ())))
        if not entry["pattern"]:
            values, bad = self._native(cells, missing, form)
        elif entry["role"] == "number" and cells.dtype.kind in "iuf":
            values, bad = cells.to_numpy(dtype=np.float64)[:, None], np.zeros(len(cells), np.bool_)
        else:
            texts = [None if gap else str(cell) for cell, gap in zip(cells, missing, strict=True)]
            values, bad = form.read(texts)
        self._refuse(cells, bad, entry, f"one written as {entry['pattern'] or entry['dtype']}")
        return values

    def _native(self, cells: Any, missing: np.ndarray, form: Any) -> tuple[np.ndarray, np.ndarray]:
        """Dates, times and durations that are held as such (over HTTP: ISO 8601 texts)."""
        import pandas as pd

        kind = {"duration": "timedelta64[ns]"}.get(form.parts[0].name, "datetime64[ns]")
        timed_only = all(part.name == "clock" for part in form.parts)
        texts = pd.Series([("1970-01-01 " if timed_only else "") + str(cell) for cell in cells[~missing]], dtype=object)
        read = pd.to_timedelta if kind.startswith("timedelta") else pd.to_datetime
        options = {} if kind.startswith("timedelta") else {"utc": True, "format": "mixed"}
        moments = read(texts, errors="coerce", **options)
        bad = np.zeros(len(cells), np.bool_)
        bad[~missing] = moments.isna().to_numpy()
        counts = np.zeros(len(cells), np.int64)
        if len(moments):
            plain = moments.dt.tz_localize(None) if kind.startswith("datetime") else moments
            counts[~missing & ~bad] = plain.dropna().to_numpy(kind).astype(np.int64)
        day = self.formats.DAY
        days, clock = np.divmod(counts, day) if kind.startswith("datetime") else (np.zeros_like(counts), counts)
        values, wrong = self.formats.parts_of(self.formats.Instants(days, clock, np.zeros_like(days)), form.parts)
        values[missing | bad | wrong] = np.nan
        return values, bad | (wrong & ~missing)

    def write(self, x: torch.Tensor, label: torch.Tensor | None = None, seed: int = 0) -> Any:
        """Data-space examples as the source's table; of several draws, one below the other.

        Arguments:
            x: `[rows, columns]` or `[draws, rows, columns]`.
            label: Classes of the rows, where they are known; without them the column of the label is left out.
            seed: Selects the identifiers.
        """
        import pandas as pd

        rows = x.cpu().reshape(-1, len(self.columns)).double().numpy()
        codes = None if label is None else label.cpu().numpy()
        cells = self.table.cells(rows, codes, seed)
        data = {
            str(entry["name"]): self._column(cells[entry["name"]], rows, entry)
            for entry in self.table.written
            if entry["role"] != "label" or label is not None
        }
        frame = pd.DataFrame(data)
        if x.ndim == 3:
            name = "draw" if "draw" not in frame.columns else "_draw"
            frame.insert(0, name, np.repeat(np.arange(len(x)), x.shape[1]))
        return frame

    def _column(self, cells: Sequence[Any], rows: np.ndarray, entry: Mapping[str, Any]) -> Any:
        import pandas as pd

        role, dtype = entry["role"], str(entry["dtype"])
        plain = role == "number" and self.formats.is_plain(entry["pattern"]) and "string" not in dtype
        if role == "category" or plain:
            place = entry["columns"][0]
            values = rows[:, place]
            if plain and entry["pattern"]:
                values = np.round(values, self.formats.NumberFormat(entry["pattern"]).decimals)
            if not np.isnan(values).any():
                return self._originals(values, self.columns[place])
            known = [None if np.isnan(v) else self._originals(np.array([v]), self.columns[place])[0] for v in values]
            return np.array(known, np.float64) if plain else pd.Series(known, dtype=object)
        if role in ("datetime", "duration") and not entry["pattern"]:
            return self._moments(cells, dtype)
        if dtype.startswith(("int", "uint", "float")) and role in UNLEARNED:
            numbers = [np.nan if cell is None else float(cell) for cell in cells]
            whole = dtype.startswith(("int", "uint")) and None not in cells
            return np.array([int(cell) for cell in cells], dtype) if whole else np.array(numbers)
        return pd.Series(list(cells), dtype=object)

    @staticmethod
    def _moments(cells: Sequence[int | None], dtype: str) -> Any:
        import pandas as pd

        nothing = np.iinfo(np.int64).min  # NaT
        counts = np.array([nothing if cell is None else cell for cell in cells], np.int64)
        if dtype.startswith("duration"):
            return pd.Series(counts.view("timedelta64[ns]"))
        moments = pd.Series(counts.view("datetime64[ns]"))
        if dtype.startswith("time") and not dtype.startswith("timestamp"):
            return pd.Series(
                [None if cell is None else moment.time() for cell, moment in zip(cells, moments, strict=True)]
            )
        zone = dtype.partition("tz=")[2].rstrip("]")
        return moments.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else moments


def entry_kind(entry: Mapping[str, Any], learned: Sequence[Mapping[str, Any]]) -> str:
    """MLflow's name for the type that a column of the source has when it comes back."""
    role, dtype = entry["role"], str(entry["dtype"])
    if role == "category" or (role == "number" and "string" not in dtype):
        return column_kind(learned[entry["columns"][0]])
    if role == "datetime" and not entry["pattern"] and dtype.startswith(("timestamp", "date")):
        return "datetime"
    if role in ("identifier", "constant") and dtype.startswith(("int", "uint", "float")):
        return "long" if dtype.startswith(("int", "uint")) else "double"
    return "string"
