"""Files from elsewhere: resumable, checked by SHA-256, visible only when whole."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from data.streams import unsafe
from data.writing import file_sha256, sync, write_text

ATTEMPTS = 5
TIMEOUT_S = 30
PIECE = 1 << 20


def file_name(url: str) -> str:
    """The last part of a URL's path."""
    return unquote(urlsplit(url).path).rstrip("/").rsplit("/", 1)[-1] or "download"


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
    if scheme == "s3":
        _fetch_s3(url, part)
    elif scheme == "https" or (scheme == "http" and _is_loopback(url)):
        _fetch_http(url, part)
    else:
        raise ValueError(
            f"source.url must start with https:// or s3://, got {url!r}. http is not protected on its way."
        )
    found = tree_sha256(part)
    if sha256 and found != sha256:
        _discard(part)
        raise ValueError(
            f"{url}: expected SHA-256 {sha256}, got {found}. Nothing was installed. The file changed, or the card is "
            "wrong: compare with what its publisher states, then mend source.sha256."
        )
    sync(part)
    if path.is_file():
        path.unlink()
    part.rename(path)
    sync(folder)
    _meta(part).unlink(missing_ok=True)
    return path


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, over its files' names and contents in the order of their names."""
    if path.is_file():
        return file_sha256(path)
    total = hashlib.sha256()
    for name, file in tree(path):
        total.update(f"{name}\0{file_sha256(file)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def tree(path: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The files below a folder in the order of their names, hidden ones aside."""
    with os.scandir(path) as found:
        entries = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False), entry.is_file())
            for entry in found
            if not entry.name.startswith(".")
        )
    for name, is_folder, is_file in entries:
        if is_folder:
            yield from tree(path / name, f"{prefix}{name}/")
        elif is_file:
            yield prefix + name, path / name


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _meta(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    _meta(part).unlink(missing_ok=True)
    if part.is_dir():
        for _, file in list(tree(part)):
            file.unlink()
        for folder, _, _ in os.walk(part, topdown=False):
            Path(folder).rmdir()
    else:
        part.unlink(missing_ok=True)


class _SameProtection(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except to a place that is less protected."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https" and not _is_loopback(newurl):
            raise ValueError(f"{req.full_url} redirects to {newurl}, which is not https. Give another URL.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_http(url: str, part: Path) -> None:
    """Fetch into a partial file, continuing what an earlier attempt left if the server's version is the same."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(8.0, 0.25 * 2**attempt))
        try:
            if _fetch_once(url, part):
                return
            problem = "the connection closed early"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code == 416:
                _discard(part)
            elif error.code < 500 and error.code not in (408, 425, 429):
                break
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
    raise ConnectionError(
        f"{url} could not be fetched: {problem}. Check the URL and the network; "
        "running the same command again continues."
    )


def _fetch_once(url: str, part: Path) -> bool:
    """One attempt; whether the file is complete."""
    have, known = _resumable(url, part)
    headers = {"User-Agent": "fivefold", "Accept-Encoding": "identity"}
    if have:
        headers.update({"Range": f"bytes={have}-", "If-Range": known["validator"]})
    opener = urllib.request.build_opener(_SameProtection)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        whole = response.headers.get("Content-Length")
        if response.status == 206:
            stated = response.headers.get("Content-Range", "")
            if not stated.startswith(f"bytes {have}-"):
                raise OSError(f"asked for bytes from {have}, the server sent {stated!r}")
            total = None if stated.endswith("*") else int(stated.rsplit("/", 1)[-1])
        else:
            have, total = 0, int(whole) if whole else None
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        validator = "" if validator.startswith("W/") else validator
        write_text(_meta(part), json.dumps({"url": url, "validator": validator, "total": total}))
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            return _copy(response, file, have, total)


def _resumable(url: str, part: Path) -> tuple[int, dict[str, Any]]:
    """How many bytes an earlier attempt left that can be continued."""
    try:
        known = json.loads(_meta(part).read_text())
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}
    if known.get("url") != url or not known.get("validator") or have == known.get("total"):
        return 0, {}
    return have, known


def _copy(source: IO[bytes], file: IO[bytes], have: int, total: int | None) -> bool:
    while piece := source.read(PIECE):
        file.write(piece)
        have += len(piece)
    file.flush()
    os.fsync(file.fileno())
    if total is not None and have > total:
        raise OSError(f"the server announced {total} bytes and sent {have}")
    return total is None or have == total


def _s3(url: str) -> tuple[fs.S3FileSystem, str]:
    """The file system and path of an S3 URL; credentials, region and endpoint come from the usual variables."""
    place = urlsplit(url)
    bucket, key = place.netloc, unquote(place.path).strip("/")
    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": TIMEOUT_S}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint)
        options.update(endpoint_override=parts.netloc, scheme=parts.scheme)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options["region"] = region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket))
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"):
        options["anonymous"] = True
    return fs.S3FileSystem(**options), f"{bucket}/{key}"


def _fetch_s3(url: str, part: Path) -> None:
    try:
        store, path = _s3(url)
        info = store.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(f"{url} does not exist (or may not be seen with these credentials). Check the URL.")
        if info.type == fs.FileType.File:
            _copy_s3(store, info, part)
            return
        for entry in store.get_file_info(fs.FileSelector(path, recursive=True)):
            name = entry.path.removeprefix(path).lstrip("/")
            if entry.type != fs.FileType.File or not name:
                continue
            if unsafe(name):
                raise ValueError(f"{url}: key {name!r} leads out of its folder: refused.")
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            _copy_s3(store, entry, part / name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConnectionError(
            f"{url} could not be fetched: {' '.join(str(error).split())} Check the URL, AWS_ENDPOINT_URL and the "
            "credentials; running the same command again continues."
        ) from None


def _copy_s3(store: fs.S3FileSystem, info: fs.FileInfo, part: Path) -> None:
    """Copy one object, continuing a partial copy of the same version of it."""
    version = json.dumps({"path": info.path, "size": info.size, "changed": info.mtime_ns})
    meta = part.with_name(f".{part.name.lstrip('.')}.json")
    same = meta.exists() and part.exists() and meta.read_text() == version and part.stat().st_size <= info.size
    have = part.stat().st_size if same else 0
    write_text(meta, version)
    with store.open_input_file(info.path) as source, part.open("r+b" if have else "wb") as file:
        file.seek(have)
        source.seek(have)
        if not _copy(source, file, have, info.size):
            raise OSError(f"{info.path} ended early.")
    meta.unlink(missing_ok=True)
