"""How the files of tables are named, by format."""

from __future__ import annotations

COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst", ".zip")
CSV_SUFFIXES = tuple(name + end for name in (".csv", ".tsv", ".txt", ".tab", ".data", ".dat") for end in COMPRESSED)
PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_SUFFIXES = tuple(name + end for name in (".jsonl", ".ndjson", ".json") for end in COMPRESSED)
ARROW_SUFFIXES = (".feather", ".arrow", ".arrows", ".ipc", ".ftr")
EXCEL_SUFFIXES = (".xlsx", ".xls", ".xlsb", ".xlsm", ".ods")
SQL_SUFFIXES = (".duckdb", ".db", ".sqlite", ".sqlite3", ".ddb")
SUFFIXES = {
    "csv": CSV_SUFFIXES, "jsonl": JSON_SUFFIXES, "parquet": PARQUET_SUFFIXES, "arrow": ARROW_SUFFIXES,
    "excel": EXCEL_SUFFIXES, "sql": SQL_SUFFIXES, "arff": tuple(".arff" + end for end in COMPRESSED),
    "stata": (".dta",), "sas": (".sas7bdat", ".xpt"), "orc": (".orc",),
}  # fmt: skip
"""How the files of each format are named."""
