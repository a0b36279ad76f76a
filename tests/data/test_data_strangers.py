"""Files as strangers send them: each is read rightly, or refused with its place and the fix, or counted."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import itertools
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_faults import (
    GOOD,
    accepted,
    csv_at,
    good_entries,
    images_at,
    jpeg,
    make_zip,
    noise,
    png,
    refused,
    report,
)

from data.domains.source_table import source_table
from data.readers.base import IngestReport
from data.readers.bodies import Body, Padded
from data.readers.headings import rows_below
from data.readers.json_rows import kind_of

LINES = GOOD.splitlines(keepends=True)


def zip_bytes(**entries: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (GOOD.replace("\n17,2.429,y", "\n17,2.429,\0"), ("row 19, column 'c'", "NUL")),
        (GOOD.replace("\n17,", "\n1\x007,"), ("row 19, column 'a'", "NUL")),
        ('"' + GOOD, ("column 1 (row 1) is no text", "close every quotation mark")),
        (zip_bytes(**{"xl/workbook.xml": b"<x/>"}), ("not a CSV file but a zip archive or an Excel workbook",)),
        ("\n<!DOCTYPE html><html>404</html>", ("not a CSV file but a web page",)),
        (gzip.compress(GOOD.encode()), ("name it .csv.gz",)),
        ("\n\n\n", ("is empty",)),
        (GOOD + "1,2," + "z" * 2_000_000, ("after row 101: a row has more than 512 KiB",)),
    ],
)
def test_csv_that_is_refused(tmp_path: Path, text: str | bytes, fragments: tuple[str, ...]) -> None:
    strict = "on_bad: fail" if "NUL" in fragments[-1] else "max_bad: 0.01"
    refused(tmp_path, csv_at(tmp_path, text), *fragments, card=(strict,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.encode("utf-16-le"), "read as utf-16-le"),
        ("# made today\n" + GOOD, "1 line(s) before the table are skipped"),
        (GOOD.replace("\n50,", '\n50"x",'), "all other cells fit, so taken as missing: 1 × '50\"x\"'"),
        (GOOD.replace("\n50,", f"\n{10**400},"), "taken as missing: 1 infinite numbers"),
        (
            "a,b\n" + "".join(f'{i % 80},"{i},{i:03}"\n' for i in range(1, 90)),
            '{name: "b", type: integer, format: "#,##0"}',
        ),
        (
            GOOD.replace("\n17,2.429,y", "\n17,2.429,\0"),
            "1 of 100 examples are bad (1 × not valid UTF-8) and are left out",
        ),
    ],
)
def test_csv_that_is_read_with_a_word(tmp_path: Path, text: str | bytes, said: str) -> None:
    accepted(tmp_path, csv_at(tmp_path, text))
    assert said in (tmp_path / "data/catalog/d.yaml").read_text()


@pytest.mark.parametrize("ends", ["\r\n", "\r", "mixed"])
def test_line_ends(tmp_path: Path, ends: str) -> None:
    text = "".join(line[:-1] + ("\r", "\n", "\r\n")[i % 3] for i, line in enumerate(LINES))
    data = accepted(tmp_path, csv_at(tmp_path, text if ends == "mixed" else GOOD.replace("\n", ends)))
    assert sorted(x for name in data.splits for x in data.split(name).all().x[:, 0].tolist()) == sorted(
        i % 90 for i in range(100)
    )


@pytest.mark.parametrize(
    ("cells", "learned", "said"),
    [
        ([f"{i // 7},{i % 7}5" for i in range(3000)], ["a", "b"], 'type: continuous, format: "0,00"'),
        (
            [f"{1000 + i}-01-01" for i in range(3000)],
            ["a", "b.year"],
            'type: datetime, format: "%Y-%m-%d", parts: ["year"',
        ),
        ([str(2**63 + i * 10**6) for i in range(3000)], ["a"], "type: identifier"),
    ],
)
def test_decimal_commas_dates_and_numbers_too_large(tmp_path: Path, cells: list[str], learned: list, said: str) -> None:
    source = csv_at(tmp_path, "a;b\n" + "".join(f"{i % 99};{cell}\n" for i, cell in enumerate(cells)))
    data = accepted(tmp_path, source)
    assert [column["name"] for column in data.domain["columns"]] == learned
    assert said in (tmp_path / "data/catalog/d.yaml").read_text()


def test_a_file_without_header_is_recognized(tmp_path: Path) -> None:
    data = accepted(tmp_path, csv_at(tmp_path, "".join(f"{i % 7 / 2},{i % 50}\n" for i in range(3, 63))))
    assert [column["name"] for column in data.domain["columns"]] == ["column_1", "column_2"]
    assert sum(map(len, map(data.split, data.splits))) == 60
    assert "its first row is like the others (1.5, 3)" in (tmp_path / "data/catalog/d.yaml").read_text()


def test_years_of_which_some_are_left_out_name_columns(tmp_path: Path) -> None:
    years = ["1990", "1991", "1992", "1994", "2000"]
    rows = "".join(f"place {i % 9},{i % 5},{i % 7},{i % 13},{i % 11},{i % 4}\n" for i in range(60))
    data = accepted(tmp_path, csv_at(tmp_path, f"where,{','.join(years)}\n{rows}"))
    assert [column["name"] for column in data.domain["columns"]] == ["where", *years]


def test_anomalies_unmarked_or_everywhere(tmp_path: Path) -> None:
    rows = "".join(f"{i},{('0', '1', '')[i % 3]}\n" for i in range(60))
    data = accepted(tmp_path, csv_at(tmp_path, "a,y\n" + rows), anomaly="y=1")
    assert len(data.split("anomaly")) == 20
    assert report(tmp_path)["missing_cells"] == {"y": {"": 20}}
    assert report(tmp_path)["warnings"] == ["rows without a value in 'y' are taken for normal ones"]
    (tmp_path / "data/catalog/d.yaml").unlink()
    (tmp_path / "data/prepared/d").rename(tmp_path / "before")
    rows = "".join(f"{i},1\n" for i in range(60))
    refused(
        tmp_path, csv_at(tmp_path, "a,y\n" + rows), "none of its 60 examples belongs to the training", anomaly="y=1"
    )


def test_names_that_need_care(tmp_path: Path) -> None:
    """Blanks without width, joined emoji, control characters: in headers, cells, folders and file names."""
    text = GOOD.replace("a,b,c", "a\u00a0x,\U0001f468\u200d\U0001f469,c").replace(",x", ",x\x7f\u0085\u2028\U000e0001")
    data = accepted(tmp_path, csv_at(tmp_path, text))
    assert [column["name"] for column in data.domain["columns"]] == ["a\u00a0x", "\U0001f468\u200d\U0001f469", "c"]
    assert data.domain["columns"][2]["categories"] == ["x\x7f\u0085\u2028\U000e0001", "y"]
    (tmp_path / "data/catalog/d.yaml").unlink()
    names = ("a\nb", "c: #d", "\U0001f468\u200d\U0001f469")
    for i in range(30):
        path = tmp_path / "im\nages" / names[i % 3] / ("\U0001f600\n" * 40 + f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise(i, 8, 8)))
    assert sorted(accepted(tmp_path, tmp_path / "im\nages").class_names) == sorted(names)
    (tmp_path / "data/catalog/d.yaml").unlink()
    (tmp_path / "data/prepared/d").rename(tmp_path / "before")
    make_zip(tmp_path / "a.zip", {**good_entries(), "a/0/" + "n" * 300 + ".png": b"junk"})
    refused(tmp_path, tmp_path / "a.zip", "not an image", "n" * 300, card=("on_bad: fail",))
    folder = os.fsencode(images_at(tmp_path))
    os.rename(folder + b"/1", folder + b"/caf\xe9")
    refused(tmp_path, tmp_path / "images", "'caf\\udce9' is not valid UTF-8", "Rename it")


def test_parquet_types(tmp_path: Path) -> None:
    n = 60
    kept = {
        "dec": pa.array([decimal.Decimal("1.25") * i for i in range(n)], pa.decimal128(10, 2)),
        "dict": pa.array(list("uvw") * 20).dictionary_encode(),
        "bool": pa.array([True, False, None] * 20),
        "large": pa.array(list("ab") * 30, pa.large_string()),
        "bytes": pa.array([b"x", b"y"] * 30),
        "half": pa.array(np.arange(n, dtype=np.float16) / 4),
        "dotted.name": pa.array([i % 50 for i in range(n)]),
        "codes": pa.array([1, 2, 3] * 20).dictionary_encode(),
    }
    left = {
        "map": pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
            "list": [[1, 2]] * n, "blob": [b"\xff\xfe" + bytes([i]) for i in range(n)],
        "null": pa.nulls(n), "identifier": pa.array([2**64 - 1 - i for i in range(n)], pa.uint64()),
    }  # fmt: skip
    moments = {
        "time": [datetime.datetime(2020, 1, i % 28 + 1, i % 24) for i in range(n)],
        "span": pa.array([60 * i for i in range(n)], pa.duration("s")),
    }
    pq.write_table(pa.table({**kept, **moments, **left}), tmp_path / "t.parquet")
    data = accepted(tmp_path, tmp_path / "t.parquet")
    table = source_table(data.manifest)  # these columns determine one another, and are learned as such
    assert [column["name"] for column in table.full] == [
        *kept, "time.week", "time.weekday", "time.clock", "span.duration",
    ]  # fmt: skip
    x, rows = table.rows(data.split("train").all().x.numpy()), data.split("train").sources.numpy()
    assert (x[:, 0] == rows * 1.25).all()
    assert (x[:, 5] == rows / 4).all()
    card = (tmp_path / "data/catalog/d.yaml").read_text()
    for name, kind in (
        ("map", "skip"), ("list", "skip"), ("blob", "skip"), ("null", "constant"), ("identifier", "identifier"),
    ):  # fmt: skip
        assert f'name: "{name}", type: {kind}, why: ' in card


def test_parquet_files_that_differ_in_order_only(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    refused(tmp_path, folder, "f holds no images", "Parquet")
    pq.write_table(pa.table({"a": np.arange(30) / 1, "b": np.arange(30) / 2}), folder / "0.parquet")
    pq.write_table(pa.table({"b": np.arange(30, 60) / 2, "a": np.arange(30, 60) / 1}), folder / "1.parquet")
    data = accepted(tmp_path, folder)
    x = data.split("train").all().x
    assert (x[:, 0] == 2 * x[:, 1]).all()
    (tmp_path / "data/catalog/d.yaml").unlink()
    (tmp_path / "data/prepared/d").rename(tmp_path / "before")
    pq.write_table(pa.table({"": range(30), "b": range(30)}), tmp_path / "t.parquet")
    data = accepted(tmp_path, tmp_path / "t.parquet")
    assert [entry["title"] for entry in data.manifest["table"]] == ["", "b"]


def encrypted(path: Path) -> None:
    body = bytearray(path.read_bytes())
    for mark, flag in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = body.find(mark)
        while at >= 0:
            body[at + flag] |= 1
            at = body.find(mark, at + 1)
    path.write_bytes(body)


def test_zip_archives(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", good_entries())
    encrypted(path)
    refused(tmp_path, path, "'a/0/0.png': it is encrypted")
    make_zip(path, good_entries()).write_bytes(path.read_bytes()[:-200])
    refused(tmp_path, path, "truncated")
    refused(tmp_path, make_zip(path, {"inner.zip": b"PK"}), "holds no images", "1 × .zip")
    path.rename(tmp_path / "a.tar.gz")
    refused(tmp_path, tmp_path / "a.tar.gz", "a.tar.gz is damaged")
    junk = {"__MACOSX/a/0/._0.png": b"", ".DS_Store": b"", "a/Thumbs.db": b"", "a/0/._1.png": b"", "inner.zip": b""}
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in {**good_entries(), **junk}.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(body)
    data = accepted(tmp_path, path)
    assert sum(map(len, map(data.split, data.splits))) == 20
    assert report(tmp_path)["ignored_files"] == {".DS_Store": 1, ".db": 1, ".png": 2, ".zip": 1}


def test_links_and_other_things_in_folders(tmp_path: Path) -> None:
    folder = images_at(tmp_path)
    os.symlink("circle", folder / "circle")
    os.symlink("..", folder / "0/up")
    accepted(tmp_path, folder)  # links that are no images are ignored, and counted
    assert report(tmp_path)["ignored_files"] == {"circle": 1, "up": 1}
    (tmp_path / "data/prepared/d").rename(tmp_path / "before")
    for name, make in (
        ("circle.png", lambda path: os.symlink("circle.png", path)),
        ("nowhere.png", lambda path: os.symlink("missing", path)),
        ("pipe.png", os.mkfifo),
    ):
        (tmp_path / "data/catalog/d.yaml").unlink(missing_ok=True)
        make(folder / "0" / name)
        refused(tmp_path, folder, name, "neither a file nor a folder")
        (folder / "0" / name).unlink()
    (tmp_path / "linked").mkdir()
    for name in "01":
        os.symlink(folder / name, tmp_path / "linked" / name)
    refused(tmp_path, tmp_path / "linked", "links to folders are not followed")
    os.mkfifo(tmp_path / "p.csv")
    refused(tmp_path, tmp_path / "p.csv", "neither a file nor a folder")


def test_images_on_which_pillow_is_silent(tmp_path: Path) -> None:
    folder = images_at(tmp_path)
    moving = io.BytesIO()
    frames = [Image.fromarray(noise(i, 8, 8)) for i in (90, 91)]
    frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
    (folder / "0/moving.png").write_bytes(moving.getvalue())
    whole = jpeg(noise(0, 8, 8), quality=95)
    (folder / "0/end.jpg").write_bytes(whole[:-30] + b"\xff\xd9" + whole[-28:])
    for name, mode in (("la", "LA"), ("p", "P")):
        options = {"transparency": 3} if mode == "P" else {}
        Image.fromarray(noise(5, 8, 8)).convert(mode).save(folder / f"0/{name}.png", **options)
    accepted(tmp_path, folder, "image: {height: 8, width: 8, channels: 3}", "duplicates: keep")
    counted = report(tmp_path)["converted"]
    assert counted["animation to its first frame"] == 1
    assert counted["JPEG that goes on after an end mark (damaged, or more than a picture)"] == 1
    assert counted["palette to colour"] == 1
    (tmp_path / "data/prepared/d").rename(tmp_path / "before")
    broken = bytearray(png(noise(50, 8, 8)))
    broken[50] ^= 255
    (folder / "0/broken.png").write_bytes(broken)
    (tmp_path / "data/catalog/d.yaml").unlink()
    refused(tmp_path, folder, "broken.png", "broken image", card=("on_bad: fail",))


class Evil:
    """Would leave a trace if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {os.environ['TRACE']}",)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def test_npy_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE", str(tmp_path / "executed"))
    x, path = noise(0, 20, 8, 8), tmp_path / "x.npy"
    refused(tmp_path, saved(path, np.array([Evil()], dtype=object)), "Python objects", "refused")
    np.savez(tmp_path / "o.npz", x=x, y=np.array([Evil()] * 20, dtype=object))
    refused(tmp_path, tmp_path / "o.npz", "o.npz['y'] holds Python objects")
    assert not (tmp_path / "executed").exists()
    refused(tmp_path, saved(path, np.asfortranarray(x)), "Fortran order", "ascontiguousarray")
    refused(tmp_path, saved(path, noise(0, 20, 3, 32, 32)), "Transpose it: the channels come last")
    refused(tmp_path, saved(path, noise(0, 20, 8, 8, 4)), "got [20, 8, 8, 4]")
    refused(tmp_path, saved(path, noise(0, 20, 64)), "expected images [n, height, width]", "got [20, 64]")
    refused(tmp_path, saved(path, noise(0, 0, 8, 8)), "got [0, 8, 8]")
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 64) + b"{'descr': '|u1', 'shape': (((((".ljust(63) + b"\n"
    )
    refused(tmp_path, path, "x.npy is not an NPY array, or is damaged")
    corner = np.arange(64).reshape(8, 8) == 0  # of every image: few bad ones would be left out
    for array, fragment in (
        (x * 2.0, "got 0.0 … 510.0"),
        (np.where(x > 250, np.nan, x), "got nan … nan"),
        (x.astype(np.uint16) * 200, "scale and round to uint8"),
        (np.where(corner, 256, x.astype(np.uint16)), "… 256 (uint16"),
        (np.where(corner, -1, x.astype(np.int16)), "got -1 … "),
    ):
        refused(tmp_path, saved(path, array), "image 0 (from 0)", "pixel out of range", fragment)
    for change, fragment in (
        (lambda body: body[:-30], "ends early"),
        (lambda body: body + b"x", "longer than its header"),
    ):
        saved(path, x).write_bytes(change(saved(path, x).read_bytes()))
        refused(tmp_path, path, fragment)
    data = accepted(tmp_path, saved(path, x > 99))
    assert report(tmp_path)["converted"] == {"1-bit to 8-bit": 20}
    assert set(data.split("train").all().x.unique().tolist()) == {0, 255}
    assert data.split("train").all().x.numpy().tobytes() == (
        np.where(x > 99, 255, 0).astype(np.uint8)[data.split("train").sources.numpy()].tobytes()
    )


def test_npz_and_idx_files(tmp_path: Path) -> None:
    x, path = noise(0, 200, 8, 8), tmp_path / "x.npz"
    np.savez(path, foo=x, bar=np.arange(3))
    refused(tmp_path, path, "expected a key such as 'x'", "['foo', 'bar']")
    np.savez(path, x=x, y=np.eye(3)[np.arange(200) % 3])
    refused(tmp_path, path, "x.npz['y']: expected one whole number per image")
    np.savez(path, x=x, y=np.array(["a", "b"] * 100))
    refused(tmp_path, path, "x.npz['y']: expected numbers, got <U1")
    np.savez_compressed(path, x=x)
    body = bytearray(path.read_bytes())
    body[3000:3040] = b"\xff" * 40
    path.write_bytes(body)
    refused(tmp_path, path, "x.npz['x'] cannot be read")
    (tmp_path / "data/catalog/d.yaml").unlink(missing_ok=True)
    np.savez(path, x=x)
    encrypted(path)
    refused(tmp_path, path, "x.npz['x'] cannot be read", "encrypted")
    idx = tmp_path / "train-images-idx3-ubyte"
    idx.write_bytes(b"\1\2\3\4" + bytes(30))
    refused(tmp_path, idx, "expected it to start with two zero bytes")
    idx.write_bytes(b"\0\0\x0d\x03" + struct.pack(">3I", 2, 2, 2) + bytes(32))
    refused(tmp_path, idx, "expected unsigned bytes (IDX type 8), got type 13")
    idx.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3) + bytes(30))
    refused(tmp_path, idx, "ends early: its header says 4294967295 entries, it holds 0")


def test_tar_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, body in good_entries().items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        info = tarfile.TarInfo("a/0/sparse.png")
        info.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(info)
    refused(tmp_path, tmp_path / "a.tar", "a/0/sparse.png", "not a plain file")
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:7000])
    refused(tmp_path, tmp_path / "a.tar", "truncated")


@pytest.mark.parametrize("size", [1, 4, 1000, -1])
def test_a_table_is_read_without_what_stands_around_it_however_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("data.readers.bodies.PIECE", 5)
    lines = [f" row {'x' * (i % 9)} \t {i}\t\n" for i in range(30)]
    for head, footer, blanks in itertools.product((0, 2, 29), (0, 1, 3), (False, True)):
        body = Body(io.BytesIO("".join(lines).encode()), head, blanks=blanks, footer=footer)
        read = body.read() if size < 0 else b"".join(iter(lambda body=body: body.read(size), b""))
        kept = lines[head : len(lines) - footer]
        assert read.decode() == "".join(" ".join(line.split()) + "\n" if blanks else line for line in kept)
    padded = Padded(io.BytesIO(b"a,b,c\n1\n1,2\n\n1,2,3\n,2"), 3, ",")
    read = padded.read() if size < 0 else b"".join(iter(lambda: padded.read(size), b""))
    assert read.splitlines()[:3] == [b"a,b,c", b"1,,", b"1,2,"]
    assert read.splitlines()[-2:] == [b"1,2,3", b",2,"]


@pytest.mark.parametrize(
    ("last", "below"),
    [
        ([], 0),
        ([["", "", ""], ["whoever wrote this", "", ""]], 1),  # alone, after a blank row
        ([["whoever wrote this"]], 1),  # alone, in a row of its own length
        ([["whoever wrote this", "", ""]], 0),  # a row with gaps
        ([["Source: whoever", "", ""]], 1),
        ([["Total", "6", "8"], ["Note: of two", "", ""]], 2),
        ([["Total", "6", "8"], ["c", "5", "6"]], 0),
    ],
)
def test_totals_and_notes_below_a_table_are_none_of_it(last: list[list[str]], below: int) -> None:
    assert rows_below([["a", "1", "2"], ["b", "3", "4"], *last], 3) == below


def test_whole_numbers_beyond_64_bits_are_texts_in_json() -> None:
    kinds = [kind_of(cell) for cell in (2**63 - 1, 2**63, -(2**63), 1 - 2**63, True, 1.5, "x", None, [], {})]
    assert kinds == ["integer", "text", "text", "integer", "boolean", "number", "text", "null", "nested", "nested"]


def test_three_conversions_of_a_kind_are_named() -> None:
    told = IngestReport(on_bad="fail", max_bad=0.0)
    for row in range(5):
        told.convert("grey to colour", f"row {row}", 2)
    assert told.converted["grey to colour"] == 10
    assert told.converted_first["grey to colour"] == ["row 0", "row 1", "row 2"]
