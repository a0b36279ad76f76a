"""Prepared data as files that other tools read, one per split.

Images are PNG bytes, so that every reader can show them and the file stays small; the cells of tables
have their original names, types, formats, categories and gaps. Both are exact; what is not learned
(identifiers, free text) has its place.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.cards import Source
from data.dataset import Dataset
from data.domains import KINDS
from data.domains.base import Parts
from data.domains.source_table import pandas_notes
from data.files import whole_folder

ROWS = 4096


def export_parquet(dataset: Dataset, out: Path, label: str = "label") -> dict[str, int]:
    """Write every split as `<split>.parquet`.

    Arguments:
        dataset: Prepared data.
        out: The folder to write; whole or untouched.
        label: Name of the column of classes, of data that have none of their own.
    Returns:
        Rows of each split.
    Raises:
        FileExistsError: If `out` holds something else than an earlier export.
        ValueError: If the dataset is damaged.
    """
    _check_out(out, ".parquet")
    kind = KINDS[dataset.kind]
    fields = kind.fields(dataset.manifest, label)
    schema = pa.schema(fields, metadata=pandas_notes(dataset.manifest, fields))
    with whole_folder(out) as folder:
        for name in dataset.splits:
            with pq.ParquetWriter(folder / f"{name}.parquet", schema, write_page_checksum=True) as writer:
                for arrays in kind.arrays(dataset.manifest, name, _parts(dataset, name), schema):
                    writer.write_batch(pa.record_batch(arrays, schema=schema))
    return {name: len(dataset.split(name)) for name in dataset.splits}


def export_text(dataset: Dataset, out: Path, form: str, source: Source) -> dict[str, int]:
    """Write every split as text, each cell as the source has it: `<split>.csv` or `<split>.jsonl`.

    Arguments:
        dataset: Prepared data.
        out: The folder to write; whole or untouched.
        form: `csv` or `jsonl`.
        source: Of the card: delimiter, encoding and header, if it is delimited text.
    Returns:
        Rows of each split.
    Raises:
        FileExistsError: If `out` holds something else than an earlier export.
        ValueError: If this kind of data is not written as text.
    """
    write = KINDS[dataset.kind].text_writer()
    if write is None:
        raise ValueError(f"{dataset.name} holds data of kind {dataset.kind}: they are exported as Parquet only.")
    _check_out(out, f".{form}")
    with whole_folder(out) as folder:
        for name in dataset.splits:
            write(dataset.manifest, name, _parts(dataset, name), folder / f"{name}.{form}", form, source)
    return {name: len(dataset.split(name)) for name in dataset.splits}


def _parts(dataset: Dataset, split: str) -> Parts:
    """A split's examples and labels, some thousand at a time."""
    examples = dataset.split(split)
    for start in range(0, len(examples), ROWS):
        part = examples.slice(start, start + ROWS)
        yield part.x.numpy(), part.label.numpy()


def _check_out(out: Path, suffix: str) -> None:
    foreign = sorted(path.name for path in out.iterdir() if path.suffix != suffix) if out.is_dir() else []
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Give the name of a folder to export to.")
    if foreign:
        raise FileExistsError(f"{out} holds other things ({', '.join(foreign[:3])}). Export to a folder of its own.")
