"""Files from elsewhere: resumable, checked by SHA-256, visible only when whole."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs
from tqdm import tqdm

from data.files import fsync, fsync_tree, write_json
from data.s3 import file_system
from data.sources.files import tree_sha256
from data.sources.streams import unsafe

ATTEMPTS = 5
TIMEOUT_S = 30
S3_ATTEMPTS = 2
"""Times a request to a bucket is made in each attempt, which goes on where the one before stopped."""

SLOWEST, SLOW_S = 1024, 30.0
"""Bytes a second that a server must send, on average over so many seconds."""

MOST_BYTES = "FIVEFOLD_MAX_DOWNLOAD_BYTES"
"""Environment variable: the largest file that is fetched."""

PIECE = 1 << 20
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
"""What is wrong here, not with the server: trying again does not help."""


def file_name(url: str) -> str:
    """The last part of a URL's path."""
    name = unquote(urlsplit(url).path).rstrip("/").rsplit("/", 1)[-1]
    return "download" if name in ("", ".", "..") or unsafe(name) else name


def fetch(url: str, folder: Path, sha256: str) -> Path:
    """Fetch a URL into a folder, or find it there.

    Arguments:
        url: `https://…`, `s3://bucket/key`, or `http://…` on this machine.
        folder: Where it goes; a download that was interrupted continues.
        sha256: What the content must have; empty to accept anything (when a card is being made).
    Returns:
        The file, or the folder when an S3 URL names one.
    Raises:
        ValueError: If the content has another SHA-256; nothing is installed then.
        OSError: If the server cannot be reached.
    """
    path = folder / file_name(url)
    if path.exists() and (not sha256 or tree_sha256(path) == sha256):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{path.name}.part"
    scheme = urlsplit(url).scheme
    if not _known(url, part):
        _remove(part)
    if scheme == "s3" and not (urlsplit(url).netloc and urlsplit(url).path.strip("/")):
        raise ValueError(f"source.url must be s3://bucket/key, got {url!r}.")
    if scheme == "s3":
        _fetch_s3(url, part)
    elif scheme == "https" or (scheme == "http" and _is_loopback(url)):
        _fetch_http(url, part, checked=bool(sha256))
    else:
        raise ValueError(
            f"source.url must start with https:// or s3://, got {url!r}. http is not protected on its way; a file of "
            "this machine is given by its path."
        )
    found = tree_sha256(part)
    if sha256 and found != sha256:
        _remove(part)
        raise ValueError(
            f"{url}: expected SHA-256 {sha256}, got {found}. Nothing was installed. The file changed, or the card is "
            "wrong: compare with what its publisher states, then fix source.sha256."
        )
    fsync_tree(part)
    _remove(path)
    part.rename(path)
    fsync(folder)
    _meta(part).unlink(missing_ok=True)
    return path


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _meta(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known(url: str, part: Path) -> dict[str, Any]:
    """What an earlier attempt noted about the same URL; empty when there was none."""
    try:
        known = json.loads(_meta(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if known.get("url") == url else {}


def _remove(path: Path) -> None:
    """Remove a file or folder, and what was noted about it."""
    _meta(path).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Addresses:
    """The addresses of hosts, each looked up once: what was checked is what is connected to.

    A name may resolve to a public address when it is checked and to this machine's a moment later (DNS rebinding).

    Arguments:
        url: The card's own: where it leads, redirects may lead too.
    """

    def __init__(self, url: str) -> None:
        self.known: dict[str, list[tuple[Any, ...]]] = {}
        self.card = (urlsplit(url).hostname or "").lower()

    def of(self, host: str) -> list[tuple[Any, ...]]:
        """Where a host is; a name that nobody knows is asked for again.

        Raises:
            OSError: If the name is not known.
        """
        host = host.lower()
        if host not in self.known:
            self.known[host] = [entry[4] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        return self.known[host]

    def private(self, host: str) -> bool:
        """Whether a host is on this machine or its network: an address that the world does not route to."""
        try:
            found = {str(address[0]).split("%")[0] for address in self.of(host)}
        except (OSError, UnicodeError):
            return False  # nobody there, or known to a proxy only
        return any(not ipaddress.ip_address(address).is_global for address in found)

    def require_reachable(self, host: str, what: str) -> None:
        """Refuse a host that only this machine's network reaches, unless the card's own is one.

        Raises:
            ValueError: Names `what` led there.
        """
        if host.lower() != self.card and self.private(host) and not self.private(self.card):
            raise ValueError(
                f"{what}, an address of this machine or its network. Give that URL itself if you trust it."
            )

    def connect(self, place: tuple[str, int], timeout: Any = TIMEOUT_S, source: Any = None) -> socket.socket:
        """Connect to a host and port, at one of the addresses that were checked; in place of `create_connection`.

        Raises:
            OSError: If none of them answers.
            ValueError: If it is none to connect to.
        """
        host, port = place
        found = self.of(host)
        self.require_reachable(host, f"{host} is {found[0][0]}")
        problem: OSError | None = None
        for address in found:
            try:
                return socket.create_connection((address[0], port), timeout, source)
            except OSError as error:
                problem = error
        raise problem or OSError(f"{host} has no address")


class _Checked(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Connects to addresses that were checked; to a proxy as it is set, which looks names up itself."""

    def __init__(self, addresses: _Addresses) -> None:
        super().__init__()
        self.addresses = addresses

    def do_open(self, http_class: Any, req: Any, **options: Any) -> Any:
        def connection(host: str, **given: Any) -> http.client.HTTPConnection:
            made = http_class(host, **given)
            made._create_connection = self.addresses.connect
            return made

        proxied = req.host != unquote(urlsplit(req.full_url).netloc)
        return super().do_open(http_class if proxied else connection, req, **options)


class _SameProtection(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except to a place that is less protected, or that only this machine's network reaches.

    Arguments:
        url: The card's own: where it leads, redirects may lead too.
        addresses: Of the hosts that it names.
    """

    def __init__(self, url: str, addresses: _Addresses) -> None:
        self.scheme, self.addresses = urlsplit(url).scheme, addresses

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        safe = urlsplit(newurl).scheme == "https" or (self.scheme == "http" and _is_loopback(newurl))
        if not safe:
            raise ValueError(f"{req.full_url} redirects to {newurl}, which is not https. Give another URL.")
        self.addresses.require_reachable(urlsplit(newurl).hostname or "", f"{req.full_url} redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_http(url: str, part: Path, *, checked: bool) -> None:
    """Fetch into a partial file, continuing what an earlier attempt left if the server's version is the same."""
    problem, addresses = "", _Addresses(url)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(8.0, 0.25 * 2**attempt))
        try:
            if _fetch_once(url, part, addresses, checked=checked):
                return
            problem = "the connection closed early"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
            error.close()
            if error.code == 416:
                _remove(part)
            elif error.code < 500 and error.code not in (408, 425, 429):
                break
        except http.client.InvalidURL as error:
            problem = str(error)
            break
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if getattr(error, "errno", None) in LOCAL:
                raise
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise ConnectionError(
                    f"{url}: the server's certificate is not trusted: {reason.verify_message}. Check the URL; for a "
                    "server of your own, put its authority's certificate into the file that SSL_CERT_FILE names."
                ) from None
            problem = str(reason) or type(error).__name__
    raise ConnectionError(
        f"{url} could not be fetched: {problem}. Check the URL and the network; "
        "running the same command again continues."
    )


def _fetch_once(url: str, part: Path, addresses: _Addresses, *, checked: bool) -> bool:
    """One attempt; whether the file is complete.

    Arguments:
        addresses: Of the hosts on the way, the same in every attempt.
        checked: Whether the content's SHA-256 is known, so that half a file would be found out.
    """
    have, known = _resumable(url, part)
    headers = {"User-Agent": "fivefold", "Accept-Encoding": "identity"}
    if have:
        headers.update({"Range": f"bytes={have}-", "If-Range": known["validator"]})
    opener = urllib.request.build_opener(_Checked(addresses), _SameProtection(url, addresses))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        whole = response.headers.get("Content-Length")
        if response.status == 206:
            stated = response.headers.get("Content-Range", "")
            match = re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", stated)
            if not match:
                raise OSError(f"asked for bytes from {have}, the server sent {stated!r}")
            total = int(match[1]) if match[1].isdigit() else None
        else:
            have, total = 0, int(whole) if whole and whole.isdigit() else None
        if total is None and not checked and not response.chunked:
            raise ValueError(
                f"{url}: the server does not say how long the file is, so half of it would look whole. State "
                "source.sha256 in the card, or download it yourself and give the path."
            )
        require_room(url, part, total, have)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        validator = "" if validator.startswith("W/") else validator
        write_json(_meta(part), {"url": url, "validator": validator, "total": total})
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            return _copy(response, file, have, total, url)


def _resumable(url: str, part: Path) -> tuple[int, dict[str, Any]]:
    """How many bytes an earlier attempt left that can be continued."""
    known = _known(url, part)
    have = part.stat().st_size if part.is_file() else 0
    if not known.get("validator") or have == known.get("total"):
        return 0, {}
    return have, known


def require_room(url: str, part: Path, total: int | None, have: int) -> None:
    """Refuse, before it is fetched, what is larger than is taken or than the disk has room for.

    Raises:
        ValueError: Names the sizes.
    """
    if total is None:
        return
    if total > most_bytes():
        raise ValueError(f"{url} has {total} bytes, at most {most_bytes()} are fetched ({MOST_BYTES}). Raise it there.")
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise ValueError(
            f"{url} has {total - have} more bytes, the disk of {part.parent} has {free} free. Make room; the same "
            "command goes on."
        )


def most_bytes() -> int:
    """The largest file that is fetched.

    Raises:
        ValueError: If the environment says something else than a number.
    """
    text = os.environ.get(MOST_BYTES, "").strip() or str(10**12)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{MOST_BYTES} must be a whole number of at least 1, got {text!r}. Set it or unset it.")
    return int(text)


def _copy(source: Any, file: IO[bytes], have: int, total: int | None, url: str) -> bool:
    """Copy to the end, which must come; whether all announced bytes did."""
    read = getattr(source, "read1", source.read)  # what has come, and does not wait for a whole piece
    most, began, before = most_bytes(), time.monotonic(), have
    with tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=file_name(url), leave=False, disable=None
    ) as bar:
        while piece := read(PIECE):
            file.write(piece)
            have += len(piece)
            bar.update(len(piece))
            if have > most:
                raise ValueError(f"{url} has more than {most} bytes, the most that are fetched ({MOST_BYTES}).")
            if (passed := time.monotonic() - began) > SLOW_S:
                if have - before < SLOWEST * passed:
                    raise OSError(f"it sends less than {SLOWEST} bytes a second")
                began, before = time.monotonic(), have
    if total is not None and have > total:
        raise OSError(f"the server announced {total} bytes and sent {have}")
    return total is None or have == total


def _fetch_s3(url: str, part: Path) -> None:
    """Fetch an object, or all below a prefix, continuing what an earlier attempt left of the same versions."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(8.0, 0.25 * 2**attempt))
        try:
            _copy_s3(url, part)
            return
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in LOCAL:
                raise
            problem = " ".join(str(error).split())
            if re.search(r"ACCESS_DENIED|NO_SUCH|INVALID|SIGNATURE|not found", problem):
                break
    raise ConnectionError(
        f"{url} could not be fetched: {problem} Check the URL, AWS_ENDPOINT_URL and the credentials; "
        "running the same command again continues."
    )


def _copy_s3(url: str, part: Path) -> None:
    """One attempt. What lies in the partial file or folder is always of the versions noted beside it."""
    store, path = file_system(url, attempts=S3_ATTEMPTS)
    objects = dict(_objects(url, store, path))
    versions = {name: [info.size, info.mtime_ns] for name, info in objects.items()}
    for name, version in _known(url, part).get("objects", {}).items():
        if versions.get(name) != version:
            (part / name).unlink(missing_ok=True)
    write_json(_meta(part), {"url": url, "objects": versions})
    require_room(url, part, sum(info.size for info in objects.values()), tree_size(part))
    for name, info in objects.items():
        target = part / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open_input_file(info.path) as source, target.open("ab") as file:
            source.seek(file.tell())
            if not _copy(source, file, file.tell(), info.size, url):
                raise OSError(f"{info.path} ended early.")


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all below a folder."""
    return sum(found.stat().st_size for found in (path, *path.rglob("*")) if found.is_file())


def _objects(url: str, store: fs.S3FileSystem, path: str) -> Iterator[tuple[str, fs.FileInfo]]:
    """The object itself, without a name, or all below the prefix by their names."""
    info = store.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"{url} does not exist (or may not be seen with these credentials). Check the URL.")
    if info.type == fs.FileType.File:
        yield "", info
        return
    for entry in store.get_file_info(fs.FileSelector(path, recursive=True)):
        name = entry.path.removeprefix(path).lstrip("/")
        if entry.type != fs.FileType.File or not name:
            continue
        if unsafe(name):
            raise ValueError(f"{url}: key {name!r} leads out of its folder: refused.")
        yield name, entry
