"""What must be survived (38-60): every fault is fed as a real bad file and is an error or a counted policy."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.cards import parse_card
from data.dataset import Dataset
from data.readers import open_source
from data.sources import streams
from data.sources.archive import members
from pipelines.cli.data import add
from pipelines.stages.prepare import prepare

GOOD = "a,b,c\n" + "".join(f"{i % 90},{i / 7:.3f},{'xy'[i % 2]}\n" for i in range(100))


def csv_at(root: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = root / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def png(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", **options)
    return stream.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def images_at(root: Path, n: int = 20, classes: int = 2, shape: tuple[int, ...] = (8, 8)) -> Path:
    folder = root / "images"
    for i in range(n):
        path = folder / str(i % classes) / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(i, *shape)))
    return folder


def edited(root: Path, name: str, *lines: str) -> None:
    """Edit a card by hand: replace the given keys, with what is nested under them."""
    path = root / "data/catalog" / f"{name}.yaml"
    keys = tuple(line.split(":")[0] + ":" for line in lines)
    kept, dropping = [], False
    for line in path.read_text().splitlines():
        dropping = line.startswith(keys) or (dropping and line.startswith(" "))
        kept += [] if dropping else [line]
    path.write_text("\n".join([*kept, *lines]) + "\n")


def report(root: Path, name: str = "d") -> dict:
    return json.loads((root / "data/prepared" / name / "report.json").read_text())


def refused(root: Path, source: Path, *fragments: str, card: tuple[str, ...] = (), **options: str) -> None:
    """Adding or preparing fails with one paragraph that holds all fragments, and leaves nothing behind."""
    with pytest.raises((ValueError, OSError)) as caught:
        accepted(root, source, *card, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message
    prepared = root / "data/prepared"
    assert not prepared.exists() or not list(prepared.iterdir())


def accepted(root: Path, source: Path, *card: str, **options: str) -> Dataset:
    add(str(source), "d", root=root, quiet=True, **options)
    if card:
        edited(root, "d", *[line for line in card if ":" in line])
    if "CSV AS UTF-8" in card:
        path = root / "data/catalog/d.yaml"
        path.write_text(path.read_text().replace("encoding: cp1252", "encoding: utf-8"))
    prepare("d", root=root)
    return Dataset.open(root / "data/prepared/d")


def test_38_zero_byte_csv(tmp_path: Path) -> None:
    refused(tmp_path, csv_at(tmp_path, ""), "t.csv is empty")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b""))
    refused(tmp_path, tmp_path / "t.csv.gz", "t.csv.gz is empty")


def test_39_no_rows(tmp_path: Path) -> None:
    refused(tmp_path, csv_at(tmp_path, "a,b,c\n"), "header but no rows")
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "z.parquet")
    refused(tmp_path, tmp_path / "z.parquet", "no rows")


@pytest.mark.parametrize(("row", "cells"), [("1,2,x,9", 4), ("1,2", 2)])
def test_40_ragged_row(tmp_path: Path, row: str, cells: int) -> None:
    lines = GOOD.splitlines()
    lines.insert(31, row)
    source = csv_at(tmp_path, "\n".join(lines) + "\n")
    refused(tmp_path, source, "t.csv: row 32", f"expected 3, got {cells}", card=("on_bad: fail",))
    card = tmp_path / "data/catalog/d.yaml"
    assert f"1 of 101 examples are bad (1 × wrong number of cells) and are left out; the first is {source}: row 32" in (
        card.read_text()
    )
    card.unlink()
    data = accepted(tmp_path, source)
    assert report(tmp_path)["dropped_by_reason"] == {"wrong number of cells": 1}
    assert sum(map(len, map(data.split, data.splits))) == 100
    assert sorted(np.concatenate([data.split(s).sources for s in data.splits])) == [*range(30), *range(31, 101)]


def test_40_unclosed_quote(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    lines[50] = '7,1.5,"x'
    refused(tmp_path, csv_at(tmp_path, "\n".join(lines) + "\n"), "t.csv: row 51", "never closed")
    refused(tmp_path, csv_at(tmp_path, GOOD + '7,1.5,"x'), "t.csv: row 102", "never closed")
    accepted(tmp_path, csv_at(tmp_path, GOOD + '7,1.5,5" pipe\n'))  # a mark inside a cell is only a character


def test_41_mixed_types(tmp_path: Path) -> None:
    source = csv_at(tmp_path, GOOD.replace("\n17,", "\nseventeen,"))
    strict = "columns: [{name: a, type: integer}, {name: b, type: continuous}, {name: c, type: categorical}]"
    where = ("t.csv: row 19, column 'a'", "expected a number", "got 'seventeen'", "on_bad: drop")
    refused(tmp_path, source, *where, card=(strict,))
    card = tmp_path / "data/catalog/d.yaml"
    card.unlink()
    accepted(tmp_path, source)
    assert "all other cells fit, so taken as missing: 1 × 'seventeen'" in card.read_text()
    assert report(tmp_path)["missing_cells"] == {"a": {"seventeen": 1}}
    card.unlink()
    data = accepted(tmp_path, csv_at(tmp_path, GOOD.replace("\n1", "\nn1")))
    assert [column["type"] for column in data.domain["columns"]] == ["categorical", "continuous", "categorical"]
    assert "88 of 100 cells are numbers, the first that is none in row 3: 'n1'" in card.read_text()


@pytest.mark.parametrize("text", ["1e999", "-inf", "Infinity"])
def test_42_not_finite(tmp_path: Path, text: str) -> None:
    source = csv_at(tmp_path, GOOD.replace("\n17,", f"\n{text},"))
    strict = "columns: [{name: a, type: integer}, {name: b, type: continuous}, {name: c, type: categorical}]"
    refused(tmp_path, source, "row 19, column 'a'", "finite", repr(text), card=(strict,))
    (tmp_path / "data/catalog/d.yaml").unlink()
    data = accepted(tmp_path, source)
    assert sum(report(tmp_path)["missing_cells"]["a"].values()) == 1
    assert data.domain["columns"][0]["max"] < 90


def test_42_nan_is_missing_and_counted(tmp_path: Path) -> None:
    source = csv_at(tmp_path, GOOD.replace("\n17,", "\nnan,").replace("\n18,", "\n,"))
    data = accepted(tmp_path, source)
    assert report(tmp_path)["missing_cells"] == {"a": {"": 1, "nan": 1}}
    assert sum(int(data.split(name).all().x[:, 0].isnan().sum()) for name in data.splits) == 2
    table = pa.table({"x": [0.5, float("nan"), None, float("inf")] * 25})
    pq.write_table(table, tmp_path / "f.parquet")
    (tmp_path / "data/catalog/d.yaml").unlink()
    accepted(tmp_path, tmp_path / "f.parquet")
    assert report(tmp_path)["missing_cells"] == {"x": {"nan": 25, "null": 25, "inf": 25}}
    assert "taken as missing: 25 infinite numbers" in (tmp_path / "data/catalog/d.yaml").read_text()


def test_43_duplicate_header(tmp_path: Path) -> None:
    for header, names, said in (
        ("a,b,a", ["a", "b", "a.1"], "'a' names more than one column: column 3 is called 'a.1'"),
        ("a,,c", ["a", "unnamed_2", "c"], "column 2 has no name: it is called 'unnamed_2'"),
    ):
        data = accepted(tmp_path, csv_at(tmp_path, GOOD.replace("a,b,c", header)))
        assert [column["name"] for column in data.domain["columns"]] == names
        assert [column["title"] for column in data.manifest["table"]] == header.split(",")
        card = tmp_path / "data/catalog/d.yaml"
        assert said in card.read_text()
        card.unlink()


def test_44_bad_utf8_and_bom(tmp_path: Path) -> None:
    body = GOOD.encode().replace(b"\n17,2.429,y", b"\n17,2.429,\xe9")
    refused(tmp_path, csv_at(tmp_path, body), "row 19", "UTF-8", card=("CSV AS UTF-8",))
    card = tmp_path / "data/catalog/d.yaml"
    for text, encoding in (
        (body, "cp1252"),
        (GOOD.encode("utf-16"), "utf-16"),
        (GOOD.encode("utf-16-be"), "utf-16-be"),
    ):
        card.unlink()
        data = accepted(tmp_path, csv_at(tmp_path, text))
        assert f"encoding: {encoding}" in card.read_text()
        assert data.domain["columns"][2]["categories"] == (["x", "y", "é"] if encoding == "cp1252" else ["x", "y"])
    card.unlink()
    data = accepted(tmp_path, csv_at(tmp_path, b"\xef\xbb\xbf" + GOOD.encode(), "b.csv"))
    assert [column["name"] for column in data.domain["columns"]] == ["a", "b", "c"]


def test_45_truncated_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "p.parquet")
    body = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(body[: len(body) // 2])
    refused(tmp_path, tmp_path / "p.parquet", "p.parquet", "truncated or damaged")


def test_a_parquet_file_whose_names_are_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"height": [1.0, 2.0] * 20, "b": [1, 2] * 20}), tmp_path / "p.parquet", compression="none")
    content = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(content.replace(b"height", b"h\xa2ight"))
    refused(tmp_path, tmp_path / "p.parquet", "p.parquet", "truncated or damaged")


def test_45_truncated_gzip(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(os.urandom(1 << 12).hex().encode())[:-300])
    refused(tmp_path, tmp_path / "t.csv.gz", "t.csv.gz ends early")


def test_46_and_47_shards_that_differ(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1, 2], "b": [1.0, 2.0]}), folder / "0.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), folder / "1.parquet")
    refused(tmp_path, folder, "1.parquet has other columns than 0.parquet: missing 'b'")
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), folder / "1.parquet")
    refused(tmp_path, folder, "1.parquet: column 'b' has type string, in 0.parquet it has double")


def broken_images(root: Path, name: str, body: bytes) -> Path:
    folder = images_at(root, 40)
    (folder / "1" / name).write_bytes(body)
    return folder


def jpeg(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("cut.jpg", jpeg(noise(0, 8, 8))[:-40], "broken image"),  # 48
        ("cut.png", png(noise(0, 8, 8))[:-30], "broken image"),
        ("text.png", b"<html>404</html>", "not an image"),  # 49
        ("empty.png", b"", "empty file"),
        ("wide.png", png(noise(0, 8, 9)), "wrong size"),  # 52
        ("colour.png", png(noise(0, 8, 8, 3)), "wrong number of channels"),
    ],
)
def test_48_49_52_bad_images(tmp_path: Path, name: str, body: bytes, reason: str) -> None:
    folder = broken_images(tmp_path, name, body)
    add(str(folder), "d", root=tmp_path, quiet=True)
    edited(tmp_path, "d", "image: {height: 8, width: 8, channels: 1}", "on_bad: fail", "max_bad: 0.01")
    with pytest.raises(ValueError, match=f"{name}'.*{reason}.*on_bad: drop"):
        prepare("d", root=tmp_path)
    assert not list((tmp_path / "data/prepared").iterdir())
    edited(tmp_path, "d", "on_bad: drop")
    with pytest.raises(ValueError, match=r"1 of 41 examples are bad, more than `max_bad: 0.01`"):
        prepare("d", root=tmp_path)
    edited(tmp_path, "d", "max_bad: 0.05")
    prepare("d", root=tmp_path)
    found = report(tmp_path)
    assert found["read"] == 40
    assert found["dropped_by_reason"] == {reason: 1}
    assert name in found["dropped_first"][0]["where"]


def test_50_decompression_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    side = 12_000  # 144 megapixels: Pillow itself only warns
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * (side + 1) * 64)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    folder = broken_images(tmp_path, "bomb.png", bomb)
    refused(tmp_path, folder, "bomb.png", "too many pixels", "12000×12000", card=("on_bad: fail",))


def test_51_defined_conversions(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    base = noise(1, 8, 8, 3)
    grey16 = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    rgba = np.dstack([base, np.zeros((8, 8), np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = np.full((8, 8, 3), (10, 200, 30), np.uint8)
    flat[:4] = 90
    Image.fromarray(base).save(folder / "0_plain.png")
    Image.fromarray(base).quantize(16).save(folder / "1_palette.png")
    Image.fromarray(noise(2, 8, 8, 4), "CMYK").save(folder / "2_cmyk.jpg")
    Image.fromarray(grey16).save(folder / "3_sixteen.png")
    Image.fromarray(rgba).save(folder / "4_alpha.png")
    Image.fromarray(flat).save(folder / "5_turned.png", exif=exif)
    Image.fromarray(base).convert("1").save(folder / "6_bits.png")
    Image.fromarray(base).save(folder / "7_lossless.webp", lossless=True)
    Image.fromarray(base).save(folder / "8_map.bmp")
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (40, 220)]
    frames[0].save(folder / "9_moving.gif", save_all=True, append_images=frames[1:])
    data = accepted(tmp_path, folder, "splits: {train: 1.0, val: 0, test: 0}", "duplicates: keep")
    split = data.split("train")
    x = split.all().x.numpy()[np.argsort(split.sources.numpy())]
    assert (x[[0, 7, 8]] == base).all()
    assert (x[3] == np.round(grey16 / 257)[..., None]).all()
    assert (x[4] == 255).all()
    assert (x[5] == np.rot90(flat, -1)).all()
    assert set(np.unique(x[6])) <= {0, 255}
    assert (np.abs(x[9].astype(int) - 40) < 3).all()
    counted = report(tmp_path)["converted"]
    for what in (
        "16-bit to 8-bit",
        "CMYK to RGB",
        "1-bit to 8-bit",
        "animation to its first frame",
        "palette to colour",
    ):
        assert counted[what] >= 1, counted
    assert counted["transparency to a white background"] == 1
    assert counted["turned upright by its EXIF orientation"] == 1


def test_53_constant_column(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"7.5,{i}\n" for i in range(50))
    data = accepted(tmp_path, csv_at(tmp_path, text))
    column = data.domain["columns"][0]
    assert (column["mean"], column["std"]) == (7.5, 1.0)
    assert data.manifest["statistics"]["columns"]["a"]["std"] == 0


def test_54_labels(tmp_path: Path) -> None:
    source = csv_at(tmp_path, GOOD.replace("\n17,2.429,y", "\n17,2.429,"))
    refused(tmp_path, source, "anomaly names no column: 'z'", anomaly="z=1")
    refused(tmp_path, source, "label names no column: 'z'", label="z")
    data = accepted(tmp_path, source, label="c")
    assert (
        sum(int((data.split(name).labels < 0).sum()) for name in data.splits) == report(tmp_path)["without_label"] == 1
    )
    shutil.rmtree(tmp_path / "data")
    refused(tmp_path, csv_at(tmp_path, GOOD, "g.csv"), "unknown label", "got 'y'", card=("classes: [x]",), label="c")


def test_54_label_files(tmp_path: Path) -> None:
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 5, 2, 2) + bytes(20))
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes(4))
    refused(tmp_path, folder, "5 images", "4 labels")
    images = images_at(tmp_path, 200)
    (images / "stray.png").write_bytes(png(noise(999, 8, 8)))
    refused(tmp_path, images, "stray.png", "no label", card=("on_bad: fail",))


def test_56_leakage_without_published_splits(tmp_path: Path) -> None:
    folder = images_at(tmp_path, 60)
    for i in range(20):
        (folder / "0" / f"copy{i}.png").write_bytes(png(noise(2 * i, 8, 8), compress_level=0))
    data = accepted(tmp_path, folder)
    facts = report(tmp_path)["duplicates"]
    assert facts["contents_repeated"] == facts["extra_copies"] == 20
    assert min(facts["across_splits"], facts["moved"]) > 0
    assert facts["dropped"] == 0
    contents = {name: {bytes(x) for x in data.split(name).all().x.numpy()} for name in data.splits}
    assert not contents["train"] & (contents["test"] | contents["val"])
    edited(tmp_path, "d", "duplicates: fail")
    with pytest.raises(ValueError, match=r"contents occur in more than one split.*duplicates: separate"):
        prepare("d", root=tmp_path)


def test_56_leakage_across_published_splits(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for i in range(300):
        path = folder / ("test" if i % 3 == 0 else "train") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(i, 8, 8)))
    for i in (0, 3):
        (folder / "train" / f"leak{i}.png").write_bytes(png(noise(i, 8, 8)))
    data = accepted(tmp_path, folder)
    assert report(tmp_path)["duplicates"]["dropped"] == 2
    assert len(data.split("test")) == 100
    assert len(data.split("train")) + len(data.split("val")) == 200
    for i in range(30):
        (folder / "train" / f"leak{i}.png").write_bytes(png(noise(3 * i, 8, 8)))
    (tmp_path / "data/catalog/d.yaml").unlink()
    with pytest.raises(ValueError, match=r"also occur in a published.*max_bad.*duplicates: keep"):
        accepted(tmp_path, folder, "duplicates: separate")
    assert "too many to leave out; the card keeps them" in (tmp_path / "data/catalog/d.yaml").read_text()


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries.items():
            archive.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    return path


def good_entries(n: int = 20) -> dict[str, bytes]:
    return {f"a/{i % 2}/{i}.png": png(noise(i, 8, 8)) for i in range(n)}


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"])
def test_57_zip_slip(tmp_path: Path, name: str) -> None:
    source = make_zip(tmp_path / "a.zip", {**good_entries(), name: png(noise(99, 8, 8))})
    refused(tmp_path, source, "leads out of the archive", "evil.png")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for inside, body in {**good_entries(), name: b"x"}.items():
            info = tarfile.TarInfo(inside)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    refused(tmp_path, tmp_path / "a.tar.gz", "leads out of the archive", "evil.png")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_57_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for inside, body in good_entries().items():
            info = tarfile.TarInfo(inside)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        link = tarfile.TarInfo("a/0/link.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    refused(tmp_path, tmp_path / "a.tar", "a/0/link.png", "unsafe or unreadable file")


@pytest.mark.parametrize("size", [9 << 30, 1 << 84])
def test_a_tar_member_is_as_large_as_its_header_says(tmp_path: Path, size: int) -> None:
    """Also where eleven octal digits do not hold it, up to the last byte there is for it."""
    info = tarfile.TarInfo("a/0/0.png")
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.tar ends early.*truncated"):
        list(members(tmp_path / "a.tar"))


def test_a_json_list_holds_objects(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"a": i} for i in range(30)] + [[7]]))
    refused(tmp_path, tmp_path / "t.json", "t.json: item 31 of the list is no object but a list")


def test_a_large_file_is_no_bomb_unless_it_swells() -> None:
    path, most, free = Path("t.csv.gz"), streams.MOST_RATIO, streams.RATIO_FREE_BYTES
    streams.check_decompression_ratio(path, free, 0)
    streams.check_decompression_ratio(path, most * free, free)
    for given, taken in ((free + 1, 0), (most * free + 1, free)):
        with pytest.raises(ValueError, match="an expansion bomb"):
            streams.check_decompression_ratio(path, given, taken)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(f"data.sources.{kind}.MEMBER_LIMIT", 100)
    files = {f"{size}.png": bytes(size) for size in (99, 100, 101)}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    source = tmp_path / f"a.{kind}"
    if kind == "zip":
        make_zip(source, files)
    else:
        with tarfile.open(source, "w") as archive:
            for name in files:
                archive.add(tmp_path / name, name)
    faults = {member.name: member.fault for member in members(source)}
    assert faults == {"99.png": "", "100.png": "", "101.png": "it has 101 bytes, more than 100"}


@pytest.mark.parametrize("tail", [60_000, 70_000])
def test_a_zip_archive_ends_where_the_standard_library_says(tmp_path: Path, tail: int) -> None:
    """Its end record lies within the last 65,557 bytes, the longest comment and itself; who looks further reads all."""
    source = make_zip(tmp_path / "a.zip", good_entries())
    source.write_bytes(source.read_bytes() + bytes(tail))
    if zipfile.is_zipfile(source):
        assert {member.name for member in members(source)} == set(good_entries())
    else:
        with pytest.raises(ValueError, match="its table of contents is missing"):
            list(members(source))
    assert zipfile.is_zipfile(source) == (tail < 65_557)


def test_57_zip_symlink(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", good_entries())
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        info = zipfile.ZipInfo("a/0/link.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path, tmp_path / "a.zip", "a/0/link.png", "link")


def test_57_expansion_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RATIO_FREE_BYTES", 1 << 20)
    zeros = bytes(8 << 20)
    make_zip(tmp_path / "a.zip", {**good_entries(), "a/0/zeros.png": zeros})
    refused(tmp_path, tmp_path / "a.zip", "expansion bomb")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("zeros.png")
        info.size = len(zeros)
        archive.addfile(info, io.BytesIO(zeros))
    refused(tmp_path, tmp_path / "a.tar.gz", "expansion bomb")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * (2 << 20)))
    refused(tmp_path, tmp_path / "t.csv.gz", "expansion bomb")
    lying = bytearray(make_zip(tmp_path / "b.zip", {"a/0/z.png": zeros, "a/1/y.png": b"x"}).read_bytes())
    at = lying.index(b"PK\1\2")
    lying[at + 24 : at + 28] = struct.pack("<I", 100)  # states 100 bytes, inflates to 8 MiB
    (tmp_path / "b.zip").write_bytes(lying)
    refused(tmp_path, tmp_path / "b.zip", "z.png", "length or checksum is wrong")


def test_58_checksum_mismatch(tmp_path: Path) -> None:
    source = csv_at(tmp_path, GOOD)
    add(str(source), "d", root=tmp_path, quiet=True)
    source.write_text(GOOD + "1,2,x\n")
    with pytest.raises(ValueError, match=r"expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}. Nothing was installed"):
        prepare("d", root=tmp_path)
    assert not (tmp_path / "data/prepared").exists()


def test_59_strange_names(tmp_path: Path) -> None:
    folder = tmp_path / "Bilder und so ✓" / ("l" * 120)
    for i in range(20):
        path = folder / ("Café au lait", "日本 語", "a#b%20c")[i % 3] / ("n" * 150 + f"{i} ü.PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(i, 8, 8)))
    data = accepted(tmp_path, folder)
    assert set(data.class_names) == {"a#b%20c", "Café au lait", "日本 語"}
    with tarfile.open(tmp_path / "ünïcode name.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, "x" * 90)
    (tmp_path / "data/catalog/d.yaml").unlink()
    again = accepted(tmp_path, tmp_path / "ünïcode name.tar.gz")
    assert again.class_names == data.class_names


def test_60_file_changes_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = csv_at(tmp_path, GOOD)
    add(str(source), "d", root=tmp_path, quiet=True)
    honest = open_source

    def meddling(*arguments: object) -> object:
        reader = honest(*arguments)
        source.write_text(GOOD.replace("1", "2"))
        return reader

    monkeypatch.setattr("data.ingest.build.open_source", meddling)
    with pytest.raises(ValueError, match=r"t.csv changed while it was being read"):
        prepare("d", root=tmp_path)
    assert not list((tmp_path / "data/prepared").iterdir())


def test_a_recipe_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full halfway; an existing recipe, even half of one, would never be written again."""
    csv_at(tmp_path, GOOD)
    wrote = {name: getattr(Path, name) for name in ("write_text", "write_bytes")}

    def filling(name: str) -> object:
        def write(path: Path, content: str | bytes, **options: object) -> None:
            if path.parent.name == "recipes":
                wrote[name](path, content[: len(content) // 2], **options)
                raise OSError(28, "No space left on device")
            wrote[name](path, content, **options)

        return write

    with monkeypatch.context() as patch:
        for name in wrote:
            patch.setattr(Path, name, filling(name))
        with pytest.raises(OSError, match="No space left"):
            add("t.csv", "t", root=tmp_path, quiet=True)
    assert not list((tmp_path / "recipes").iterdir())


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "name: other\nkind: table\nsource: {path: a, url: b, sha256: ab, delimiter: ab, header: no, skip: -1, "
            "encoding: utf-7b}\nmissing: both\nduplicates: drop\non_bad: skip\nmax_categories: 0\nmax_bad: 1.5\n"
            "image: {height: 1, width: 1, channels: 1}\nclasses: [x, x]\nlabel: incom\n"
            "anomaly: {column: Age, value: 1}\ncolumns: [{name: age, type: integer}, {name: age, type: number}, "
            "{name: income, type: categorical, categories: [x, x]}, {name: day, type: datetime, format: '%Y'}, "
            "{name: who, type: text, format: x}]\n"
            "splits: {train: 0.8, val: 0.2, test: 0.1, seed: -1, column: dya, rows: {val: [0, 5], test: [4, 9]}}\n"
            "constraints: [{rule: age < day, unique: [age]}, {rule: age < income, by: luck}]\n",
            (
                "name must be that of the file, 'd', got 'other'",
                "source needs exactly one of builtin, path and url, got path, url",
                "source.sha256 must be 64 hexadecimal digits, got 'ab'",
                "source.delimiter must be one character or twice the same, got 'ab'",
                "source.header must be first or none, got 'no'",
                "source.skip must be at least 0, got -1",
                "source.encoding must be an encoding that Python knows (utf-8, cp1252, …), got 'utf-7b'",
                "on_bad must be one of fail, drop, got 'skip'",
                "duplicates must be one of separate, fail, keep, got 'drop'",
                "missing must be one of model, fill, got 'both'",
                "max_categories must be at least 1, got 0",
                "max_bad is a share from 0 to 1, got 1.5",
                "image belongs to kind: image",
                "classes must not repeat",
                "column 'age' is listed more than once",
                "the type of column 'age' must be one of continuous, integer, categorical",
                "the categories of column 'income' must not repeat",
                "column 'day' needs parts, such as",
                "column 'who' is text: format and parts belong to numbers, dates and times",
                "label names no column: 'incom' (did you mean 'income'?)",
                "anomaly.column names no column: 'Age' (did you mean 'age'?)",
                "splits.column names no column: 'dya' (did you mean 'day'?)",
                "constraints[0] needs exactly one of rule, combination and unique, got rule, unique",
                "constraints[1].by must be redraw or left out, got 'luck'",
                "splits: train, val and test must not exceed 1 together",
                "splits.seed must be at least 0, got -1",
                "splits.rows must have train",
                "splits.rows overlap",
            ),
        ),
        (
            "name: d\nkind: image\nsource: {}\nimage: {height: 0, width: 1, channels: 2, levels: 1, resize: cut, "
            "alpha: red, max_pixels: 0}\nclasses: [x, x]\nlabel: a\nanomaly: {column: a, value: b}\n"
            "constraints: [{rule: a < b}]\nsplits: {train: 0, rows: {other: [0, 5], train: [5, 5]}}\n",
            (
                "source needs exactly one of builtin, path and url, got none",
                "image.height must be at least 1, got 0",
                "image.max_pixels must be at least 1, got 0",
                "image.channels must be 1 or 3, got 2",
                "image.levels must be from 2 to 256, got 1",
                "image.resize must be one of none, stretch, crop, pad, got 'cut'",
                "image.alpha must be white or black, got 'red'",
                "constraints belong to tables",
                "columns and label belong to tables; the class of an image is its folder's name",
                "anomaly.column must be 'class' for images, got 'a'",
                "classes must not repeat",
                "splits: train, val and test are shares from 0 to 1 (train above 0)",
                "splits.rows: expected train, val or test with [first, end], got other: [0, 5]",
                "splits.rows: expected train, val or test with [first, end], got train: [5, 5]",
            ),
        ),
    ],
    ids=["table", "image"],
)
def test_a_card_says_all_of_its_faults_at_once(text: str, faults: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"has \d+ faults: ") as refusal:
        parse_card(text, Path("data/catalog/d.yaml"))
    said = str(refusal.value)
    assert [fault for fault in faults if fault not in said] == []
    assert f"has {len(faults)} faults: " in said, said
