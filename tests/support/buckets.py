"""An S3 server on loopback, and a proxy before it that fails on purpose."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

HOP = {"connection", "transfer-encoding", "content-length", "expect", "server", "date"}


@contextlib.contextmanager
def serving(log: Path) -> Iterator[str]:
    """moto's server with a bucket `bucket`; its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            end = time.monotonic() + 60
            while not _answers(f"{address}/moto-api/"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "moto's server is not up within 60 s"
                time.sleep(0.1)
            request = urllib.request.Request(f"{address}/bucket", method="PUT", headers={"Authorization": SIGNED})
            urllib.request.urlopen(request, timeout=10).close()
            yield address
        finally:
            process.kill()


SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def failing(address: str, fault: Callable[[int, str], str]) -> Iterator[str]:
    """A proxy before a server: `fault(count, method)` says of each request `500`, `reset`, `cut` or nothing."""
    target = address.removeprefix("http://")

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        count = 0

        def relay(self) -> None:
            body = self.body()
            Proxy.count += 1
            kind = fault(Proxy.count, self.command)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if kind == "500":
                self.answer(500, [], b"<Error><Code>InternalError</Code></Error>")
                return
            upstream = http.client.HTTPConnection(target, timeout=30)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            upstream.request(self.command, self.path, body, kept)
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            content = content.replace(
                b"CompleteMultipartUploadResponse", b"CompleteMultipartUploadResult"
            )  # moto's slip
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            self.answer(response.status, response.getheaders(), content, length, cut=kind == "cut")

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def answer(
            self, status: int, headers: list, content: bytes, length: str | None = None, *, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
