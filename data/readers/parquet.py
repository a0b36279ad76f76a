"""Raw columns of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.readers.base import IngestReport
from data.readers.raw_table import RawBatch, RawTable, check_names, same_columns, splits_of

PARQUET_ROWS = 1 << 15

PARQUET_SUFFIXES = (".parquet", ".pq")


def open_parquet(path: Path, files: list[Path]) -> RawTable:
    """Parquet files of one schema as raw batches.

    Raises:
        ValueError: If the files have different columns.
    """
    first: pa.Schema | None = None
    for file in files:
        schema = _parquet_schema(file)
        check_names(file, schema.names)
        if first is None:
            first = schema
            continue
        same_columns(file, schema.names, files[0], first.names)
        for name in first.names:
            if schema.field(name).type != first.field(name).type:
                raise ValueError(
                    f"{file}: column {name!r} has type {schema.field(name).type}, in {files[0].name} it has "
                    f"{first.field(name).type}. Write all files with the same types."
                )
    assert first is not None
    splits = splits_of(path, files)
    names = list(first.names)

    def batches(report: IngestReport) -> Iterator[RawBatch]:
        offset = 0
        for file, split in zip(files, splits, strict=True):
            start = 0
            for batch in _parquet_batches(file, names):
                rows = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield RawBatch(file=file, rows=rows + 1, positions=rows + offset, split=split, columns=columns)
            offset += start

    return RawTable(name=str(path), names=names, types={item.name: item.type for item in first}, batches=batches)


def _parquet_schema(file: Path) -> pa.Schema:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file, or is truncated or damaged: {_one_line(error)}") from None


def _parquet_batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True, memory_map=False, pre_buffer=False) as opened:
            yield from opened.iter_batches(PARQUET_ROWS, columns=names, use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"{file} is damaged: {_one_line(error)} Fetch it again.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
