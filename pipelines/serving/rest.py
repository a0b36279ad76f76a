"""A request over HTTP as rows and parameters, and an answer as JSON: the same forms as MLflow's scoring server.

MLflow would cast rows to the one signature of the default task and answer mistakes with a stack trace; here each
mistake is a `ValueError` whose sentence is the answer.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
"""The keys under which JSON may hold rows; one of them, or none for a task that needs no rows."""

TYPES = ("application/json", "text/csv", "application/vnd.apache.parquet")


def parse(body: bytes | str, content_type: str | None, most_bytes: int) -> tuple[Any, dict[str, Any]]:
    """Rows (`None` for none) and parameters of a request.

    Raises:
        ValueError: If the body is too large, of an unknown type, or not what it says.
    """
    size = len(body)
    if size > most_bytes:
        raise ValueError(
            f"the request has {size} bytes, at most {most_bytes} are taken (FIVEFOLD_MAX_REQUEST_BYTES). "
            "Send the rows in parts."
        )
    kind, *details = [part.strip().lower() for part in (content_type or "").split(";")]
    if kind not in TYPES:
        raise ValueError(f"Content-Type must be one of {', '.join(TYPES)}, got {content_type!r}. Set this header.")
    wrong = [
        detail for detail in details if detail and detail.replace('"', "") not in ("charset=utf-8", "charset=utf8")
    ]
    if wrong:
        raise ValueError(f"Content-Type allows charset=utf-8 only, got {wrong[0]!r}. Send UTF-8.")
    if kind == TYPES[2]:
        return _parquet(body), {}
    text = _text(body)
    return (_csv(text), {}) if kind == TYPES[1] else _json(text)


def _text(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the request is not UTF-8: byte {body[error.start]:#04x} at {error.start}. Send UTF-8."
        ) from error


def _csv(text: str) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""])
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the request is not CSV with a header line: {reason}. Send what to_csv(index=False) writes."
        ) from error


def _parquet(body: bytes | str) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(body if isinstance(body, bytes) else body.encode()))
    except Exception as error:  # whatever the Parquet reader raises
        raise ValueError("the request is not a Parquet file. Send what DataFrame.to_parquet writes.") from error


def _json(text: str) -> tuple[Any, dict[str, Any]]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON: {error}. Send an object with one of {', '.join(FORMS)}.") from error
    if _depth(request) > DEEPEST:
        raise ValueError(f"the request is nested more than {DEEPEST} deep. Rows of images are nested 4 deep.")
    if not isinstance(request, dict):
        raise ValueError(f"the request must be a JSON object with one of {', '.join(FORMS)}, got a {_kind(request)}.")
    unknown = sorted(set(request) - {*FORMS, "params"})
    if unknown:
        raise ValueError(
            f"unknown keys {', '.join(unknown)} in the request; known: {', '.join(FORMS)} and params. "
            "Parameters such as task and n belong into params."
        )
    params = request.pop("params", None)
    if params is not None and not isinstance(params, dict):
        raise ValueError(f'params must be a JSON object, such as {{"task": "describe"}}, got a {_kind(params)}.')
    if len(request) > 1:
        raise ValueError(f"the request holds {' and '.join(sorted(request))}; give the rows once, under one of them.")
    rows = next((_rows(form, value) for form, value in request.items()), None)
    return rows, params or {}


DEEPEST = 16
"""Levels of lists and objects in a request."""


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted no further than one too many."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        level = [
            part
            for whole in level
            if isinstance(whole, (list, dict))
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, (list, dict))
        ]
        depth += 1
    return depth


def _rows(form: str, value: Any) -> Any:
    import pandas as pd

    if form == "dataframe_split":
        return _split(value)
    if form == "dataframe_records" or (isinstance(value, list) and value and isinstance(value[0], dict)):
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise ValueError(f"{form} must be a list of objects, one per row with its cells by column name.")
        return pd.DataFrame(value)
    if isinstance(value, dict):
        lengths = {name: len(cells) if isinstance(cells, list) else -1 for name, cells in value.items()}
        if len(set(lengths.values())) > 1 or -1 in lengths.values():
            raise ValueError(f"{form} must hold lists of equal length by column name, got {lengths} (-1: no list).")
        return pd.DataFrame(value)
    if not isinstance(value, list):
        raise ValueError(f"{form} must be a list of rows, got a {_kind(value)}.")
    return value


def _split(value: Any) -> Any:
    import pandas as pd

    expected = 'dataframe_split must be an object {"columns": [names], "data": [rows]} and, if wanted, "index"'
    if not isinstance(value, dict) or "data" not in value or set(value) - {"columns", "data", "index"}:
        raise ValueError(f"{expected}, got {sorted(value) if isinstance(value, dict) else 'a ' + _kind(value)}.")
    columns, data, index = value.get("columns"), value["data"], value.get("index")
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise ValueError(f"{expected}; data must be a list of lists.")
    if columns is not None and not isinstance(columns, list):
        raise ValueError(f"{expected}; columns must be a list of names, got a {_kind(columns)}.")
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        raise ValueError(f"index of dataframe_split must be a list of {len(data)} entries, one per row.")
    for name, entries in (("columns", columns), ("index", index)):
        if any(isinstance(entry, (dict, list)) for entry in entries or ()):
            raise ValueError(f"{name} of dataframe_split must be texts or numbers, not objects or lists.")
    width = len(columns) if columns is not None else len(data[0]) if data else 0
    for number, row in enumerate(data):
        if len(row) != width:
            raise ValueError(f"row {number} of dataframe_split has {len(row)} cells, expected {width}.")
    return pd.DataFrame(data, columns=columns, index=index)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def answer(predictions: Any) -> str:
    """An answer's JSON: arrays as lists, tables as a list of rows, missing cells as null."""
    if hasattr(predictions, "to_dict"):
        predictions = predictions.to_dict(orient="records")
    return json.dumps({"predictions": _plain(predictions)}, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind in "iub" else _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return None if value != value or str(value) in ("<NA>", "NaT") else str(value)  # pandas' missing, dates
