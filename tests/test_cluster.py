"""The Ray adapter on a local cluster of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    from pipelines import cluster

    os.environ.pop("RAY_ADDRESS", None)
    with cluster.connected():
        yield cluster


def test_nothing_listens_beyond_loopback(cluster):
    import psutil

    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_tasks_return_in_order(cluster):
    assert list(cluster.in_tasks(lambda number: number**2, iter(range(40)), 0)) == [n**2 for n in range(40)]


def test_prepare_on_a_cluster_writes_the_same_data(cluster, tmp_path):
    from pipelines.prepare import prepare

    root = Path(__file__).parent.parent
    here = prepare("digits", tmp_path / "here", root=root)
    there = prepare("digits", tmp_path / "there", root=root, mapper=cluster.in_tasks)
    assert here["digest"] == there["digest"]


def test_more_workers_than_cores_are_refused_with_the_mend(cluster, tmp_path):
    with pytest.raises(ValueError, match=r"train\.workers: 99 workers need 99 cores, .* lower it in params\.yaml"):
        cluster.run_workers(lambda config, place: None, {}, workers=99, threads=1, storage=tmp_path, max_failures=0)


def test_an_unreachable_cluster_is_an_error_that_says_so(unused_port):
    code = "from pipelines import cluster\nwith cluster.connected(): pass"
    environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{unused_port}"}
    tried = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "ConnectionError: no Ray cluster answers at RAY_ADDRESS=" in tried.stderr
    assert "unset RAY_ADDRESS" in tried.stderr
