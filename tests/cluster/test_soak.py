"""Training under a random killer on a real cluster: nothing is lost, and nothing is left behind.

`SOAK_MINUTES` says how long, three by default. At seeded random moments SIGKILL ends one of: a worker, Ray Train's
controller, everything on the head, the MLflow server, the command that trains.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import psutil
import pytest
from nodes import Host
from test_nodes import TRAIN, Laptop, Started, laptop, speed  # noqa: F401 - the last two are fixtures

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))
PORT = 5050
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # the job queue of a killed server stays in /dev/shm


def processes(hosts: list[Host], word: str) -> list[psutil.Process]:
    """Those of some hosts whose title has a word."""
    found = []
    for host in hosts:
        listed = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=True)
        for number in listed.stdout.split():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(number))
                if word in " ".join(process.cmdline()):
                    found.append(process)
    return found


class Tracking:
    """An MLflow server on the laptop's loopback, which comes back a while after it was killed."""

    def __init__(self, laptop: Laptop, folder: Path) -> None:  # noqa: F811
        self.laptop, self.folder, self.back_at = laptop, folder, 0.0
        self.start()

    def start(self) -> None:
        stores = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "files")]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(PORT), "--workers"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.laptop.cluster.laptop.command(*command, "1", *stores),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**self.laptop.project.environment, **NO_JOBS},
            )

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def answers(self) -> bool:
        ask = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/health', timeout=5)"
        command = self.laptop.cluster.laptop.command(sys.executable, "-c", ask)
        return subprocess.run(command, capture_output=True).returncode == 0

    def kill(self, away: float) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.back_at = time.monotonic() + away

    def tend(self) -> None:
        if self.process.poll() is not None and time.monotonic() > self.back_at:
            self.start()


@pytest.fixture
def tracking(laptop, tmp_path) -> Iterator[Tracking]:  # noqa: F811
    made = Tracking(laptop, tmp_path)
    laptop.there["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{PORT}"
    try:
        while not made.answers():
            assert made.process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(1)
        yield made
    finally:
        made.kill(1e9)
        del laptop.there["MLFLOW_TRACKING_URI"]


def strike(what: str, laptop: Laptop, training: Started, tracking: Tracking, chance: random.Random) -> bool:  # noqa: F811
    """Kill something; False if there was nothing of the kind."""
    cluster = laptop.cluster
    if what == "head":
        for host in (cluster.head, *cluster.nodes):  # without its head a node ends too, only later
            host.crash()
        cluster.start()
    elif what == "tracking":
        tracking.kill(chance.uniform(1, 20))
    elif what == "command":
        training.process.kill()
    else:
        found = processes([cluster.head, *cluster.nodes], what)
        if not found:
            return False
        with suppress(psutil.NoSuchProcess):
            chance.choice(found).kill()
    return True


@pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's use of SQLAlchemy
def test_nothing_is_lost_under_a_random_killer(laptop, speed, tracking):  # noqa: F811
    """The model is bit for bit that of an undisturbed training; its curve lies once in one MLflow run."""
    shared, before = set(os.listdir("/dev/shm")), {process.pid for process in psutil.process_iter()}
    laptop.forget()
    laptop.settle(int(speed * MINUTES * 45) // 256 * 256, workers="2", checkpoints=int(20 * MINUTES), failures=1000)
    chance, struck = random.Random("soak"), Counter[str]()
    targets = ["RayTrainWorker", "TrainController", "tracking", "head", "command"]
    began = time.monotonic()
    training, commands = laptop.start(*TRAIN), 1
    strike_at = time.monotonic() + 30
    while training.process.poll() != 0:
        tracking.tend()
        if training.process.poll() is not None and tracking.answers():
            away = training.said("no Ray job server answers") or training.said("MLflow server")
            assert away or training.process.returncode in (75, -signal.SIGKILL), training.log.read_text()
            training, commands = laptop.start(*TRAIN), commands + 1
        soaking = time.monotonic() - began < MINUTES * 60
        if soaking:
            soaked = time.monotonic() - began
        if soaking and time.monotonic() > strike_at:
            what = targets[sum(struck.values()) % len(targets)] if len(struck) < 5 else chance.choice(targets)
            if strike(what, laptop, training, tracking, chance):
                struck[what] += 1
                strike_at = time.monotonic() + chance.uniform(10, 50)
        assert time.monotonic() - began < MINUTES * 240 + 900, training.log.read_text()
        time.sleep(0.5)
    took = time.monotonic() - began
    print(f"{soaked:.0f} s under the killer, {took:.0f} s in all, {commands} commands, killed: {dict(struck)}")
    assert len(struck) >= min(5, MINUTES)
    disturbed, points = laptop.model(), laptop.points()
    reached = [point["examples"] for point in points]
    assert reached == sorted(set(reached))

    while not tracking.answers():
        tracking.tend()
        time.sleep(1)
    laptop.run(*TRAIN)  # there is nothing left to do but to send what the server has missed
    client = mlflow.MlflowClient(tracking.store)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.family = 'vae'")
    assert len(runs) == 1, [run.info.run_name for run in runs]
    logged = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "vae/loss")]
    assert sorted(logged) == reached

    left = processes([laptop.cluster.head, *laptop.cluster.nodes], "RayTrainWorker")
    assert not left
    laptop.forget()
    laptop.project.run(*TRAIN, seconds=MINUTES * 120 + 600)
    assert laptop.model() == disturbed
    tracking.kill(1e9)
    laptop.cluster.crash()
    assert set(os.listdir("/dev/shm")) <= shared
    ours = str(laptop.cluster.temporary)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            assert process.pid in before or process.environ().get("HOME") != ours, process.cmdline()
