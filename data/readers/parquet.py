"""Raw columns of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.readers.columnar import columnar
from data.readers.raw_table import RawTable, one_line

PARQUET_ROWS = 1 << 15


def open_parquet(path: Path, files: list[Path]) -> RawTable:
    """Parquet files of one table as raw batches.

    Raises:
        ValueError: If the files have different columns.
    """
    return columnar(path, files, [_parquet_schema(file) for file in files], _parquet_batches)


def _parquet_schema(file: Path) -> pa.Schema:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a Parquet file, or is truncated or damaged: {one_line(error)}") from None


def _parquet_batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True, memory_map=False, pre_buffer=False) as opened:
            yield from opened.iter_batches(PARQUET_ROWS, columns=names, use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {one_line(error)} Fetch it again.") from None
