"""Fetching over HTTP(S) and the S3 protocol from real servers on this machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyarrow import fs
from s3_server import Faulty

from data import fetched_shards
from data.dataset import Dataset
from data.sources import download
from data.sources.download import fetch
from pipelines.__main__ import main
from pipelines.cli.data import add
from pipelines.stages.prepare import prepare
from pipelines.storage.mirror import StateMirror
from pipelines.storage.stores import open_store

TABLE = ("a,b\n" + "".join(f"{i},{i / 7:.4f}\n" for i in range(200_000))).encode()


class Store(BaseHTTPRequestHandler):
    """Serves files with ranges and entity tags; can be told to hang up, forbid, redirect or ignore ranges."""

    files: ClassVar[dict[str, bytes]] = {}
    log: ClassVar[list[tuple[str, str]]] = []
    hang_up_after = 0
    failing = 0
    ranges = True
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
        if path in ("/away", "/circle"):
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/x.csv" if path == "/away" else "/circle")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind.failing:
            kind.failing -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
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
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if kind.ranges else None
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


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Store.files, Store.log, Store.hang_up_after, Store.version = {}, [], 0, "1"
    Store.failing, Store.ranges = 0, True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
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


@pytest.mark.parametrize("spare", [0, -1])
def test_an_interrupted_download_continues(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """On a disk as large as the file: what is there already needs no more room. One byte less is too little."""
    monkeypatch.setattr(
        download.shutil,
        "disk_usage",
        lambda folder: SimpleNamespace(free=len(TABLE) + spare - sum(f.stat().st_size for f in folder.glob("*.part"))),
    )
    Store.files["/x.csv"], Store.hang_up_after = TABLE, 1_000_000
    if spare < 0:
        with pytest.raises(ValueError, match=rf"has {len(TABLE)} more bytes, the disk of .* has {len(TABLE) - 1} free"):
            fetch(f"{store}/x.csv", tmp_path, sha(TABLE))
        return
    assert fetch(f"{store}/x.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE
    assert [asked for _, asked in Store.log] == ["", "bytes=1000000-"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv"]


def test_a_download_starts_over_when_the_file_changed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.files["/x.csv"], Store.hang_up_after = b"old" * 1000, 700
    monkeypatch.setattr(download, "ATTEMPTS", 1)
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
    with pytest.raises(ConnectionError, match=r"HTTP 302 .* infinite loop"):
        fetch(f"{store}/circle", tmp_path, "")
    with pytest.raises(ValueError, match="must start with https://"):
        fetch("http://192.0.2.1/x.csv", tmp_path, "")
    with pytest.raises(ValueError, match=r"redirects to http://example\.invalid"):
        fetch(f"{store}/away", tmp_path, "")
    with pytest.raises(ValueError, match="query or a password"):
        add(f"{store}/x.csv?token=1", "t", root=tmp_path, quiet=True)


class Hostile(ThreadingHTTPServer):
    """Answers every request with the same bytes, as slowly as it likes."""

    def __init__(self, answer: bytes, rest: bytes = b"", pause: float = 0.0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    self.wfile.write(answer)
                    for byte in rest:
                        self.wfile.write(bytes([byte]))
                        threading.Event().wait(pause)

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/x.csv"

    def __enter__(self) -> Hostile:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "most", "told"),
    [
        (OK + b"\r\na,b\n1,2\n", "", "does not say how long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\na,b\n\r\n", "", "could not be fetched"),
        (OK + b"Content-Length: 100\r\n\r\na,b\n", "", "the connection closed early"),
        (OK + b"Content-Length: 8\r\n\r\na,b\n1,2\n", "7", "has 8 bytes, at most 7 are fetched"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n8\r\na,b\n1,2\n\r\n0\r\n\r\n", "7", "has more than 7 bytes"),
        (OK + b"Content-Length: 99999999999999999\r\n\r\na", "9" * 20, r"the disk of .* has \d+ free"),
    ],
    ids=["no length", "half of a chunked one", "half", "too long", "too long, unannounced", "no room"],
)
def test_half_a_file_or_too_much_is_never_taken(
    answer: bytes, most: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setenv(download.MOST_BYTES, most)
    with Hostile(answer) as server, pytest.raises((ValueError, ConnectionError), match=told):
        fetch(server.url, tmp_path, "")
    assert not (tmp_path / "x.csv").exists()


def test_a_whole_chunked_file_and_one_with_a_digest_are_taken(tmp_path: Path) -> None:
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n8\r\na,b\n1,2\n\r\n0\r\n\r\n"
    for number, answer in enumerate((chunked, OK + b"\r\na,b\n1,2\n")):
        with Hostile(answer) as server:
            digest = sha(b"a,b\n1,2\n") if number else ""
            assert fetch(server.url, tmp_path / str(number), digest).read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("first", [0, 100_000])
def test_a_server_that_drips_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """However much it sent before."""
    for name, value in {"ATTEMPTS": 1, "SLOW_S": 0.2}.items():
        monkeypatch.setattr(download, name, value)
    with (
        Hostile(OK + b"Content-Length: %d\r\n\r\n" % (first + 300) + bytes(first), b"x" * 300, 0.02) as server,
        pytest.raises(ConnectionError, match="it sends less than 1024 bytes a second"),
    ):
        fetch(server.url, tmp_path, "")


@pytest.mark.parametrize(
    ("card", "target", "told"),
    [
        ("https://93.184.215.14/x", "http://127.0.0.1/x", "is not https"),
        ("https://93.184.215.14/x", "https://127.0.0.1/x", "an address of this machine or its network"),
        ("https://93.184.215.14/x", "https://localhost/x", "an address of this machine or its network"),
        ("https://93.184.215.14/x", "https://10.0.0.7/x", "an address of this machine or its network"),
        ("https://93.184.215.14/x", "https://169.254.169.254/latest/meta-data", "of this machine or its network"),
        ("https://93.184.215.14/x", "https://[::ffff:127.0.0.1]/x", "an address of this machine or its network"),
        ("https://93.184.215.14/x", "https://[fd00::1]/x", "an address of this machine or its network"),
        ("https://93.184.215.14/x", "ftp://93.184.215.14/x", "is not https"),
        ("https://93.184.215.14/x", "file:///etc/passwd", "is not https"),
        ("https://10.0.0.7/x", "http://127.0.0.1/x", "is not https"),
        ("https://10.0.0.7/x", "https://10.0.0.8/x", ""),
        ("http://127.0.0.1/x", "http://127.0.0.1:81/x", ""),
        ("https://93.184.215.14/x", "https://93.184.215.15/x", ""),
    ],
)
def test_redirects_lead_to_no_place_that_the_card_does_not(card: str, target: str, told: str) -> None:
    handler = download._SameProtection(card, download._Addresses(card))
    request = urllib.request.Request(card)
    follow = functools.partial(handler.redirect_request, request, None, 302, "Found", Message(), target)
    if told:
        with pytest.raises(ValueError, match=told):
            follow()
    else:
        assert follow().full_url == target


def test_a_server_without_ranges_that_fails_at_times(store: str, tmp_path: Path) -> None:
    Store.files["/x.csv"], Store.hang_up_after, Store.ranges = TABLE, 1_000_000, False
    assert fetch(f"{store}/x.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE  # from the start
    Store.failing = 2
    (tmp_path / "x.csv").unlink()
    assert fetch(f"{store}/x.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE
    Store.failing = 99
    with pytest.raises(ConnectionError, match="HTTP 503"):
        fetch(f"{store}/y.csv", tmp_path, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv"]


@contextlib.contextmanager
def secured(handler: type[BaseHTTPRequestHandler], folder: Path, *names: str) -> Iterator[int]:
    """An HTTPS server whose certificate, of these names, is its own: `trusted.pem` in the folder; its port."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial, now = x509.random_serial_number(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"site {serial}")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), serial, now, now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(known) for known in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem + secret)
    with (folder / "trusted.pem").open("ab") as file:
        file.write(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_untrusted_certificate(store: str, tmp_path: Path) -> None:
    """A server with a certificate of its own is refused at once, and trusted when SSL_CERT_FILE says so."""
    Store.files["/x.csv"] = TABLE
    with secured(Store, tmp_path, "localhost") as port:
        url = f"https://localhost:{port}/x.csv"
        with pytest.raises(ConnectionError, match=r"certificate is not trusted: self-signed.*SSL_CERT_FILE"):
            fetch(url, tmp_path / "raw", "")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
            assert fetch(url, tmp_path / "raw", sha(TABLE)).read_bytes() == TABLE


PUBLIC, INSIDE = "93.184.215.14", "127.0.0.1"


@pytest.mark.parametrize(
    ("start", "rebind", "told"),
    [
        ([PUBLIC], [PUBLIC, INSIDE], ""),
        ([PUBLIC], ["", INSIDE], "rebind.test is 127.0.0.1, an address of this machine or its network"),
        ([PUBLIC], [f"{PUBLIC} {INSIDE}"], "redirects to https://rebind.test/x.csv, an address of this machine"),
        ([PUBLIC, INSIDE], [PUBLIC], ""),
        ([INSIDE], [INSIDE], "inside"),
    ],
    ids=["another answer", "an answer only later", "two at once", "another for the card's own", "the card's own"],
)
def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
    start: list[str], rebind: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """`https://start.test/x.csv` redirects to `https://rebind.test/x.csv`; each name's answers, the last for ever."""
    answers, asked = {"start.test": start, "rebind.test": rebind}, []

    class Site(BaseHTTPRequestHandler):
        content = b""

        def do_GET(self) -> None:
            asked.append(type(self).__name__)
            away = self.headers["Host"] == "start.test"
            self.send_response(302 if away else 200)
            self.send_header("Location" if away else "X", "https://rebind.test/x.csv")
            self.send_header("Content-Length", "0" if away else str(len(self.content)))
            self.end_headers()
            self.wfile.write(b"" if away else self.content)

        def log_message(self, *_: object) -> None: ...

    class Outside(Site):
        content = b"outside\n" + b"".join(b"%d\n" % i for i in range(50))

    class Inside(Site):
        content = Outside.content.replace(b"outside", b"inside")

    def look_up(host: str, port: object, *_: object, **__: object) -> list[tuple]:
        known = answers.get(host)
        found = host if known is None else known.pop(0) if len(known) > 1 else known[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found.split()]

    with secured(Outside, tmp_path, *answers) as outside, secured(Inside, tmp_path, *answers) as inside:
        ports = {PUBLIC: outside, INSIDE: inside}
        plain = socket.socket.__bases__[0].connect
        for name in ("ALL_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(socket.socket, "connect", lambda self, to: plain(self, (INSIDE, ports[to[0]])))
        monkeypatch.chdir(tmp_path)
        status = main(["data", "add", "https://start.test/x.csv", "--name", "t"])
    message = capsys.readouterr().err
    assert status == (1 if " " in told else 0), message
    if told != "inside":
        assert "Inside" not in asked
        assert told in message
    if not status:
        card = (tmp_path / "data/catalog/t.yaml").read_text()
        assert ("inside" in card, "outside" in card) == (told == "inside", told == ""), card


def put(s3: fs.S3FileSystem, path: str, body: bytes) -> None:
    s3.create_dir(path.split("/")[0])
    with s3.open_output_stream(path) as file:
        file.write(body)


def test_s3_object_resumed_and_checked(s3: fs.S3FileSystem, tmp_path: Path) -> None:
    put(s3, "one/deep/t.csv", TABLE)
    add("s3://one/deep/t.csv", "t", root=tmp_path, quiet=True)
    manifest = prepare("t", root=tmp_path)
    assert manifest["source"] == {"url": "s3://one/deep/t.csv", "sha256": sha(TABLE)}
    put(s3, "one/deep/t.csv", TABLE[:-5])
    (tmp_path / "data/raw/t/t.csv").unlink()
    with pytest.raises(ValueError, match="Nothing was installed"):
        prepare("t", root=tmp_path)
    assert list((tmp_path / "data/raw/t").iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"s3://one/no\.csv does not exist"):
        fetch("s3://one/no.csv", tmp_path, "")


def test_s3_survives_failures_and_continues(
    s3: fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 500 and connections cut in the middle: tried again; given up, the next call goes on where it stopped."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    put(s3, "two/t.csv", TABLE)
    Faulty.faults = [0, 500, -1000, 503]
    assert fetch("s3://two/t.csv", tmp_path, sha(TABLE)).read_bytes() == TABLE
    assert not Faulty.faults
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    Faulty.faults, Faulty.read = [0, *[500] * 200], []
    with pytest.raises(ConnectionError, match=r"s3://two/t.csv could not be fetched.*again continues"):
        fetch("s3://two/t.csv", tmp_path / "again", "")
    assert (tmp_path / "again/.t.csv.part").stat().st_size == download.PIECE
    Faulty.faults, Faulty.read = [], []
    assert fetch("s3://two/t.csv", tmp_path / "again", sha(TABLE)).read_bytes() == TABLE
    assert Faulty.read
    assert not [asked for _, asked in Faulty.read if asked.startswith("bytes=0-")]  # what was there is kept
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["t.csv"]


def test_s3_folder(s3: fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in range(3):
        rows = "".join(f"{v}\n" for v in np.arange(50) + 50 * part)
        put(s3, f"three/tables/X-{part}.csv", f"v\n{rows}".encode())
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    Faulty.faults = [0, 0, *[500] * 200]
    with pytest.raises(ConnectionError):
        add("s3://three/tables", "t", root=tmp_path, quiet=True)
    Faulty.faults, Faulty.read = [], []
    put(s3, "three/tables/X-1.csv", b"v\n" + b"".join(b"%d\n" % v for v in range(1050, 1100)))
    add("s3://three/tables", "t", root=tmp_path, quiet=True)
    assert {path.rpartition("/")[2] for path, _ in Faulty.read} == {"X-1.csv", "X-2.csv"}
    assert sorted(path.name for path in tmp_path.rglob("*.csv")) == ["X-0.csv", "X-1.csv", "X-2.csv"]
    prepare("t", root=tmp_path)
    data = Dataset.open(tmp_path / "data/prepared/t")
    values = np.concatenate([data.split(name).all().x[:, 0] for name in data.splits])
    assert sorted(values.tolist()) == [*range(50), *range(100, 150), *range(1050, 1100)]


@pytest.mark.parametrize("unsigned", ["", "true"])
def test_all_requests_to_a_bucket_are_signed_or_none_is(
    s3: fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsigned: str
) -> None:
    """Sources and stores have one client: `AWS_NO_SIGN_REQUEST` is meant for both."""
    signed = []

    def noting(request: Faulty) -> None:
        signed.append("Authorization" in request.headers)
        request.answer()

    for method in ("GET", "HEAD"):
        monkeypatch.setattr(Faulty, f"do_{method}", noting)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", unsigned)
    put(s3, "open/t.csv", TABLE[:100])
    put(s3, "open/run/step-1/manifest.json", b"{}")
    for read in (
        lambda: fetch("s3://open/t.csv", tmp_path, ""),
        lambda: open_store("s3://open/run").names("step-"),
        lambda: StateMirror("s3://open/run/step-1", tmp_path / "state").pull(),
    ):
        signed.clear()
        read()
        assert set(signed) == {not unsigned}


@pytest.mark.parametrize("kind", ["bucket", "shared folder"])
def test_shards_left_in_a_storage_are_fetched_when_their_rows_are_asked_for(
    s3: fs.S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Opening reads none; a split reads its own only, once; a damaged one is refused, a missing one is named."""
    monkeypatch.setattr(fetched_shards, "CACHE", tmp_path / "cache")
    values = np.arange(300)
    (tmp_path / "t.csv").write_text("v\n" + "".join(f"{v}\n" for v in values))
    add("t.csv", "t", root=tmp_path, quiet=True)
    prepare("t", root=tmp_path)
    folder, shared = tmp_path / "data/prepared/t", tmp_path / "shared"
    shared.mkdir()
    shards = {path.name: path.read_bytes() for path in folder.glob("*.arrow")}

    def leave(name: str, content: bytes) -> None:
        put(s3, f"four/t/{name}", content) if kind == "bucket" else (shared / name).write_bytes(content)

    for name, content in shards.items():
        leave(name, content)
        (folder / name).unlink()
    place = "s3://four/t" if kind == "bucket" else str(shared)
    (folder / "storage.json").write_text(json.dumps({"place": place}))
    Faulty.read = []
    data = Dataset.open(folder)
    assert (len(data.split("train")), Faulty.read) == (240, [])
    train = data.split("train").all()
    assert len(data.split("train").take([3, 3])) == 2
    assert {path.rpartition("/")[2] for path, _ in Faulty.read} == (
        {"train-00000.arrow"} if kind == "bucket" else set()
    )
    rest = [data.split(name).all().x for name in ("val", "test")]
    assert sorted(torch.cat([train.x, *rest]).flatten().tolist()) == values.tolist()
    assert {path.name for path in folder.iterdir()} == {"README.md", "manifest.json", "report.json", "storage.json"}

    monkeypatch.setattr(fetched_shards, "CACHE", tmp_path / "another")
    leave("test-00000.arrow", shards["test-00000.arrow"][:-1] + b"x")
    with pytest.raises(ValueError, match="is damaged: its SHA-256 is"):
        Dataset.open(folder).split("test").all()
    (folder / "storage.json").write_text(json.dumps({"place": place.replace("/t", "/nowhere")}))
    with pytest.raises(FileNotFoundError, match=r"val-00000\.arrow"):
        Dataset.open(folder).split("val").all()
