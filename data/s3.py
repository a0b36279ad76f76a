"""The one S3 client: for sources, checkpoints and state."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs

ATTEMPTS = 8
"""Times a request to a bucket is made before its failure is told; the pauses grow."""

CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 10, 60


def file_system(url: str, *, attempts: int = 0) -> tuple[fs.S3FileSystem, str]:
    """The file system and path of an S3 URL.

    Credentials, region and endpoint come from the usual variables: `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY` (`AWS_NO_SIGN_REQUEST` for none), `AWS_REGION` or `AWS_DEFAULT_REGION`,
    `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`.

    Arguments:
        url: `s3://bucket/key`.
        attempts: Times a request is made before its failure is told; 0 for `ATTEMPTS`.
    """
    location = urlsplit(url)
    bucket, key = location.netloc, unquote(location.path).strip("/")
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "request_timeout": REQUEST_TIMEOUT_S,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=attempts or ATTEMPTS),
        "allow_delayed_open": True,
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint)
        options.update(endpoint_override=parts.netloc, scheme=parts.scheme)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options["region"] = region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket))
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"):
        options["anonymous"] = True
    return fs.S3FileSystem(**options), f"{bucket}/{key}".rstrip("/")
