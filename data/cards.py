"""Dataset cards: what a dataset is, where it comes from and how it is to be read, as YAML a person edits."""

from __future__ import annotations

import codecs
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data import schema
from data.formats import format_of, parse_rule

CATALOG = Path("data/catalog")
LEARNED = ("continuous", "integer", "categorical", "datetime", "duration", "several")
NOT_LEARNED = ("identifier", "index", "text", "constant", "skip")
COLUMN_TYPES = (*LEARNED, *NOT_LEARNED)
SPLITS = ("train", "val", "test")
MISSING = (
    "", "NA", "N/A", "n/a", "<NA>", "nan", "NaN", "NAN", "-nan", "-NaN", "null", "NULL", "None", "#N/A", "#N/A N/A",
    "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "?",
)  # fmt: skip
"""What pandas takes for missing, and the question mark of older collections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the data comes from: exactly one of `builtin`, `path` and `url`.

    Arguments:
        builtin: Name of data that ships with a dependency (`digits`).
        path: A file or folder; relative paths start at the project's root.
        url: `https://…` or `s3://bucket/key`.
        sha256: Of the file; of a folder, over its files' names and content.
        format: How to read it, one of those in `data.readers`.
        delimiter: Between the cells of a CSV file, one character or twice the same (`::`); a blank stands for any
            number of blanks.
        encoding: Of a text file, a name that Python knows.
        header: `first` takes the names of the columns from the first row, `none` numbers them.
        skip: Lines before the header (a title, comments).
        below: Lines between the header and the rows (units, a second header).
        footer: Lines after the last row (totals, notes).
        pad: Whether rows with fewer cells than the header end in missing ones, and of those with more the empty
            ones at the end are left out; else they are bad.
        trim: Whether blanks before a quotation mark at the start of a cell are none of it.
        literal: Whether quotation marks are letters like others, and quote nothing.
        widths: Of columns that are aligned with blanks, in characters; there is then no delimiter.
        sheet: Of a workbook; the first when empty.
        query: What is asked of a database.
        image, label: Of Parquet files with images: the columns that hold the image and its class.
    """

    builtin: str = ""
    path: str = ""
    url: str = ""
    sha256: str = ""
    format: str = "images"
    delimiter: str = ","
    encoding: str = "utf-8"
    header: str = "first"
    skip: int = 0
    below: int = 0
    footer: int = 0
    pad: bool = False
    trim: bool = False
    literal: bool = False
    widths: tuple[int, ...] = ()
    sheet: str = ""
    query: str = ""
    image: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """What every image must be, or is brought to.

    Arguments:
        height: Pixels.
        width: Pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        levels: Distinct values a pixel takes, spread evenly over 0 … 255.
        resize: `none` treats another size as a fault, `stretch` ignores the aspect, `crop` cuts the middle out,
            `pad` adds an edge.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.height, self.width, self.channels


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table.

    Arguments:
        name: As in the source.
        type: `continuous`, `integer`, `categorical`, `datetime` (dates, times, both) or `duration`: learned.
            `identifier` (fresh ones are drawn), `index` (counts the rows), `text` and `constant`: not learned, but
            their place is kept in the output. `skip` leaves it out.
        categories: The values of a categorical column, in the order of their codes, empty to find them; of a
            constant its value.
        format: How its cells are written: a pattern of numbers or of dates (see `data.formats`); empty for plain
            numbers and for native dates.
        parts: What a date, time or duration is learned as.
        missing: Texts that mean "not known" in this column, beside those of the card.
        why: Why it is not learned.
    """

    name: str
    type: str
    categories: tuple[str, ...] = ()
    format: str = ""
    parts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """What every row of a table obeys, and so every drawn one; one of `rule`, `combination` and `unique`.

    Arguments:
        rule: `a <= b`, `a < b` (numbers, dates, durations), `c = a + b`, `c = a - b`, `c = a * b`; the difference of
            two dates is a number of days, or as in `c = b - a in hours`. A column whose name could be misread stands
            between backticks.
        combination: Categorical columns of which only combinations that occur are drawn.
        unique: Columns whose values together are in no two rows.
        by: `redraw` learns the columns as they are and draws rows that break the rule again; by default they are kept
            by construction where they can be.
        gaps: Columns of a sum, product or combination that have missing cells though the others tell them: where, is
            learned, too.
        why: What speaks for it.
    """

    rule: str = ""
    combination: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()
    by: str = ""
    gaps: tuple[str, ...] = ()
    why: str = ""


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
        name: Letters, digits, `.`, `_` and `-`, at most 100; the name of the file.
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
        missing: `model` learns where cells are missing, and draws have gaps as the data has; `fill` draws whole rows.
        marks: Texts that mean "not known".
        constraints: What every row obeys; drawn rows do, too.
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
    missing: str = "model"
    marks: tuple[str, ...] = MISSING
    constraints: tuple[Constraint, ...] = ()
    max_categories: int = 10_000
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
        ValueError: If the card is not valid, all of its faults at once; or if it is no name but a path, say.
    """
    path = find_card(name, root)
    try:
        return parse_card(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}. Fix the card.") from None


def find_card(name: str, root: Path) -> Path:
    """Where the card of a dataset is.

    Arguments:
        name: Name of the dataset.
        root: The project's root.
    Raises:
        FileNotFoundError: If there is no such card, with the nearest.
        ValueError: If no dataset can have that name.
    """
    schema.check_name(name)
    path = root / CATALOG / f"{name}.yaml"
    if not path.is_file():
        known = sorted(card.stem for card in (root / CATALOG).glob("*.yaml") if card.is_file())
        near = schema.closest(name, known)
        hint = f" Did you mean {near!r}?" if near else f" Known datasets: {', '.join(known) or 'none'}."
        raise FileNotFoundError(
            f"there is no dataset {name!r}: {path} {'is no file' if path.exists() else 'does not exist'}.{hint} "
            f"`fivefold data add SOURCE --name {name}` makes a card."
        )
    return path


def parse_card(text: str, path: Path) -> Card:
    """Make a card of what its file holds.

    Raises:
        ValueError: Naming every fault of the card.
    """
    problems: list[str] = []
    content = schema.parse_yaml(text, path)
    if isinstance(content.get("missing"), list):  # as cards before `marks` had it
        content["marks"] = content.pop("missing")
    card = schema.build(Card, content, "", problems)
    if card is not None and not any(column is None for column in card.columns):
        problems += _faults(card, path)
    if problems or card is None:
        listed = "; ".join(problem.rstrip(".") for problem in problems)
        end = "" if listed.endswith("?") else "."
        raise ValueError(
            f"{path} has {len(problems)} fault{'s' if len(problems) != 1 else ''}: {listed}{end} Fix the card."
        )
    return card


def _faults(card: Card, path: Path) -> Iterable[str]:
    """What is wrong with a card whose keys and types are right."""
    if not schema.is_name(card.name):
        yield f"name must consist of {schema.NAME_RULE}, got {card.name!r}"
    elif path.suffix == ".yaml" and card.name != path.stem:
        yield f"name must be that of the file, {path.stem!r}, got {card.name!r}"
    yield from _source_faults(card.source)
    for key, value, allowed in (
        ("kind", card.kind, tuple(KINDS)),
        ("on_bad", card.on_bad, ("fail", "drop")),
        ("duplicates", card.duplicates, ("separate", "fail", "keep")),
        ("missing", card.missing, ("model", "fill")),
    ):
        if value not in allowed:
            yield f"{key} must be one of {', '.join(allowed)}, got {value!r}"
    if card.max_categories < 1:
        yield f"max_categories must be at least 1, got {card.max_categories}"
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
        quotes = " (in quotes, or YAML reads a number)" if source.sha256.isdecimal() else ""
        yield f"source.sha256 must be 64 hexadecimal digits{quotes}, got {source.sha256!r}"
    if len(source.delimiter) != 1 and not (len(source.delimiter) == 2 and len(set(source.delimiter)) == 1):
        yield f"source.delimiter must be one character or twice the same, got {source.delimiter!r}"
    if any(width < 1 for width in source.widths):
        yield f"source.widths must be at least 1 each, got {list(source.widths)}"
    if source.header not in ("first", "none"):
        yield f"source.header must be first or none, got {source.header!r}"
    for key in ("skip", "below", "footer"):
        if getattr(source, key) < 0:
            yield f"source.{key} must be at least 0, got {getattr(source, key)}"
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        yield f"source.encoding must be an encoding that Python knows (utf-8, cp1252, …), got {source.encoding!r}"


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
    if card.image.resize not in ("none", "stretch", "crop", "pad"):
        yield f"image.resize must be one of none, stretch, crop, pad, got {card.image.resize!r}"
    if card.image.alpha not in ("white", "black"):
        yield f"image.alpha must be white or black, got {card.image.alpha!r}"
    if card.constraints:
        yield "constraints belong to tables"
    if card.columns or card.label:
        yield "columns and label belong to tables; the class of an image is its folder's name"
    if card.anomaly and card.anomaly.column != "class":
        yield f"anomaly.column must be 'class' for images, got {card.anomaly.column!r}"
    if len(set(card.classes)) < len(card.classes):
        yield "classes must not repeat"


def _table_faults(card: Card) -> Iterable[str]:
    if card.image is not None:
        yield "image belongs to kind: image"
    if card.classes and not card.label:
        yield "classes names the values of the label, but label names no column"
    if len(set(card.classes)) < len(card.classes):
        yield "classes must not repeat"
    names = [column.name for column in card.columns]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name!r} is listed more than once"
    for column in card.columns:
        if column.type not in COLUMN_TYPES:
            yield f"the type of column {column.name!r} must be one of {', '.join(COLUMN_TYPES)}, got {column.type!r}"
        if len(set(column.categories)) < len(column.categories):
            yield f"the categories of column {column.name!r} must not repeat"
        yield from _format_faults(column)
    roles = {"label": card.label, "anomaly.column": card.anomaly.column if card.anomaly else ""}
    for key, name in {**roles, "splits.column": card.splits.column}.items():
        if name and names and name not in names:
            near = schema.closest(name, names)
            yield f"{key} names no column: {name!r}" + (f" (did you mean {near!r}?)" if near else "")
    yield from _constraint_faults(card, [*names, *_numbers_within(card)])


def _numbers_within(card: Card) -> Iterable[str]:
    """What rules call the numbers of columns with several."""
    for column in card.columns:
        if column.type == "several":
            yield from (f"{column.name}.{place + 1}" for place in range(column.format.count("{")))


def _constraint_faults(card: Card, names: list[str]) -> Iterable[str]:
    for place, stated in enumerate(card.constraints):
        where = f"constraints[{place}]"
        given = [key for key in ("rule", "combination", "unique") if getattr(stated, key)]
        if len(given) != 1:
            yield f"{where} needs exactly one of rule, combination and unique, got {', '.join(given) or 'none'}"
        elif stated.by not in ("", "redraw"):
            yield f"{where}.by must be redraw or left out, got {stated.by!r}"
        elif not names:
            yield f"{where}: list the columns, too, so that what it is about is certain"
        else:
            try:
                parse_rule(asdict(stated), names)
            except ValueError as error:
                yield f"{where}: {error}"


KINDS: dict[str, Callable[[Card], Iterable[str]]] = {"image": _image_faults, "table": _table_faults}
"""What is wrong with a card of each kind of data whose keys and types are right; a kind of data adds itself here."""


def _format_faults(column: Column) -> Iterable[str]:
    numeric = column.type in ("continuous", "integer")
    try:
        if column.type in ("datetime", "duration"):
            form = format_of(column.type, column.format, column.parts)
            if column.format:
                form.read([""])
            if not column.parts:
                yield f'column {column.name!r} needs parts, such as [year, week, weekday] or ["clock:1min"]'
        elif numeric and column.format:
            format_of("number", column.format).read([""])
        elif column.type == "several":
            format_of("several", column.format).read([""])
        elif column.format or column.parts:
            yield f"column {column.name!r} is {column.type}: format and parts belong to numbers, dates and times"
    except ValueError as error:
        yield f"column {column.name!r}: {error}"


def _split_faults(plan: SplitPlan) -> Iterable[str]:
    shares = {name: getattr(plan, name) for name in SPLITS}
    if any(not 0 <= share <= 1 or math.isnan(share) for share in shares.values()) or not shares["train"]:
        yield f"splits: train, val and test are shares from 0 to 1 (train above 0), got {shares}"
    elif sum(shares.values()) > 1 + 1e-9:
        yield f"splits: train, val and test must not exceed 1 together, got {shares}"
    if plan.seed < 0:
        yield f"splits.seed must be at least 0, got {plan.seed}"
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
        training: How many examples there will be to train on.
    """

    card: Card
    found: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    column_warnings: dict[str, str] = field(default_factory=dict)
    training: int = 0


def listed(names: tuple[str, ...], what: str) -> str:
    """How many names there are, and the first of them."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{len(names)} {what}: {shown}"
