"""Image folders and archives of them: what their folders mean, and their images as chunks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from data.cards import SPLITS, Card, ImageShape, Inspection, SplitPlan, listed
from data.readers.base import (
    SPLIT_NAMES,
    UNPUBLISHED,
    Chunk,
    IngestReport,
    Mapper,
    Reader,
    check_anomaly,
    check_no_label,
    class_codes,
    class_list,
    natural_sorted,
    split_by_rows,
)
from data.readers.image_decoding import SUFFIXES, Decoded, Encoded, Fault, decode_batch, opened, upright_size
from data.readers.image_metadata import listed_labels, metadata_labels, named_labels
from data.readers.image_size import LOOKED_AT, image_shape
from data.sources.archive import members
from data.sources.files import tree
from data.sources.streams import Member, is_utf8, unsafe

BATCH = 512
BATCH_BYTES = 8 << 20


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, hidden files and macOS's shadows aside."""
    if not name.lower().endswith(SUFFIXES):
        return False
    return not (name.startswith(".") or "/." in name or "__MACOSX" in name)


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderLayout:
    """What the folders of a source mean.

    Arguments:
        prefix: Number of leading folders that all images share.
        split: Position of the folder that names the split, after the prefix; -1 when none does.
        labelled: Whether the (next) folder names the class.
        classes: The names found.
        images: Number of files that look like images.
        ignored: Other files, by suffix.
        unlabelled: Images that lie beside class folders instead of in one.
        published: Splits found.
        labels: Classes by the names of the images, where a table beside them states them, or these names do.
        named: Whether they do.
        lost: What a table beside them names and is not there.
    """

    prefix: int
    split: int
    labelled: bool
    classes: tuple[str, ...]
    images: int
    ignored: Counter[str]
    unlabelled: int
    published: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    named: bool = False
    lost: tuple[str, ...] = ()

    def meaning(self, folder: str) -> tuple[int, str | None]:
        """Published split (its index in `SPLITS`, or -1) and class (`None` without one) of a folder's files."""
        parts = tuple(folder.split("/")[self.prefix :]) if folder else ()
        split = UNPUBLISHED
        if self.split >= 0 and len(parts) > self.split:
            split = SPLITS.index(SPLIT_NAMES[parts[self.split].lower()])
            parts = parts[: self.split] + parts[self.split + 1 :]
        return split, parts[0] if parts and self.labelled else None


def scan_layout(path: Path) -> FolderLayout:
    """Read the names in a folder or archive and find out what its folders mean.

    Raises:
        ValueError: If there are no images, or the folders contradict each other.
    """
    inside: Counter[str] = Counter()
    ignored: Counter[str] = Counter()

    def note(name: str) -> bool:
        folder, _, base = name.rpartition("/")
        if is_image(name) and not unsafe(name):
            inside[folder] += 1
        else:
            ignored[PurePosixPath(base).suffix.lower() or base] += 1
        return False

    faults = [f"{member.name!r}: {member.fault}" for member in members(path, note) if member.fault][:3]
    folders = Counter({tuple(folder.split("/")) if folder else (): count for folder, count in inside.items()})
    if not folders and faults:
        raise ValueError(f"{path} holds no images that may be used; the first: {faults[0]}. Give another source.")
    if not folders:
        kinds = ", ".join(f"{count} × {suffix}" for suffix, count in ignored.most_common(5)) or "nothing"
        raise ValueError(
            f"{path} holds no images (png, jpg, webp, avif, tif, ppm, bmp, gif), but {kinds}. Give another source."
        )
    prefix = _shared(list(folders))
    below = Counter({parts[prefix:]: 0 for parts in folders})
    for parts, count in folders.items():
        below[parts[prefix:]] += count
    split = _split_level(path, list(below))
    strange = sorted("/".join(parts) for parts in below if not is_utf8("/".join(parts)))
    if strange:
        raise ValueError(f"{path}: the name of folder {strange[0]!r} is not valid UTF-8, and names a class. Rename it.")
    rests = {parts: (parts[:split] + parts[split + 1 :]) if split >= 0 else parts for parts in below}
    labelled = any(rests.values())
    stated = metadata_labels(path) if ignored[".csv"] + ignored[".jsonl"] else {}
    if not stated and not labelled and ignored[".csv"]:
        stated = listed_labels(path, lambda name: is_image(name) and not unsafe(name))
    images = {member.name for member in members(path, is_image)} if stated else set[str]()
    lost = [name for name in stated if name not in images]
    stated = {name: label for name, label in stated.items() if name in images}
    named = {} if stated or labelled else named_labels(path, lambda name: is_image(name) and not unsafe(name))
    stated = stated or named
    if stated:
        return FolderLayout(
            prefix=prefix, split=split, labelled=True, classes=tuple(sorted(set(stated.values()))),
            images=sum(folders.values()), ignored=ignored, unlabelled=0, labels=stated,
            named=bool(named), lost=tuple(lost),
            published=tuple(sorted({SPLIT_NAMES[parts[split].lower()] for parts in below})) if split >= 0 else (),
        )  # fmt: skip
    return FolderLayout(
        prefix=prefix,
        split=split,
        labelled=labelled,
        classes=tuple(sorted({rest[0] for rest in rests.values() if rest})),
        images=sum(folders.values()),
        ignored=ignored,
        unlabelled=sum(count for parts, count in below.items() if not rests[parts]) if labelled else 0,
        published=tuple(sorted({SPLIT_NAMES[parts[split].lower()] for parts in below})) if split >= 0 else (),
        lost=tuple(lost),
    )


def _shared(folders: list[tuple[str, ...]]) -> int:
    """Number of leading folders that all share and that say nothing."""
    prefix = 0
    while all(len(parts) > prefix and parts[prefix] == folders[0][prefix] for parts in folders):
        prefix += 1
    return prefix


def _split_level(path: Path, folders: list[tuple[str, ...]]) -> int:
    """Which folder names the split, -1 when none does."""
    for level in (0, 1):
        names = {parts[level].lower() if len(parts) > level else "" for parts in folders}
        known = {SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
        if len(known) < 2:
            continue
        strange = sorted(name for name in names if name not in SPLIT_NAMES)
        if not strange:
            return level
        if "train" in known and level == 0:
            raise ValueError(
                f"{path} has folders named after splits ({', '.join(sorted(known))}) beside others "
                f"({', '.join(repr(name) for name in strange[:5])}): it is unclear what the others are. "
                "Move them into a split's folder, or leave them out of the source."
            )
    return -1


def open_images(card: Card, path: Path, report: IngestReport, mapper: Mapper) -> Reader:
    """Look at an image folder or archive and return its reader."""
    assert card.image is not None
    target = card.image
    classes: list[str] = []
    tables: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []

    def batches() -> Iterator[Encoded]:
        layout = scan_layout(path)  # while the workers start
        report.ignored.update(layout.ignored)
        check_anomaly(card, layout.classes, str(path))
        classes.extend(class_list(card, layout.classes) if layout.labelled else [])
        _compare_classes(card, classes, layout, report, path)
        tables.append(class_codes(card, list(layout.classes), classes))
        yield from _batches(card, path, layout, target, report, classes)

    def chunks() -> Iterator[Chunk]:
        for decoded in mapper(decode_batch, batches(), _size(path)):
            yield _chunk(card, decoded, report, *tables[0])

    return Reader(event_shape=target.shape, dtype="uint8", class_names=classes, chunks=chunks)


def _size(path: Path) -> int:
    """Bytes of a file; of a folder, of so many files that more make no difference."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for _, file in itertools.islice(tree(path), 4096))


def _compare_classes(card: Card, classes: list[str], layout: FolderLayout, report: IngestReport, path: Path) -> None:
    absent = sorted(set(classes) - set(layout.classes))
    if absent:
        report.warn(f"{path}: classes {', '.join(map(repr, absent[:20]))} of the card have no images")
    if card.classes and not layout.labelled:
        raise ValueError(
            f"{path} has no class folders, the card lists {len(card.classes)} classes. "
            "Remove classes from the card, or give a source with one folder per class."
        )


def _batches(
    card: Card, path: Path, layout: FolderLayout, target: ImageShape, report: IngestReport, classes: list[str]
) -> Iterator[Encoded]:
    """Encoded images in batches, faults of the archive and of labels noted on the way."""
    index = {name: position for position, name in enumerate(layout.classes)}
    known = {*classes, *([card.anomaly.value] if card.anomaly else ())}
    names: list[str] = []
    blobs: list[bytes] = []
    rows: list[tuple[int, int, int]] = []
    size = 0
    meanings: dict[str, tuple[int, str | None]] = {}

    def batch() -> Encoded:
        label, split, source = np.array(rows, np.int64).reshape(-1, 3).T
        return Encoded(
            target=target,
            names=tuple(names),
            blobs=tuple(blobs),
            label=label,
            split=split.astype(np.int8),
            source=source,
        )

    for position, member in enumerate(members(path, is_image)):
        where = f"{path}: {member.name!r}"
        home = member.name.rpartition("/")[0]
        if home not in meanings:
            meanings[home] = layout.meaning(home)
        split, folder = meanings[home]
        folder = layout.labels.get(member.name) if layout.labels else folder
        blob = _usable(member, where, folder, layout, known, report)
        if blob is None:
            continue
        names.append(where)
        blobs.append(blob)
        rows.append((-1 if folder is None else index[folder], split, position))
        size += len(blob)
        if len(blobs) == BATCH or size > BATCH_BYTES:
            yield batch()
            names, blobs, rows, size = [], [], [], 0
    if blobs:
        yield batch()


def _usable(
    member: Member, where: str, folder: str | None, layout: FolderLayout, known: set[str], report: IngestReport
) -> bytes | None:
    """The bytes of a member, or `None` once its fault has been noted."""
    if member.fault:
        report.reject(where, "unsafe or unreadable file", member.fault)
        return None
    if layout.labelled and folder is None:
        stated = "a row in the table of labels" if layout.labels else "a class folder around it"
        report.reject(where, "no label", f"expected {stated}, as other images have")
        return None
    if folder is not None and folder not in known:
        report.reject(where, "unknown label", f"expected one of the card's classes, got {folder!r}")
        return None
    try:
        return member.read()
    except ValueError as error:
        report.reject(where, "damaged member", str(error).rpartition(": ")[-1])
    return None


def _chunk(
    card: Card, decoded: Decoded, report: IngestReport, codes: NDArray[np.int64], anomalous: NDArray[np.bool_]
) -> Chunk:
    for what, where in decoded.conversions:
        report.convert(what, where)
    for where, reason, detail in decoded.faults:
        report.reject(where, reason, detail)
    return Chunk(
        x=decoded.x,
        label=codes[decoded.label] if len(codes) else decoded.label,
        split=split_by_rows(card, decoded.source) if card.splits.rows else decoded.split,
        anomaly=anomalous[decoded.label] if len(codes) else np.zeros(len(decoded.x), np.bool_),
        content=decoded.content,
        source=decoded.source,
    )


def inspect_folders(card: Card, path: Path, size: str, fit: str) -> Inspection:
    """The card that fits a folder or archive of images."""
    check_no_label(card, path)
    layout = scan_layout(path)
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
    classes = tuple(name for name in natural_sorted(layout.classes) if name != anomalous)
    if anomalous is not None and anomalous not in layout.classes:
        raise ValueError(f"{path}: no class folder is named {anomalous!r}; found {', '.join(map(repr, classes[:20]))}")
    inspection.card = replace(card, image=shape, classes=classes, splits=_split_plan(layout.published))
    inspection.found.append(f"{layout.images} images, {listed(classes, 'classes') if classes else 'no class folders'}")
    inspection.found.append(f"published splits: {', '.join(layout.published) or 'none'}")
    if layout.labels:
        where = "the words that their names begin with" if layout.named else "stated by a table beside them"
        inspection.found.append(f"labels of {len(layout.labels)} images are {where}")
    if layout.lost:
        inspection.warnings.append(
            f"a table beside the images has labels of {len(layout.lost)} files that are not there, the first of "
            f"{layout.lost[0]!r}: its names must be the ways to the images from its own folder"
        )
    if layout.ignored:
        others = ", ".join(f"{n} × {suffix}" for suffix, n in layout.ignored.most_common(5))
        inspection.warnings.append(f"files that are not images are ignored: {others}")
    if layout.unlabelled:
        inspection.warnings.append(f"{layout.unlabelled} images lie beside the class folders: they have no label")
    if bad:
        inspection.warnings.append(
            f"{bad} images cannot be read, for example {faults[0]}; `on_bad: drop` leaves them out"
        )
    return inspection


def _split_plan(published: tuple[str, ...]) -> SplitPlan:
    return SplitPlan(published=len(published) > 1 or not published)
