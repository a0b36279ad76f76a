"""Shapes in annotations are checked at run time while the tests of the models run."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook
from s3_server import s3, s3_server  # noqa: F401 - fixtures
from shape_checks import shape_checks

if TYPE_CHECKING:
    from small_projects import SmallProject

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("claims")
hook = install_import_hook(["models"], "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def checked_shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the tests that take every task of every family through its shapes; elsewhere they would cost half the time."""
    with shape_checks(on=request.path.stem in ("test_contract", "test_ranks")):
        yield


def unused() -> str:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def unused_port() -> str:
    """A port of the loopback interface that nobody listens on."""
    return unused()


def small_project(name: str, factory: pytest.TempPathFactory) -> SmallProject:
    from small_projects import made
    from test_tracking import empty_store

    root = factory.mktemp(name)
    shutil.copy(empty_store(factory.getbasetemp()), root / "mlflow.db")
    return made(root, name)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Rows whose truth is known: two families from CSV to registry and report."""
    return small_project("shop", tmp_path_factory)


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Images whose truth is known: two families from an NPZ file to registry and report."""
    return small_project("tiles", tmp_path_factory)
