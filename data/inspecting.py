"""Looking at an unknown source and writing the card that fits it, with what is doubtful said."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from data.archives import is_archive, members
from data.arrays import IDX_NAME, Part, idx_parts, npy_parts
from data.cards import CATALOG, LEARNED, NOT_LEARNED, Anomaly, Card, Column, ImageShape, Source, SplitPlan, parse_card
from data.databases import tables
from data.decoding import SUFFIXES as IMAGE_SUFFIXES
from data.decoding import Fault, opened, upright_size
from data.detect import ColumnScan
from data.dialects import sniff
from data.encodings import detect
from data.fetching import fetch, tree, tree_sha256
from data.folders import is_image, survey
from data.image_parquet import ImageColumns, image_columns, raw_images
from data.rawtables import SUFFIXES, check_kind, open_raw, table_files
from data.reading import Mapper, here, naturally
from data.rehearsal import rehearse
from data.streams import is_utf8, zipped_table
from data.tables import scan_table
from data.workbooks import sheets
from data.writing import write_text

LOOKED_AT = 20_000
LARGEST = 64
"""Pixels of the longer side that images are scaled down to unless a size is asked for."""


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


def inspect(
    source: str, name: str, root: Path, *, label: str = "", anomaly: str = "", size: str = "", query: str = "",
    fit: str = "", sheet: str = "", mapper: Mapper = here,
) -> Inspection:  # fmt: skip
    """Look at a source and describe it.

    Arguments:
        source: Path or URL.
        name: What to call the dataset.
        root: The project's root.
        label: The column that names the class of a row.
        anomaly: `COLUMN=VALUE`, rows with this value are anomalies (`class=NAME` for images).
        size: `WIDTHxHEIGHT` (or one number), what images are brought to.
        fit: How images of other sizes are brought to it: `crop`, `pad` or `stretch`.
        query: What is asked of a database.
        sheet: Of a workbook.
        mapper: Where decoding happens.
    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the source cannot be read, or is of an unknown kind.
    """
    path, place = _obtain(source, name, root)
    column, equals, value = anomaly.partition("=")
    if anomaly and not (column and equals):
        raise ValueError(f"anomaly must be COLUMN=VALUE (for images class=NAME), got {anomaly!r}")
    form = source_format(path)
    if fit not in ("", "crop", "pad", "stretch"):
        raise ValueError(f"fit must be crop, pad or stretch, got {fit!r}")
    pictures = image_columns(path) if form == "parquet" else None
    kind = "table" if form in SUFFIXES and pictures is None else "image"
    base = Card(
        name=name, kind=kind, source=replace(place, sha256=tree_sha256(path), format=form, query=query, sheet=sheet),
        label=label, anomaly=Anomaly(column=column, value=value) if anomaly else None,
    )  # fmt: skip
    if kind == "table":
        inspection = _table(base, path)
    elif pictures is not None:
        inspection = _parquet_images(base, path, pictures, size, fit)
    elif label:
        raise ValueError(f"label names a column of a table; {path} holds images, whose class is their folder's name")
    else:
        inspection = _folders(base, path, size, fit) if form == "images" else _arrays(base, path)
    inspection.card = rehearse(inspection.card, path, mapper, inspection.doubts.append)
    return inspection


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
        if name.endswith(".zip") and zipped_table(path) and not any(True for _ in members(path, is_image)):
            inside = zipped_table(path).lower()
            return "jsonl" if inside.endswith((".jsonl", ".ndjson", ".json")) else "csv"
        if is_archive(path):
            return "images"
        for form, suffixes in SUFFIXES.items():
            if name.endswith(suffixes):
                return form
        for form in ("npy", "npz"):
            if name.endswith(f".{form}"):
                return form
        if IDX_NAME.match(path.name):
            return "idx"
        found = _format_by_content(path)
        if found:
            return found
        raise ValueError(
            f"{path}: unknown kind of file. Read are: a folder, zip or tar of images; IDX; NPY, NPZ; CSV, TSV and "
            "other delimited text (also .gz, .bz2, .xz, .zst, .zip); JSON lines; Parquet; Feather and Arrow; Excel and "
            "OpenDocument workbooks; SQLite and DuckDB databases with a query."
        )
    kinds: Counter[str] = Counter()
    for inside, file in tree(path):
        lowered = file.name.lower()
        if is_image(inside):
            kinds["images"] += 1
        elif IDX_NAME.match(file.name):
            kinds["idx"] += 1
        else:
            kinds.update(
                form for form, suffixes in SUFFIXES.items()
                if lowered.endswith(suffixes) and form not in ("excel", "sql") and not lowered.startswith("_")
                and not lowered.endswith((".txt", ".json"))
            )  # fmt: skip
    if kinds["images"]:  # tables beside images are their labels
        return "images"
    if not kinds:
        raise ValueError(
            f"{path} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))}), IDX files or tables (CSV, "
            "JSON lines, Parquet, Arrow); links to folders are not followed. Give another source."
        )
    return kinds.most_common(1)[0][0]


def _format_by_content(path: Path) -> str:
    """The format of a file whose name says nothing, by its first bytes; empty when unknown."""
    with path.open("rb") as file:
        head = file.read(4096)
    for start, form in ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"SQLite format 3", "sql")):
        if head.startswith(start):
            return form
    if head[8:12] == b"DUCK":
        return "sql"
    if head.lstrip()[:1] == b"{":
        return "jsonl"
    text = head.decode("utf-8", "replace")
    return "csv" if "\n" in text and sum(not c.isprintable() and c not in "\r\n\t" for c in text) <= 1 else ""


def _folders(card: Card, path: Path, size: str, fit: str) -> Inspection:
    layout = survey(path)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    faults: list[str] = []
    bad = turned = 0
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
        sizes[upright_size(image)] += 1
        turned += upright_size(image) != image.size
        modes[image.mode] += 1
    if not sizes:
        raise ValueError(f"{path}: none of its {layout.images} images can be read; the first: {faults[0]}")
    inspection = Inspection(card=card)
    if layout.images > LOOKED_AT:
        inspection.found.append(f"looked at the first {LOOKED_AT} of {layout.images} images")
    if turned:
        inspection.found.append(
            f"{turned} images are turned upright by their EXIF orientation before they are measured"
        )
    shape = image_shape(sizes, modes, inspection, size, fit)
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


def image_shape(
    sizes: Counter[tuple[int, int]], modes: Counter[str], inspection: Inspection, size: str, fit: str
) -> ImageShape:
    """One shape for all images: the one asked for, else the most common, else a modest one; never a very large one.

    Arguments:
        sizes: How many images have each width and height.
        modes: How many images have each of Pillow's modes.
        inspection: Where it is said.
        size: `WIDTHxHEIGHT` or one number; empty to choose.
        fit: How images of other sizes are brought to it; empty to choose.
    """
    (width, height), same = sizes.most_common(1)[0]
    total = sum(sizes.values())
    grey = sum(modes[mode] for mode in ("L", "1", "I;16", "I;16B", "LA"))
    channels = 1 if grey == total else 3
    how = fit or "crop"
    if same < total:
        inspection.doubts.append(f"{len(sizes)} different sizes; {same} of {total} images are {width}×{height}")
    if size:
        width, height = parse_size(size)
    else:
        if same < 0.5 * total:
            shorter = sorted(min(size) for size in sizes.elements())[total // 2]
            width = height = max(8, min(LARGEST, shorter // 8 * 8))
        elif max(width, height) > LARGEST:
            scale = LARGEST / max(width, height)
            width, height = (max(8, round(side * scale / 8) * 8) for side in (width, height))
            inspection.doubts.append(
                f"images are scaled down to {width}×{height}, at most {LARGEST} pixels a side, which trains in minutes to "
                "hours on one machine; `--size` or `image` in the card sets another size"
            )
    resize = how if set(sizes) != {(width, height)} else "none"
    if resize != "none":
        words = {
            "crop": "scaled, and cropped in the middle,", "pad": "scaled, and padded at the edges,",
            "stretch": "stretched",
        }  # fmt: skip
        inspection.doubts.append(
            f"images of another size are {words[how]} to {width}×{height} (`resize: {how}`); `image` in the card sets "
            "another size or way (crop, pad, stretch)"
        )
    if 0 < grey < total:
        inspection.doubts.append(f"{grey} of {total} images are grey, the others colour: all become colour")
    if modes["P"]:
        inspection.doubts.append(
            f"{modes['P']} images have a palette and are taken as colour; channels: 1 if all are grey"
        )
    inspection.found.append(f"size {width}×{height}, {'grey' if channels == 1 else 'colour'}")
    return ImageShape(height=height, width=width, channels=channels, resize=resize)


def parse_size(size: str) -> tuple[int, int]:
    """Width and height.

    Raises:
        ValueError: If the text is neither `WIDTHxHEIGHT` nor a number.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", size)
    if found is None:
        raise ValueError(f"size must be WIDTHxHEIGHT in pixels (64x48) or one number, got {size!r}")
    return int(found[1]), int(found[2] or found[1])


def _parquet_images(card: Card, path: Path, columns: ImageColumns, size: str, fit: str) -> Inspection:
    inspection = Inspection(card=card)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    if card.label and card.label not in columns.others:
        raise ValueError(f"{path}: label names no column: {card.label!r}; beside the image are {columns.others}")
    columns = replace(columns, label=card.label or columns.label)
    seen = 0
    for blob, label in raw_images(path, columns):
        seen += 1
        if label is not None:
            classes[label] += 1
        if seen > LOOKED_AT:
            continue
        try:
            image = opened(blob or b"", ImageShape.__dataclass_fields__["max_pixels"].default)
        except Fault:
            continue
        sizes[upright_size(image)] += 1
        modes[image.mode] += 1
    if not sizes:
        raise ValueError(f"{path}: none of its {seen} images can be read. Give another source.")
    shape = image_shape(sizes, modes, inspection, size, fit)
    anomalous = card.anomaly.value if card.anomaly else None
    names = tuple(name for name in naturally(classes) if name != anomalous)
    source = replace(card.source, image=columns.image, label=columns.label)
    inspection.card = replace(card, label="", image=shape, classes=names, source=source)
    labels = f"labels in column {columns.label!r}" if columns.label else "no labels"
    inspection.found.append(f"{seen} images in column {columns.image!r}, {labels}, {_listed(names, 'classes')}")
    aside = [name for name in columns.others if name != columns.label]
    if aside:
        inspection.doubts.append(f"columns beside the image and its label are left out: {', '.join(aside)}")
    return inspection


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
    inspection = Inspection(card=card)
    card = replace(card, source=_source(card, path, inspection))
    raw = open_raw(card, path)
    inspection.doubts += raw.notes
    for role, name in (("label", card.label), ("anomaly", card.anomaly.column if card.anomaly else "")):
        if name and name not in raw.names:
            raise ValueError(f"{path}: {role} names no column: {name!r}; the columns are {', '.join(raw.names)}")
    scans = scan_table(raw, card)
    columns: list[Column] = []
    for name, scan in scans.items():
        role = name in (card.label, card.anomaly.column if card.anomaly else "")
        column, notes = scan.column(as_category=role)
        column = replace(column, name=name)
        if role and column.type != "categorical":
            why = "; ".join([*notes, column.why])
            raise ValueError(f"{path}: column {name!r} cannot be the label or the anomaly: {why}")
        if column.type in NOT_LEARNED:
            place = "left out" if column.type == "skip" else "not learned, its place is kept"
            inspection.doubts.append(f"column {name!r}: {column.type}, {place}: {column.why}")
        missing = sum(scan.missing.values())
        if missing and column.type in LEARNED:
            shown = ", ".join(f"{count} × {mark!r}" for mark, count in scan.missing.most_common(4))
            inspection.found.append(f"column {name!r}: {missing / scan.cells:.1%} of its cells are missing ({shown})")
        if notes:
            inspection.column_doubts[name] = "; ".join(notes)
            inspection.doubts.append(f"column {name!r}: {'; '.join(notes)}")
        columns.append(column)
    aside = (card.label, card.anomaly.column if card.anomaly else "")
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        columns = [_anyway(column, scans[column.name], inspection) for column in columns]
    if not any(column.type in LEARNED for column in columns if column.name not in aside):
        raise ValueError(f"{path}: no column can be learned from: " + "; ".join(
            f"{column.name!r} is {column.type} ({column.why})" for column in columns[:8]
        ) + ". Give another table.")  # fmt: skip
    if card.anomaly and scans[card.anomaly.column].values is not None:
        _check_value(card.anomaly, scans[card.anomaly.column].categories, path)
    inspection.card = replace(card, columns=tuple(columns))
    first_scan = next(iter(scans.values()))
    types = Counter(column.type for column in columns)
    inspection.found.insert(0,
        f"{first_scan.cells} rows, {len(columns)} columns: " + ", ".join(f"{n} {kind}" for kind, n in types.items())
    )  # fmt: skip
    if not card.label and not card.anomaly:
        inspection.doubts.append("no label: give --label COLUMN if a column names the class of a row")
    return inspection


def _anyway(column: Column, scan: ColumnScan, inspection: Inspection) -> Column:
    """A column that is learned because there is no other: numbers that vary by row or not at all."""
    if column.type not in ("identifier", "index", "constant") or not scan.exact or not 0 < scan.known == scan.numeric:
        return column
    inspection.doubts.append(f"column {column.name!r} is learned all the same: there is no other")
    return Column(name=column.name, type="integer" if scan.whole else "continuous")


def _source(card: Card, path: Path, inspection: Inspection) -> Source:
    """How the files of a table are to be read, found from their content."""
    source = card.source
    if source.format == "sql":
        if not source.query:
            known = ", ".join(tables(path)) or "none"
            raise ValueError(f"{path} is a database: give --query 'SELECT …' (its tables: {known}).")
        return source
    if source.format == "excel":
        found = sheets(path)
        if not source.sheet and len(found) > 1:
            inspection.doubts.append(f"read is sheet {found[0]!r}; there are others: {', '.join(found[1:6])}")
        return replace(source, sheet=source.sheet or next(iter(found), ""))
    if source.format not in ("csv", "jsonl"):
        return source
    files = table_files(path, SUFFIXES[source.format])
    encodings = [detect(file) for file in files]
    encoding, why = next((found for found in encodings if found[1]), encodings[0])
    if why:
        inspection.doubts.append(f"read as {encoding}: {why}; set source.encoding in the card if it is another")
    if source.format == "jsonl":
        return replace(source, encoding=encoding)
    check_kind(files[0])
    dialect = sniff(files[0], encoding)
    inspection.doubts += dialect.notes
    return replace(source, encoding=encoding, delimiter=dialect.delimiter, header=dialect.header, skip=dialect.skip)


def _check_value(anomaly: Anomaly, values: tuple[str, ...], path: Path) -> None:
    def number(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if number(anomaly.value) not in {number(value) for value in values}:
        shown = ", ".join(map(repr, values[:20]))
        raise ValueError(f"{path}: no row has {anomaly.column} = {anomaly.value!r}; the values are {shown}")


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
        lines.append(f"  header: {source.header}  # first: the first row names the columns; none: they are numbered")
        lines += [f"  skip: {source.skip}  # lines before the table"] if source.skip else []
    if source.format in ("csv", "jsonl"):
        lines.append(f"  encoding: {source.encoding}")
    lines += [
        f"  {key}: {_quoted(value)}" for key in ("sheet", "query", "image", "label") if (value := getattr(source, key))
    ]
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
    lines.append(f"missing: {card.missing}  # model: draws have gaps where the data has them; fill: none")
    lines.append("marks: [" + ", ".join(map(_quoted, card.marks)) + "]  # cells that mean: not known")
    lines.append(
        "columns:  # learned: continuous, integer, categorical, datetime, duration; its place kept: identifier,"
    )
    lines.append("  # index, text, constant; left out: skip. `format` is how the cells are written")
    for column in card.columns:
        doubt = inspection.column_doubts.get(column.name)
        comment = f"  # unsure: {_one_line(doubt)}" if doubt else ""
        keys = [f"name: {_quoted(column.name)}", f"type: {column.type}"]
        keys += [f"{key}: {_quoted(value)}" for key in ("format", "why") if (value := getattr(column, key))]
        for key in ("categories", "parts", "missing"):
            if getattr(column, key):
                keys.append(f"{key}: [{', '.join(map(_quoted, getattr(column, key)))}]")
        lines.append(f"  - {{{', '.join(keys)}}}{comment}")
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
