"""What a table's exhibits show: rows with marked cells, histograms of columns, matrices of associations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report.domains.base import Use
from pipelines.report.loading import mapping, sequence
from pipelines.report.numbers import finite, plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell.

    Arguments:
        text: What it says.
        marked: Whether it stands out: filled in, or different from the row above.
    """

    text: str
    marked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows of a table.

    Arguments:
        header: Names of the columns.
        rows: What each row is, and its cells.
    """

    header: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """Two bars of a histogram, beside each other.

    Arguments:
        label: The value, or the middle of the bin.
        x: Left edge.
        width: Of one bar.
        real: Height for real rows.
        samples: Height for samples.
    """

    label: str
    x: float
    width: float
    real: float
    samples: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """A column of real rows and of samples.

    Arguments:
        column: Its name.
        note: Said beside it: the distance.
        alt: In words.
        bars: From left to right.
        ends: Labels of the first and the last bar.
        height: Of the drawing.
        base: Where the bars stand.
    """

    column: str
    note: str
    alt: str
    bars: list[Bar]
    ends: tuple[str, str]
    height: float = 100
    base: float = 82


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """Associations of columns, a square for each two.

    Arguments:
        title: Whose.
        alt: In words.
        side: Of a square.
        squares: Left edge, upper edge, strength from 0 to 1, and what a pointer on it says.
        names: Place and name of each column.
    """

    title: str
    alt: str
    side: float
    squares: list[tuple[float, float, float, str]]
    names: list[tuple[float, str]]


WIDTH, LEFT = 320.0, 96.0


def use(domain: Mapping[str, Any]) -> Use:
    """Samples of rows, whose columns the model knows."""
    nothing = "pd.DataFrame(columns=model.metadata.get_output_schema().input_names())"
    return Use(library="pandas as pd", nothing=nothing, file="rows.csv")


def told_apart(results: Mapping[str, Any]) -> str:
    """By which columns samples are told from real rows, and what in them cannot be, as sentences; may be empty."""
    said = []
    for key, start in (
        ("told_apart", "Small trees tell samples from test rows by"),
        ("impossible_pairs", "Impossible pairs of values, as shares of the samples:"),
        ("broken_rules", "Rules that training rows keep and samples break, as shares of the samples:"),
        ("outside_dates", "Dates before the first or after the last of the training rows, as shares of the samples:"),
        ("last_digits", "Numbers end otherwise than those of the training rows, as distances:"),
    ):
        entries = [mapping(entry) for entry in sequence(results.get(key))]
        part = {"told_apart": "accuracy", "last_digits": "distance"}.get(key, "share")
        texts = []
        for entry in entries:
            columns = [str(column) for column in sequence(entry.get("columns"))]
            name = " × ".join(columns) or str(entry.get("rule") or "")
            texts += [f"{name} ({plain(finite(entry.get(part)), 3)})"] if name else []
        if texts:
            said.append(f"{start} {', '.join(texts)}.")
    return " ".join(said)


def rows(exhibits: Mapping[str, Any], name: str) -> Rows | None:
    """Rows by the name they were kept under; `None` if there are none."""
    header = [str(column) for column in sequence(exhibits.get("header"))]
    found = []
    for entry in map(mapping, sequence(mapping(exhibits.get("tables")).get(name))):
        marks = sequence(entry.get("marks"))
        cells = [Cell(text=str(text), marked=i in marks) for i, text in enumerate(sequence(entry.get("cells")))]
        found.append((str(entry.get("name") or ""), cells[: len(header)]))
    return Rows(header=header, rows=found) if found and header else None


def samples(exhibits: Mapping[str, Any], *, real: bool) -> Rows | None:
    """Samples, or the real rows that were kept beside them; `None` if there are none."""
    kept = rows(exhibits, "samples")
    chosen = [(name, cells) for name, cells in kept.rows if name.startswith("real") == real] if kept else []
    return Rows(header=kept.header, rows=chosen) if kept and chosen else None


def histograms(exhibits: Mapping[str, Any]) -> list[Histogram]:
    """A histogram for each column."""
    return [made for entry in map(mapping, sequence(exhibits.get("histograms"))) if (made := histogram(entry))]


def histogram(entry: Mapping[str, Any]) -> Histogram | None:
    """Bars of real rows beside those of samples; `None` if there are none."""
    labels = [str(label) for label in sequence(entry.get("labels"))]
    sides = {side: [finite(v) or 0.0 for v in sequence(entry.get(side))] for side in ("real", "samples")}
    n = min(len(labels), *(len(values) for values in sides.values()))
    if not n:
        return None
    top = max(*sides["real"][:n], *sides["samples"][:n], 1e-9)
    slot = WIDTH / n
    bars = [
        Bar(
            label=labels[i],
            x=round(i * slot + 0.1 * slot, 2),
            width=round(0.4 * slot, 2),
            real=round(76 * max(sides["real"][i], 0) / top, 2),
            samples=round(76 * max(sides["samples"][i], 0) / top, 2),
        )
        for i in range(n)
    ]
    said = [
        f"{labels[i]} {plain(100 * sides['real'][i], 1)} and {plain(100 * sides['samples'][i], 1)}" for i in range(n)
    ]
    column, distance = str(entry.get("column") or ""), finite(entry.get("distance"))
    return Histogram(
        column=column,
        note="" if distance is None else f"distance {plain(distance, 3)}",
        alt=f"{column}, per cent of real rows and of samples: {'; '.join(said)}",
        bars=bars,
        ends=(labels[0], labels[n - 1] if n > 1 else ""),
    )


def matrices(exhibits: Mapping[str, Any]) -> list[Matrix]:
    """Associations of the columns in real rows and in samples."""
    found = mapping(exhibits.get("associations"))
    names = [str(name) for name in sequence(found.get("columns"))]
    titles = {"real": "Associations in real rows", "samples": "Associations in samples"}
    return [made for key, title in titles.items() if (made := matrix(title, names, sequence(found.get(key))))]


def matrix(title: str, names: list[str], values: list[Any]) -> Matrix | None:
    """Squares whose ink is the strength; `None` unless there is a number for every two columns."""
    n = len(names)
    grid = [[finite(value) for value in sequence(row)] for row in values]
    if n < 2 or len(grid) != n or any(len(row) != n or None in row for row in grid):
        return None
    side = (WIDTH - LEFT) / n
    squares, strongest = [], (0.0, "")
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            strength = min(max(value or 0.0, 0.0), 1.0)
            said = f"{names[i]} and {names[j]}: {plain(value, 2)}"
            if i != j:
                squares.append((round(LEFT + j * side, 2), round(i * side, 2), round(strength, 3), said))
                strongest = max(strongest, (strength, said))
    return Matrix(
        title=title,
        alt=f"{title}. Strongest: {strongest[1]}.",
        side=round(side, 2),
        squares=squares,
        names=[(round((i + 0.5) * side, 2), name) for i, name in enumerate(names)],
    )
