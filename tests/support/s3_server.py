"""A real server of the S3 protocol on loopback (moto's), and a proxy before it that fails when told to."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import buckets
import pytest
from pyarrow import fs


class Faulty(BaseHTTPRequestHandler):
    """Passes requests on; a fault is a status to answer instead, or minus the bytes after which to hang up."""

    protocol_version = "HTTP/1.1"
    server_port = 0
    faults: ClassVar[list[int]] = []
    read: ClassVar[list[tuple[str, str]]] = []

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        kind = type(self)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reading = self.command == "GET" and "list-type" not in self.path
        if reading:
            kind.read.append((self.path, self.headers.get("Range", "")))
        fault = kind.faults.pop(0) if reading and kind.faults else 0
        if fault > 0:
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection("127.0.0.1", kind.server_port, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        connection.close()
        if fault < 0:
            self.wfile.write(content[:-fault])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server's port."""
    with buckets.serving(tmp_path_factory.mktemp("s3") / "log") as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture
def s3(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.S3FileSystem]:
    """A file system on the server; programs find it, by the usual variables, behind the faulty proxy."""
    Faulty.server_port, Faulty.faults, Faulty.read = s3_server, [], []
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{s3_server}", scheme="http", access_key="key", secret_key="secret",
        region="us-east-1", allow_bucket_creation=True, allow_bucket_deletion=True,
    )  # fmt: skip
    proxy.shutdown()
    proxy.server_close()
    thread.join()
