"""Callers' tables as the dataset's source has them: dates, currencies, identifiers, in its own columns and formats."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .base import Rows, Shape
from .table import Tables, column_kind

UNLEARNED = ("identifier", "text", "constant")
SCORED = ("log_prob", "log_density", "elbo", "anomaly", "anomaly_score")
"""Tasks that say how likely a row is: none that breaks a rule is likely at all."""


class SourceTables(Tables):
    """Conversion between a table as its source has it and the columns that the model learned.

    Arguments:
        domain: The model's domain, with its `label`, as of `Tables`.
        source: The manifest's `table`: the columns of the source.
        formats: The module that reads and writes cells; it travels with the model.
        stated: The manifest's `constraints`: what every row obeys.
    """

    def __init__(
        self,
        domain: Mapping[str, Any],
        source: Sequence[Mapping[str, Any]],
        formats: ModuleType,
        stated: Mapping[str, Any] | None = None,
    ) -> None:
        labels = [entry for entry in source if entry["role"] == "label"]
        named = {"name": str(labels[0]["name"])} if labels and domain.get("label") else {}
        super().__init__({**domain, "label": {**(domain.get("label") or {}), **named}})
        self.label_dtype = str(labels[0]["dtype"]) if labels else ""
        self.blank = str(labels[0].get("blank", "")) if labels and domain.get("label") else ""
        self.table = formats.SourceTable(source=source, columns=self.columns, class_names=self.classes, stated=stated)
        self.full = self.table.full
        self.formats = formats
        self.learned = [entry for entry in source if entry.get("columns")]
        self.names = [str(entry["name"]) for entry in self.learned]
        self.unlearned = [str(entry["name"]) for entry in source if entry["role"] in UNLEARNED]
        written = [str(entry["name"]) for entry in self.table.written if entry["role"] != "label" or self.takes_labels]
        self.order = written + [self.label] * (self.takes_labels and not labels)

    @property
    def schema(self) -> Shape:
        """The columns as they come back, in the order of the source."""
        kinds = {str(entry["name"]): entry_kind(entry, self.full) for entry in self.table.written}
        if self.takes_labels:
            kinds[self.label] = column_kind(self._label_column)
        return [(name, kinds[name]) for name in self.order]

    def example(self) -> Any:
        """As of `Tables`; what MLflow's schemas have no type for (zones, days, times of the day, durations) as text."""
        frame = super().example()
        known = (str, int, float, np.number, np.bool_, type(None))
        for name in frame.columns:
            native = re.fullmatch(r"datetime64\[\w+\]", str(frame[name].dtype))
            if not native and not all(isinstance(cell, known) for cell in frame[name]):
                frame[name] = [str(cell) for cell in frame[name]]
        return frame

    @property
    def _label_column(self) -> dict[str, Any]:
        native = self.label_dtype.startswith(("bool", "int", "uint", "float"))
        return {**super()._label_column, **({"dtype": self.label_dtype} if native else {})}

    def described(self) -> dict[str, Any]:
        """The columns of the source: how they and missing cells are written, categories or range of those learned.

        `titles` are the names in the source's own header, of columns that are called otherwise: a name with blanks
        about it, one that comes twice.
        """
        columns = []
        named = {str(entry["name"]): entry.get("title", entry["name"]) for entry in self.table.written}
        titles = {name: title for name, title in named.items() if title != name}
        for entry in self.table.written:
            if entry["role"] == "label":
                continue
            found = {"name": entry["name"], "type": entry["role"], "dtype": entry["dtype"]}
            if entry.get("pattern"):
                found["format"] = entry["pattern"]
            if entry.get("mark"):
                found["missing"] = entry["mark"]
            if entry.get("marks"):
                found["marks"] = entry["marks"]
            if entry["role"] in ("category", "number"):
                learned = self.full[entry["columns"][0]]
                found |= {key: learned[key] for key in ("categories", "min", "max") if key in learned}
            columns.append(found)
        return {"columns": columns, "titles": titles, "label": self.label if self.takes_labels else None}

    def _restored(self, answer: Any, frame: Any) -> Any:
        if set(self.names) <= set(answer.columns):  # identifiers and the like come back as they were given, or not
            answer = answer.drop(columns=[name for name in self.unlearned if name in answer.columns])
            return self._in_order(super()._restored(answer, frame))
        return super()._restored(answer, frame)

    def labelled(self, examples: Any, labels: torch.Tensor) -> Any:
        """Rows with the column of their labels in its place, in the type of its source."""
        codes = labels.double()
        if self.blank:
            codes[labels == self.classes.index(self.blank)] = math.nan
        return self._in_order(super().labelled(examples, codes))

    def _in_order(self, frame: Any) -> Any:
        """The number of the draw, the columns of the source in their order, further ones."""
        first = [name for name in frame.columns[:1] if name in ("draw", "_draw") and name not in self.order]
        own = [name for name in self.order if name in frame.columns]
        return frame[[*first, *own, *(name for name in frame.columns if name not in (*first, *own))]]

    def _values(self, frame: Any, on_unknown: str) -> np.ndarray:
        return np.concatenate([self._entry(frame[entry["name"]], entry, on_unknown) for entry in self.learned], axis=1)

    def _entry(self, cells: Any, entry: Mapping[str, Any], on_unknown: str) -> np.ndarray:
        marks = [mark for mark in entry.get("marks", {entry.get("mark"): 1}) if mark]
        if marks and cells.dtype.kind not in "iufbmM":  # as `sample -o rows.csv` writes a missing cell
            cells = cells.where(~cells.astype(object).isin(marks), None)
        if entry["role"] == "category" or (entry["role"] == "number" and self.formats.is_plain(entry["pattern"])):
            return self._cells(cells, self.full[entry["columns"][0]], on_unknown)[:, None]
        missing = cells.isna().to_numpy(dtype=bool)
        form = self.formats.format_of(entry["role"], entry["pattern"], tuple(entry.get("parts", ())))
        expected = f"one written as {entry['pattern'] or entry['dtype']}"
        if entry["role"] in ("number", "several"):
            if entry["role"] == "number" and cells.dtype.kind in "iuf":
                values = cells.to_numpy(dtype=np.float64)[:, None]
                bad = np.isinf(values[:, 0])
            else:
                values, bad = form.read([None if gap else str(cell) for cell, gap in zip(cells, missing, strict=True)])
            self._refuse(cells, bad, entry, expected)
            return values
        when, bad = self._instants(cells, missing, entry, form)
        self._refuse(cells, bad, entry, expected)
        values, unknown = self.formats.parts_of(when, form.parts)
        if on_unknown == "fail":
            allowed = ", ".join(map(str, form.parts))
            self._refuse(cells, unknown & ~missing, entry, f"one like those of training ({allowed})")
        values[missing | unknown] = np.nan
        return values

    def _instants(self, cells: Any, missing: np.ndarray, entry: Mapping[str, Any], form: Any) -> tuple[Any, np.ndarray]:
        """Dates, times and durations as instants, and which are none."""
        if not entry["pattern"] or cells.dtype.kind in "mM":
            return self._native(cells, missing, form)
        when, _, bad = form.instants([None if gap else str(cell) for cell, gap in zip(cells, missing, strict=True)])
        return when, bad

    def _native(self, cells: Any, missing: np.ndarray, form: Any) -> tuple[Any, np.ndarray]:
        """Dates, times and durations that are held as such (over HTTP: ISO 8601 texts), and which are none."""
        import pandas as pd

        kind = {"duration": "timedelta64[ns]"}.get(form.parts[0].name, "datetime64[ns]")
        timed_only = all(part.name == "clock" for part in form.parts)
        texts = pd.Series([("1970-01-01 " if timed_only else "") + str(cell) for cell in cells[~missing]], dtype=object)
        read = pd.to_timedelta if kind.startswith("timedelta") else pd.to_datetime
        options = {} if kind.startswith("timedelta") else {"utc": True, "format": "mixed"}
        moments = read(texts, errors="coerce", **options)
        bad = np.zeros(len(cells), np.bool_)
        bad[~missing] = moments.isna().to_numpy()
        counts, size = np.zeros(len(cells), np.int64), 1
        if len(moments):
            plain = (moments.dt.tz_localize(None) if kind.startswith("datetime") else moments).dropna().to_numpy()
            size = self.formats.UNITS[np.datetime_data(plain.dtype)[0]]
            counts[~missing & ~bad] = plain.astype(np.int64)
        day = self.formats.DAY // size  # nanoseconds since 1970 would end with the year 2262
        days, clock = np.divmod(counts, day) if kind.startswith("datetime") else (np.zeros_like(counts), counts)
        return self.formats.Instants(days, clock * size, np.zeros_like(days)), bad

    def read(self, model_input: Any, task: str, *, on_unknown: str = "fail") -> Rows:
        """As of `Tables`; cells that the rules leave no choice are known, too.

        Raises:
            ValueError: If a row breaks a rule and the task is not to say how likely that is.
        """
        rows = super().read(model_input, task, on_unknown=on_unknown)
        rules = self.table.constraints
        if rules is None:
            return rows
        full = rows.x.numpy()
        given = rules.involved(full)
        broken = rules.broken(given)
        first = next((row for row, text in enumerate(broken) if text), None)
        if first is not None and task not in SCORED:
            raise ValueError(f"row {first} breaks a constraint of the data: {broken[first]}. Fix the row.")
        x = torch.from_numpy(rules.forward(full))
        return rows._replace(x=x, observed=~torch.isnan(x), given=given, broken=broken)

    def _known(self, cells: np.ndarray) -> tuple[np.ndarray, Any]:
        rules = self.table.constraints
        if rules is None:
            return cells, None
        values = rules.involved(cells)
        if broken := rules.broken(values)[0]:
            raise ValueError(f"given breaks a constraint of the data: {broken}. Give other values.")
        return rules.forward(cells), values

    def _rows(self, x: torch.Tensor, seed: int, given: Any) -> np.ndarray:
        return self.table.rows(self._flat(x), given, seed)

    def _limit(self, name: str, values: list[Any]) -> Callable[[np.ndarray], np.ndarray]:
        import pandas as pd

        entry = self.learned[self.names.index(name)]
        cells, places = pd.Series(values, dtype=object), list(entry["columns"])
        if entry["role"] == "category":
            return self._among(name, self._entry(cells, entry, "fail")[:, 0], places[0])
        if entry["role"] == "several":
            raise ValueError(f"given: column {name!r} holds several numbers: give one value, not a list.")
        if entry["role"] == "number":
            ends = self._entry(cells.infer_objects(), entry, "fail")[:, 0]
            return self._between(name, values, ends, lambda rows: rows[:, places[0]])
        form = self.formats.format_of(entry["role"], entry["pattern"], tuple(entry.get("parts", ())))
        missing = cells.isna().to_numpy(dtype=bool)
        when, bad = self._instants(cells, missing, entry, form)
        self._refuse(cells, bad, entry, f"one written as {entry['pattern'] or entry['dtype']}")

        def measured(rows: np.ndarray) -> np.ndarray:
            parts = rows[:, places]
            unknown = np.isnan(parts).any(axis=1)
            found = self.formats.instants_of(np.where(unknown[:, None], 0.0, parts), form.parts)
            return np.where(unknown, math.nan, self._nanoseconds(found))

        return self._between(name, values, np.where(missing, math.nan, self._nanoseconds(when)), measured)

    def _nanoseconds(self, when: Any) -> np.ndarray:
        """Since 1970, in Greenwich; exact to a millionth of a second."""
        minutes = when.days.astype(np.float64) * (24 * 60) - when.offset
        return minutes * (self.formats.DAY / (24 * 60)) + when.clock

    def obeys(self, x: torch.Tensor, *, seed: int = 0, given: Any = None, alone: bool = False) -> torch.Tensor | None:
        """As of `Conversion`; where rows are given, they may repeat what is unique."""
        rules = self.table.constraints
        if rules is None:
            return None
        full, obeys = rules.inverse(self._flat(x), _repeated(given, x), seed)
        if given is None and not alone:
            obeys &= ~rules.repeated(full)
        return torch.from_numpy(obeys).reshape(x.shape[:-1])

    def rules(self) -> str:
        rules = self.table.constraints
        return "; ".join(rule.text for rule in rules.rules) if rules else ""

    def _flat(self, x: torch.Tensor) -> np.ndarray:
        return x.cpu().reshape(-1, len(self.columns)).double().numpy()

    def write(self, x: torch.Tensor, *, seed: int = 0, given: Any = None) -> Any:
        """Data-space examples as the source's table without its label; of several draws, one below the other."""
        import pandas as pd

        rows = self.table.rows(self._flat(x), _repeated(given, x), seed)
        cells = self.table.cells_of(rows, None, seed)
        data = {
            str(entry["name"]): self._column(cells[entry["name"]], rows, entry)
            for entry in self.table.written
            if entry["role"] != "label"
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
            return self._originals(values, self.full[place])
        if role in ("datetime", "duration") and not entry["pattern"]:
            return self._moments(cells, dtype)
        if role in ("identifier", "constant") and dtype.startswith("float"):
            return np.array([np.nan if cell is None else float(cell) for cell in cells])
        if role in ("identifier", "constant") and dtype.startswith(("int", "uint")) and None not in cells:
            numbers = [int(cell) for cell in cells]
            held_by = self.formats.whole_type(numbers, dtype)
            if held_by:
                return np.array(numbers, held_by)
        return pd.Series(list(cells), dtype=object)

    def _moments(self, cells: Sequence[int | None], dtype: str) -> Any:
        """Native dates, times and durations as pandas reads them from Parquet."""
        import pandas as pd

        unit = next((unit for unit in ("ns", "us", "ms", "s") if f"[{unit}" in dtype), "ns")
        if dtype.startswith("date"):
            days = [None if cell is None else cell // self.formats.DAY for cell in cells]
            dates = [None if day is None else datetime.date.fromordinal(719163 + day) for day in days]
            return pd.Series(dates, dtype=object)
        if dtype.startswith("time") and not dtype.startswith("timestamp"):
            times = [None if cell is None else pd.Timestamp(cell).time() for cell in cells]
            return pd.Series(times, dtype=object)
        nothing, size = np.iinfo(np.int64).min, self.formats.UNITS[unit]  # NaT
        counts = np.array([nothing if cell is None else cell // size for cell in cells], np.int64)
        if dtype.startswith("duration"):
            return pd.Series(counts.view(f"timedelta64[{unit}]"))
        moments = pd.Series(counts.view(f"datetime64[{unit}]"))
        zone = dtype.partition("tz=")[2].rstrip("]")
        return moments.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else moments


def _repeated(given: Any, x: torch.Tensor) -> Any:
    """What is known of rows, once for each of their draws."""
    draws = len(x) if x.ndim == 3 else 1
    return given and {name: np.tile(cells, draws) for name, cells in given.items()}


def entry_kind(entry: Mapping[str, Any], learned: Sequence[Mapping[str, Any]]) -> str:
    """MLflow's name for the type that a column of the source has when it comes back."""
    role, dtype = entry["role"], str(entry["dtype"])
    if role == "category" or (role == "number" and "string" not in dtype):
        return column_kind(learned[entry["columns"][0]])
    if role == "datetime" and not entry["pattern"] and dtype.startswith("timestamp") and "tz=" not in dtype:
        return "datetime"
    if role in ("identifier", "constant") and dtype.startswith(("int", "uint", "float")):
        return "long" if dtype.startswith(("int", "uint")) else "double"
    return "string"
