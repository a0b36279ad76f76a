"""Preparing tables: hashes, statistics, preview, export, lines of the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.cards import Card, Inspection
from data.domains.base import DataKind, Parts, TextWriter
from data.domains.source_table import as_array, fields, source_table, table_cells, write_text
from data.grids import GridSearch
from data.permutation import mixed
from data.quoting import one_line, quoted
from data.rounding import rounding_of
from data.tails import MOST, tails_of


def table_lines(card: Card, inspection: Inspection) -> list[str]:
    """The card's lines on a table, each doubtful column with the reason."""
    lines = [
        f"label: {quoted(card.label)}" if card.label else '# label: ""  # the column that names the class of a row'
    ]
    lines.append(f"missing: {card.missing}  # model: draws have gaps where the data has them; fill: none")
    lines.append("marks: [" + ", ".join(map(quoted, card.marks)) + "]  # cells that mean: not known")
    lines.append(
        "columns:  # learned: continuous, integer, categorical, datetime, duration, several (numbers in one cell); its"
    )
    lines.append(
        "  # place kept: identifier, index, text, constant; left out: skip. `format` is how the cells are written"
    )
    for column in card.columns:
        doubt = inspection.column_warnings.get(column.name)
        comment = f"  # unsure: {one_line(doubt)}" if doubt else ""
        keys = [f"name: {quoted(column.name)}", f"type: {column.type}"]
        keys += [f"{key}: {quoted(value)}" for key in ("format", "why") if (value := getattr(column, key))]
        for key in ("categories", "parts", "missing"):
            if getattr(column, key):
                keys.append(f"{key}: [{', '.join(map(quoted, getattr(column, key)))}]")
        lines.append(f"  - {{{', '.join(keys)}}}{comment}")
    return lines + constraint_lines(card)


def constraint_lines(card: Card) -> list[str]:
    """The card's lines on what every row obeys."""
    if not card.constraints:
        return [
            "constraints: []  # what every row obeys: {rule: a <= b}, {rule: total = x + y}, {combination: [a, b]}, "
            "{unique: [a]}"
        ]
    lines = ["constraints:  # every row obeys these, and so will every drawn one; `constraints: []` turns them off"]
    for stated in card.constraints:
        keys = [f"rule: {quoted(stated.rule)}"] if stated.rule else []
        for key in ("combination", "unique", "gaps"):
            if getattr(stated, key):
                keys.append(f"{key}: [{', '.join(map(quoted, getattr(stated, key)))}]")
        keys += [f"{key}: {quoted(value)}" for key in ("by", "why") if (value := getattr(stated, key))]
        lines.append(f"  - {{{', '.join(keys)}}}")
    return lines


BARS = "▁▂▃▄▅▆▇█"


def columns_text(manifest: dict[str, Any]) -> str:
    """A Markdown table of the columns: type, gaps, range or categories, and a small histogram."""
    lines = ["| column | type | missing | range or categories | distribution |", "|---|---|---|---|---|"]
    for column in manifest["domain"]["columns"]:
        if column["type"] == "categorical":
            found = ", ".join(column["categories"][:8]) + (", …" if len(column["categories"]) > 8 else "")
            bars = _bars(np.array(column["frequencies"][:40], float))
        else:
            found = f"{column['min']:.6g} … {column['max']:.6g}, mean {column['mean']:.6g}, std {column['std']:.6g}"
            bars = _bars(_histogram(np.array(column["quantiles"])))
        cells = [column["name"], column["type"], str(column["missing"]), found, bars]
        lines.append("| " + " | ".join(map(cell_text, cells)) + " |")
    return "\n".join(lines)


def _histogram(quantiles: np.ndarray) -> np.ndarray:
    """Frequencies in twenty equal bins between the 1 % and the 99 % quantile."""
    scale = np.abs(quantiles).max() or 1.0
    quantiles = quantiles / scale
    low, high = quantiles[len(quantiles) // 100], quantiles[-1 - len(quantiles) // 100]
    return np.histogram(quantiles, bins=20, range=(low, high if high - low > 1e-9 else low + 1))[0].astype(float)


def _bars(heights: np.ndarray) -> str:
    if not len(heights) or not heights.max():
        return ""
    return "".join(BARS[round(height / heights.max() * (len(BARS) - 1))] for height in heights)


def cell_text(text: str) -> str:
    """A text as a cell of a Markdown table may hold it."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def not_learned_text(manifest: dict[str, Any]) -> str:
    """Which columns of the source are not learned, and why; empty when all are."""
    place = {
        "identifier": "fresh ones are drawn from its pattern, never one that occurred",
        "text": "a place is kept for it", "constant": "comes back as it is", "skip": "left out of what is drawn",
    }  # fmt: skip
    aside = [entry for entry in manifest.get("table", ()) if entry["role"] in place]
    lines = ["| column | kind | why | in what is drawn |", "|---|---|---|---|"]
    for entry in aside:
        cells = [entry["name"], entry["role"], entry.get("why", "the card says so"), place[entry["role"]]]
        lines.append("| " + " | ".join(map(cell_text, cells)) + " |")
    return "\n".join(lines) if aside else ""


def constraints_text(manifest: dict[str, Any]) -> str:
    """What every row obeys and how drawn rows are made to; empty where nothing is stated."""
    found = source_table(manifest).constraints
    if found is None:
        return ""
    lines = ["| every row obeys | how drawn rows are made to | why |", "|---|---|---|"]
    for rule, how, stated in zip(found.rules, found.kept_how, manifest["constraints"]["rules"], strict=True):
        lines.append(
            "| " + " | ".join(map(cell_text, (rule.text, how, stated.get("why") or "the card says so"))) + " |"
        )
    return "\n".join(lines)


def rows_as_text(manifest: dict[str, Any], x: NDArray[Any], label: NDArray[Any]) -> str:
    """The first rows of a table, aligned."""
    columns, classes = manifest["domain"]["columns"], manifest["class_names"]
    lines = [[column["name"] for column in columns] + (["label"] if classes else [])]
    for row, code in zip(x, label, strict=True):
        cells = [_cell_as_text(value, column) for value, column in zip(row, columns, strict=True)]
        lines.append(cells + ([classes[code] if code >= 0 else ""] if classes else []))
    widths = [min(16, max(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    return "\n".join(
        "  " + "  ".join(cell[:width].ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def _cell_as_text(value: float, column: dict[str, Any]) -> str:
    if value != value:
        return ""
    if column["type"] == "categorical":
        return column["categories"][int(value)]
    return str(int(value)) if column["type"] == "integer" else f"{value:.6g}"


def row_hashes(x: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Hashes of a table's rows by their cells, missing ones included, `[n]`.

    Arguments:
        x: `[n, columns]`.
    """
    bits = np.where(np.isnan(x), np.nan, x + 0.0).view(np.uint64)  # one NaN, no negative zero
    total: NDArray[Any] = np.full(len(x), 0x9E3779B97F4A7C15, np.uint64)
    for column in range(x.shape[1]):
        total = mixed(total ^ mixed(bits[:, column] + np.uint64(column + 1)))
    return total


QUANTILES = 1001
FEWEST_QUANTILES, APART = 101, 4
"""Quantiles of a column of rounded numbers at least, and rows that otherwise lie from one of them to the next."""
SAMPLE = 1 << 18
SQUARED = 1e150
"""Numbers whose squares may be beyond those of float64."""


def table_statistics(folder: Path, splits: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of every column over the training split, one column at a time.

    Quantiles and rounding are exact up to 2^18 rows, beyond that those of the first so many (rows are shuffled).
    """
    shards = splits.get("train", {"shards": []})["shards"]
    return {"columns": {column["name"]: _column(folder, shards, index, column) for index, column in enumerate(columns)}}


def _column(folder: Path, shards: list[dict[str, Any]], index: int, column: dict[str, Any]) -> dict[str, Any]:
    count = missing = 0
    mean, spread = 0.0, np.float64(0.0)
    low, high = np.inf, -np.inf
    kept: list[NDArray[np.float64]] = []
    room = SAMPLE
    grid_search = GridSearch()
    ends = np.empty((2, 0))
    frequencies = np.zeros(len(column.get("categories") or ()), np.int64)
    for shard in shards:
        with pa.memory_map(str(folder / shard["file"])) as source:
            x = pa.ipc.open_file(source).get_batch(0).column("x").to_numpy_ndarray()
            values = x[:, index].copy()
        known = values[~np.isnan(values)]
        missing += len(values) - len(known)
        if not len(known):
            continue
        if column["type"] == "categorical":
            frequencies += np.bincount(known.astype(np.int64), minlength=len(frequencies))
        grid_search.add(known)
        here, shift = len(known), float(known.mean()) - mean
        wide = np.longdouble if np.abs(known).max() > SQUARED else np.float64
        spread += ((known - known.mean()).astype(wide) ** 2).sum() + wide(shift) ** 2 * count * here / (count + here)
        mean += shift * here / (count + here)
        count += here
        ends = np.sort(np.concatenate([ends, [known, -known]], axis=1), axis=1)[:, : MOST + 1]
        low, high = min(low, float(known.min())), max(high, float(known.max()))
        if room > 0:
            kept.append(known[:room])
            room -= len(kept[-1])
    if column["type"] == "categorical":
        return {"count": count, "missing": missing, "frequencies": frequencies.tolist()}
    if not count:
        return {
            "count": 0,
            "missing": missing,
            "min": 0.0,
            "max": 0.0,
            "mean": 0.0,
            "std": 0.0,
            "quantiles": [],
            "tails": {},
            "grid": {},
            "rounding": {},
        }
    seen = np.concatenate(kept)
    step = grid_search.found()
    rounding = rounding_of(seen, step)
    grid = rounded_quantiles(seen) if rounding else np.quantile(seen, np.linspace(0, 1, QUANTILES))
    grid[0], grid[-1] = low, high
    return {
        "count": count, "missing": missing, "min": low, "max": high,
        "mean": mean, "std": float((spread / count) ** 0.5), "quantiles": grid.tolist(),
        "tails": tails_of(ends[0], -ends[1], count), "grid": step, "rounding": rounding,
    }  # fmt: skip


def rounded_quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles that are numbers of the column, for between two rounded ones may lie none; so few that one which is
    several of them is frequent."""
    count = min(QUANTILES, max(FEWEST_QUANTILES, len(values) // APART + 1))
    return np.quantile(values, np.linspace(0, 1, count), method="inverted_cdf")


def table_domain(columns: list[dict[str, Any]], statistics: dict[str, Any]) -> dict[str, Any]:
    """The table's domain, as `models.build` takes it.

    The standard deviation of a column that does not vary is given as 1, so that scaling by it stays finite.
    """
    described = []
    for column in columns:
        found = statistics["columns"][column["name"]]
        entry = {**column, "missing": found["missing"]}
        if column["type"] == "categorical":
            entry["frequencies"] = found["frequencies"]
        else:
            constant = not found["std"] > 1e-12 * max(1.0, abs(found["mean"]))
            entry.update({key: found[key] for key in ("count", "min", "max", "mean")})
            entry["std"] = 1.0 if constant else found["std"]
            entry["quantiles"] = found["quantiles"] or [0.0] * QUANTILES
            entry["tails"] = found.get("tails", {})
            entry.update({key: found[key] for key in ("grid", "rounding") if found.get(key)})
        described.append(entry)
    return {"kind": "table", "columns": described}


class Tables(DataKind):
    """Rows of numbers and categories with gaps."""

    def statistics(self, folder: Path, splits: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
        return table_statistics(folder, splits, columns)

    def domain(
        self, card: Card, event_shape: tuple[int, ...], columns: list[dict[str, Any]], statistics: dict[str, Any]
    ) -> dict[str, Any]:
        domain = table_domain(columns, statistics)
        return domain if card.missing == "model" else {**domain, "missing": card.missing}

    def card_lines(self, card: Card, inspection: Inspection) -> list[str]:
        return table_lines(card, inspection)

    def section(self, manifest: dict[str, Any]) -> str:
        aside = not_learned_text(manifest)
        parts = ["## Columns (training split)", columns_text(manifest)]
        parts += ["## Columns that are not learned", aside] if aside else []
        obeyed = constraints_text(manifest)
        return "\n\n".join(parts + (["## Constraints", obeyed] if obeyed else []))

    def as_text(self, folder: Path, manifest: dict[str, Any], x: NDArray[Any], label: NDArray[Any]) -> str:
        return rows_as_text(manifest, x, label)

    def fields(self, manifest: Mapping[str, Any], label: str) -> list[pa.Field]:
        return fields(manifest)

    def arrays(
        self, manifest: Mapping[str, Any], split: str, parts: Parts, schema: pa.Schema
    ) -> Iterator[list[pa.Array]]:
        for cells in table_cells(manifest, split, parts):
            yield [as_array(cells[field.name], field.type) for field in schema]

    def text_writer(self) -> TextWriter:
        return write_text
