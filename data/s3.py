"""S3 clients: one for sources, and a more patient one for checkpoints and state."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs

TIMEOUT_S = 30


def file_system(url: str) -> tuple[fs.S3FileSystem, str]:
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


ATTEMPTS = 8
"""Times a request to a bucket is made before its failure is told; the pauses grow."""


def retrying_file_system(bucket: str) -> fs.S3FileSystem:
    """The file system of a bucket, for checkpoints and state: patient with a store that fails now and then."""
    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": 60, "allow_delayed_open": True}
    options["retry_strategy"] = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options["region"] = region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket))
    return fs.S3FileSystem(**options)
