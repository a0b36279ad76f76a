"""Feather and Arrow IPC files, and Arrow streams, as tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.feather

from data.readers.columnar import columnar
from data.readers.raw_table import RawTable, one_line

ROWS = 1 << 15


def open_arrow(path: Path, files: list[Path]) -> RawTable:
    """Look at Arrow files.

    Raises:
        ValueError: If one is damaged, or they have different columns.
    """
    return columnar(path, files, [_schema(file) for file in files], _batches)


def _opened(file: Path, source: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchReader:
    if source.read(4) == b"FEA1":  # Feather's first version
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pa.feather.read_table(file).to_reader(ROWS)
    source.seek(0)
    try:
        return pa.ipc.open_file(source)
    except (pa.ArrowInvalid, OSError) as error:
        source.seek(0)
        try:
            return pa.ipc.open_stream(source)
        except (pa.ArrowInvalid, OSError):
            raise ValueError(f"{file} is not an Arrow file, or is truncated or damaged: {one_line(error)}") from None


def _schema(file: Path) -> pa.Schema:
    if file.stat().st_size == 0:
        raise ValueError(f"{file} is empty: expected an Arrow file. Give another file.")
    with pa.memory_map(str(file)) as source:
        return _opened(file, source).schema


def _batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(file)) as source:
        reader = _opened(file, source)
        try:
            if isinstance(reader, pa.RecordBatchFileReader):
                found: Iterator[pa.RecordBatch] = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                found = iter(reader)
            for batch in found:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, ROWS):
                    yield batch.slice(start, ROWS).select(names)
        except (pa.ArrowInvalid, pa.ArrowMemoryError, OSError) as error:
            raise ValueError(f"{file} is damaged: {one_line(error)} Fetch it again.") from None
