"""The pipeline on real digits, in a copy of the project: run, run again, change, kill, go on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TINY = {
    "autoencoder": "{model: {latent: 8, width: 8, noise: 0.2},"
    " training: {total_examples: 4096, lr: 2e-3, evaluations: 2}}",
    "vae": "{model: {latent: 8, width: 8, free_bits: 0},"
    " training: {total_examples: 4096, warmup_examples: 0, evaluations: 2},"
    " search: {training.lr: {low: 1e-3, high: 4e-3, log: true}}}",
    "gan": "{model: {width: 8, critic_width: 8}, training: {total_examples: 2048, lr: 1e-3, evaluations: 2}}",
    "flow": "{model: {steps: 2, width: 8},"
    " training: {total_examples: 4096, lr: 2e-3, warmup_examples: 0, evaluations: 2}}",
    "diffusion": "{model: {width: 8}, sampling: {steps: 6},"
    " training: {total_examples: 4096, lr: 2e-3, evaluations: 2}}",
}


class Project:
    """A copy of the project with small settings, its own MLflow store, and the commands of its user."""

    def __init__(self, folder: Path, families: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("models", "data", "pipelines", "recipes", "dvc.yaml"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__", "prepared", "raw")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
        (folder / ".gitignore").write_text((ROOT / ".gitignore").read_text())
        self.write(families)
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.environment |= {"PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"):
            self.environment.pop(name, None)
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")
        shutil.copy(ROOT / ".dvcignore", folder)

    def write(self, families: list[str], *, extra: str = "", **changed: str) -> None:
        """params.yaml with these families, and some of their sections replaced."""
        sections = {**TINY, **changed}
        text = (
            f"dataset: digits\nseed: 0\nfamilies: [{', '.join(families)}]\ntrain: {{workers: auto}}\n"
            "tune: {enabled: true, trials: 2, part: 0.5}\nfeatures: {examples: 4000, samples: 400, bootstrap: 20}\n"
            f"evaluate: {{samples: 400, bootstrap: 20}}\n{extra}"
        )
        text += "".join(f"{name}: {sections[name]}\n" for name in TINY)
        (self.folder / "params.yaml").write_text(text)

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, status: int = 0, seconds: float = 560) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == status, f"{' '.join(command)}:\n{output}"
        return output

    def stages(self, output: str) -> list[str]:
        """Names of the stages that a `dvc repro` ran."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def json(self, path: str) -> dict:
        return json.loads((self.folder / "runs/digits" / path).read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Two families through every stage."""
    made = Project(tmp_path_factory.mktemp("pipeline") / "project", ["vae", "flow"])
    made.output = made.run("dvc", "repro")
    return made


def kill_everything(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all its descendants, Ray's included."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_every_stage_ran_and_left_what_it_promises(project):
    ran = project.stages(project.output)
    assert ran[:3] == ["prepare", "settings", "features"]
    assert set(ran[3:-2]) == {
        f"{stage}@{family}" for stage in ("tune", "train", "evaluate") for family in ("vae", "flow")
    }
    assert ran[-2:] == ["register", "report"]
    registry = project.json("registry.json")
    assert set(registry["versions"]) == {"vae", "flow"}
    assert {"generation", "density", "anomaly", "representation"} <= set(registry["jobs"])
    assert "<html" in (project.folder / "runs/digits/report.html").read_text()[:500].lower()
    assert len(project.json("tune/vae.json")["trials"]) == 2
    facts = project.json("models/vae/model.json")
    assert facts["total_examples"] == 4096
    assert facts["run_id"]


def test_a_second_repro_finds_nothing_to_do(project):
    assert "up to date" in project.run("dvc", "repro")


def test_git_status_shows_nothing_but_what_is_the_users(project):
    untracked = project.run("git", "status", "--short", "--untracked-files=all").splitlines()
    made = [line for line in untracked if "runs/" in line or "prepared" in line or "mlflow" in line or "mlruns" in line]
    assert not made
    assert any("dvc.lock" in line for line in untracked)


def test_metrics_and_plots_are_shown(project):
    assert "generation↓" in project.run("dvc", "metrics", "show")
    project.run("dvc", "plots", "show")
    assert (project.folder / "dvc_plots" / "index.html").exists()
    shutil.rmtree(project.folder / "dvc_plots")


def test_everything_comes_back_from_a_remote(project, tmp_path):
    """`dvc push` to a folder, everything lost, `dvc pull`: nothing to do, and the same data by its digest."""
    digest = json.loads((project.folder / "data/prepared/digits/manifest.json").read_text())["digest"]
    project.run("dvc", "remote", "add", "--local", "-d", "-f", "store", str(tmp_path / "store"))
    project.run("dvc", "push")
    for lost in ("data/prepared", "runs/digits/models", "runs/digits/yardstick", ".dvc/cache"):
        shutil.rmtree(project.folder / lost)
    project.run("dvc", "pull")
    assert "up to date" in project.run("dvc", "repro")
    assert json.loads((project.folder / "data/prepared/digits/manifest.json").read_text())["digest"] == digest


def test_one_family_changed_reruns_nothing_of_another(project):
    """A dry run names what is sure to run; what follows depends on what that leaves (see the kill below)."""
    project.write(["vae", "flow"], flow=TINY["flow"].replace("steps: 2", "steps: 3"))
    project.run("dvc", "repro", "settings")
    would = project.run("dvc", "repro", "--dry")
    project.write(["vae", "flow"])
    project.run("dvc", "repro", "settings")
    assert (
        {"tune@flow", "train@flow"}
        <= set(project.stages(would))
        <= {
            "tune@flow",
            "train@flow",
            "evaluate@flow",
            "register",
            "report",
        }
    )


def test_models_are_loaded_by_alias(project):
    """So short a training is worse than the classical baseline, so that a person has to say who draws."""
    assert "worse than the classical baseline" in project.json("registry.json")["jobs"]["generation"]["why"]
    version = project.json("registry.json")["versions"]["vae"]["version"]
    assert "digits@generation is pinned" in project.run("fivefold", "pin", "digits@generation", str(version))
    code = (
        "import mlflow, numpy as np\n"
        "mlflow.set_tracking_uri('sqlite:///mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/digits@generation')\n"
        "x = model.predict(np.zeros((0, 8, 8, 1), np.uint8), params={'n': 5, 'label': 3, 'seed': 1})\n"
        "assert x.shape == (5, 8, 8, 1) and x.dtype == np.uint8\n"
    )
    project.run(sys.executable, "-c", code)
    project.run("fivefold", "sample", "digits", "-n", "9", "--label", "3", "-o", "three.png")
    assert (project.folder / "three.png").stat().st_size > 100


def test_killed_in_the_middle_it_goes_on(project):
    """SIGKILL to everything during `train@vae`; finished stages are not repeated, training is not restarted."""
    section = (
        TINY["vae"].replace("4096", "60000").replace("evaluations: 2", "lr: 2e-3, checkpoints: 50, evaluations: 2")
    )
    section = section.split(" search:")[0] + "}"
    project.write(["vae", "flow"], vae=section)
    process = project.start("dvc", "repro")
    state = project.folder / "runs/digits/state"
    deadline = time.monotonic() + 240
    before = {path.name for path in state.glob("vae-*")}
    while time.monotonic() < deadline:
        fresh = [path for path in state.glob("vae-*/checkpoints/step-*") if path.parent.parent.name not in before]
        if len(fresh) > 1:
            break
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    kill_everything(process)
    for path in state.glob("vae-*/ray/**/*.json"):  # what Ray itself keeps is never read again
        path.write_bytes(path.read_bytes()[:20])
    reached = max(int(path.name.split("-")[1]) for path in fresh)
    assert reached * 256 < 60000, "the training was over before the kill"
    again = project.run("dvc", "repro")
    project.write(["vae", "flow"])
    assert "vae: going on from the newest checkpoint" in again
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d starting Ray …$", again, re.MULTILINE)
    assert project.stages(again) == ["train@vae", "evaluate@vae", "register", "report"]
    assert project.json("models/vae/model.json")["total_examples"] == 60000


def test_an_unreachable_mlflow_server_is_told_at_once(project, unused_port):
    project.environment["MLFLOW_TRACKING_URI"] = uri = f"http://127.0.0.1:{unused_port}"
    started = time.monotonic()
    try:
        output = project.run("fivefold", "train", "--family", "flow", status=1)
    finally:
        del project.environment["MLFLOW_TRACKING_URI"]
    assert uri in output
    assert "Traceback" not in output
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_two_workers_train_as_one(project):
    """The same training on two gloo workers gives the same model up to the order of summation."""
    from safetensors.torch import load_file

    one = load_file(project.folder / "runs/digits/models/flow/model.safetensors")
    shutil.copytree(project.folder / "runs", project.folder / "kept")
    shutil.rmtree(project.folder / "runs/digits/state")
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("workers: auto", "workers: 2"))
    try:
        project.run("fivefold", "train", "--family", "flow")
        two = load_file(project.folder / "runs/digits/models/flow/model.safetensors")
        assert json.loads((project.folder / "runs/digits/models/flow/model.json").read_text())["total_examples"] == 4096
    finally:
        shutil.rmtree(project.folder / "runs")
        (project.folder / "kept").rename(project.folder / "runs")
        (project.folder / "params.yaml").write_text(text)
    assert all(two[name].sub(one[name]).abs().max() < 2e-2 for name in one if name.startswith("network"))


LONG = "{model: {latent: 8, width: 8}, training: {total_examples: 40000, evaluations: 2, checkpoints: 50}}"


def started(project: Project, family: str, checkpoints: int) -> subprocess.Popen:
    """A `fivefold train` that has written so many checkpoints."""
    process = project.start("fivefold", "train", "--family", family)
    state = project.folder / "runs/digits/state"
    end = time.monotonic() + 240
    while not any(
        int(path.name.split("-")[1]) >= 3 * checkpoints for path in state.glob(f"{family}-*/checkpoints/step-*")
    ):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "no checkpoint in four minutes"
        time.sleep(0.05)
    return process


def trained(project: Project, workers: int, *, disturb: bool) -> dict[str, str]:
    """SHA-256 of every tensor of the last checkpoint of a VAE trained from the start, a worker killed or not."""
    import hashlib

    from pipelines.storage.stores import open_store
    from pipelines.training import checkpoint

    shutil.rmtree(project.folder / "runs/digits/state", ignore_errors=True)
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("workers: auto", f"workers: {workers}"))
    process = started(project, "vae", 2)
    if disturb:
        members = psutil.Process(process.pid).children(recursive=True)
        victims = [member for member in members if "TrainWorker" in " ".join(member.cmdline())]
        assert len(victims) == workers
        victims[-1].kill()
    output, _ = process.communicate(timeout=500)
    (project.folder / "params.yaml").write_text(text)
    assert process.returncode == 0, output
    (folder,) = project.folder.glob("runs/digits/state/vae-*/checkpoints")
    found = checkpoint.load_newest(open_store(folder))
    return {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in found.tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_the_model_is_the_same(project, workers):
    """SIGKILL to a Ray worker in the middle of a training: Ray starts it again, and nobody could tell."""
    project.write(["vae", "flow"], vae=LONG)
    try:
        alone = trained(project, workers, disturb=False)
        assert trained(project, workers, disturb=True) == alone
    finally:
        project.write(["vae", "flow"])


@pytest.mark.slow
def test_an_evaluation_ends_with_75_and_goes_on_to_the_same_figures(project):
    before = {**project.json("results/vae.json"), "seconds": {}}
    process = project.start("fivefold", "evaluate", "--family", "vae")
    while "sample: measured" not in (line := process.stdout.readline()):
        assert line, "it ended by itself"
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "the same command goes on" in output
    assert {**project.json("results/vae.json"), "seconds": {}} == before  # nothing half measured is seen
    project.run("fivefold", "evaluate", "--family", "vae")
    assert {**project.json("results/vae.json"), "seconds": {}} == before
    assert not list(project.folder.glob("runs/digits/state/evaluate-*"))


def test_sigterm_ends_with_75_and_ctrl_c_twice_harms_nothing(project):
    project.write(["vae", "flow"], vae=LONG)
    shutil.rmtree(project.folder / "runs/digits/state", ignore_errors=True)
    try:
        process = started(project, "vae", 1)
        process.terminate()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 75, output
        assert "the same command goes on" in output
        process = started(project, "vae", 3)
        for _ in range(2):  # as a terminal does: to the whole group
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(1)
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        output = project.run("fivefold", "train", "--family", "vae")
        assert "going on from the newest checkpoint" in output
        assert project.json("models/vae/model.json")["total_examples"] == 40000
        assert not list(project.folder.glob("runs/digits/state/vae-*/checkpoints/corrupt-*"))
    finally:
        project.write(["vae", "flow"])


@pytest.mark.slow
def test_all_five_families_go_through(tmp_path):
    whole = Project(tmp_path / "five", list(TINY))
    whole.run("dvc", "repro")
    assert set(whole.json("registry.json")["versions"]) == set(TINY)
