"""Two processes that change one registry at once, one of which may be killed, and what one after the other would leave.

Each process is forked from one that has imported MLflow. Before each of its calls of MLflow's client it pauses for a
moment, drawn by the seed; where it is to die, it does so at a call drawn by the seed. Store, client and our code are
the real ones; only the files of a registered model and the digest of its code are stand-ins, for packing them takes
seconds and is the same alone.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines import tracking
from pipelines.registry import aliases
from pipelines.stages import register
from pipelines.tracking import model_registry, vouching
from pipelines.training import identity

JOBS = {"generation": ("frechet",), "density": ("bits_per_dim",)}
MOST_CALLS = {"register": 60, "pin": 20, "rollback": 16, "evaluate": 11}
"""About as many calls of the client as an act makes: at one of them a process dies that is to die."""
Act = tuple[str, tuple[Any, ...]]
"""What a process does: its name and arguments."""


def quiet(_: str) -> None:
    """Say nothing."""


def act(root: str, what: Act) -> None:
    """Do one of the things that people do to a registry."""
    name, arguments = what
    match name:
        case "register":
            folder, families = arguments
            register.register("digits", families, root=Path(root) / folder, jobs=JOBS, say=quiet)
        case "pin":
            aliases.pin("digits", *arguments, root=root, say=quiet)
        case "evaluate":
            run_id, results = arguments
            tracking.log_evaluation(run_id, results)
        case _:
            getattr(aliases, name)("digits", *arguments, say=quiet)


def packed(folder: str | Path, *, model: str | Path, package: str | Path, run_id: str, model_id: str, **_: Any) -> None:
    """The stand-in for the files of a registered model."""
    Path(folder).mkdir(parents=True)
    (Path(folder) / "MLmodel").write_text(f"run_id: {run_id}\nmodel_id: {model_id}\n")
    vouching.seal(Path(folder))


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Pack nothing from now on."""
    patch.setattr(model_registry, "save_served", packed)
    patch.setattr(register, "vendored_code", lambda: nullcontext(Path("code")))
    patch.setattr(identity, "code_digest", lambda family, package: "c0de" * 16)


def stumbling(seed: int, calls_until_death: int) -> None:
    """From now on calls of the client take a moment more; one of the first so many (if any) is the last."""
    drawn = random.Random(seed)
    last = drawn.randrange(calls_until_death) if calls_until_death else -1
    after = drawn.random() < 0.5
    calls = itertools.count()

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            number = next(calls)
            time.sleep(drawn.random() ** 4 * 0.05)
            if number == last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return method(*arguments, **options)
            finally:
                if number == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in vars(MlflowClient):
        if not name.startswith("_") and callable(getattr(MlflowClient, name)):
            setattr(MlflowClient, name, wrapped(getattr(MlflowClient, name)))


def hand(root: str, uri: str, what: Act, seed: int, dies: bool) -> None:
    """A process's whole life."""
    warnings.simplefilter("ignore")
    sys.stderr = open(f"{root}/hand.log", "a")  # noqa: SIM115 - closed by its end
    os.environ["MLFLOW_TRACKING_URI"] = uri
    stand_in(pytest.MonkeyPatch())
    os.chdir(root)
    stumbling(seed, MOST_CALLS[what[0]] if dies else 0)
    try:
        act(root, what)
    except ValueError as error:  # nothing to roll back to, say: an answer, not a fault
        print(what[0], error, file=sys.stderr)


@dataclass(frozen=True)
class Scene:
    """What two people do at once.

    Arguments:
        name: What to call it.
        before: What was done before, one after the other.
        first: What the one does.
        second: What the other does.
        again: Whether who was killed does the same once more; `dvc repro` would.
    """

    name: str
    before: tuple[Act, ...]
    first: Act
    second: Act
    again: bool = True

    def orders(self, killed: bool) -> list[tuple[Act, ...]]:
        """Everything that they could have done one after the other."""
        one, two = self.first, self.second
        if not killed:
            return [(one, two), (two, one)]
        alone = [(one, two), (two, one), (one, two, one)] if self.again else [(one, two), (two, one), (two,)]
        return [*alone, (two, one, one)] if self.again else alone


def state(evaluated: str = "") -> dict[str, Any]:
    """The registry without what differs from run to run: numbers of versions, ids and times.

    Arguments:
        evaluated: A run whose evaluation is part of it.
    """
    client = MlflowClient()
    found = {version.number: version for version in tracking.versions("digits")}

    def named(number: int | None) -> Any:
        return None if number is None else f"{found[number].tags['family']} {tracking.model_key(found[number].tags)}"

    pointers = tracking.aliases("digits")
    assert all(found[number].tags.get("job") == job for job, number in pointers.items()), "an alias breaks its word"
    jobs = {}
    for alias, record in tracking.alias_records("digits").items():
        assert record.settled, "something begun was not ended"
        assert record.holder == pointers.get(alias)
        jobs[alias] = (named(record.holder), [named(n) for n in record.before], record.withdrawn, bool(record.pinned))
    identities = [(tracking.model_key(version.tags), version.tags.get("job", "")) for version in found.values()]
    assert len(set(identities)) == len(identities), f"a version is there twice: {identities}"
    for number in found:
        item = client.get_model_version("digits", str(number))
        model = client.get_logged_model(item.source.removeprefix("models:/"))
        said = json.loads(model.tags["mlflow.modelVersions"])
        assert [(entry["name"], int(entry["version"])) for entry in said] == [("digits", number)]
    whole: dict[str, Any] = {"jobs": jobs, "waiting": sorted(key for key, job in identities if not job)}
    if evaluated:
        whole["metrics"] = evaluation(evaluated)
    return whole


def evaluation(run_id: str) -> tuple[Any, ...]:
    """What MLflow says of a run's evaluation: by its metrics, by its file and by its table."""
    from mlflow.artifacts import load_dict

    run = MlflowClient().get_run(run_id)
    metrics = {key.removeprefix("evaluate."): value for key, value in run.data.metrics.items() if "evaluate." in key}
    told = load_dict(f"runs:/{run_id}/evaluation/results.json")["metrics"]
    return metrics["frechet"], metrics["bits_per_dim"], told["frechet"]["value"], told["bits_per_dim"]["value"]


class Stage:
    """A place where scenes are played: a project and its store as they are before.

    Arguments:
        project: With finished models and results; its store is called `first`.
        copy: Of a store's name and a new one, the URI of a copy.
        folder: Where it plays; the files of MLflow's runs lie beside it in `mlruns`.
        patch: What undoes the stand-ins.
    """

    def __init__(self, project: Path, copy: Callable[[str, str], str], folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.project, self.copy, self.folder, self.patch = project, copy, folder, patch
        stand_in(patch)
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # else the server cannot import what it is to have ready
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["hands"])
        self._allowed: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        self._made: dict[tuple[str, ...], str] = {(): "first"}
        (folder.parent / "mlruns").mkdir(exist_ok=True)
        shutil.copytree(folder.parent / "mlruns", folder / "first-runs")

    def made(self, steps: tuple[Act, ...]) -> str:
        """The name of a store in which some things were done one after the other."""
        key = tuple(map(repr, steps))
        if key not in self._made:
            earlier, name = self.made(steps[:-1]), f"made{len(self._made)}"
            with self.opened(earlier, name) as (root, _):
                with contextlib.suppress(ValueError):  # nothing to roll back to, say
                    act(str(root), steps[-1])
                shutil.copytree(self.folder.parent / "mlruns", self.folder / f"{name}-runs")
            self._made[key] = name
        return self._made[key]

    @contextmanager
    def opened(self, earlier: str, name: str) -> Iterator[tuple[Path, str]]:
        """A copy of a store and of the project."""
        root, runs = self.folder / name, self.folder.parent / "mlruns"
        shutil.copytree(self.project, root)
        shutil.rmtree(runs)
        shutil.copytree(self.folder / f"{earlier}-runs", runs)
        uri = self.copy(earlier, name)
        self.patch.setenv("MLFLOW_TRACKING_URI", uri)
        try:
            tracking.connect()
            yield root, uri
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def allowed(self, scene: Scene, killed: bool) -> list[dict[str, Any]]:
        """What one after the other would leave, in each order."""
        key = (scene.name, killed)
        if key not in self._allowed:
            self._allowed[key] = []
            for index, order in enumerate(scene.orders(killed)):
                with self.opened(self.made((*scene.before, *order)), f"{scene.name}-{killed:d}-order{index}"):
                    self._allowed[key].append(state(evaluated(scene)))
        return self._allowed[key]

    def play(self, scene: Scene, seed: int, *, killed: bool) -> str:
        """Let both act at once, one of them perhaps killed; says what happened, if that could have been."""
        drawn = random.Random(f"{scene.name} {seed} {killed}")
        allowed = self.allowed(scene, killed)
        with self.opened(self.made(scene.before), f"{scene.name}-{killed:d}-{seed}") as (root, uri):
            both = [
                self.processes.Process(target=hand, args=(str(root), uri, what, drawn.randrange(2**32), killed and one))
                for one, what in ((True, scene.first), (False, scene.second))
            ]
            drawn.shuffle(both)
            for process in both:
                process.start()
                time.sleep(drawn.random() ** 2 * 0.3)
            for process in both:
                process.join(timeout=300)
            codes = [process.exitcode for process in both]
            log = (root / "hand.log").read_text()
            assert set(codes) <= {0, -signal.SIGKILL if killed else 0}, f"{codes}\n{log}"
            died = -signal.SIGKILL in codes
            if died and scene.again:
                act(str(root), scene.first)
            elif died:  # the next who comes ends what was begun
                with tracking.changing("digits", "look", say=quiet):
                    pass
            found = state(evaluated(scene))
        assert found in allowed, f"{scene.name} {seed} (killed: {died}):\n{found}\nis none of\n{allowed}\n{log}"
        return f"{'killed' if died else 'whole'}, as in order {allowed.index(found) + 1}"


def evaluated(scene: Scene) -> str:
    """The run that a scene evaluates, if it does."""
    return scene.first[1][0] if scene.first[0] == "evaluate" else ""


def scenes(run_id: str, results: dict[str, Any], others: dict[str, Any]) -> list[Scene]:
    """All of them.

    Arguments:
        run_id: Of the VAE that stands in the project's folder `ann`.
        results: Its evaluation.
        others: Another evaluation of it.
    """
    ann, bob = ("register", ("ann", ("vae", "gan"))), ("register", ("bob", ("vae", "flow")))
    eve: Act = ("register", ("eve", ("vae", "gan", "flow")))
    rollback: Act = ("rollback", ("generation",))
    return [
        Scene("registers", (), ann, bob),
        Scene("registers-later", (("register", ("ann", ("vae",))),), ann, bob),
        Scene("register-rollback", (("register", ("ann", ("vae",))), ann), eve, rollback),
        Scene("rollback-register", (("register", ("ann", ("vae",))), ann), rollback, eve, again=False),
        Scene("pin-register", (("register", ("ann", ("vae",))),), ("pin", ("generation", 1)), ann),
        Scene("evaluates", (ann,), ("evaluate", (run_id, results)), ("evaluate", (run_id, others))),
    ]
