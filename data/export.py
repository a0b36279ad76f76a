"""Prepared data as Parquet files that other tools read: one per split, a row group per shard.

Images are PNG bytes, so that every reader can show them and the file stays small; the cells of tables
have their original names, types, categories and gaps. Both are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.dataset import Dataset
from data.domains import KINDS
from data.domains.table import category_array
from data.files import whole_folder

ROWS = 4096


def export_parquet(dataset: Dataset, out: Path, label: str = "label") -> dict[str, int]:
    """Write every split as `<split>.parquet`.

    Arguments:
        dataset: Prepared data.
        out: The folder to write; whole or untouched.
        label: Name of the column of classes.
    Returns:
        Rows of each split.
    Raises:
        FileExistsError: If `out` holds something else than an earlier export.
        ValueError: If the dataset is damaged, or `label` is the name of another column.
    """
    foreign = sorted(path.name for path in out.iterdir() if path.suffix != ".parquet") if out.is_dir() else []
    if foreign or (out.exists() and not out.is_dir()):
        raise FileExistsError(f"{out} holds other things ({', '.join(foreign[:3])}). Export to a folder of its own.")
    schema = _schema(dataset, label)
    with whole_folder(out) as folder:
        for name in dataset.splits:
            with pq.ParquetWriter(folder / f"{name}.parquet", schema, write_page_checksum=True) as writer:
                for batch in _batches(dataset, name, schema):
                    writer.write_batch(batch)
    return {name: len(dataset.split(name)) for name in dataset.splits}


def _schema(dataset: Dataset, label: str) -> pa.Schema:
    fields = KINDS[dataset.kind].fields(dataset.domain)
    if dataset.class_names:
        if label in [field.name for field in fields]:
            raise ValueError(f"{dataset.name} has a column {label!r} beside its label. Give the label another name.")
        fields.append(pa.field(label, pa.dictionary(pa.int32(), pa.string())))
    return pa.schema(fields)


def _batches(dataset: Dataset, split: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    examples = dataset.split(split)
    for start in range(0, len(examples), ROWS):
        part = examples.slice(start, start + ROWS)
        arrays = list(KINDS[dataset.kind].arrays(dataset.domain, part.x.numpy(), schema))
        if dataset.class_names:
            arrays.append(category_array(part.label.numpy(), dataset.class_names))
        yield pa.record_batch(arrays, schema=schema)
