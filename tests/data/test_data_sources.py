"""Every format that is read, on real files written here, against what was put into them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.cards import SPLITS, ImageShape
from data.dataset import Dataset
from data.domains.image import images_as_text
from data.ingest.inspect import inspect
from data.readers import open_source
from data.readers.base import IngestReport, here
from data.readers.image_decoding import Encoded, Fault, PlainJpeg, decode, decode_batch
from data.readers.image_folder import scan_layout
from data.sources.archive import members
from pipelines.cli.data import add, facts_found, show
from pipelines.stages.prepare import prepare


def picture(seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """The files as a folder, zip or tar, by the name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in files.items():
                archive.writestr(name, body)
    elif ".tar" in path.suffixes or path.suffix in (".tgz", ".tar"):
        mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for name, body in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    else:
        for name, body in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(body)
    return path


def prepared(root: Path, source: Path | str, *lines: str, label: str = "", anomaly: str = "") -> Dataset:
    """Add a source, append lines to its card, prepare and open it."""
    add(str(source), "d", label, anomaly, root=root, quiet=True)
    card = root / "data/catalog/d.yaml"
    keys = tuple(line.split(":")[0] + ":" for line in lines)
    kept, dropping = [], False
    for line in card.read_text().splitlines():
        dropping = line.startswith(keys) or (dropping and line.startswith(" "))
        kept += [] if dropping else [line]
    if lines:
        card.write_text("\n".join([*kept, *lines]) + "\n")
    prepare("d", root=root)
    return Dataset.open(root / "data/prepared/d")


def contents(data: Dataset) -> dict[bytes, tuple[str, int]]:
    """Split and label of every example, by its bytes."""
    found = {}
    for name in data.splits:
        examples = data.split(name).all()
        for x, label in zip(examples.x.numpy(), examples.label.tolist(), strict=True):
            found[x.tobytes()] = (name, label)
    return found


KINDS = ["folder", "a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"]


@pytest.mark.parametrize("kind", KINDS)
def test_class_and_split_folders(tmp_path: Path, kind: str) -> None:
    files = {
        f"set/{split}/{name}/{i}.png": png(picture(1000 * part + i))
        for part, (split, n) in enumerate((("train", 50), ("Test", 20)))
        for i in range(n)
        for name in [("10", "2", "cat")[i % 3]]
    }
    data = prepared(tmp_path, packed(tmp_path / kind, {**files, "set/readme.txt": b"hello", "__MACOSX/x.png": b""}))
    assert data.class_names == ["2", "10", "cat"]
    assert {name: len(data.split(name)) for name in data.splits} == {"train": 45, "val": 5, "test": 20}
    found = contents(data)
    for name, body in files.items():
        split, label = found[np.asarray(Image.open(io.BytesIO(body))).tobytes()]
        assert data.class_names[label] == name.split("/")[2]
        assert (split == "test") == ("Test" in name)
    assert data.domain == {"kind": "image", "channels": 1, "height": 6, "width": 5, "levels": 256}
    report = json.loads((data.folder / "report.json").read_text())
    assert report["ignored_files"] == {".txt": 1, ".png": 1}


def test_class_folders_only_are_stratified(tmp_path: Path) -> None:
    files = {f"{'ab'[i % 4 == 0]}/{i}.png": png(picture(i)) for i in range(200)}
    data = prepared(tmp_path, packed(tmp_path / "a.zip", files))
    labels = {name: np.bincount(data.split(name).labels).tolist() for name in data.splits}
    assert labels == {"train": [120, 40], "val": [15, 5], "test": [15, 5]}


def test_split_folders_only_and_neither(tmp_path: Path) -> None:
    files = {f"{'train' if i % 4 else 'val'}/{i}.png": png(picture(i)) for i in range(80)}
    layout = scan_layout(packed(tmp_path / "s", files))
    assert (layout.labelled, layout.published) == (False, ("train", "val"))
    data = prepared(tmp_path, packed(tmp_path / "n", {f"{i}.png": png(picture(i)) for i in range(40)}))
    assert data.class_names == []
    assert {name: len(data.split(name)) for name in data.splits} == {"train": 32, "val": 4, "test": 4}
    assert data.split("train").labels.tolist() == [-1] * 32
    with pytest.raises(ValueError, match="beside others"):
        scan_layout(packed(tmp_path / "m", {**files, "extra/1.png": png(picture(1))}))


def test_anomalous_class(tmp_path: Path) -> None:
    files = {f"{i % 3}/{i}.png": png(picture(i)) for i in range(90)}
    data = prepared(tmp_path, packed(tmp_path / "a.tar", files), anomaly="class=1")
    assert data.class_names == ["0", "2"]
    assert len(data.split("anomaly")) == 30
    assert set(data.split("anomaly").labels.tolist()) == {-1}
    with pytest.raises(ValueError, match="no class folder is named '7'"):
        add(str(tmp_path / "a.tar"), "e", "", "class=7", root=tmp_path, quiet=True)


def test_sizes_that_differ_are_cropped_on_request(tmp_path: Path) -> None:
    files = {f"{i}.png": png(picture(i, 20 + i, 30 + i)) for i in range(20)}
    data = prepared(tmp_path, packed(tmp_path / "a.zip", files))
    assert (data.domain["height"], data.domain["width"]) == (24, 24)
    assert "resize: crop" in (tmp_path / "data/catalog/d.yaml").read_text()
    assert json.loads((data.folder / "report.json").read_text())["converted"] == {"resized (crop)": 20}


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:.", exclude_categories=("Cs",)), min_size=1, max_size=40
)


@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=5).map("/".join), st.binary(max_size=3000), max_size=6))
@settings(max_examples=60, deadline=None)
def test_archives_yield_what_the_standard_library_put_into_them(
    tmp_path_factory: pytest.TempPathFactory, files
) -> None:
    folder = tmp_path_factory.mktemp("archives")
    for kind in ("a.zip", "a.tar", "a.tar.gz"):
        path = packed(folder / kind, files)
        assert {member.name: (member.fault, member.read()) for member in members(path)} == {
            name: ("", body) for name, body in files.items()
        }
    for form in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        with tarfile.open(folder / "f.tar", "w", format=form) as archive:
            for name, body in files.items():
                if form == tarfile.USTAR_FORMAT and len(name.encode()) > 90:
                    continue
                info = tarfile.TarInfo(name)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        assert all(files[member.name] == member.read() for member in members(folder / "f.tar"))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    x = np.stack([picture(i, 4, 4) for i in range(100)])
    y = (np.arange(100) % 4).astype(np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x[:80])))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y[:80])))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(x[80:]))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(y[80:]))
    data = prepared(tmp_path, folder)
    assert {name: len(data.split(name)) for name in data.splits} == {"train": 72, "val": 8, "test": 20}
    found = contents(data)
    assert [found[image.tobytes()] == ("test", int(label)) for image, label in zip(x, y, strict=True)].count(True) == 20
    assert all(found[image.tobytes()][1] == label for image, label in zip(x, y, strict=True))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(x[80:])[:-5])
    (tmp_path / "data/catalog/d.yaml").unlink()
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte ends early.*20 entries, it holds 19"):
        prepared(tmp_path, folder)


def test_npy_and_npz(tmp_path: Path) -> None:
    x = np.stack([np.dstack([picture(3 * i + c, 4, 4) for c in range(3)]) for i in range(60)])
    y = np.arange(60) % 3
    np.save(tmp_path / "x.npy", x)
    assert set(contents(prepared(tmp_path, tmp_path / "x.npy"))) == {image.tobytes() for image in x}
    (tmp_path / "data/catalog/d.yaml").unlink()
    np.savez_compressed(tmp_path / "a.npz", x_train=x[:40], y_train=y[:40, None], x_test=x[40:], y_test=y[40:, None])
    data = prepared(tmp_path, tmp_path / "a.npz")
    assert len(data.split("test")) == 20
    assert all(contents(data)[image.tobytes()][1] == label for image, label in zip(x, y, strict=True))
    (tmp_path / "data/catalog/d.yaml").unlink()
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Python objects.*refused"):
        prepared(tmp_path, tmp_path / "o.npy")
    np.save(tmp_path / "f.npy", x / 255.0)
    with pytest.raises(ValueError, match=r"f.npy: image 0 .*pixel out of range"):
        prepared(tmp_path, tmp_path / "f.npy")


def quoted_table(n: int) -> str:
    rows = []
    for i in range(n):
        cell = ("x", "", '"y;z"', '"two\nlines"')[i % 4]
        rows.append(f"{i % 75};{i / 8};{cell}")
    return 'n;f;"c ""q"""\r\n' + "\r\n".join(rows)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_csv_dialects(tmp_path: Path, name: str) -> None:
    body = quoted_table(80).encode()
    (tmp_path / name).write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    data = prepared(tmp_path, tmp_path / name)
    columns = data.domain["columns"]
    assert [(c["name"], c["type"], c["dtype"]) for c in columns] == [
        ("n", "integer", "int64"), ("f", "continuous", "float64"), ('c "q"', "categorical", "string"),
    ]  # fmt: skip
    assert columns[2]["categories"] == ["two\nlines", "x", "y;z"]
    assert columns[2]["missing"] + sum(columns[2]["frequencies"]) == len(data.split("train"))
    rows = {int(8 * row[1]): row for name in data.splits for row in data.split(name).all().x.numpy()}
    for i in range(80):
        assert rows[i][0] == i % 75
        expected = (1.0, np.nan, 2.0, 0.0)[i % 4]
        assert rows[i][2] == expected or (np.isnan(rows[i][2]) and np.isnan(expected))


def test_tsv_labels_anomalies_and_quantiles(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=3000)
    rows = "".join(f"{v!r}\t{'ab'[i % 3 == 0]}\t{i % 2}.0\n" for i, v in enumerate(values.tolist()))
    (tmp_path / "t.tsv").write_text("v\tlabel\tbad\n" + rows)
    data = prepared(tmp_path, tmp_path / "t.tsv", label="label", anomaly="bad=1")
    assert data.class_names == ["a", "b"]
    assert [c["name"] for c in data.domain["columns"]] == ["v"]
    assert len(data.split("anomaly")) == 1500
    train = data.split("train").all().x[:, 0].numpy()
    column = data.domain["columns"][0]
    np.testing.assert_allclose(column["quantiles"], np.quantile(train, np.linspace(0, 1, 1001)))
    np.testing.assert_allclose((column["mean"], column["std"]), (train.mean(), train.std()))
    origin = data.split("test").sources.numpy()
    assert (data.split("test").all().x[:, 0].numpy() == values[origin]).all()


def test_published_splits_of_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "v,fold\n" + "".join(f"{i}.0,{('train', 'valid', 'test')[i % 3]}\n" for i in range(90))
    )
    data = prepared(tmp_path, tmp_path / "t.csv", "splits: {rows: {train: [0, 60], test: [60, 90]}}")
    assert set(data.split("test").sources.tolist()) == set(range(60, 90))
    assert len(data.split("val")) == 6
    (tmp_path / "data/catalog/d.yaml").unlink()
    data = prepared(tmp_path, tmp_path / "t.csv", "splits: {column: fold}")
    assert set(data.split("val").all().x[:, 0].tolist()) == set(range(1, 90, 3))
    (tmp_path / "data/catalog/d.yaml").unlink()
    folder = tmp_path / "hub"
    folder.mkdir()
    for part, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        pq.write_table(pa.table({"v": np.arange(40.0) + 40 * part}), folder / f"{name}.parquet")
    data = prepared(tmp_path, folder)
    assert sorted(data.split("test").all().x[:, 0].tolist()) == list(range(80, 120))
    (tmp_path / "data/catalog/d.yaml").unlink()
    with pytest.raises(ValueError, match="30 examples belong to none, the first at position 60"):
        prepared(tmp_path, tmp_path / "t.csv", "splits: {rows: {train: [0, 50], test: [50, 60]}}")


def test_parquet_types(tmp_path: Path) -> None:
    n = 60
    table = pa.table(
        {
            "i": pa.array([i % 50 for i in range(n)], pa.int32()),
            "f": pa.array([i / 4 if i % 5 else None for i in range(n)], pa.float32()),
            "b": [i % 2 == 0 for i in range(n)],
            "d": pa.array(["u", "v", "w"] * 20).dictionary_encode(),
            "t": [date(2020, 1, 1)] * n,
            "s": pa.array([f"id-{i}" for i in range(n)]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    data = prepared(tmp_path, tmp_path / "t.parquet")
    assert [(c["name"], c["type"], c["dtype"], c["categories"]) for c in data.domain["columns"]] == [
        ("i", "integer", "int32", []),
        ("f", "continuous", "float32", []),
        ("b", "categorical", "bool", ["false", "true"]),
        ("d", "categorical", "string", ["u", "v", "w"]),
        ("t.year", "integer", "int64", []),
    ]
    card = (tmp_path / "data/catalog/d.yaml").read_text()
    assert 'name: "s", type: identifier, why: "every row has a value of its own"' in card


@pytest.mark.parametrize("anomaly", ["", "class=eel"])
def test_parquet_of_images(tmp_path: Path, anomaly: str) -> None:
    """As Hugging Face writes them: bytes in a struct, classes as codes whose names stand in the metadata."""
    names, codes = ["dog", "eel", "cat"], [None if i % 10 == 9 else i % 3 for i in range(60)]
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    images = [{"bytes": png(picture(i)), "path": f"{i}.png"} for i in range(60)]
    pq.write_table(pa.table({"image": images, "label": codes}, schema=schema), tmp_path / "i.parquet")
    data = prepared(tmp_path, tmp_path / "i.parquet", anomaly=anomaly)
    assert set(data.class_names) == set(names) - ({"eel"} if anomaly else set())
    found = contents(data)
    assert len(found) == 60
    for i, code in enumerate(codes):
        split, label = found[picture(i).tobytes()]
        assert (split == "anomaly") == bool(anomaly and code == 1)
        if split != "anomaly":
            assert (data.class_names[label] if label >= 0 else None) == (None if code is None else names[code])
            assert label >= -1
    assert json.loads((data.folder / "report.json").read_text())["without_label"] == 6


def test_a_card_is_strict_about_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,x\n2,y\n2,x\n" * 20)
    columns = "columns: [{name: a, type: integer}, {name: b, type: categorical, categories: [x]}]"
    with pytest.raises(ValueError, match=r"row 3, column 'b': unknown category: expected one of 'x', got 'y'"):
        prepared(tmp_path, tmp_path / "t.csv", columns)
    (tmp_path / "data/catalog/d.yaml").unlink()
    with pytest.raises(ValueError, match=r"missing 'aa', additional 'a', 'b' \(did you mean 'a'\?\)"):
        prepared(tmp_path, tmp_path / "t.csv", "columns: [{name: aa, type: integer}]")
    (tmp_path / "data/catalog/d.yaml").unlink()
    (tmp_path / "t.csv").write_text("a,b\n" + "1,x\n2.5,y\n2.5,x\n" * 20)
    with pytest.raises(ValueError, match=r"row 3, column 'a': not a whole number"):
        prepared(tmp_path, tmp_path / "t.csv", "columns: [{name: a, type: integer}, {name: b, type: skip}]")


def test_show_prints_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,x\n2,y\n" * 30)
    add(str(tmp_path / "t.csv"), "d", "b", root=tmp_path)
    show("d", root=tmp_path)
    printed = capsys.readouterr().out
    assert "60 rows, 2 columns" in printed
    assert "run `fivefold prepare --dataset d`" in printed
    prepare("d", root=tmp_path)
    show("d", root=tmp_path)
    assert "label" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="exists already"):
        add(str(tmp_path / "t.csv"), "d", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no dataset 'dd'.*Did you mean 'd'"):
        show("dd", root=tmp_path)


def test_images_are_shown_in_shades_side_by_side() -> None:
    x = np.array([[[0, 255], [128, 0]], [[255, 0], [0, 255]]], np.uint8)[..., None]
    assert images_as_text(x).split("\n") == ["  @@   @@  ", "++       @@"]
    wide = images_as_text(np.full((1, 64, 64, 3), 255, np.uint8)).split("\n")
    assert [len(line) for line in wide] == [64] * 32  # every second pixel, twice as wide as a letter


@given(
    st.sampled_from(["L", "RGB", "CMYK", "YCbCr"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(5, 100),
    st.booleans(),
    st.sampled_from([b"", b"a comment"]),
    st.integers(0, 400),
)
@settings(max_examples=80, deadline=None)
def test_jpeg_reading_agrees_with_pillow(mode, width, height, quality, progressive, comment, cut) -> None:
    random = np.random.default_rng(width * height)
    image = Image.fromarray(random.integers(0, 256, (height, width, 4)).astype(np.uint8)).convert("RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, progressive=progressive, comment=comment, optimize=width % 2 == 0)
    body = stream.getvalue()
    body = body[: len(body) - cut] if cut % 2 else body
    target = ImageShape(height=height, width=width, channels=3)
    try:
        expected = np.array(Image.open(io.BytesIO(body)).convert("RGB"))
    except OSError:
        with pytest.raises(Fault):
            decode(body, target, lambda what: None)
        return
    assert (decode(body, target, lambda what: None) == expected).all()


@pytest.mark.parametrize(("mode", "ordinary"), [("L", True), ("RGB", True), ("CMYK", False)])
def test_an_ordinary_jpeg_needs_no_more_than_its_header(mode: str, ordinary: bool) -> None:
    """What makes reading three times as fast; all others are left to Pillow's own reader."""
    stream = io.BytesIO()
    Image.fromarray(picture(0, 9, 7)).convert(mode).save(stream, "JPEG")
    stream.seek(0)
    if not ordinary:
        with pytest.raises(SyntaxError):
            PlainJpeg(stream)
        return
    opened = PlainJpeg(stream)
    assert (opened.mode, opened.size) == (mode, (7, 9))
    target, noted = ImageShape(height=9, width=7, channels=1 if mode == "L" else 3), []
    decode(stream.getvalue(), target, noted.append)
    assert noted == []
    decode(2 * stream.getvalue(), target, noted.append)
    assert noted == ["JPEG that goes on after an end mark (damaged, or more than a picture)"]


# What is known of each example, by every reader

FOLDS, PER_FOLD = ("test", "train", "val"), 20
"""In the order of their files' names."""
CODES = np.arange(len(FOLDS) * PER_FOLD) // 3 % 2
"""The class of each, in another order in each fold."""


def numbered_pixels() -> list[np.ndarray]:
    """Images whose first pixel is their number."""
    images = np.full((len(FOLDS) * PER_FOLD, 4, 4), 7, np.uint8)
    images[:, 0, 0] = np.arange(len(images))
    return list(images)


def numbered_rows(fold: int) -> list[dict[str, object]]:
    rows = range(PER_FOLD * fold, PER_FOLD * (fold + 1))
    return [{"number": i + 0.5, "other": i % 7, "label": "ab"[CODES[i]]} for i in rows]


def as_folders(root: Path) -> None:
    images = numbered_pixels()
    files = {f"{FOLDS[i // PER_FOLD]}/{'ab'[CODES[i]]}/{i:02}.png": png(x) for i, x in enumerate(images)}
    packed(root, files)


def as_idx(root: Path) -> None:
    images = np.stack(numbered_pixels())
    root.mkdir()
    for fold, name in enumerate(FOLDS):
        rows = slice(PER_FOLD * fold, PER_FOLD * (fold + 1))
        (root / f"{name}-images-idx3-ubyte").write_bytes(idx(images[rows]))
        (root / f"{name}-labels-idx1-ubyte").write_bytes(idx(CODES.astype(np.uint8)[rows]))


def as_npz(root: Path) -> None:
    images, parts = np.stack(numbered_pixels()), {}
    for fold, name in enumerate(FOLDS):
        rows = slice(PER_FOLD * fold, PER_FOLD * (fold + 1))
        parts |= {f"x_{name}": images[rows], f"y_{name}": CODES[rows]}
    with root.open("wb") as file:
        np.savez(file, **parts)


def as_image_parquet(root: Path) -> None:
    root.mkdir()
    images = numbered_pixels()
    for fold, name in enumerate(FOLDS):
        places = range(PER_FOLD * fold, PER_FOLD * (fold + 1))
        table = {"image": [png(images[i]) for i in places], "label": ["ab"[CODES[i]] for i in places]}
        pq.write_table(pa.table(table), root / f"{name}.parquet")


def as_tables(root: Path, form: str) -> None:
    root.mkdir()
    for fold, name in enumerate(FOLDS):
        rows = numbered_rows(fold)
        if form == "csv":
            lines = ["number,other,label", *(",".join(map(str, row.values())) for row in rows)]
            (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
        elif form == "jsonl":
            (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), root / f"{name}.parquet")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("folders", as_folders),
        ("mnist", as_idx),
        ("a.npz", as_npz),
        ("shards", as_image_parquet),
        *((form, partial(as_tables, form=form)) for form in ("csv", "jsonl", "parquet")),
    ],
)
def test_values_label_split_and_place_of_every_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], None]
) -> None:
    """Of sources in three files (or parts, or folders) that publish splits, the test rows' first; a few at a time."""
    monkeypatch.setattr("data.readers.image_arrays.BLOCK_BYTES", 7 * 16)
    for module, constant in (("image_parquet", "ROWS"), ("image_folder", "BATCH"), ("jsonlines", "ROWS")):
        monkeypatch.setattr(f"data.readers.{module}.{constant}", 7)
    write(tmp_path / name)
    table, left_out = name in ("csv", "jsonl", "parquet"), 25
    inspection = inspect(name, "d", tmp_path, label="label" if table else "")
    card, facts = inspection.card, facts_found(inspection)
    assert (facts.columns, facts.classes) == (2 if table else 0, len(set(CODES)))  # of the label nothing is learned
    for file, cell, bad in (("csv/train.csv", "25.5,", "oops,"), ("jsonl/train.jsonl", ": 25.5,", ': "oops",')):
        if (path := tmp_path / file).exists():
            path.write_text(path.read_text().replace(cell, bad))
            break
    else:
        left_out = -1
    report = IngestReport(on_bad="drop", max_bad=0.02)
    reader = open_source(card, tmp_path / name, report, here)
    chunks = list(reader.chunks())
    x, label, split, place = (
        np.concatenate([getattr(c, n) for c in chunks]) for n in ("x", "label", "split", "source")
    )
    number = (x[:, 0] - 0.5 if table else x[:, 0, 0, 0]).astype(int)
    assert sorted(number) == [i for i in range(60) if i != left_out]
    assert [SPLITS[code] for code in split] == [FOLDS[i // PER_FOLD] for i in number]
    assert label.tolist() == CODES[number].tolist()
    assert len(set(place)) == len(place)  # each has a place of its own
    if name != "folders":  # those stand by their classes
        assert number[np.argsort(place)].tolist() == sorted(number)
    if left_out > 0:
        assert place[number == left_out + 1] - place[number == left_out - 1] == 2
    if table:
        assert x[:, 1].tolist() == (number % 7).tolist()


def test_what_is_known_of_an_image_goes_with_it_past_broken_ones() -> None:
    images, target = numbered_pixels()[:5], ImageShape(height=4, width=4, channels=1, levels=256)
    blobs = [png(image) if place not in (0, 3) else b"?" for place, image in enumerate(images)]
    known = np.arange(5)
    found = decode_batch(
        Encoded(target=target, names=list("abcde"), blobs=blobs, label=known, split=known.astype(np.int8), source=known)
    )
    for column in (found.label, found.split, found.source, found.x[:, 0, 0, 0]):
        assert column.tolist() == [1, 2, 4]
    assert [name for name, _, _ in found.faults] == ["a", "d"]
