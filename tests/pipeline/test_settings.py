"""Settings are what they seem: of defaults, recipe, `params.yaml` and `-S` the last to set a value goes before."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from ruamel.yaml import YAML

from models import FAMILIES
from pipelines import tracking
from pipelines.__main__ import main
from pipelines.config import SECTIONS, Range
from pipelines.defaults.layers import leaves
from pipelines.stages import train
from pipelines.training.config import Augment, Privacy, TrainingConfig
from pipelines.training.job import TrainingJob

ROOT = Path(__file__).parents[2]
PLACES = ("recipe", "params.yaml", "-S")
"""A later one goes before."""


class Project:
    """A copy of the project under git and DVC, and the commands of its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("models", "data", "pipelines", "recipes", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
            source, target = ROOT / name, folder / name
            ignored = shutil.ignore_patterns("__pycache__", "prepared", "raw")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.environment |= {"PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
        self.environment |= {
            f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")

    def run(self, *command: str, status: int = 0) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == status, f"{' '.join(command)[:2000]}:\n{done.stdout}{done.stderr}"
        return done.stderr if status else done.stdout

    def settings(self, *words: str) -> dict[str, Any]:
        """What `fivefold settings --json` prints: in this process, for it starts nothing."""
        told = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(told):
            assert main(["settings", "--json", *words]) == 0
        return json.loads(told.getvalue())

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "state")

    def read(self, name: str) -> Any:
        return YAML(typ="safe", pure=True).load((self.folder / name).read_text()) or {}

    def set(self, name: str, values: dict[str, Any]) -> None:
        """Write values by dotted name into a file of YAML, where they stand in mappings."""
        path, yaml = self.folder / name, YAML()
        content = yaml.load(path.read_text()) or {}
        for dotted, value in values.items():
            *above, key = dotted.split(".")
            into = content
            for part in above:
                into[part] = into.get(part) or {}
                into = into[part]
            into[key] = value
        with path.open("w") as file:
            yaml.dump(content, file)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose datasets `use` prepares."""
    return Project(tmp_path_factory.mktemp("settings"))


def use(project: Project, dataset: str) -> None:
    """A clean state in which this dataset, the digits or a table that is added, is the one to train on."""
    lock = project.folder / f"{dataset}.lock"
    if not lock.exists() and dataset == "shop":
        rows = [f"{i * 7 % 31},{i % 13}.5,{'ab'[i % 2]}" for i in range(4000)]
        (project.folder / "shop.csv").write_text("\n".join(["price,weight,kind", *rows]) + "\n")
        project.run("fivefold", "data", "add", "shop.csv", "--name", "shop", "--label", "kind")
    for name in ("params.yaml", f"recipes/{dataset}.yaml"):
        if name == "recipes/shop.yaml":
            project.set(name, {})
        else:
            shutil.copy(ROOT / name, project.folder / name)
    project.set("params.yaml", {"dataset": dataset})
    if lock.exists():
        shutil.copy(lock, project.folder / "dvc.lock")
    project.run("dvc", "repro", "-q", "settings")
    shutil.copy(project.folder / "dvc.lock", lock)
    project.commit()


def kinds(dataset: str) -> dict[str, Any]:
    """The type of every setting that this dataset can have, by dotted name, of the dataclasses themselves."""
    found: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        found |= {f"{section}.{key}": kind for key, kind in get_type_hints(cls).items()}
    for family, cls in FAMILIES.items():
        found |= {f"{family}.model.{key}": kind for key, kind in get_type_hints(cls.Config).items()}
        found |= {f"{family}.sampling.{key}": kind for key, kind in get_type_hints(cls.SamplingConfig).items()}
        found |= {f"{family}.training.{key}": kind for key, kind in get_type_hints(TrainingConfig).items()}
        for group, cls in {"privacy": Privacy, "augment": Augment}.items():
            del found[f"{family}.training.{group}"]
            if group == "privacy" or dataset == "digits":  # a table cannot be mirrored
                names = get_type_hints(cls).items()
                found |= {f"{family}.training.{group}.{key}": kind for key, kind in names}
        for name in ("training.lr", "training.warmup_examples"):
            found |= {f"{family}.search.{name}.{key}": kind for key, kind in get_type_hints(Range).items()}
    return {key: kind for key, kind in found.items() if not key.startswith("cluster.") and not key.endswith(".budget")}


AS_THEY_FIT: dict[str, tuple[Any, Any, Any]] = {
    "training.batch_size": (32, 64, 128),
    "training.virtual_ranks": (16, 8, 4),
    "training.accumulate": (1, 2, 4),
    "training.augment.shift": (0.1, 0.2, 0.3),
    "diffusion.model.heads": (2, 4, 8),
    "train.workers": (1, "auto", 1),
    "train.storage": ("a", "b", "c"),
    "features.components": ([4], [8], [12, 16]),
    "low": (1e-5, 2e-5, 3e-5),
    "high": (0.3, 0.2, 0.1),
}
"""Values of the places for settings that others bound, by the end of their name."""


def other(key: str, kind: Any, value: Any) -> list[Any]:
    """For each place a value that is not the present one, nor (but for yes and no) another place's."""
    for end, values in AS_THEY_FIT.items():
        if key.endswith(end):
            return list(values)
    if kind is bool:
        return [not value, bool(value), not value]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return [choices[(choices.index(value) + place) % len(choices)] for place in (1, 2, 3)]
    if kind is int:
        return [(value or 1) * factor for factor in (2, 3, 4)]
    return [value / factor if value not in (0, -1) else 1 / factor for factor in (2, 4, 8)]


@pytest.mark.parametrize(("dataset", "seed"), [("digits", 0), pytest.param("shop", 1, marks=pytest.mark.slow)])
def test_every_setting_is_what_the_last_to_set_it_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, dataset: str, seed: int
) -> None:
    """Each set in some of the places; settings, parameters in DVC and the training's job agree. What the user has set
    is not searched any more."""
    use(project, dataset)
    rng, values, expected = random.Random(seed), {place: {} for place in PLACES}, {}
    before = project.settings()
    assert {key for key in kinds(dataset) if ".search." not in key} <= set(before)
    for key, kind in kinds(dataset).items():
        places = PLACES if ".search." in key else [place for place in PLACES if rng.random() < 0.5]
        several = other(key, kind, before.get(key, {"value": 0})["value"])
        for place, value in zip(PLACES, several, strict=True):
            if place in places:
                values[place][key] = expected[key] = value
    assert all(len(set(values[place])) > 60 for place in PLACES)
    project.set(f"recipes/{dataset}.yaml", values["recipe"])
    project.set("params.yaml", values["params.yaml"])
    overrides = [f"{key}={json.dumps(value)}" for key, value in values["-S"].items()]
    plain = {key for key, _ in leaves_and_gaps(YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text()))}
    overrides = [each if each.split("=")[0] in plain else f"++{each}" for each in overrides]
    project.run("dvc", "exp", "run", "-q", "settings", *(word for each in overrides for word in ("-S", each)))

    shown = project.settings()
    assert {key: shown[key]["value"] for key in expected} == expected
    by_user = set(values["params.yaml"]) | set(values["-S"])
    fixed = {key for key in set(before) - set(expected) if key.replace(".search", "").rpartition(".")[0] in by_user}
    untouched = {key: entry["value"] for key, entry in before.items() if key not in {*expected, *fixed}}
    assert {key: entry["value"] for key, entry in shown.items() if key not in expected} == untouched
    files = {"recipe": f"recipes/{dataset}.yaml", "params.yaml": "params.yaml", "-S": "params.yaml"}
    for key in expected:
        setters = {files[place] for place in PLACES if key in values[place]}
        told = [shown[key]["source"], *(each["source"] for each in shown[key]["overrides"])]
        assert told[: len(setters)] == sorted(setters)

    tracked = f"runs/{dataset}/settings.yaml"
    differ = json.loads(project.run("dvc", "params", "diff", "--json"))[tracked]
    changed = {key for key in expected if before.get(key, {"value": None})["value"] != expected[key]}
    told = {key: str(value) if isinstance(value, list) else value for key, value in expected.items()}
    assert {key: entry["new"] for key, entry in differ.items()} == {key: told.get(key) for key in changed | fixed}
    experiments = json.loads(project.run("dvc", "exp", "show", "--json", "--no-pager"))
    workspace = next(entry for entry in experiments if entry["rev"] == "workspace")["data"]["params"]
    got = dict(leaves(workspace[tracked]["data"]))
    assert {key: got[key] for key in expected} == expected

    for family in FAMILIES:
        job, sampling = job_of(family, project.folder / "runs" / dataset, monkeypatch)
        got = {f"{family}.model.{key}": value for key, value in job.spec["config"].items()}
        got |= {f"{family}.training.{key}": value for key, value in leaves(job.training)}
        got |= {f"{family}.sampling.{key}": value for key, value in sampling.items()}
        assert {key: expected[key] for key in got if key in expected} == {
            key: value for key, value in got.items() if key in expected
        }


def test_a_budget_is_measured_once_and_is_examples_from_then_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real short training. A number of examples that the user sets goes before it; a recipe's does not."""
    use(project, "digits")
    project.set("recipes/digits.yaml", {"vae.training.total_examples": 999})
    project.set("params.yaml", {"families": ["vae", "flow"], "budget": "10m", "flow.training.total_examples": 4_096})
    refused = project.run("fivefold", "train", "--family", "vae", status=1)
    assert "vae.training.budget is 10m, and nobody has measured" in refused
    told = project.run("fivefold", "settings", "--write")
    assert "vae: measuring what fits into 10m" in told
    assert "flow: 4,096 examples, about" in told
    file = project.folder / "runs/digits/settings.yaml"
    first, shown = file.read_text(), project.settings("vae")
    total = shown["vae.training.total_examples"]
    assert total["source"] == "budget 10m"
    assert {"source": "recipes/digits.yaml", "value": 999} in total["overrides"]
    rate = YAML(typ="safe").load(first)["measured"]["budgets"]["vae"]["examples_per_second"]
    assert 0.5 * 600 * rate < total["value"] < 600 * rate
    assert job_of("vae", file.parent, monkeypatch)[0].training["total_examples"] == total["value"]
    assert job_of("flow", file.parent, monkeypatch)[0].training["total_examples"] == 4_096
    assert "measuring" not in project.run("fivefold", "settings", "--write")
    assert file.read_text() == first
    project.set("params.yaml", {"vae.model.width": 8})
    assert "vae: measuring" in project.run("fivefold", "settings", "--write")


def leaves_and_gaps(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of what a file names, with a value or without."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves_and_gaps(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def job_of(family: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainingJob, dict[str, Any]]:
    """The job that the stage `train` would run, and how what it leaves would draw."""
    jobs: list[TrainingJob] = []
    sampling: list[dict[str, Any]] = []
    monkeypatch.chdir(runs.parents[1])
    (runs / "tune").mkdir(exist_ok=True)
    (runs / "tune" / f"{family}.json").write_text('{"settings": {}}')
    run = SimpleNamespace(run_id="r", sync=lambda _: None)
    monkeypatch.setattr(tracking.TrainingRun, "open", lambda **_: nullcontext(run))
    monkeypatch.setattr(train, "checked_facts", lambda _: {"digest": "d"})
    monkeypatch.setattr(train, "_run", lambda job, *_, **__: jobs.append(job))
    monkeypatch.setattr(train, "_publish", lambda job, how, *_: sampling.append(how))
    train.train(family)
    return jobs[0], sampling[0]
