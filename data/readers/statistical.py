"""Files of Stata and SAS, by pandas, and ORC files, by pyarrow, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.readers.columnar import columnar
from data.readers.raw_table import RawTable, one_line

ROWS = 1 << 15


def open_statistical(path: Path, files: list[Path], form: str) -> RawTable:
    """Look at files of `stata`, `sas` or `orc`.

    Raises:
        ValueError: If one is damaged, or they have different columns.
    """
    read = _orc if form == "orc" else _by_pandas
    return columnar(path, files, [_schema(read, file) for file in files], _selecting(read))


def _schema(read: Any, file: Path) -> pa.Schema:
    """The types that hold the cells of all parts of a file."""
    found = [batch.schema for batch in read(file)]
    if not found:
        raise ValueError(f"{file} has no rows. Give a table with data in it.")
    return pa.unify_schemas(found, promote_options="permissive").remove_metadata()


def _selecting(read: Any) -> Any:
    def batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in read(file):
            yield batch.select(names)

    return batches


def _orc(file: Path) -> Iterator[pa.RecordBatch]:
    from pyarrow import orc

    try:
        opened = orc.ORCFile(file)
        for stripe in range(opened.nstripes):
            yield from pa.Table.from_batches([opened.read_stripe(stripe)]).to_batches(ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not an ORC file, or is truncated or damaged: {one_line(error)}") from None


def _by_pandas(file: Path) -> Iterator[pa.RecordBatch]:
    """Parts of a Stata or SAS file; what numbers stand for by their labels, dates as such."""
    import pandas as pd

    options: dict[str, Any] = {} if file.suffix.lower() == ".dta" else {"encoding": "infer"}
    if file.suffix.lower() == ".xpt":
        options["encoding"] = "latin-1"
    read: Any = pd.read_stata if file.suffix.lower() == ".dta" else pd.read_sas
    try:
        with read(file, chunksize=ROWS, **options) as parts:
            for part in parts:
                for name in part.columns:
                    if isinstance(part[name].dtype, pd.CategoricalDtype):
                        known = part[name].notna()
                        part[name] = part[name].astype(object).where(known, None)
                        part[name] = [None if cell is None else str(cell) for cell in part[name]]
                yield from pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata().to_batches()
    except (ValueError, KeyError, IndexError, EOFError, OSError) as error:
        raise ValueError(f"{file} is not a file of Stata or SAS, or is damaged: {one_line(error)}") from None
