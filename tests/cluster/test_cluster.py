"""The Ray adapter on a local cluster of its own: workers, tasks, jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from buckets import serving
from conftest import unused
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]

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
    before = os.umask(0o022)  # as a node's is
    try:
        with cluster.connected():
            yield cluster
    finally:
        os.umask(before)


class Watch:
    """Looks at the sockets of this process and its children for as long as a block runs."""

    def __init__(self) -> None:
        self.listening: set[tuple[str, str]] = set()
        self.looks, self.ended = 0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self) -> None:
        """Whose sockets they are costs processor time, so it is asked only when others listen than did before."""
        import psutil

        before: set[str] = set()
        while not self.ended.wait(0.2):  # what listens does so for longer
            files = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
            rows = [line.split() for text in files for line in text.splitlines()]
            open_now = {row[9] for row in rows if row[3] == "0A"}
            if open_now - before:
                for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        self.listening |= {
                            (process.name(), connection.laddr.ip)
                            for connection in process.net_connections("inet")
                            if connection.status == psutil.CONN_LISTEN
                        }
            before = open_now
            self.looks += 1

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        beyond = {found for found in self.listening if found[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}
        assert (self.looks > 3, bool(self.listening), beyond) == (True, True, set())


@pytest.mark.parametrize("workers", [1, 2])
def test_training_listens_on_loopback_only(cluster, tmp_path, workers):
    """One worker joins no group; two meet in a file, as only their user can, who alone reads what they write."""

    def summed(config: dict, context: Any) -> None:
        """Writes the sum of the ranks, by the group where there is one; takes long enough to be looked at."""
        import time
        from pathlib import Path

        import torch
        from torch import distributed

        total = torch.tensor(float(context.rank + 1))
        assert distributed.is_initialized() == (context.world_size > 1)
        if context.world_size > 1:
            distributed.all_reduce(total)
        time.sleep(0.5)
        (Path(config["folder"]) / f"{context.rank}-of-{context.world_size}").write_text(str(total.item()))

    with Watch():
        cluster.run_workers(
            summed, {"folder": str(tmp_path)}, workers=workers, threads=1, storage=f"{tmp_path}/ray", max_failures=0
        )
    found = {path.name: float(path.read_text()) for path in tmp_path.glob("*-of-*")}
    assert found == {f"{rank}-of-{workers}": sum(range(1, workers + 1)) for rank in range(workers)}
    assert [path.stat().st_mode & 0o077 for path in tmp_path.glob("*-of-*")] == [0] * workers


def test_a_search_listens_on_loopback_only(cluster, tmp_path):
    from pipelines.config import Range

    class Trials(list):
        def trial_started(self, *event) -> None: ...
        def trial_result(self, *event) -> None: ...
        def trial_finished(self, trial, settings, score, error) -> None:
            self.append((score, error))

    def trial(settings, report) -> None:
        import time

        time.sleep(0.5)
        (tmp_path / "trial").write_text("")
        report(3, settings["x"])

    told, span = Trials(), {"x": Range(low=1.0, high=2.0)}
    with Watch():
        cluster.run_trials(
            trial, span, initial=[{"x": 1.5}], completed=[], trials=1, concurrent=1, threads=1, examples=3, seed=0,
            storage=f"{tmp_path}/ray", recorder=told,
        )  # fmt: skip
    assert told == [(1.5, None)]
    assert (tmp_path / "trial").stat().st_mode & 0o077 == 0


def test_a_local_session_is_closed_to_other_users(cluster):
    """Its sockets lie in a folder of mode 700, its token in no file; without it nobody joins, and nobody runs a job."""
    import psutil
    import ray
    import requests

    node = ray._private.worker.global_worker.node
    session = Path(node.get_session_dir_path())
    assert stat.S_IMODE(session.parents[1].stat().st_mode) == 0o700
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    readable = [path for path in session.parent.rglob("*") if path.is_file() and path.stat().st_size < 10**6]
    assert readable
    assert not [path for path in readable if os.environ["RAY_AUTH_TOKEN"].encode() in path.read_bytes()]
    assert not node.address_info["webui_url"]
    client = f"GcsClient(address={node.gcs_address!r})"
    look = [sys.executable, "-c", f"from ray._raylet import GcsClient; {client}.internal_kv_keys(b'', None)"]
    for token in (os.environ["RAY_AUTH_TOKEN"], "0" * 64, None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
        asked = subprocess.run(look, env=environment, capture_output=True, text=True, timeout=60)
        assert (asked.returncode == 0) == (token == os.environ["RAY_AUTH_TOKEN"]), asked.stderr
        assert asked.returncode == 0 or "nauthenticated" in asked.stderr, asked.stderr
    ours = [process.net_connections("inet") for process in psutil.Process().children(recursive=True)]
    ports = {link.laddr.port for links in ours for link in links if link.status == psutil.CONN_LISTEN}
    answers = []
    for port in sorted(ports):
        for path in ("api/jobs/", "api/job_agent/jobs/"):
            with contextlib.suppress(requests.ConnectionError):  # no HTTP
                url = f"http://127.0.0.1:{port}/{path}"
                answers.append(requests.post(url, json={"entrypoint": "true"}, timeout=10).status_code)
    assert {401} <= set(answers) <= {401, 403, 405}  # 405: a page of counters, which takes nothing


def test_tasks_return_in_order(cluster):
    assert list(cluster.in_tasks(lambda number: number**2, iter(range(40)), 0)) == [n**2 for n in range(40)]


def test_a_pool_answers_though_its_workers_die(cluster, tmp_path):
    def prepare(config: dict) -> Any:
        def square(number: int) -> int:
            import os
            from pathlib import Path

            mark = Path(config["folder"]) / str(number)
            if number in (3, 7) and not mark.exists():
                mark.touch()
                os._exit(1)
            if number < 0:
                raise ValueError("no root")
            return number**2

        return square

    pool = cluster.Pool(prepare, {"folder": str(tmp_path)})
    assert sorted(pool.map(range(12))) == [(n, n**2) for n in range(12)]
    assert {path.name for path in tmp_path.iterdir()} == {"3", "7"}
    with pytest.raises(ValueError, match=r"^no root$"):
        list(pool.map([2, -1]))


def test_work_on_a_node_is_done_again_after_a_crash(cluster, tmp_path):
    def work(config: dict) -> None:
        import os
        from pathlib import Path

        folder = Path(config["folder"])
        if not (folder / "begun").exists():
            (folder / "begun").touch()
            os._exit(1)
        (folder / "done").touch()

    cluster.run_on_node(work, {"folder": str(tmp_path)})
    assert (tmp_path / "done").exists()


def test_prepare_on_a_cluster_writes_the_same_data(cluster, tmp_path):
    from pipelines.stages.prepare import prepare

    here = prepare("digits", tmp_path / "here", root=ROOT)
    there = prepare("digits", tmp_path / "there", root=ROOT, mapper=cluster.in_tasks)
    assert here["digest"] == there["digest"]


def test_more_workers_than_cores_are_refused_with_the_mend(cluster, tmp_path):
    with pytest.raises(ValueError, match=r"train\.workers: 99 workers need 99 cores, .* lower it in params\.yaml"):
        cluster.run_workers(lambda config, place: None, {}, workers=99, threads=1, storage=tmp_path, max_failures=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job server of a head of its own, on ports of its own: a machine may run several."""
    from pipelines.cluster import JobServer

    port, dashboard, agent, client = (unused() for _ in range(4))
    temporary = tempfile.mkdtemp(prefix="f5", dir="/tmp")  # sockets' paths must be short
    ports = f"--port {port} --dashboard-port {dashboard} --dashboard-agent-listen-port {agent}"
    small = "--num-cpus 1 --object-store-memory 100000000 --disable-usage-stats"
    command = f"ray start --head --block --node-ip-address 127.0.0.1 --ray-client-server-port {client} {ports} {small}"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = Path(temporary) / "log"
    with log.open("w") as file:
        head = subprocess.Popen([*command.split(), "--temp-dir", temporary], env=environment, stdout=file, stderr=file)
    try:
        for _ in range(120):
            assert head.poll() is None, log.read_text()
            with contextlib.suppress(ConnectionError):
                server = JobServer(f"http://127.0.0.1:{dashboard}")
                break
            time.sleep(1)
        yield server
    finally:
        head.terminate()
        head.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def test_a_job_ends_as_its_command_does(server, tmp_path):
    (tmp_path / "said.py").write_text("print('50%', end='\\r'); print('100%')")
    for job, command in {"done-1": "python said.py", "ended-1": "exit 3", "ended-2": "sleep 600"}.items():
        server.submit(job, command, tmp_path)
    server.submit("done-1", "python said.py", tmp_path)  # by another process that was a moment later

    def stop() -> None:
        if server.attempts("ended")[2] == "RUNNING":
            server.client.stop_job("ended-2")

    said: list[str] = []
    assert server.follow("done-1", said.append, lambda: None).status == "SUCCEEDED"
    assert "50%\n100%" in "".join(said)
    failed = server.follow("ended-1", said.append, lambda: None)
    assert (failed.status, failed.exit_status) == ("FAILED", 3)
    assert server.follow("ended-2", said.append, stop).status == "STOPPED"
    assert server.attempts("ended") == {1: "FAILED", 2: "STOPPED"}
    assert server.attempts("end") == {}


def test_who_stops_following_leaves_the_job_alone(server, tmp_path):
    server.submit("left-1", "sleep 600", tmp_path)

    def leave() -> None:
        if server.attempts("left")[1] == "RUNNING":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        server.follow("left-1", print, leave)
    assert server.attempts("left") == {1: "RUNNING"}
    server.client.stop_job("left-1")


def test_another_ray_or_python_is_refused():
    from pipelines.cluster import jobs

    with pytest.raises(ConnectionError, match=r"Ray 2\.9\.0 there, .* here; Python 3\.8 there, .*requirements\.lock"):
        jobs._compare({"rayVersion": "2.9.0", "pythonVersion": "3.8.18"}, "http://there:8265")


def test_a_job_is_sent_all_code_and_nothing_else(tmp_path):
    from pipelines.execution.cluster_job import copy_code

    copy_code(tmp_path)
    packages = ("models", "data", "pipelines")
    expected = {path.relative_to(ROOT) for name in packages for path in (ROOT / name).rglob("*.py")}
    sent = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert expected <= sent
    assert {path.suffix for path in sent - expected} <= {".html", ".css"}


def test_a_search_survives_its_journey():
    from pipelines import config as params
    from pipelines.execution.search import SearchJob
    from pipelines.training.job import TrainingJob

    family = params.load(ROOT / "params.yaml").family["vae"]
    spec = {"family": "vae", "config": dataclasses.asdict(family.model), "domain": {}, "classes": 0}
    job = TrainingJob(
        spec=spec, training=dataclasses.asdict(family.training), seed=1, prepared="", yardstick="", state=""
    )
    search = SearchJob(
        job=job, family=family, initial=[{"training.lr": 1e-3}], completed=[], trials=3, concurrent=1, examples=8
    )
    assert SearchJob.read(json.loads(json.dumps(dataclasses.asdict(search)))) == search


def test_who_submits_a_job_imports_nothing_that_trains_or_measures():
    """The terminal's machine pays for every stage's imports; they were half of what it spent in a short run."""
    heavy = {"ray.train", "ray.tune", "sklearn", "scipy", "pandas", "mlflow", "torch.distributed.fsdp"}
    code = (
        "from pipelines.stages import evaluate, features, train, tune\n"
        "from pipelines.execution import measuring, on_nodes, remote\n"
        "from pipelines.cluster import JobServer\n"
        f"import sys; print(sorted({heavy} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_an_unreachable_job_server_is_an_error_that_says_so(unused_port):
    from pipelines.cluster import JobServer

    with pytest.raises(ConnectionError, match=r"no Ray job server answers at http://.*ray dashboard.*cluster\.address"):
        JobServer(f"http://127.0.0.1:{unused_port}")


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path, monkeypatch):
    """And nothing else: not what was left an hour ago, of a process that lives, or by another name."""
    from pipelines.cluster.connection import _private_session

    dead, hour = 2**22 + 1, 3600  # more than Linux has processes
    kept = {f"fivefold-{dead}-b": 23 * hour, f"fivefold-{os.getpid()}-c": 99 * hour, f"other-{dead}-d": 99 * hour}
    for name, age in {f"fivefold-{dead}-a": 25 * hour, **kept}.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with _private_session(keep=False) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {*kept, Path(folder).parent.name}
    assert {path.name for path in tmp_path.iterdir()} == {*kept}


def test_an_unreachable_cluster_is_an_error_that_says_so(unused_port):
    code = "from pipelines import cluster\nwith cluster.connected(): pass"
    environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{unused_port}"}
    tried = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "ConnectionError: no Ray cluster answers at 127.0.0.1:" in tried.stderr
    assert "unset RAY_ADDRESS" in tried.stderr


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("s3") / "log") as address, pytest.MonkeyPatch.context() as patched:
        for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}.items():
            patched.setenv(f"AWS_{name}", value)
        patched.setenv("AWS_ENDPOINT_URL", address)
        yield "s3://bucket"


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_replica_takes_over_what_changes(kind, request, tmp_path):
    from pipelines.storage.mirror import StateMirror

    place = f"{request.getfixturevalue('bucket')}/run" if kind == "bucket" else str(tmp_path / "storage")
    for name in ("there/model", "there/checkpoints", "here"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "storage").mkdir()
    there, here = StateMirror(place, tmp_path / "there"), StateMirror(place, tmp_path / "here", ("stop",))
    whole = ("model/model.safetensors", "model/model.json", "model/manifest.json")
    for name in ("metrics.jsonl", "stop", "lock", *whole, "checkpoints/large"):
        (tmp_path / "there" / name).write_text("1")
    if kind == "folder":
        (tmp_path / "storage/model").mkdir()
    there.push()
    here.pull()
    assert {str(path.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("*") if path.is_file()} == {
        "metrics.jsonl",
        *whole,
    }
    arrived = [(tmp_path / "here" / name).stat().st_mtime_ns for name in whole]
    assert max(arrived[:2]) < arrived[2]  # a model that has its manifest has all of it
    (tmp_path / "there/metrics.jsonl").write_text("1 2")
    there.push()
    (tmp_path / "there/metrics.jsonl").write_text("1 2 3")
    there.pull()  # what it wrote itself is not taken back
    assert (tmp_path / "there/metrics.jsonl").read_text() == "1 2 3"
    here.pull()
    assert (tmp_path / "here/metrics.jsonl").read_text() == "1 2"
    there.remove("metrics.jsonl")
    there.remove("metrics.jsonl")


def test_a_state_in_a_bucket_is_at_hand_and_goes_back(bucket, tmp_path, monkeypatch):
    from pipelines.storage import mirror, stores

    monkeypatch.setattr(mirror, "SYNC_INTERVAL_S", 0.2)
    monkeypatch.setattr(mirror, "CACHE", tmp_path / "cache")
    with mirror.synced_state(f"{bucket}/state") as worker, mirror.synced_state(f"{bucket}/state") as driver:
        (driver / "stop").touch()
        (worker / "metrics.jsonl").write_text("1")
        end = time.monotonic() + 30
        while not ((worker / "stop").exists() and (driver / "metrics.jsonl").exists()):
            assert time.monotonic() < end
            time.sleep(0.1)
    store = stores.open_store(f"{bucket}/state")
    store.install("data", lambda folder: (folder / "shard.arrow").write_text("half"))  # as an upload that was cut off
    for name in ("data", "nosuch"):
        with pytest.raises(FileNotFoundError, match=rf"state/{name} lacks manifest.json"):
            mirror.local_copy(f"{bucket}/state/{name}")
    store.install("data", lambda folder: (folder / "manifest.json").write_text("{}"))
    once = mirror.local_copy(f"{bucket}/state/data")
    stores.open_store(f"{bucket}/state").remove("data")
    assert mirror.local_copy(f"{bucket}/state/data") == once
    assert (once / "manifest.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "docs/cluster/own_machines.yaml"])
def test_ray_up_accepts_the_cluster_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = YAML(typ="safe").load(ROOT / name)
    validate_config(prepare_config(config))
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])


def test_the_kubernetes_manifests_fit_each_other_and_the_pinned_ray():
    import ray

    cluster, job = (YAML(typ="safe").load(ROOT / f"docs/cluster/kuberay_{name}.yaml") for name in ("cluster", "job"))
    assert (cluster["kind"], job["kind"]) == ("RayCluster", "RayJob")
    assert cluster["apiVersion"] == job["apiVersion"] == "ray.io/v1"
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert cluster["spec"]["rayVersion"] == ray.__version__
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert group.get("minReplicas", 0) <= group.get("replicas", 0) <= group.get("maxReplicas", 0)
