"""Dataset cards: what a dataset is, where it comes from and how it is to be read, as YAML a person edits."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

CATALOG = Path("data/catalog")
COLUMN_TYPES = ("continuous", "integer", "categorical", "skip")
SPLITS = ("train", "val", "test")
MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "None", "?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the data comes from: exactly one of `builtin`, `path` and `url`.

    Arguments:
        builtin: Name of data that ships with a dependency (`digits`).
        path: A file or folder; relative paths start at the project's root.
        url: `https://…` or `s3://bucket/key`.
        sha256: Of the file; of a folder, over its files' names and content.
        format: How to read it, one of those in `data.readers`.
        delimiter: Between the cells of a CSV file.
    """

    builtin: str = ""
    path: str = ""
    url: str = ""
    sha256: str = ""
    format: str = "images"
    delimiter: str = ","


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """What every image must be, or is brought to.

    Arguments:
        height: Pixels.
        width: Pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        levels: Distinct values a pixel takes, spread evenly over 0 … 255.
        resize: `none` treats another size as a fault, `stretch` ignores the aspect, `crop` cuts the middle out.
        alpha: What shows through transparent pixels, `white` or `black`.
        max_pixels: An image with more is refused unread.
    """

    height: int
    width: int
    channels: int
    levels: int = 256
    resize: str = "none"
    alpha: str = "white"
    max_pixels: int = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table.

    Arguments:
        name: As in the source.
        type: `continuous`, `integer`, `categorical`, or `skip` to leave it out.
        categories: The values of a categorical column, in the order of their codes; empty to find them.
    """

    name: str
    type: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """How examples are divided.

    Arguments:
        train, val, test: Shares of the data when no split is published; `val` is also the share of the
            published training examples that becomes the validation split when none is published.
        seed: Selects the division.
        published: Whether splits that the source states (folders, files) are honoured.
        rows: Published splits as ranges `[first, end)` of rows, counted from 0.
        column: A column whose values name the split.
    """

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    published: bool = True
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    column: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anomaly:
    """Which rows are anomalies: kept out of training, in a split of their own.

    Arguments:
        column: Name of a column; `class` for images.
        value: Rows with this value are anomalies.
    """

    column: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A dataset card.

    Arguments:
        name: Letters, digits, `-`, `_` and `.`; the name of the file.
        kind: One of `KINDS`, `image` or `table`.
        source: Where the data comes from.
        title: One line for people.
        licence: What may be done with it.
        citation: Whom to name.
        image: Shape of the images; required for images.
        classes: Names of the classes in the order of their codes; empty to find them.
        columns: The table's columns; empty to find them.
        label: The column that names the class of a row.
        anomaly: Which rows are anomalies.
        missing: Cells that mean "not known" in numeric columns; in text columns only the empty cell does.
        max_categories: A categorical column may not have more.
        splits: How examples are divided.
        duplicates: `separate` lets no content be in two splits, `fail` refuses it, `keep` only counts it.
        on_bad: `fail` stops at the first bad example, `drop` leaves bad ones out and counts them.
        max_bad: The share of bad (or, with published splits, duplicated) examples above which `drop` stops, too.
    """

    name: str
    kind: str
    source: Source
    title: str = ""
    licence: str = ""
    citation: str = ""
    image: ImageShape | None = None
    classes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    label: str = ""
    anomaly: Anomaly | None = None
    missing: tuple[str, ...] = MISSING
    max_categories: int = 1000
    splits: SplitPlan = field(default_factory=SplitPlan)
    duplicates: str = "separate"
    on_bad: str = "fail"
    max_bad: float = 0.01


def load_card(name: str, root: Path) -> Card:
    """Read and check the card of a dataset.

    Arguments:
        name: Name of the dataset.
        root: The project's root.
    Raises:
        FileNotFoundError: If there is no such card.
        ValueError: If the card is not valid; all of its faults at once.
    """
    path = root / CATALOG / f"{name}.yaml"
    if not path.is_file():
        known = sorted(card.stem for card in (root / CATALOG).glob("*.yaml"))
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known datasets: {', '.join(known) or 'none'}."
        raise FileNotFoundError(
            f"there is no dataset {name!r}: {path} does not exist.{hint} "
            f"`fivefold data add SOURCE --name {name}` makes a card."
        )
    try:
        return parse_card(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}. Fix the card.") from None


def parse_card(text: str, path: Path) -> Card:
    """Make a card of what its file holds.

    Raises:
        ValueError: Naming every fault of the card.
    """
    problems: list[str] = []
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Fix the card.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping of keys to values, got {type(content).__name__}. Fix the card.")
    values = dict(content)
    sections = {"source": Source, "image": ImageShape, "splits": SplitPlan, "anomaly": Anomaly}
    for key, section in sections.items():
        if values.get(key) is None:
            values.pop(key, None)
        else:
            values[key] = _section(section, values[key], key, problems)
    values["columns"] = tuple(_columns(values.get("columns"), problems))
    for key in ("classes", "missing"):
        if values.get(key) is None:
            values.pop(key, None)
        elif isinstance(values[key], list):
            values[key] = tuple(_text(value) for value in values[key])
    card = _section(Card, values, "", problems)
    if card is not None:
        problems += _faults(card, path)
    if problems or card is None:
        raise ValueError(f"{path} has {len(problems)} fault(s): " + "; ".join(problems) + ". Fix the card.")
    return card


def _text(value: Any) -> str:
    """A YAML scalar as the text a data file would hold."""
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _section(section: type, content: Any, where: str, problems: list[str]) -> Any:
    """Build a dataclass from a mapping, noting unknown keys, missing keys and wrong types."""
    dot = f"{where}." if where else ""
    if not isinstance(content, Mapping):
        problems.append(f"{where} must be a mapping, got {content!r}")
        return None
    known = {item.name: item for item in fields(section)}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            problems.append(f"unknown key {dot}{key}" + (f" (did you mean {near[0]}?)" if near else ""))
    values, whole = {}, True
    for key, item in known.items():
        if key not in content or content[key] is None:
            continue
        value, fault = _converted(content[key], str(item.type))
        if fault:
            problems.append(f"{dot}{key} must be {fault}, got {content[key]!r}")
            whole = False
        values[key] = value
    try:
        return section(**values) if whole else None
    except TypeError as error:
        problems.append(f"{where or 'the card'}: {str(error).split('__init__() ')[-1]}")
        return None


def _converted(value: Any, kind: str) -> tuple[Any, str]:
    """A value as a field's type wants it, and what was expected if it cannot be."""
    if kind == "str":
        return _text(value), "" if isinstance(value, (str, int, float)) else "text"
    if kind == "bool":
        return value, "" if isinstance(value, bool) else "true or false"
    if kind == "int":
        return value, "" if isinstance(value, int) and not isinstance(value, bool) else "an integer"
    if kind == "float":
        return value, "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "a number"
    if kind.startswith("tuple"):
        return value, "" if isinstance(value, tuple) else "a list"
    if kind.startswith("Mapping"):
        right = isinstance(value, Mapping) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(row, int) for row in pair)
            for pair in value.values()
        )
        return ({key: tuple(pair) for key, pair in value.items()}, "") if right else (value, "split: [first, end]")
    return value, ""


def _columns(content: Any, problems: list[str]) -> Iterable[Column]:
    if content is None:
        return
    if not isinstance(content, list):
        problems.append(f"columns must be a list, got {content!r}")
        return
    for position, item in enumerate(content):
        values = dict(item) if isinstance(item, Mapping) else item
        if isinstance(values, dict) and isinstance(values.get("categories"), list):
            values["categories"] = tuple(_text(value) for value in values["categories"])
        column = _section(Column, values, f"columns[{position}]", problems)
        if column is not None:
            yield column


def _faults(card: Card, path: Path) -> Iterable[str]:
    """What is wrong with a card whose keys and types are right."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", card.name):
        yield f"name must consist of letters, digits, '-', '_' and '.', got {card.name!r}"
    elif path.suffix == ".yaml" and card.name != path.stem:
        yield f"name must be that of the file, {path.stem!r}, got {card.name!r}"
    yield from _source_faults(card.source)
    for key, value, allowed in (
        ("kind", card.kind, tuple(KINDS)),
        ("on_bad", card.on_bad, ("fail", "drop")),
        ("duplicates", card.duplicates, ("separate", "fail", "keep")),
    ):
        if value not in allowed:
            yield f"{key} must be one of {', '.join(allowed)}, got {value!r}"
    if not 0 <= card.max_bad <= 1:
        yield f"max_bad is a share from 0 to 1, got {card.max_bad}"
    if card.kind in KINDS:
        yield from KINDS[card.kind](card)
    yield from _split_faults(card.splits)


def _source_faults(source: Source) -> Iterable[str]:
    given = [key for key in ("builtin", "path", "url") if getattr(source, key)]
    if len(given) != 1:
        yield f"source needs exactly one of builtin, path and url, got {', '.join(given) or 'none'}"
    if source.sha256 and not re.fullmatch(r"[0-9a-f]{64}", source.sha256):
        yield f"source.sha256 must be 64 hexadecimal digits, got {source.sha256!r}"
    if len(source.delimiter) != 1:
        yield f"source.delimiter must be one character, got {source.delimiter!r}"


def _image_faults(card: Card) -> Iterable[str]:
    if card.image is None:
        yield "image is missing: give image: {height: …, width: …, channels: 1 or 3}"
        return
    for key in ("height", "width", "max_pixels"):
        if getattr(card.image, key) < 1:
            yield f"image.{key} must be at least 1, got {getattr(card.image, key)}"
    if card.image.channels not in (1, 3):
        yield f"image.channels must be 1 or 3, got {card.image.channels}"
    if not 2 <= card.image.levels <= 256:
        yield f"image.levels must be from 2 to 256, got {card.image.levels}"
    if card.image.resize not in ("none", "stretch", "crop"):
        yield f"image.resize must be one of none, stretch, crop, got {card.image.resize!r}"
    if card.image.alpha not in ("white", "black"):
        yield f"image.alpha must be white or black, got {card.image.alpha!r}"
    if card.columns or card.label:
        yield "columns and label belong to tables; the class of an image is its folder's name"
    if card.anomaly and card.anomaly.column != "class":
        yield f"anomaly.column must be 'class' for images, got {card.anomaly.column!r}"
    if len(set(card.classes)) < len(card.classes):
        yield "classes must not repeat"


def _table_faults(card: Card) -> Iterable[str]:
    if card.image is not None:
        yield "image belongs to kind: image"
    names = [column.name for column in card.columns]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name!r} is listed more than once"
    for column in card.columns:
        if column.type not in COLUMN_TYPES:
            yield f"the type of column {column.name!r} must be one of {', '.join(COLUMN_TYPES)}, got {column.type!r}"
        if len(set(column.categories)) < len(column.categories):
            yield f"the categories of column {column.name!r} must not repeat"
    roles = {"label": card.label, "anomaly.column": card.anomaly.column if card.anomaly else ""}
    for key, name in {**roles, "splits.column": card.splits.column}.items():
        if name and names and name not in names:
            near = difflib.get_close_matches(name, names, 1)
            yield f"{key} names no column: {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


KINDS: dict[str, Callable[[Card], Iterable[str]]] = {"image": _image_faults, "table": _table_faults}
"""What is wrong with a card of each kind of data whose keys and types are right; a kind of data adds itself here."""


def _split_faults(plan: SplitPlan) -> Iterable[str]:
    shares = {name: getattr(plan, name) for name in SPLITS}
    if any(not 0 <= share <= 1 or math.isnan(share) for share in shares.values()) or not shares["train"]:
        yield f"splits: train, val and test are shares from 0 to 1 (train above 0), got {shares}"
    elif sum(shares.values()) > 1 + 1e-9:
        yield f"splits: train, val and test must not exceed 1 together, got {shares}"
    for name, (first, end) in plan.rows.items():
        if name not in SPLITS or not 0 <= first < end:
            yield f"splits.rows: expected train, val or test with [first, end], got {name}: [{first}, {end}]"
    if plan.rows and "train" not in plan.rows:
        yield "splits.rows must have train"
    ranges = sorted(plan.rows.values())
    if any(after[0] < before[1] for before, after in itertools.pairwise(ranges)):
        yield f"splits.rows overlap: {dict(plan.rows)}"


@dataclass(kw_only=True, slots=True)
class Inspection:
    """What was found at a source.

    Arguments:
        card: The card that fits it.
        found: Lines that say what there is.
        warnings: Lines that say what a person should look at.
        column_warnings: What is doubtful about single columns.
    """

    card: Card
    found: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    column_warnings: dict[str, str] = field(default_factory=dict)


def listed(names: tuple[str, ...], what: str) -> str:
    """How many names there are, and the first of them."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{len(names)} {what}: {shown}"


def one_line(text: str) -> str:
    """Text as a YAML comment may hold it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def quoted(text: str) -> str:
    """A YAML string: JSON's double-quoted form is one."""
    return re.sub(r"[^\x20-\x7e]", _escaped, json.dumps(text, ensure_ascii=False))


def _escaped(letter: re.Match[str]) -> str:
    """A character as YAML's double-quoted strings may hold it."""
    code = ord(letter[0])
    if letter[0].isprintable():
        return letter[0]
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
