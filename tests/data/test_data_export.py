"""Prepared data as Parquet and back: nothing is lost."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.dataset import Dataset
from pipelines.__main__ import main
from pipelines.cli.data import add, export
from pipelines.stages.prepare import prepare


def exported(root: Path, source: str, **options: str) -> tuple[Dataset, dict[str, pa.Table]]:
    add(source, "d", root=root, quiet=True, **options)
    prepare("d", root=root)
    export("d", Path("out"), root=root)
    dataset = Dataset.open(root / "data/prepared/d")
    assert {path.stem for path in (root / "out").iterdir()} == set(dataset.splits)
    return dataset, {name: pq.read_table(root / f"out/{name}.parquet") for name in dataset.splits}


def test_tables_keep_names_types_categories_and_gaps(tmp_path: Path) -> None:
    n = 400
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "i": pa.array([v if v % 7 else None for v in range(n)], pa.int32()),
            "f": pa.array(random.normal(size=n), pa.float32()),
            "whole": pa.array(random.integers(0, 2**40, n), pa.float64()),
            "b": pa.array([None if v % 11 == 0 else v % 2 == 0 for v in range(n)]),
            "s": pa.array([("u", "v w", "ü", None)[v % 4] for v in range(n)]),
            "day": [date(2020, 1, 1)] * n,
            "y": pa.array(["no", "yes"] * (n // 2)),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    dataset, tables = exported(tmp_path, "t.parquet", label="y")
    kept = table.drop_columns(["i"])
    fresh = [cell for found in tables.values() for cell in found["i"].drop_null().to_pylist()]
    assert len(set(fresh)) == len(fresh)  # none comes twice, in whatever split
    for name, found in tables.items():
        assert found.schema.names == table.schema.names
        assert not set(found["i"].drop_null().to_pylist()) & set(table["i"].to_pylist())  # an identifier: fresh ones
        found = found.drop_columns(["i"])
        assert [str(found.schema.field(c).type) for c in ("f", "whole", "b", "day")] == [
            "float",
            "double",
            "bool",
            "date32[day]",
        ]
        assert pa.types.is_string(found.schema.field("s").type)
        expected = kept.take(dataset.split(name).sources.numpy())
        assert found.to_pylist() == expected.to_pylist()
    again = prepared_again(tmp_path, label="y")
    for name in ("train", "val", "test"):  # published by the names of the files
        assert len(again.split(name)) == len(dataset.split(name))
    assert [c["type"] for c in again.domain["columns"]] == [c["type"] for c in dataset.domain["columns"]]


def test_native_cells_are_written_as_text_that_says_them(tmp_path: Path) -> None:
    """Row by row what Python's own types print; identifiers are fresh and beyond the bytes of their source."""
    rows = range(100)
    moments = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=37 * i % 2000) for i in rows]
    spans = [timedelta(minutes=i * i % 3000) for i in rows]
    gap = [i % 9 == 4 for i in rows]
    table = pa.table(
        {
            "id": pa.array([i + 20 for i in rows], pa.int8()),
            "day": [moment.date() for moment in moments],
            "clock": pa.array([None if g else m.time() for m, g in zip(moments, gap, strict=True)], pa.time64("us")),
            "when": pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("us")),
            "span": pa.array([None if g else s for s, g in zip(spans, gap, strict=True)], pa.duration("us")),
            "half": pa.array([timedelta(seconds=0.5 * (i % 7)) for i in rows], pa.duration("ns")),
            "small": pa.array([i % 5 for i in rows], pa.uint8()),
            "kind": pa.array([str(i % 2) for i in rows]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    dataset, tables = exported(tmp_path, "t.parquet")
    assert tables["train"].schema.field("id").type == pa.int64()
    minutes = [i * i % 3000 for i in rows]
    texts = [
        [
            str(moments[i].date()),
            None if gap[i] else moments[i].time().isoformat("microseconds"),
            moments[i].replace(tzinfo=None).isoformat(" ", "microseconds"),
            None if gap[i] else f"{minutes[i] // 1440} days {minutes[i] % 1440 // 60:02}:{minutes[i] % 60:02}:00",
            f"0 days 00:00:{i % 7 // 2:02}.{i % 7 % 2 * 500:03}",
            i % 5,
            str(i % 2),
        ]
        for i in rows
    ]
    for form in ("csv", "jsonl"):
        export("d", Path(form), form, root=tmp_path)
        fresh = []
        for name in dataset.splits:
            text = (tmp_path / form / f"{name}.{form}").read_text()
            if form == "csv":
                found = [[cell or None for cell in row] for row in csv.reader(io.StringIO(text))][1:]
            else:
                found = [list(json.loads(line).values()) for line in text.splitlines()]
            fresh += [row[0] for row in found]
            for row, place in zip(found, dataset.split(name).sources.tolist(), strict=True):
                expected = texts[place] if form == "jsonl" else [c if c is None else str(c) for c in texts[place]]
                assert row[1:] == expected
        assert sorted(map(int, fresh)) == list(range(120, 220))
        assert {type(cell) for cell in fresh} == {str if form == "csv" else int}


def prepared_again(root: Path, **options: str) -> Dataset:
    add("out", "again", root=root, quiet=True, **options)
    prepare("again", root=root)
    return Dataset.open(root / "data/prepared/again")


def test_columns_that_are_not_learned_keep_their_share_of_gaps(tmp_path: Path) -> None:
    n = 400
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "number": pa.array([v if v % 7 else None for v in range(n)], pa.int32()),
            "code": [f"A-{v:05d}" if v % 4 else "n/a" for v in random.permutation(n).tolist()],
            "note": [" ".join(random.permutation(list("abcdefghijkl"))) if v % 2 else None for v in range(n)],
            "x": random.normal(size=n),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    _, tables = exported(tmp_path, "t.parquet")
    found = pa.concat_tables(list(tables.values()))
    for name, share in (("number", 1 / 7), ("code", 1 / 4), ("note", 1 / 2)):
        deviation = (n * share * (1 - share)) ** 0.5
        assert found[name].null_count == pytest.approx(n * share, abs=4 * deviation), name
    fresh = found["number"].drop_null().to_pylist()
    assert len(set(fresh)) == len(fresh)
    assert not set(fresh) & set(table["number"].to_pylist())


@pytest.mark.parametrize("learned", ["yes", "no", "no: they are filled in"])
def test_rows_without_a_label_are_a_class_of_their_own_or_of_none(tmp_path: Path, learned: str) -> None:
    """Whatever else the classes are called: `(missing)` is what one of the source may be, too."""
    tiers = ["(missing)", "silver", "", "(missing)", "NA"] * 40
    (tmp_path / "t.csv").write_text("x,tier\n" + "".join(f"{i / 7:.3f},{tier}\n" for i, tier in enumerate(tiers)))
    add("t.csv", "d", "tier", root=tmp_path, quiet=True)
    card = tmp_path / "data/catalog/d.yaml"
    assert 'categories: ["(missing)", "silver", ""]' in card.read_text()
    if learned == "no":
        card.write_text(card.read_text().replace('"silver", ""]', '"silver"]'))
    elif learned != "yes":
        card.write_text(card.read_text().replace("missing: model", "missing: fill"))
    manifest = prepare("d", root=tmp_path)
    counts = [split["labels"] for split in manifest["splits"].values()]
    found = [sum(count[name] for count in counts) for name in manifest["class_names"]]
    assert found == ([80, 40, 80] if learned == "yes" else [80, 40])
    assert len(set(manifest["class_names"])) == len(found)
    assert sum(split["unlabelled"] for split in manifest["splits"].values()) == (0 if learned == "yes" else 80)
    export("d", Path("out"), "csv", root=tmp_path)
    rows = [row for path in (tmp_path / "out").iterdir() for row in csv.reader(path.read_text().splitlines()[1:])]
    named = [tier if tier not in ("", "NA") else "" for tier in tiers]
    assert sorted((x, tier if tier != "NA" else "") for x, tier in rows) == sorted(
        (f"{i / 7:.3f}", tier) for i, tier in enumerate(named)
    )


def test_two_characters_between_cells_may_stand_alone_in_them(tmp_path: Path) -> None:
    titles = ["Episode: one", "Alien", "Them!", "2001: an odyssey"]
    lines = [f"{1 + i % 5}::{titles[i % 4]}::{i / 7:.3f}" for i in range(200)]
    (tmp_path / "t.dat").write_text("\n".join(lines) + "\n")
    add("t.dat", "d", root=tmp_path, quiet=True)
    prepare("d", root=tmp_path)
    export("d", Path("out"), "csv", root=tmp_path)
    written = [line for path in (tmp_path / "out").iterdir() for line in path.read_text().splitlines()]
    assert sorted(written) == sorted(lines)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_the_same_pixels(tmp_path: Path, channels: int) -> None:
    random = np.random.default_rng(channels)
    x = random.integers(0, 256, (60, 5, 7, channels)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(60) % 3)
    dataset, tables = exported(tmp_path, "x.npz")
    for name, found in tables.items():
        examples = dataset.split(name).all()
        images = [
            np.asarray(Image.open(io.BytesIO(cell))).reshape(5, 7, channels) for cell in found["image"].to_pylist()
        ]
        assert (np.stack(images) == examples.x.numpy()).all()
        assert found["label"].to_pylist() == [dataset.class_names[code] for code in examples.label]


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("label,v\n" + "".join(f"{i % 5},{i}\n" for i in range(60)))
    assert main(["data", "add", "t.csv", "--name", "t"]) == 0
    assert main(["data", "export", "t", "--to", "out"]) == 1
    assert "fivefold prepare --dataset t" in capsys.readouterr().err
    prepare("t")
    assert main(["data", "export", "t", "--to", "out"]) == 0
    assert "train.parquet with 48 rows" in capsys.readouterr().out
    assert main(["data", "export", "t", "--to", "out"]) == 0  # an earlier export is replaced
    assert main(["data", "export", "t", "--to", "."]) == 1
    assert "holds other things" in capsys.readouterr().err
    assert (tmp_path / "t.csv").exists()


def test_text_comes_back_in_the_encoding_and_with_the_delimiter_of_its_source(tmp_path: Path) -> None:
    rows = [f"{i},{i % 10};{('Öl', 'Süße', 'Café')[i % 3]}" for i in range(60)]
    (tmp_path / "t.csv").write_bytes("\n".join(["größe;art", *rows, ""]).encode("cp1252"))
    add("t.csv", "d", root=tmp_path, quiet=True)
    prepare("d", root=tmp_path)
    export("d", Path("out"), "csv", root=tmp_path)
    written = [path.read_bytes().decode("cp1252").splitlines() for path in (tmp_path / "out").glob("*.csv")]
    assert {lines[0] for lines in written} == {"größe;art"}
    assert sorted(line for lines in written for line in lines[1:]) == sorted(rows)
