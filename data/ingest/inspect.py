"""Looking at an unknown source and writing the card that fits it, with what is doubtful said."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from data.archives import is_archive, members
from data.arrays import IDX_NAME, Part, idx_parts, npy_parts
from data.cards import CATALOG, Anomaly, Card, Column, ImageShape, Source, SplitPlan, parse_card
from data.columns import NUMBER
from data.decoding import Fault, opened
from data.fetching import fetch, tree, tree_sha256
from data.folders import is_image, survey
from data.rawtables import CSV_SUFFIXES, PARQUET_SUFFIXES, header_cells, open_raw, table_files
from data.reading import naturally
from data.streams import inflated, is_utf8
from data.tables import scan_table
from data.writing import write_text

LOOKED_AT = 20_000
DELIMITERS = ",;\t|"


@dataclass(kw_only=True, slots=True)
class Inspection:
    """What was found at a source.

    Arguments:
        card: The card that fits it.
        found: Lines that say what there is.
        doubts: Lines that say what a person should look at.
        column_doubts: What is doubtful about single columns.
    """

    card: Card
    found: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    column_doubts: dict[str, str] = field(default_factory=dict)


def inspect(source: str, name: str, root: Path, *, label: str = "", anomaly: str = "") -> Inspection:
    """Look at a source and describe it.

    Arguments:
        source: Path or URL.
        name: What to call the dataset.
        root: The project's root.
        label: The column that names the class of a row.
        anomaly: `COLUMN=VALUE`, rows with this value are anomalies (`class=NAME` for images).
    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the source cannot be read, or is of an unknown kind.
    """
    path, place = _obtain(source, name, root)
    column, equals, value = anomaly.partition("=")
    if anomaly and not (column and equals):
        raise ValueError(f"anomaly must be COLUMN=VALUE (for images class=NAME), got {anomaly!r}")
    form = source_format(path)
    kind = "table" if form in ("csv", "parquet") else "image"
    base = Card(
        name=name, kind=kind, source=replace(place, sha256=tree_sha256(path), format=form),
        label=label, anomaly=Anomaly(column=column, value=value) if anomaly else None,
    )  # fmt: skip
    if kind == "table":
        return _table(base, path)
    if label:
        raise ValueError(f"label names a column of a table; {path} holds images, whose class is their folder's name")
    return _folders(base, path) if form == "images" else _arrays(base, path)


def _obtain(source: str, name: str, root: Path) -> tuple[Path, Source]:
    """The source on this machine, and how the card refers to it."""
    if "://" in source:
        if urlsplit(source).query or "@" in urlsplit(source).netloc:
            raise ValueError(
                f"{source}: a URL with a query or a password does not belong in a card. "
                "Fetch the file and give its path."
            )
        return fetch(source, root / "data" / "raw" / name, ""), Source(url=source)
    if not is_utf8(source):
        raise ValueError(f"the source's name is not valid UTF-8: {source!r}. Rename it.")
    given = Path(source).expanduser()
    path = root / given
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {source} (looked at {path}). Give an existing path, or a URL.")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{source} is neither a file nor a folder. Give another source.")
    if given.is_absolute():
        inside = os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)
        given = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(root))) if inside else given
    return path, Source(path=given.as_posix())


def source_format(path: Path) -> str:
    """The format of a source by the names of its files.

    Raises:
        ValueError: If it is none of those read here.
    """
    name = path.name.lower()
    if path.is_file():
        if is_archive(path):
            return "images"
        for form, suffixes in (
            ("csv", CSV_SUFFIXES),
            ("parquet", PARQUET_SUFFIXES),
            ("npy", (".npy",)),
            ("npz", (".npz",)),
        ):
            if name.endswith(suffixes):
                return form
        if IDX_NAME.match(path.name):
            return "idx"
        raise ValueError(
            f"{path}: unknown kind of file. Read are: a folder, zip or tar of images; IDX; NPY, NPZ; CSV, TSV; Parquet."
        )
    kinds: Counter[str] = Counter()
    for inside, file in tree(path):
        lowered = file.name.lower()
        if is_image(inside):
            kinds["images"] += 1
        elif IDX_NAME.match(file.name):
            kinds["idx"] += 1
        elif lowered.endswith(PARQUET_SUFFIXES):
            kinds["parquet"] += 1
        elif lowered.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
            kinds["csv"] += 1
    if not kinds:
        raise ValueError(
            f"{path} holds no images (png, jpg, webp, bmp, gif), IDX, Parquet or CSV files (links to folders are not "
            "followed). Give another source."
        )
    return kinds.most_common(1)[0][0]


def _folders(card: Card, path: Path) -> Inspection:
    layout = survey(path)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    faults: list[str] = []
    bad = 0
    for index, member in enumerate(members(path, is_image)):
        if index == LOOKED_AT:
            break
        try:
            if member.fault:
                raise Fault("unsafe or unreadable file", member.fault)
            image = opened(member.read(), ImageShape.__dataclass_fields__["max_pixels"].default)
        except (Fault, ValueError) as fault:
            bad += 1
            if len(faults) < 3:
                faults.append(f"{member.name}: {': '.join(map(str, fault.args))}")
            continue
        sizes[image.size] += 1
        modes[image.mode] += 1
    if not sizes:
        raise ValueError(f"{path}: none of its {layout.images} images can be read; the first: {faults[0]}")
    inspection = Inspection(card=card)
    if layout.images > LOOKED_AT:
        inspection.found.append(f"looked at the first {LOOKED_AT} of {layout.images} images")
    shape = _image_shape(sizes, modes, inspection)
    anomalous = card.anomaly.value if card.anomaly else None
    classes = tuple(name for name in naturally(layout.classes) if name != anomalous)
    if anomalous is not None and anomalous not in layout.classes:
        raise ValueError(f"{path}: no class folder is named {anomalous!r}; found {', '.join(map(repr, classes[:20]))}")
    inspection.card = replace(card, image=shape, classes=classes, splits=_split_plan(layout.published))
    inspection.found.append(f"{layout.images} images, {_listed(classes, 'classes') if classes else 'no class folders'}")
    inspection.found.append(f"published splits: {', '.join(layout.published) or 'none'}")
    if layout.ignored:
        others = ", ".join(f"{n} × {suffix}" for suffix, n in layout.ignored.most_common(5))
        inspection.doubts.append(f"files that are not images are ignored: {others}")
    if layout.unlabelled:
        inspection.doubts.append(f"{layout.unlabelled} images lie beside the class folders: they have no label")
    if bad:
        inspection.doubts.append(
            f"{bad} images cannot be read, for example {faults[0]}; `on_bad: drop` leaves them out"
        )
    return inspection


def _image_shape(sizes: Counter[tuple[int, int]], modes: Counter[str], inspection: Inspection) -> ImageShape:
    """One shape for all images; the most common, or a modest one when they differ."""
    (width, height), same = sizes.most_common(1)[0]
    total = sum(sizes.values())
    grey = sum(modes[mode] for mode in ("L", "1", "I;16", "I;16B", "LA"))
    channels = 1 if grey == total else 3
    resize = "none"
    if same < total:
        inspection.doubts.append(f"{len(sizes)} different sizes; {same} of {total} images are {width}×{height}")
    if same < 0.5 * total:
        shorter = sorted(min(size) for size in sizes.elements())[total // 2]
        width = height = max(8, min(64, shorter // 8 * 8))
        resize = "crop"
        inspection.doubts.append(
            f"all are cropped to a square and scaled to {width}×{height}; choose otherwise in `image`"
        )
    if 0 < grey < total:
        inspection.doubts.append(f"{grey} of {total} images are grey, the others colour: all become colour")
    if modes["P"]:
        inspection.doubts.append(
            f"{modes['P']} images have a palette and are taken as colour; channels: 1 if all are grey"
        )
    inspection.found.append(f"size {width}×{height}, {'grey' if channels == 1 else 'colour'}")
    return ImageShape(height=height, width=width, channels=channels, resize=resize)


def _split_plan(published: tuple[str, ...]) -> SplitPlan:
    return SplitPlan(published=len(published) > 1 or not published)


def _listed(names: tuple[str, ...], what: str) -> str:
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{len(names)} {what}: {shown}"


def _arrays(card: Card, path: Path) -> Inspection:
    parts: list[Part] = idx_parts(path) if card.source.format == "idx" else npy_parts(path)
    shape = parts[0].shape
    channels = shape[3] if len(shape) == 4 else 1
    found = {str(code) for part in parts if part.labels is not None for code in set(part.labels.tolist())}
    anomalous = card.anomaly.value if card.anomaly else None
    if anomalous is not None and anomalous not in found:
        raise ValueError(f"{path}: no image has the label {anomalous!r}; found {', '.join(naturally(found)[:20])}")
    classes = tuple(name for name in naturally(found) if name != anomalous)
    image = ImageShape(height=shape[1], width=shape[2], channels=channels)
    inspection = Inspection(card=replace(card, image=image, classes=classes))
    for part in parts:
        labels = "no labels" if part.labels is None else f"{len(set(part.labels.tolist()))} labels"
        inspection.found.append(f"{part.name}: {part.shape[0]} images of {part.shape[1:]}, {labels}")
    return inspection


def _table(card: Card, path: Path) -> Inspection:
    if card.source.format == "csv":
        first = table_files(path, CSV_SUFFIXES)[0]
        card = replace(card, source=replace(card.source, delimiter=_delimiter(first)))
    raw = open_raw(card, path)
    for role, name in (("label", card.label), ("anomaly", card.anomaly.column if card.anomaly else "")):
        if name and name not in raw.names:
            raise ValueError(f"{path}: {role} names no column: {name!r}; the columns are {', '.join(raw.names)}")
    scans = scan_table(raw, card)
    inspection = Inspection(card=card)
    columns: list[Column] = []
    for name, scan in scans.items():
        role = name in (card.label, card.anomaly.column if card.anomaly else "")
        column, doubts = scan.column(as_category=role)
        if role and column.type == "skip":
            raise ValueError(f"{path}: column {name!r} cannot be the label or the anomaly: {'; '.join(doubts)}")
        if doubts and not role:
            inspection.column_doubts[name] = "; ".join(doubts)
            inspection.doubts.append(f"column {name!r}: {'; '.join(doubts)}")
        columns.append(column)
    if card.anomaly and scans[card.anomaly.column].values is not None:
        _check_value(card.anomaly, scans[card.anomaly.column].categories, path)
    inspection.card = replace(card, columns=tuple(columns))
    if all(re.fullmatch(NUMBER, name.strip()) for name in raw.names):
        inspection.doubts.append(
            f"the first row, taken for the header, holds only numbers ({', '.join(raw.names[:4])})"
        )
    first_scan = next(iter(scans.values()))
    types = Counter(column.type for column in columns)
    inspection.found.append(
        f"{first_scan.cells} rows, {len(columns)} columns: " + ", ".join(f"{n} {kind}" for kind, n in types.items())
    )
    if not card.label and not card.anomaly:
        inspection.doubts.append("no label: give --label COLUMN if a column names the class of a row")
    return inspection


def _check_value(anomaly: Anomaly, values: tuple[str, ...], path: Path) -> None:
    def number(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if number(anomaly.value) not in {number(value) for value in values}:
        shown = ", ".join(map(repr, values[:20]))
        raise ValueError(f"{path}: no row has {anomaly.column} = {anomaly.value!r}; the values are {shown}")


def _delimiter(path: Path) -> str:
    """The delimiter that splits the header into the most cells."""
    best = "\t" if ".tsv" in path.name.lower() else ","
    with closing(inflated(path)) as stream:
        head = stream.read(1 << 20)
    return max(DELIMITERS, key=lambda delimiter: (len(header_cells(head, delimiter)), delimiter == best))


def card_text(inspection: Inspection) -> str:
    """The card as YAML that a person can read and edit."""
    card = inspection.card
    source = card.source
    title = card.title or f"{card.name}: {inspection.found[0] if inspection.found else card.kind}"
    lines = [
        f"# Dataset card, written by `fivefold data add`. Edit freely; then `fivefold prepare --dataset {card.name}`.",
        *(f"# Found: {_one_line(line)}" for line in inspection.found),
        *(f"# Unsure: {_one_line(line)}" for line in inspection.doubts),
        f"name: {card.name}",
        f"title: {_quoted(title)}",
        f"kind: {card.kind}",
        'licence: ""  # what may be done with the data',
        'citation: ""  # whom to name',
        "source:",
        f"  url: {_quoted(source.url)}" if source.url else f"  path: {_quoted(source.path)}",
        f"  sha256: {source.sha256}",
        f"  format: {source.format}",
    ]
    if source.format == "csv":
        lines.append(f"  delimiter: {_quoted(source.delimiter)}")
    lines += _image_lines(card) if card.kind == "image" else _table_lines(card, inspection)
    if card.anomaly:
        lines.append("anomaly:  # kept out of training, used to measure detection")
        lines += [f"  column: {_quoted(card.anomaly.column)}", f"  value: {_quoted(card.anomaly.value)}"]
    plan = card.splits
    lines += [
        "splits:  # shares where the source publishes none; `rows: {train: [0, 1000], test: [1000, 1500]}` states some",
        f"  train: {plan.train}",
        f"  val: {plan.val}  # also the share cut from published training data when no val split is published",
        f"  test: {plan.test}",
        f"  seed: {plan.seed}",
        f"  published: {str(plan.published).lower()}  # honour splits that the source publishes",
        f"duplicates: {card.duplicates}  # no content in two splits; or fail, or keep",
        f"on_bad: {card.on_bad}  # stop at a bad example; drop leaves it out and counts it",
        f"max_bad: {card.max_bad}  # the share of bad examples above which drop stops, too",
    ]
    return "\n".join(lines) + "\n"


def _image_lines(card: Card) -> list[str]:
    assert card.image is not None
    lines = [
        "image:",
        f"  height: {card.image.height}",
        f"  width: {card.image.width}",
        f"  channels: {card.image.channels}  # 1 grey, 3 colour",
        f"  levels: {card.image.levels}",
        f"  resize: {card.image.resize}  # another size is a fault; stretch or crop bring all to this one",
        f"  alpha: {card.image.alpha}  # what shows through transparent pixels",
    ]
    if card.classes:
        lines.append("classes: [" + ", ".join(map(_quoted, card.classes)) + "]")
    return lines


def _table_lines(card: Card, inspection: Inspection) -> list[str]:
    lines = [
        f"label: {_quoted(card.label)}" if card.label else '# label: ""  # the column that names the class of a row'
    ]
    lines.append("missing: [" + ", ".join(map(_quoted, card.missing)) + "]  # cells that mean: not known")
    lines.append("columns:  # type: continuous, integer, categorical, or skip to leave it out")
    for column in card.columns:
        doubt = inspection.column_doubts.get(column.name)
        categories = f", categories: [{', '.join(map(_quoted, column.categories))}]" if column.categories else ""
        comment = f"  # unsure: {_one_line(doubt)}" if doubt else ""
        lines.append(f"  - {{name: {_quoted(column.name)}, type: {column.type}{categories}}}{comment}")
    return lines


def _one_line(text: str) -> str:
    """Text as a YAML comment may hold it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _quoted(text: str) -> str:
    """A YAML string: JSON's double-quoted form is one."""
    return re.sub(r"[^\x20-\x7e]", _escaped, json.dumps(text, ensure_ascii=False))


def _escaped(letter: re.Match[str]) -> str:
    """A character as YAML's double-quoted strings may hold it."""
    code = ord(letter[0])
    if letter[0].isprintable():
        return letter[0]
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def write_card(inspection: Inspection, root: Path) -> Path:
    """Write the card into the catalog.

    Raises:
        FileExistsError: If there is another card of this name.
        ValueError: If the source calls for a card that is not valid; nothing is written then.
    """
    path = root / CATALOG / f"{inspection.card.name}.yaml"
    text = card_text(inspection)
    parse_card(text, path)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise FileExistsError(f"{path} exists already. Choose another --name, or remove that card first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


__all__ = ["Inspection", "card_text", "inspect", "source_format", "write_card"]
