"""Fetching over HTTP and the S3 protocol from real servers on this machine."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from data import fetching
from data.fetching import fetch
from data.shards import Dataset
from pipelines.prepare import add, prepare

TABLE = ("a,b\n" + "".join(f"{i},{i / 7:.4f}\n" for i in range(200_000))).encode()


class Store(BaseHTTPRequestHandler):
    """Serves files with ranges and entity tags; can be told to hang up, forbid, redirect or ignore ranges."""

    files: ClassVar[dict[str, bytes]] = {}
    log: ClassVar[list[tuple[str, str]]] = []
    hang_up_after = 0
    version = "1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, *, body: bool) -> None:
        kind = type(self)
        place = urlsplit(self.path)
        path, asked = unquote(place.path), self.headers.get("Range", "")
        kind.log.append((path, asked))
        if "list-type=2" in place.query:
            self.listing(path, unquote(place.query))
            return
        if path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/x.csv")
            self.end_headers()
            return
        content = kind.files.get(path)
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = f'"{kind.version}"'
        start, end = 0, len(content)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if match and self.headers.get("If-Range", tag) == tag:
            start = int(match[1])
            end = int(match[2]) + 1 if match[2] else end
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}")
        else:
            self.send_response(200)
        part = content[start:end]
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if body and kind.hang_up_after:
            self.wfile.write(part[: kind.hang_up_after])
            kind.hang_up_after = 0
            self.close_connection = True
        elif body:
            self.wfile.write(part)

    def listing(self, path: str, query: str) -> None:
        bucket = path.strip("/").split("/")[0]
        prefix = dict(part.partition("=")[::2] for part in query.split("&")).get("prefix", "")
        keys = [name.removeprefix(f"/{bucket}/") for name in sorted(type(self).files) if name.startswith(f"/{bucket}/")]
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(type(self).files[f'/{bucket}/{key}'])}</Size>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{found.count('<Key>')}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Store.files, Store.log, Store.hang_up_after, Store.version = {}, [], 0, "1"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_a_table_over_http(store: str, tmp_path: Path) -> None:
    Store.files["/set/t.csv"] = TABLE
    add(f"{store}/set/t.csv", "t", root=tmp_path, quiet=True)
    before = len(Store.log)
    prepare("t", root=tmp_path)
    assert len(Store.log) == before  # what `add` fetched is used
    data = Dataset.open(tmp_path / "data/prepared/t")
    assert sum(len(data.split(name)) for name in data.splits) == 200_000
    assert data.manifest["source"] == {"url": f"{store}/set/t.csv", "sha256": sha(TABLE)}
    (tmp_path / "data/raw/t/t.csv").unlink()
    prepare("t", root=tmp_path)  # fetched again, by the card alone
    assert len(Store.log) == before + 1


def test_an_interrupted_download_continues(store: str, tmp_path: Path) -> None:
    Store.files["/x.csv"], Store.hang_up_after = TABLE, 1_000_000
    assert fetch(f"{store}/x.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE
    assert [asked for _, asked in Store.log] == ["", "bytes=1000000-"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv"]


def test_a_download_starts_over_when_the_file_changed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.files["/x.csv"], Store.hang_up_after = b"old" * 1000, 700
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    with pytest.raises(ConnectionError, match=r"closed early.*again continues"):
        fetch(f"{store}/x.csv", tmp_path, "")
    assert (tmp_path / ".x.csv.part").stat().st_size == 700
    assert not (tmp_path / "x.csv").exists()
    Store.files["/x.csv"], Store.version = TABLE, "2"
    assert fetch(f"{store}/x.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE


def test_58_a_wrong_checksum_installs_nothing(store: str, tmp_path: Path) -> None:
    Store.files["/x.csv"] = TABLE
    with pytest.raises(ValueError, match=r"expected SHA-256 0{64}, got [0-9a-f]{64}\. Nothing was installed"):
        fetch(f"{store}/x.csv", tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_refusals(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="HTTP 404"):
        fetch(f"{store}/missing.csv", tmp_path, "")
    with pytest.raises(ValueError, match="must start with https://"):
        fetch("http://192.0.2.1/x.csv", tmp_path, "")
    with pytest.raises(ValueError, match=r"redirects to http://example\.invalid"):
        fetch(f"{store}/away", tmp_path, "")
    with pytest.raises(ValueError, match="query or a password"):
        add(f"{store}/x.csv?token=1", "t", root=tmp_path, quiet=True)


def test_s3_object_resumed_and_checked(store: str, tmp_path: Path) -> None:
    Store.files["/bucket/deep/t.csv"] = TABLE
    add("s3://bucket/deep/t.csv", "t", root=tmp_path, quiet=True)
    manifest = prepare("t", root=tmp_path)
    assert manifest["source"] == {"url": "s3://bucket/deep/t.csv", "sha256": sha(TABLE)}
    Store.files["/bucket/deep/t.csv"] = TABLE[:-5]
    (tmp_path / "data/raw/t/t.csv").unlink()
    with pytest.raises(ValueError, match="Nothing was installed"):
        prepare("t", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/no\.csv does not exist"):
        fetch("s3://bucket/no.csv", tmp_path, "")


def test_s3_folder(store: str, tmp_path: Path) -> None:
    for part in range(2):
        rows = "".join(f"{v}\n" for v in np.arange(50) + 50 * part)
        Store.files[f"/bucket/tables/part-{part}.csv"] = f"v\n{rows}".encode()
    add("s3://bucket/tables", "t", root=tmp_path, quiet=True)
    prepare("t", root=tmp_path)
    data = Dataset.open(tmp_path / "data/prepared/t")
    values = np.concatenate([data.split(name).all().x[:, 0] for name in data.splits])
    assert sorted(values.tolist()) == list(range(100))
