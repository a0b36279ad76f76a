"""Training on a real Ray cluster of three hosts, from a fourth: jobs, lost nodes, cut links, nodes that come back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from nodes import BIN, Cluster, refusal
from PIL import Image
from ruamel.yaml import YAML
from test_pipeline import Project

pytestmark = pytest.mark.slow

TRAIN, TUNE, EVALUATE = (("fivefold", verb, "--family", "vae") for verb in ("train", "tune", "evaluate"))
S3_PORT = 5000
PUT = """
import sys, time, urllib.request
signed = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
content = open(sys.argv[2], "rb").read() if sys.argv[2] else None
for _ in range(120):
    try:
        kept = {"Authorization": signed, "Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], content, kept, method="PUT"))
        break
    except OSError:
        time.sleep(1)
else:
    sys.exit("the S3 server is not up")
"""


class Laptop:
    """A project on a host that is no part of the cluster."""

    def __init__(self, cluster: Cluster, project: Project, storage: Path) -> None:
        self.cluster, self.project, self.storage = cluster, project, storage
        self.there = {
            **project.environment,
            **{name: value for name, value in cluster.environment.items() if name.startswith(("RAY_", "AWS_", "HOME"))},
            "RAY_ADDRESS": cluster.address,
            "AWS_ENDPOINT_URL": f"http://{cluster.head.address}:{S3_PORT}",
            "OMP_NUM_THREADS": "1",
        }

    def settle(
        self,
        examples: int,
        workers: str = "1",
        storage: str = "",
        search: str = "false",
        checkpoints: int = 100,
        failures: int = 5,
    ) -> None:
        """params.yaml: one small model, trained for so many examples."""
        (self.project.folder / "params.yaml").write_text(
            f"dataset: digits\nseed: 0\nfamilies: [vae]\ntrain: {{workers: {workers}, max_failures: {failures}}}\n"
            f"tune: {{enabled: {search}, trials: 2, part: 0.5}}\n"
            "features: {examples: 2000, samples: 400, bootstrap: 10}\n"
            "evaluate: {samples: 400, bootstrap: 10}\n"
            f"cluster: {{storage: '{storage or self.storage}'}}\n"
            "vae:\n  model: {latent: 8, width: 8}\n  search: {training.lr: {low: 1e-3, high: 4e-3, log: true}}\n"
            f"  training: {{total_examples: {examples}, warmup_examples: 0, evaluations: 2,"
            f" checkpoints: {checkpoints}}}\n"
        )

    def run(self, *command: str, status: int = 0, **environment: str) -> str:
        """A command on the laptop, to its end; returns what it said."""
        done = subprocess.run(
            self.cluster.laptop.command(*command),
            cwd=self.project.folder,
            env={**self.there, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def start(self, *command: str) -> Started:
        return Started(self, command)

    @contextmanager
    def bucket(self, **files: Path) -> Iterator[None]:
        """An S3 server on the head, with a bucket and some files in it."""
        head = self.cluster.head
        server = [sys.executable, "-m", "moto.server", "-H", head.address, "-p", str(S3_PORT)]
        with subprocess.Popen(head.command(*server), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                for path in ("bucket", *(f"bucket/{name}={file}" for name, file in files.items())):
                    name, _, file = path.partition("=")
                    here = self.cluster.head.command(
                        sys.executable, "-c", PUT, f"http://{head.address}:{S3_PORT}/{name}", file
                    )
                    subprocess.run(here, check=True)
                yield
            finally:
                process.kill()

    def received(self) -> int:
        """Bytes that have come to the laptop over its network."""
        counter = self.cluster.laptop.command("cat", "/sys/class/net/eth0/statistics/rx_bytes")
        return int(subprocess.run(counter, capture_output=True, text=True, check=True).stdout)

    def forget(self) -> None:
        """As if nothing had ever been trained here."""
        for name in ("state", "models", "curves"):
            shutil.rmtree(self.project.folder / "runs/digits" / name, ignore_errors=True)

    def model(self) -> str:
        """SHA-256 of the finished model's weights."""
        weights = self.project.folder / "runs/digits/models/vae/model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest()

    def points(self) -> list[dict]:
        """What the training under way has recorded, as far as it has come back here."""
        found = max((self.project.folder / "runs/digits/state").glob("vae-*/metrics.jsonl"), default=None)
        return [json.loads(line) for line in found.read_text().splitlines()] if found else []

    def workers(self) -> int:
        """How many workers the newest point comes from."""
        recorded = self.points()
        return recorded[-1]["workers"] if recorded else 0


class Started:
    """A command under way on the laptop."""

    def __init__(self, laptop: Laptop, command: tuple[str, ...]) -> None:
        self.laptop = laptop
        self.log = laptop.project.folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                laptop.cluster.laptop.command(*command),
                cwd=laptop.project.folder,
                env=laptop.there,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def until(self, what: Callable[[], bool], seconds: float) -> float:
        """Wait for something to become true while the command runs; returns how long it took."""
        began = time.monotonic()
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < seconds, f"not within {seconds} s:\n{self.log.read_text()}"
            time.sleep(0.5)
        return time.monotonic() - began

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def end(self, status: int, seconds: float = 600) -> None:
        assert self.process.wait(timeout=seconds) == status, self.log.read_text()


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    if reason := refusal():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        project = Project(tmp_path_factory.mktemp("laptop") / "project", ["vae"])
        laptop = Laptop(cluster, project, tmp_path_factory.mktemp("storage"))
        laptop.settle(4096)
        for verb in ("prepare", "features"):
            project.run("fivefold", verb)
        project.run(*TUNE)
        cluster.start()
        yield laptop
    finally:
        cluster.remove()


@pytest.fixture(scope="module")
def speed(laptop) -> float:
    """Examples per second of one worker of this cluster, as busy as the machine is."""
    laptop.settle(20_000)
    laptop.run(*TRAIN)
    return 20_000 / laptop.points()[-1]["seconds"]


def test_without_the_token_nothing_is_taken(laptop):
    said = laptop.run(*TRAIN, status=1, RAY_AUTH_MODE="disabled")
    assert "wants a token: set RAY_AUTH_MODE=token" in said
    wrong = {"RAY_AUTH_TOKEN": "0" * 64}
    assert "does not take this token" in laptop.run(*TRAIN, status=1, **wrong)
    assert laptop.run("ray", "job", "list").count("fivefold-vae") == 0


def test_a_job_gives_the_model_of_this_machine_whatever_becomes_of_its_submitter(laptop, speed):
    """Submitter killed: attached to again. Job stopped: 75, and the next attempt goes on. The bits are the same."""
    laptop.forget()
    laptop.settle(int(speed * 40) // 256 * 256)
    laptop.project.run(*TRAIN)
    expected = laptop.model()
    laptop.forget()

    first = laptop.start(*TRAIN)
    first.until(lambda: len(laptop.points()) > 2, 600)
    first.process.kill()
    first.process.wait()
    second = laptop.start(*TRAIN)
    second.until(lambda: second.said("attached to job fivefold-vae-"), 300)
    job = second.log.read_text().split("attached to job ")[1].split()[0]
    laptop.run("ray", "job", "stop", job)
    second.end(75)
    third = laptop.run(*TRAIN)
    assert f"submitted job {job.removesuffix('-1')}-2" in third
    assert laptop.model() == expected
    reached = [point["examples"] for point in laptop.points()]
    assert reached == sorted(set(reached))


def test_a_bucket_and_a_job_by_hand_give_what_this_machine_gives(laptop):
    """Search and training on two hosts that share nothing but an S3 server; then in a folder that they see."""
    laptop.forget()
    laptop.settle(4096, workers="2", search="true")
    for command in (TUNE, TRAIN):
        laptop.project.run(*command)
    found = laptop.project.folder / "runs/digits/tune/vae.json"
    expected = found.read_text(), laptop.model()
    laptop.forget()
    found.unlink()
    with laptop.bucket():
        laptop.settle(4096, workers="2", search="true", storage="s3://bucket/fivefold")
        assert "submitted job fivefold-tune-vae-" in laptop.run(*TUNE)
        assert "submitted job fivefold-vae-" in laptop.run(*TRAIN)
    assert (found.read_text(), laptop.model()) == expected
    assert {point["workers"] for point in laptop.points()} == {2}

    laptop.forget()  # and by hand, in a folder that all nodes see
    laptop.settle(4096, workers="2", search="true")
    by_hand = f"cd {laptop.project.folder} && python -m pipelines train --family vae"
    laptop.run("ray", "job", "submit", "--", "sh", "-c", by_hand)
    assert laptop.model() == expected[1]


def test_data_in_a_bucket_pass_the_laptop_by_and_give_what_they_give_here(laptop, tmp_path):
    """Source, shards, state and model lie in a bucket: every stage on the nodes gives what it gives on this machine.

    While the data are prepared, less comes to the laptop than half of them.
    """
    project, name = laptop.project, "tiles"
    source, card = tmp_path / "tiles.zip", project.folder / f"data/catalog/{name}.yaml"
    with zipfile.ZipFile(source, "w") as archive:
        for i in range(4000):  # noise, which no archive makes smaller; so small that one thread trains on it anywhere
            content = io.BytesIO()
            tile = np.random.default_rng(i).integers(0, 256, (9, 9, 3)) // (1 + i % 2)  # two classes: bright and dark
            Image.fromarray(tile.astype(np.uint8)).save(content, "png")
            archive.writestr(f"{i % 2}/{i}.png", content.getvalue())

    def settle(storage: str) -> None:
        laptop.settle(2048, storage=storage)
        params = project.folder / "params.yaml"
        params.write_text(params.read_text().replace("dataset: digits", f"dataset: {name}"))

    def outcome() -> tuple[str, dict, str]:
        runs = project.folder / "runs" / name
        figures = json.loads((runs / "results/vae.json").read_text())
        weights = (runs / "models/vae/model.safetensors").read_bytes()
        return (runs / "yardstick/yardstick.json").read_text(), figures["metrics"], hashlib.sha256(weights).hexdigest()

    stages = [("fivefold", verb) for verb in ("prepare", "features")] + [TUNE, TRAIN, EVALUATE]
    settle("")
    project.run("fivefold", "data", "add", str(source), "--name", name)
    for command in stages:
        project.run(*command)
    here = outcome()
    prepared = project.folder / "data/prepared" / name
    size = sum(path.stat().st_size for path in prepared.glob("*.arrow"))
    shutil.rmtree(prepared)
    shutil.rmtree(project.folder / "runs" / name)
    with laptop.bucket(**{"tiles.zip": source}):
        settle("s3://bucket/fivefold")
        card.write_text(re.sub("path: .*", "url: s3://bucket/tiles.zip", card.read_text()))
        before = laptop.received()
        assert "submitted job fivefold-prepare-" in laptop.run(*stages[0])
        assert laptop.received() - before < size / 2
        for command in stages[1:]:
            laptop.run(*command)
        assert outcome() == here
    assert sorted(path.name for path in prepared.iterdir()) == [
        "README.md", "contact.png", "manifest.json", "report.json", "storage.json",
    ]  # fmt: skip


def test_yardstick_and_figures_are_those_of_this_machine_whatever_becomes_of_submitter_and_node(laptop):
    """Here; then there, with the submitter killed and a node lost while the model is asked."""
    laptop.forget()
    laptop.settle(4096)
    project, runs = laptop.project, laptop.project.folder / "runs/digits"
    project.run("fivefold", "features")
    for command in (TUNE, TRAIN, EVALUATE):
        project.run(*command)

    def found() -> tuple[str, dict, dict[str, str]]:
        figures = json.loads((runs / "results/vae.json").read_text())
        pictures = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (runs / "results/vae").iterdir()}
        return (runs / "yardstick/yardstick.json").read_text(), {**figures, "seconds": {}}, pictures

    here = found()
    shutil.rmtree(runs / "yardstick")
    assert "submitted job fivefold-features-" in laptop.run("fivefold", "features")
    shutil.rmtree(runs / "results")
    first = laptop.start(*EVALUATE)
    first.until(lambda: first.said("submitted job fivefold-evaluate-vae-"), 300)
    first.process.kill()
    first.process.wait()
    second = laptop.start(*EVALUATE)
    second.until(lambda: second.said("attached to job fivefold-evaluate-vae-"), 300)
    parts = laptop.storage.glob
    second.until(lambda: bool(list(parts("evaluate-vae-*/parts/*"))), 600)
    laptop.cluster.nodes[1].crash()
    second.end(0, 1200)
    assert found() == here
    assert not list(parts("evaluate-vae-*/parts/*"))
    laptop.cluster.nodes[1].join()


def test_dvc_repro_registers_the_models_of_this_machine(laptop):
    """Every stage from the laptop, those that compute on the cluster; then all of it here, afresh."""
    laptop.settle(4096, search="true")

    def registered(run: Callable[..., str]) -> dict[str, str]:
        laptop.forget()
        for name in ("runs/digits/tune", "mlruns"):
            shutil.rmtree(laptop.project.folder / name, ignore_errors=True)
        for name in ("mlflow.db", "dvc.lock"):
            (laptop.project.folder / name).unlink(missing_ok=True)
        said = run("dvc", "repro", "--force")
        for job in ("vae", "evaluate-vae"):
            assert (f"submitted job fivefold-{job}-" in said) == (run == laptop.run)
        assert laptop.project.json("registry.json")["jobs"]["generation"]["alias"] == "models:/digits@generation"
        found = list((laptop.project.folder / "mlruns").glob("**/model.safetensors"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found} | {"tune": tuned()}

    def tuned() -> str:
        return (laptop.project.folder / "runs/digits/tune/vae.json").read_text()

    there, here = registered(laptop.run), registered(laptop.project.run)
    assert "model.safetensors" in there
    assert there == here


def test_a_node_given_notice_is_left_with_a_checkpoint(laptop, speed):
    """No checkpoint is due before the end; Ray says that a node goes in half a minute, and one is there."""
    laptop.forget()
    laptop.settle(int(speed * 150) // 256 * 256, workers="[1, 2]", checkpoints=1)
    node = laptop.cluster.nodes[1]
    training = laptop.start(*TRAIN)
    training.until(lambda: laptop.workers() == 2, 600)
    (state,) = laptop.storage.glob(max((laptop.project.folder / "runs/digits/state").glob("vae-*")).name)
    assert not list(state.glob("checkpoints/step-*"))
    node.give_notice(30)
    training.until(lambda: bool(list(state.glob("checkpoints/step-*/manifest.json"))), 25)
    saved = min(int(path.name.removeprefix("step-")) for path in state.glob("checkpoints/step-*")) * 256
    time.sleep(30)
    node.crash()
    training.until(lambda: laptop.workers() == 1, 600)
    alone = [point["examples"] for point in laptop.points() if point["workers"] == 1]
    assert alone[0] > saved
    training.end(0, 1800)
    reached = [point["examples"] for point in laptop.points()]
    assert reached == sorted(set(reached))
    node.join()


def test_a_lost_node_is_done_without_and_taken_back(laptop, speed):
    """Two workers; a node's processes are killed: one worker; the node comes back: two; its link is cut: one."""
    laptop.forget()
    laptop.settle(int(speed * 300) // 256 * 256, workers="[1, 2]")
    node = laptop.cluster.nodes[1]
    training = laptop.start(*TRAIN)
    took = {"two": training.until(lambda: laptop.workers() == 2, 600)}
    node.crash()
    took["one after a crash"] = training.until(lambda: laptop.workers() == 1, 600)
    node.join()
    took["two again"] = training.until(lambda: laptop.workers() == 2, 600)
    node.link("down")
    took["one after a cut"] = training.until(lambda: laptop.workers() == 1, 600)
    training.end(0, 1800)
    print({name: round(seconds) for name, seconds in took.items()})
    reached = [point["examples"] for point in laptop.points()]
    assert reached == sorted(set(reached))
    facts = json.loads((laptop.project.folder / "runs/digits/models/vae/model.json").read_text())
    assert facts["total_examples"] == reached[-1]
    assert os.path.getsize(laptop.project.folder / "runs/digits/models/vae/model.safetensors") > 1000


def test_ray_up_starts_a_cluster_of_own_machines(tmp_path):
    """`ray up` of docs/cluster/own_machines.yaml from the laptop, by SSH: a head, two nodes, a token."""
    if reason := refusal() or next((f"{name} is not installed" for name in ("sshd", "rsync") if not which(name)), ""):
        pytest.skip(reason)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    cluster = Cluster(tmp_path)
    head, *nodes = cluster.hosts[:3]
    config = YAML(typ="safe").load(Path(__file__).parents[2] / "docs/cluster/own_machines.yaml")
    config["provider"] |= {"head_ip": head.address, "worker_ips": [node.address for node in nodes]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["file_mounts"] = {"~/.ray/auth_token": str(cluster.token)}
    config["setup_commands"] = config["setup_commands"][:1]  # the libraries are there already
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        small = "ray start --num-cpus=1 --object-store-memory=100000000"
        config[commands] = [c.replace("~/venv/bin", str(BIN)).replace("ray start", small) for c in config[commands]]
    YAML(typ="safe").dump(config, tmp_path / "cluster.yaml")
    try:
        for host in (head, *nodes):
            host.serve_ssh(key)
        up = cluster.laptop.alone(
            f"export RAY_UP_enable_autoscaler_v2=0; exec ray up -y --no-config-cache {tmp_path / 'cluster.yaml'}"
        )
        assert up.wait(timeout=900) == 0, cluster.laptop.said()
        status = head.command("ray", "status", "--address", f"{head.address}:6379")
        for _ in range(300):
            told = subprocess.run(status, env=cluster.environment, capture_output=True, text=True)
            if "/3.0 CPU" in told.stdout:
                break
            time.sleep(2)
        else:
            pytest.fail(f"not three nodes within ten minutes:\n{told.stdout}{told.stderr}{cluster.laptop.said()}")
        refused = subprocess.run(
            status, env={**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}, capture_output=True, text=True
        )
        assert refused.returncode != 0
    finally:
        cluster.remove()
