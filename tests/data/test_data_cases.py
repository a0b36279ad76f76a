"""Small files that people had, each from file to exported file: every cell that is learned comes back as it was.

The files lie in `shared/cases` beside the project (or where FIVEFOLD_CASES says); without them this is skipped, and
the generated zoo stands for their kinds.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.dataset import Dataset
from pipelines.cli.data import add, export
from pipelines.stages.prepare import prepare

CASES = Path(os.environ.get("FIVEFOLD_CASES", Path(__file__).resolve().parents[3] / "shared/cases"))
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} (small files that people had) is not there")
TREES = {"kind": "category", "height": "number", "girth": "number", "age": "number"}
FORMATTED = {"integer": "number", "continuous": "number"}
ROLES: dict[str, dict[str, str]] = {
    "blank_header_index.csv": {"unnamed_1": "identifier", **TREES},
    "currency.csv": {**TREES, "price": "number"},
    "dash_missing.csv": TREES,
    "dates.csv": {**TREES, **dict.fromkeys(("iso", "us", "word", "compact", "clock"), "datetime")},
    "decimal_comma.csv": TREES,
    "duplicate_header.csv": {"kind": "category", "height": "number", "height.1": "number", "age": "number"},
    "hash_na.csv": TREES,
    "headerless_mixed.csv": {f"column_{i}": "category" if i == 4 else "number" for i in range(1, 5)},
    "integer_id.csv": {"customer_id": "identifier", **TREES},
    "label_missing.csv": {**TREES, "kind": "label"},
    "latin1_cells.csv": TREES,
    "leading_zeros.csv": {**TREES, "zip": "identifier"},
    "missing_share.csv": TREES,
    "mostly_numbers_some_text.csv": {**TREES, "age": "category"},
    "percent.csv": {**TREES, "share": "number"},
    "seventeen_rows.csv": TREES,
    "text_id.csv": {"customer": "identifier", **TREES},
    "thousands.csv": {**TREES, "price": "number"},
    "wide33.csv": {**{f"m{i}": "number" for i in range(32)}, "kind": "category"},
}
NO_SIGN = {"-0.0": "0.0"}
SAID = {
    "blank_header_index.csv": "'unnamed_1': index, not learned, its place is kept: it counts the rows",
    "duplicate_header.csv": "'height' names more than one column: column 3 is called 'height.1'",
    "dash_missing.csv": "taken as missing: 3 × '-'",
    "hash_na.csv": "2.5% of its cells are missing (3 × '#N/A')",
    "latin1_cells.csv": "read as cp1252",
    "headerless_mixed.csv": "its first row is like the others",
    "integer_id.csv": "'customer_id': identifier, not learned, its place is kept: every row has a value of its own",
    "label_missing.csv": "rows have no label: they are kept, with label -1",
    "mostly_numbers_some_text.csv": "90 of 120 cells are numbers, the first that is none in row 2: 'A/5 2000'",
}


def prepared(root: Path, case: str, **options: str) -> tuple[Dataset, str]:
    source = root / case
    (shutil.copytree if (CASES / case).is_dir() else shutil.copy)(CASES / case, source)
    add(case, "d", root=root, quiet=True, **options)
    prepare("d", root=root)
    return Dataset.open(root / "data/prepared/d"), (root / "data/catalog/d.yaml").read_text()


@pytest.mark.parametrize("case", ROLES)
def test_tables(tmp_path: Path, case: str) -> None:
    dataset, card = prepared(tmp_path, case, **({"label": "kind"} if case == "label_missing.csv" else {}))
    assert {entry["name"]: entry["role"] for entry in dataset.manifest["table"]} == ROLES[case]
    assert SAID.get(case, "") in card
    encoding, delimiter = ("cp1252" if "latin1" in case else "utf-8"), (";" if case == "decimal_comma.csv" else ",")
    source = list(csv.reader(io.StringIO((CASES / case).read_bytes().decode(encoding)), delimiter=delimiter))
    titles = source.pop(0) if case != "headerless_mixed.csv" else None
    export("d", Path("out"), "csv", root=tmp_path)
    for split in dataset.splits:
        text = (tmp_path / f"out/{split}.csv").read_text(encoding=encoding)
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
        if titles is not None:
            assert rows.pop(0) == titles
        expected = [source[place] for place in dataset.split(split).sources.tolist()]
        for place, role in enumerate(ROLES[case].values()):
            mine, theirs = [row[place] for row in rows], [NO_SIGN.get(row[place], row[place]) for row in expected]
            if role != "identifier":
                assert mine == theirs
            elif case != "blank_header_index.csv":
                assert not set(mine) & {row[place] for row in source}


def test_dates_of_parquet(tmp_path: Path) -> None:
    dataset, _ = prepared(tmp_path, "dates.parquet")
    original = pq.read_table(CASES / "dates.parquet")
    export("d", Path("out"), root=tmp_path)
    for split in dataset.splits:
        found = pq.read_table(tmp_path / f"out/{split}.parquet")
        assert found.to_pylist() == original.take(dataset.split(split).sources.numpy()).to_pylist()
        assert found.schema.field("when").type == original.schema.field("when").type


def test_json_lines(tmp_path: Path) -> None:
    dataset, _ = prepared(tmp_path, "rows.jsonl")
    source = (CASES / "rows.jsonl").read_text().splitlines()
    export("d", Path("out"), "jsonl", root=tmp_path)
    for split in dataset.splits:
        rows = (tmp_path / f"out/{split}.jsonl").read_text().splitlines()
        expected = [source[place] for place in dataset.split(split).sources.tolist()]
        assert [json.loads(row) for row in rows] == [json.loads(row) for row in expected]


def test_a_test_set_without_the_target(tmp_path: Path) -> None:
    dataset, card = prepared(tmp_path, "train_and_test", label="kind")
    assert "test.csv has no column 'kind': its cells are missing" in card
    assert len(dataset.split("test")) == 30
    assert set(dataset.split("test").labels.tolist()) == {-1}
    assert min(dataset.split("train").labels.tolist()) == 0


@pytest.mark.parametrize(
    ("case", "size", "images", "said"),
    [
        ("images_mostly_one_size", (16, 16), 60, "scaled, and cropped in the middle, to 16×16"),
        ("images_phone_exif", (24, 16), 60, "turned upright by their EXIF orientation before they are measured"),
        ("images_tiff", (16, 16), 20, "2 classes: round, square"),
        ("images_tiny", (16, 16), 10, "only 10 examples"),
        ("images_hd", (64, 32), 4, "scaled down to 64×32"),
    ],
)
def test_images(tmp_path: Path, case: str, size: tuple[int, int], images: int, said: str) -> None:
    dataset, card = prepared(tmp_path, case)
    assert (dataset.domain["width"], dataset.domain["height"]) == size
    assert sum(len(dataset.split(name)) for name in dataset.splits) == images
    assert dataset.class_names == ["round", "square"]
    assert said in card
