"""Shapes in annotations are checked at run time while the tests run."""

from __future__ import annotations

import os
import socket

import pytest
from jaxtyping import install_import_hook
from s3_server import s3, s3_server  # noqa: F401 - fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")
hook = install_import_hook(["models"], "beartype.beartype")


def unused() -> str:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def unused_port() -> str:
    """A port of the loopback interface that nobody listens on."""
    return unused()
