"""Of what format a source is, by the names of its files and how they begin."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

from data.readers.idx import IDX_NAME
from data.readers.image_decoding import SUFFIXES as IMAGE_SUFFIXES
from data.readers.image_folder import is_image
from data.readers.suffixes import EXCEL_SUFFIXES, SUFFIXES
from data.sources.archive import is_archive, members
from data.sources.files import tree
from data.sources.inflate import archived_table

CONTENT = {
    b"PAR1": "parquet", b"ARROW1": "arrow", b"FEA1": "arrow", b"ORC": "orc", b"SQLite format 3": "sql",
    b"<stata_dta>": "stata", b"HEADER RECORD*******LIBRARY": "sas",
}  # fmt: skip
"""How files of each format begin."""
BY_PYTHON = "In Python: pandas.{}(path).to_csv('table.csv', index=False)"
PORTABLE = b"SPSS PORT FILE"
"""What stands among the first 400 bytes, not at their start, of SPSS's portable files."""
NOT_READ = {
    b"$FL2": f"a file of SPSS, which is not read here. {BY_PYTHON.format('read_spss')} (with pyreadstat)",
    b"$FL3": f"a file of SPSS, which is not read here. {BY_PYTHON.format('read_spss')} (with pyreadstat)",
    PORTABLE: f"a file of SPSS, which is not read here. {BY_PYTHON.format('read_spss')} (with pyreadstat)",
    b"\x89HDF": f"an HDF5 file, which is not read here. {BY_PYTHON.format('read_hdf')} (or give its arrays as .npz)",
    b"MATLAB 5.0": "a file of MATLAB, which is not read here. In MATLAB: writetable(T, 'table.csv')",
    b"CDF": "a NetCDF file, which is not read here. In Python: xarray.open_dataset(path).to_dataframe().to_csv(…)",
    b"\x80": "a pickle, which may run code when it is read, so it is not. Where you trust it: "
    f"{BY_PYTHON.format('read_pickle')[11:]}",
    b"<data": f"an XML file, which is not read here. {BY_PYTHON.format('read_xml')}",
    b"<table": "a web page. Fetch the file itself, or save its table as CSV",
    b"%PDF": "a PDF document. Export its table as CSV",
    b"<html": "a web page. Fetch the file itself, or save its table as CSV",
    b"<!DOCTYPE": "a web page. Fetch the file itself, or save its table as CSV",
    b"<?xml": f"an XML file, which is not read here. {BY_PYTHON.format('read_xml')}",
    b"7z\xbc\xaf": "a 7z archive. Unpack it, and give the file or the folder",
    b"Rar!": "a RAR archive. Unpack it, and give the file or the folder",
    b"Obj\x01": "an Avro file, which is not read here. Write it as Parquet",
}
"""How files begin that are not read here, and what to do with each."""
WITHIN = tuple(
    suffix for form in ("parquet", "arrow", "excel", "sql", "stata", "sas", "orc") for suffix in SUFFIXES[form]
)
"""Tables that are not read within an archive."""


def source_format(path: Path) -> str:
    """The format of a source by the names of its files.

    Raises:
        ValueError: If it is none of those read here.
    """
    name = path.name.lower()
    if path.is_file():
        if is_archive(path):
            return _archived_format(path)
        if name.endswith(EXCEL_SUFFIXES) and _format_by_content(path) == "csv":
            return "csv"  # text, as many programs "export to Excel"
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
            "other delimited text (also .gz, .bz2, .xz, .zst, .zip, .tar); JSON; Parquet; ORC; Feather, Arrow; ARFF; "
            "Stata; SAS; Excel and OpenDocument workbooks; SQLite and DuckDB databases with a query."
        )
    kinds: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for inside, file in tree(path):
        lowered = file.name.lower()
        others[file.suffix.lower() or "without an ending"] += 1
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
        held = ", ".join(f"{count} × {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        raise ValueError(
            f"{path} holds no images ({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))}), IDX files or tables (CSV, "
            f"JSON lines, Parquet, Arrow), but {held}; links to folders are not followed. Convert other images (HEIC) "
            "to one of these, or give another source."
        )
    return kinds.most_common(1)[0][0]


def _archived_format(path: Path) -> str:
    """The format of what an archive holds: images, or else the table that is read from within it.

    Raises:
        ValueError: If it holds tables of a kind that is not read from within an archive.
    """
    if any(True for _ in members(path, is_image)):
        return "images"
    inside = archived_table(path).name.lower()
    if inside:
        return next((form for form in ("jsonl", "arff") if inside.endswith(SUFFIXES[form])), "csv")
    others = [item.name for item in members(path, lambda name: name.lower().endswith(WITHIN))]
    if others:
        raise ValueError(
            f"{path} holds {', '.join(others[:3])}, not read within an archive. Unpack it, and give the file."
        )
    return "images"


def _format_by_content(path: Path) -> str:
    """The format of a file whose name says nothing, by its first bytes; empty when unknown.

    Raises:
        ValueError: If it is of a kind that is known and not read here, with what to do.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            if file.read(5).startswith((b"RDX2\n", b"RDX3\n", b"X\n\0\0")):
                raise ValueError(f"{path} holds objects of R. In R: write.csv(table, 'table.csv', row.names = FALSE).")
    for start, form in CONTENT.items():
        if head.startswith(start):
            return form
    for start, what in NOT_READ.items():
        if head.startswith(start) or (start == PORTABLE and start in head[:400]):
            raise ValueError(f"{path} is {what}.")
    if head[8:12] == b"DUCK":
        return "sql"
    if head.lstrip()[:1] == b"{":
        return "jsonl"
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    return "csv" if "\n" in text and sum(not c.isprintable() and c not in "\r\n\t" for c in text) <= 1 else ""
