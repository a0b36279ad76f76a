"""The files of a run tree, read so that a missing or broken one is a problem told on the page and never an error."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.report.numbers import finite
from pipelines.report.pictures import Picture, fitted

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is not there, and what makes it.

    Arguments:
        what: A sentence without its full stop.
        command: The command line that makes it.
    """

    what: str
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What is on disk of one family; empty where it is missing.

    Arguments:
        name: Its name.
        model: `model.json` of the finished model.
        results: What `evaluate` wrote.
        tune: What `tune` wrote.
        curves: By column, the points (examples seen, value).
        pictures: By name, those of `evaluate` (images).
        exhibits: What `evaluate` keeps to be looked at of a table.
        explorer: What `evaluate` keeps of decoded codes.
        progress: Examples seen and the grid of samples drawn then.
        problems: What is missing.
    """

    name: str
    model: dict[str, Any]
    results: dict[str, Any]
    tune: dict[str, Any]
    curves: dict[str, list[tuple[float, float]]]
    pictures: dict[str, Picture]
    exhibits: dict[str, Any]
    explorer: dict[str, Any]
    progress: list[tuple[int, Picture]]
    problems: list[Problem]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The measured metrics by name."""
        return metrics_of(self.results.get("metrics"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What is on disk of a dataset's run.

    Arguments:
        dataset: Its name.
        manifest: The prepared data's manifest.
        yardstick: Facts of the yardstick.
        registry: What `register` wrote.
        families: The families, in order.
        problems: What is missing, by section (`yardstick`, `registry`).
        newest: Date of the newest file read; `None` if there is none.
    """

    dataset: str
    manifest: dict[str, Any]
    yardstick: dict[str, Any]
    registry: dict[str, Any]
    families: list[Family]
    problems: dict[str, Problem]
    newest: datetime | None

    @property
    def floors(self) -> dict[str, dict[str, Any]]:
        """By metric, what real training examples score."""
        return metrics_of(mapping(self.yardstick.get("reference")).get("floors"))

    @property
    def baseline(self) -> dict[str, dict[str, Any]]:
        """By metric, what the classical baseline scores."""
        return metrics_of(mapping(self.yardstick.get("reference")).get("baseline"))


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return {str(key): entry for key, entry in value.items()} if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def metrics_of(value: Any) -> dict[str, dict[str, Any]]:
    """Metrics by name; a bare number counts as a metric without an interval."""
    return {k: mapping(v) if isinstance(v, Mapping) else {"value": v} for k, v in mapping(value).items()}


@dataclass(kw_only=True, slots=True)
class Reader:
    """Reads files and remembers the newest.

    Arguments:
        root: The project's root, to which problems are relative.
        newest: When the newest file was written, in seconds.
    """

    root: Path
    newest: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    def bytes(self, path: Path, command: str) -> bytes | None:
        """A file's content; `None` and a problem if it cannot be read."""
        try:
            content = path.read_bytes()
            self.newest = max(self.newest, path.stat().st_mtime)
        except FileNotFoundError:
            self.report_problem(path, "does not exist", command)
        except OSError as error:
            self.report_problem(path, f"cannot be read ({error.strerror or error})", command)
        else:
            return content
        return None

    def json(self, path: Path, command: str) -> dict[str, Any]:
        """A JSON object; an empty one and a problem if there is none."""
        content = self.bytes(path, command)
        if content is None:
            return {}
        try:
            found = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            self.report_problem(path, f"is not JSON ({error})", command)
            return {}
        if not isinstance(found, dict):
            self.report_problem(path, f"holds a {type(found).__name__} where an object was expected", command)
            return {}
        return found

    def picture(self, path: Path, command: str) -> Picture | None:
        """A PNG file; `None` and a problem if it is none, or cut short."""
        content = self.bytes(path, command)
        if content is None:
            return None
        width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
        if not (content.startswith(SIGNATURE) and content.endswith(END) and width and height):
            self.report_problem(path, "is not a whole PNG file", command)
            return None
        return Picture(content=content, width=width, height=height)

    def curves(self, path: Path, command: str) -> dict[str, list[tuple[float, float]]]:
        """By column, the points (examples, value) where both are finite."""
        content = self.bytes(path, command)
        if content is None:
            return {}
        rows = list(csv.reader(content.decode(errors="replace").splitlines()))
        if not rows or "examples" not in rows[0]:
            self.report_problem(path, "has no column `examples`", command)
            return {}
        names, at = rows[0], rows[0].index("examples")
        points: dict[str, list[tuple[float, float]]] = {name: [] for i, name in enumerate(names) if i != at}
        for row in rows[1:]:
            numbers = [number(cell) for cell in row]
            seen = numbers[at] if at < len(numbers) else None
            for name, value in zip(names, numbers, strict=False):
                if name in points and seen is not None and value is not None:
                    points[name].append((seen, value))
        return {name: found for name, found in points.items() if found}

    def report_problem(self, path: Path, what: str, command: str) -> None:
        """Note what is wrong with a file."""
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        self.problems.append(Problem(what=f"{shown} {what}", command=command))

    def taken(self) -> list[Problem]:
        """The problems since the last call."""
        found, self.problems = self.problems, []
        return found


def number(cell: str) -> float | None:
    """A cell of a CSV file as a finite number."""
    try:
        return finite(float(cell))
    except ValueError:
        return None


def read(dataset: str, families: Sequence[str], root: Path) -> Run:
    """Read everything the page shows.

    Arguments:
        dataset: Name of the dataset.
        families: The families, in order.
        root: The project's root.
    """
    reader = Reader(root=root)
    runs = root / "runs" / dataset
    manifest = reader.json(
        root / "data" / "prepared" / dataset / "manifest.json", f"fivefold prepare --dataset {dataset}"
    )
    reader.taken()  # title and counts are a nicety: the data's digest is in every other file too
    sections = {
        "yardstick": (runs / "yardstick" / "yardstick.json", f"fivefold features --dataset {dataset}"),
        "registry": (runs / "registry.json", f"fivefold register --dataset {dataset}"),
    }
    found: dict[str, dict[str, Any]] = {}
    problems: dict[str, Problem] = {}
    for name, (path, command) in sections.items():
        found[name] = reader.json(path, command)
        for problem in reader.taken():
            problems[name] = problem
    if experiment := found["registry"].get("experiment"):
        problems["registry"] = Problem(
            what=f"There is no registered version of the models of the experiment {experiment}",
            command=f"fivefold promote {experiment}",
        )
    read_families = _fitted([_family(reader, runs, dataset, name) for name in families])
    newest = datetime.fromtimestamp(int(reader.newest), UTC) if reader.newest else None
    return Run(
        dataset=dataset,
        manifest=manifest,
        yardstick=found["yardstick"],
        registry=found["registry"],
        families=read_families,
        problems=problems,
        newest=newest,
    )


def _fitted(families: list[Family]) -> list[Family]:
    """The families with pictures that together fit into a page."""
    every = [p for f in families for p in (*f.pictures.values(), *(grid for _, grid in f.progress))]
    shown = fitted(every)
    return [
        replace(
            family,
            pictures={name: shown[picture.content] for name, picture in family.pictures.items()},
            progress=[(examples, shown[grid.content]) for examples, grid in family.progress],
        )
        for family in families
    ]


def _family(reader: Reader, runs: Path, dataset: str, name: str) -> Family:
    def command(stage: str) -> str:
        return f"fivefold {stage} --family {name} --dataset {dataset}"

    model = reader.json(runs / "models" / name / "model.json", command("train"))
    curves = reader.curves(runs / "curves" / f"{name}.csv", command("train"))
    progress = _progress(reader, runs / "progress" / name, command("train"))
    results = reader.json(runs / "results" / f"{name}.json", command("evaluate"))
    folder = runs / "results" / name
    pictures = {path.stem: reader.picture(path, command("evaluate")) for path in sorted(folder.glob("*.png"))}
    exhibits, explorer = (
        reader.json(folder / f"{kept}.json", command("evaluate")) if (folder / f"{kept}.json").exists() else {}
        for kept in ("exhibits", "explorer")
    )
    tune = reader.json(runs / "tune" / f"{name}.json", command("tune"))
    return Family(
        name=name,
        model=model,
        results=results,
        tune=tune,
        curves=curves,
        pictures={p: picture for p, picture in pictures.items() if picture},
        exhibits=exhibits,
        explorer=explorer,
        progress=progress,
        problems=reader.taken(),
    )


def _progress(reader: Reader, folder: Path, command: str) -> list[tuple[int, Picture]]:
    """The grids of samples drawn in training, from the first to the last."""
    paths = sorted((p for p in folder.glob("*.png") if p.stem.isdecimal()), key=lambda p: int(p.stem))
    grids = [(int(path.stem), reader.picture(path, command)) for path in paths]
    return [(examples, grid) for examples, grid in grids if grid]
