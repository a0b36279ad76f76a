"""Experiments through DVC's own commands: what they register, train again and print, and `fivefold promote`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from small_projects import SmallProject

from data.image_grid import png
from pipelines.__main__ import main
from pipelines.cli.experiments import table
from pipelines.stages import train as train_stage
from pipelines.training.context import WorkerContext
from pipelines.training.job import TrainingJob
from pipelines.training.worker import run_worker

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own

SETTINGS = """
tune: {enabled: true, trials: 2}
train: {workers: 1}
"""
FLOW = """flow:
  model: {width: 24}
  training: {total_examples: 1280, batch_size: 128, lr: 1e-3, warmup_examples: 256, evaluations: 1, reports: 4}
"""
SEARCHED = {"settings": {}, "why": "as written: score 1; best other 1.2, not better by 5%", "trials": []}
JOBS = ["generation↓", "density↓", "imputation↓", "anomaly↑", "representation↑"]

Run = Callable[..., str]
Desk = tuple[Path, Run]


@pytest.fixture(scope="module")
def desk(shop: SmallProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A project whose stages DVC takes for done, in Git; nothing is in its registry. And how its commands are run."""
    root = tmp_path_factory.mktemp("desk") / "project"
    shutil.copytree(shop.root, root)
    ignored = shutil.ignore_patterns("__pycache__", "prepared", "raw")
    for name in ("models", "data", "pipelines"):
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True, ignore=ignored)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("flow: {}\n", FLOW) + SETTINGS)
    runs = root / "runs/shop"
    for family in ("vae", "flow"):
        (runs / "tune").mkdir(exist_ok=True)
        (runs / f"tune/{family}.json").write_text(json.dumps(SEARCHED))
        (runs / "curves").mkdir(exist_ok=True)
        curves = f"examples,{family}_loss,validation_frechet\n10,9,\n20,8,0.75\n30,7,\n40,6,0.5\n"
        (runs / f"curves/{family}.csv").write_text(curves)
        (runs / f"progress/{family}").mkdir(parents=True)
    for examples in (10, 40):
        drawn = np.full((8, 8, 1), examples, np.uint8)  # of a table there are none; here they stand for a picture's
        (runs / f"progress/flow/{examples:012d}.png").write_bytes(png(drawn))
    with SmallProject(root, "shop").entered():
        assert main(["settings", "--write"]) == 0
        assert main(["report"]) == 0

    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(root), "COLUMNS": "100"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment |= {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    environment |= {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    run("dvc", "commit", "-q", "--force")
    run("git", "add", "--all")
    run("git", "commit", "-qm", "a project")
    with SmallProject(root, "shop").entered(), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():  # for commands of ours, which need no process
            patch.setenv(name, value)
        MlflowClient().delete_registered_model("shop")
        yield root, run


def holders() -> dict[str, str]:
    """By alias, the family that holds it; none where nothing is registered."""
    client = MlflowClient()
    return {
        alias: client.get_model_version_by_alias(model.name, alias).tags["family"]
        for model in client.search_registered_models()
        for alias in model.aliases
    }


def test_a_table_of_experiments_fits_a_screen():
    """Five families, and more changed settings than a line holds."""
    families = ["autoencoder", "vae", "gan", "flow", "diffusion"]

    def known(number: float, **changed: object) -> dict[str, object]:
        settings = {"dataset": "digits", "diffusion": {"model": {"width": 32, "blocks": 2}}, "seed": 0} | changed
        metrics = {f"runs/digits/{f}.json": {"data": {"generation↓": number + i}} for i, f in enumerate(families)}
        metrics["runs/wine/vae.json"] = {"data": {"generation↓": 77.0}}  # of another dataset
        return {"params": {"params.yaml": {"data": settings}}, "metrics": metrics}

    wide = known(0.123456, diffusion={"model": {"width": 48, "blocks": 2}}, vae={"model": {"beta": 4, "latent": 24}})
    tried = [{"revs": [{"rev": "b" * 40, "name": "much-wider-and-bolder", "data": wide}]}]
    found = [
        {"rev": "workspace", "data": known(1.5, seed=7)},
        {"rev": "a" * 40, "name": "main", "data": known(1.5), "experiments": tried},
    ]
    lines = list(table(found, "generation↓", 100))
    assert max(map(len, lines)) <= 100
    assert lines[1].split()[:6] == ["experiment", *families]
    assert lines[2].split() == ["workspace", "1.5", "2.5", "3.5", "4.5", "5.5", "seed=7"]
    assert lines[3].split() == ["main", "1.5", "2.5", "3.5", "4.5", "5.5"]
    assert lines[4].split()[:6] == ["much-wider-and-bolder", "0.1235", "1.123", "2.123", "3.123", "4.123"]
    told = " ".join([*lines[4].split()[6:], *lines[5:]]).split()
    assert "".join(told) == "diffusion.model.width=48,vae.model.beta=4,vae.model.latent=24"


def test_metrics_are_a_number_for_each_job_with_its_direction(desk: Desk):
    root, run = desk
    found = json.loads(run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(found) == {f"runs/shop/{family}.json" for family in ("vae", "flow")}
    deciding = {"vae": "nats_per_row_bound", "flow": "nats_per_row"}
    for family, density in deciding.items():
        shown = found[f"runs/shop/{family}.json"]["data"]
        names = ["frechet", density, "imputation_crps", "anomaly_auroc", "probe_accuracy"]
        measured = json.loads((root / f"runs/shop/results/{family}.json").read_text())["metrics"]
        assert shown == {job: measured[name]["value"] for job, name in zip(JOBS, names, strict=True)}
        assert [measured[name]["better"] for name in names] == ["lower", "lower", "lower", "higher", "higher"]


def test_plots_are_titled_pictures_that_need_no_network(desk: Desk):
    root, run = desk
    run("dvc", "plots", "show")
    page = root / "dvc_plots/index.html"
    html = page.read_text()
    assert not re.findall(r"https?:|<script", html)
    pictures = {path: ElementTree.parse(page.parent / path).getroot() for path in re.findall(r'src="([^"]+)"', html)}
    namespace = "{http://www.w3.org/2000/svg}"
    drawn = {picture.find(f"{namespace}title").text: picture for picture in pictures.values()}
    assert len(drawn) == len(pictures)
    assert {
        "vae: loss",
        "flow: loss",
        "vae: Fréchet distance, validation",
        "flow: Fréchet distance, validation",
    } <= set(drawn)
    frechet = drawn["vae: Fréchet distance, validation"]
    assert len(frechet.findall(f"{namespace}circle[@r='2.2']")) == 2  # four rows, two of them empty
    x, y = zip(*re.findall(r"([\d.]+) ([\d.]+)", frechet.find(f"{namespace}path").get("d")), strict=True)
    assert len(x) == len(y) == 2
    assert float(y[0]) < float(y[1])  # .75, then .5: the lower the further down


def test_an_experiment_registers_nothing_until_it_is_promoted(desk: Desk, capfd):
    root, run = desk
    told = run("dvc", "exp", "run", "--temp", "--name", "alone", "--set-param", "families=[flow]")
    assert [line for line in told.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'settings':",
        "Running stage 'register':",
        "Running stage 'report':",
    ]
    assert "`fivefold promote alone`" in told
    assert holders() == {}
    earlier = [path.read_text() for path in (root / ".dvc/cache/runs").rglob("*") if path.is_file()]
    assert any("cmd: fivefold report" in text for text in earlier)
    assert not any("cmd: fivefold register" in text for text in earlier)  # else a later `dvc repro` took it from there
    run("dvc", "exp", "apply", "alone")  # it ran in a copy
    html = (root / "runs/shop/report.html").read_text()
    assert "<code>fivefold promote alone</code>" in html
    assert all(f'id="grown-flow-{i}" src="data:image/png' in html for i in (1, 2))  # the copy has training's pictures

    assert main(["experiments"]) == 0
    shown = capfd.readouterr().out.splitlines()
    shown = [line for line in shown if "DVC's cache" not in line]  # said once
    assert max(map(len, shown)) <= 100
    number = json.loads((root / "runs/shop/flow.json").read_text())["generation↓"]
    rows = {line.split()[0]: line.split()[1:] for line in shown}
    assert rows["experiment"] == ["vae", "flow", "changed", "settings"]
    assert rows["alone"] == ["-", f"{number:.4g}", "families=['flow']"]
    assert len(rows["master"]) == 2
    assert rows["master"][1] == f"{number:.4g}"  # of the last commit: the same model, and all settings its own

    assert main(["promote", "alone"]) == 0
    assert holders() == dict.fromkeys(("generation", "density", "imputation", "anomaly", "representation"), "flow")
    record = json.loads((root / "runs/shop/registry.json").read_text())
    assert set(record["versions"]) == {"flow"}
    assert "experiment" not in record
    assert "fivefold promote" not in (root / "runs/shop/report.html").read_text()
    assert "up to date" in run("dvc", "status")
    capfd.readouterr()
    assert main(["promote", "another"]) == 1
    assert "cannot be brought into the workspace" in capfd.readouterr().err


@pytest.mark.slow
def test_without_a_search_nothing_is_trained_that_stays_the_same(desk: Desk):
    """The search kept the settings as written: without it they are the same, and so are model and figures.

    In a copy of the project, as an experiment from DVC's queue: what was trained lies in the project.
    """
    root, run = desk

    def trained_here(job: TrainingJob, *_: object, **__: object) -> None:
        run_worker(dataclasses.asdict(job), WorkerContext())  # without Ray

    with SmallProject(root, "shop").entered(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_stage, "run_local", trained_here)
        assert main(["train", "--family", "flow"]) == 0
    run("dvc", "commit", "-q", "--force")
    run("git", "commit", "-qam", "a training")
    told = run("dvc", "exp", "run", "--temp", "--name", "plain", "--set-param", "tune.enabled=false", "evaluate@flow")
    assert "flow: no search (tune.enabled is false)" in told
    assert "flow: trained already" in told
    assert "Stage 'evaluate@flow' didn't change" in told
