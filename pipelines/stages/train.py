"""The stage `train`: one family's training, on one worker or many, resumable by the same command."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
from data.batches import Batches
from data.shards import Dataset
from models import FAMILIES
from models.domains import domain as build_domain
from pipelines import artifact, loop, params, storage
from pipelines.checkpoint import STEP
from pipelines.params import Family, Params, Train
from pipelines.progress import Bar
from pipelines.state import Progress
from pipelines.worker import FAILURE, STOP, Job, failure, points, work


def identity(job: Job, data_digest: str) -> dict[str, Any]:
    """What makes a training the same one: its settings, its data and the code that computes it."""
    code = hashlib.sha256()
    for path in family_code(job.spec["family"]):
        code.update(path.read_bytes())
    return {
        "spec": job.spec,
        "training": job.training,
        "seed": job.seed,
        "data": data_digest,
        "code": code.hexdigest(),
    }


def family_code(family: str) -> list[Path]:
    """The files whose change makes a training another one: all of `models` but the other families, loop and order."""

    def home(name: str) -> Path:
        path = Path(inspect.getfile(FAMILIES[name]))
        return path.parent if path.name == "__init__.py" else path

    root = Path(inspect.getfile(models)).parent
    others = {home(name) for name in FAMILIES if name != family}
    others.add(root / "__init__.py")  # the table of families: a new one changes nothing for the others
    shared = [path for path in sorted(root.rglob("*.py")) if not others & {path, *path.parents}]
    order = Path(inspect.getfile(Batches))
    return [*shared, Path(inspect.getfile(loop)), Path(inspect.getfile(Progress)), order, order.with_name("order.py")]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; a lock left by a dead process does not count.

    Raises:
        RuntimeError: If another process holds it, naming that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RuntimeError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for it or end it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def prepared_folder(dataset: str) -> Path:
    """Where `prepare` leaves a dataset."""
    return Path("data/prepared") / dataset


def runs_folder(dataset: str) -> Path:
    """Where everything made from a dataset lies."""
    return Path("runs") / dataset


def family_settings(settings: Params, family: str) -> Family:
    """A family's settings, checked to be one that is trained.

    Raises:
        ValueError: If it is not among `families`.
    """
    if family not in settings.families:
        raise ValueError(
            f"{family} is not in families of params.yaml ({', '.join(settings.families)})"
            f"{'; add it there' if family in FAMILIES else params.nearest(family, list(FAMILIES))}"
        )
    return settings.family[family]


def make_job(settings: Params, family: str, chosen: Family, dataset: Dataset, state: Path) -> Job:
    """The plain data that a training of these settings is."""
    config = dataclasses.asdict(chosen.model)
    spec = {"family": family, "config": config, "domain": dataset.domain, "classes": len(dataset.class_names)}
    folder = runs_folder(settings.dataset)
    return Job(
        spec=spec,
        training=dataclasses.asdict(chosen.training),
        seed=settings.seed,
        prepared=str(prepared_folder(settings.dataset).resolve()),
        yardstick=str((folder / "yardstick").resolve()),
        state=str(state),
    )


def checkpoints_at(settings: Params, state: Path) -> str:
    """Where a training's checkpoints go: below `train.storage` if that is set, else into its state."""
    chosen = settings.train.storage
    if not chosen:
        return str(state / "checkpoints")
    root = chosen.rstrip("/") if chosen.startswith("s3://") else Path(chosen).resolve()
    return f"{root}/{settings.dataset}/{state.name}"


def train(family: str, *, dataset: str | None = None, verbose: bool = False) -> None:
    """Train a family to the end, or go on where its training was interrupted.

    Arguments:
        family: Which.
        dataset: Use this dataset instead of the one in `params.yaml`.
        verbose: Let Ray's own log through.

    Raises:
        ValueError: If a setting does not fit.
        FileNotFoundError: If an earlier stage has not run.
        ConnectionError: If MLflow or Ray cannot be reached.
        Diverged: If the loss stopped being finite.
        Interrupted: If SIGTERM came; the checkpoint is written.
    """
    from pipelines import tracking

    settings = params.load(dataset=dataset)
    chosen = family_settings(settings, family)
    data = Dataset.open(prepared_folder(settings.dataset))
    folder = runs_folder(settings.dataset)
    chosen = params.with_settings(chosen, tuned(folder, family))
    chosen = fitting_batch(chosen, data, family)
    job = make_job(settings, family, chosen, data, Path())
    same = identity(job, data.digest)
    key = hashlib.sha256(artifact.canonical(same)).hexdigest()
    name = f"{family}-{key[:12]}"
    state = (folder / "state" / name).resolve()
    job = dataclasses.replace(
        job,
        state=str(state),
        checkpoints=checkpoints_at(settings, state),
        shard=settings.train.shard,
        policy=settings.train.policy,
        identity=same,
    )
    _say_what_begins(folder / "state", job, family)
    with (
        locked(state),
        tracking.TrainingRun.open(
            dataset=settings.dataset,
            family=family,
            run_key=key,
            params={"family": family, "seed": job.seed, "model": job.spec["config"], "training": job.training},
            manifest=data.manifest,
            tags={"workers": str(settings.train.workers)},
            spool=state,
        ) as run,
    ):
        job = dataclasses.replace(job, run_id=run.run_id)
        artifact.write_atomically(state / "job.json", json.dumps(dataclasses.asdict(job), indent=1))
        if not (state / "model" / artifact.MANIFEST).exists():
            _run(job, settings, run, data.digest, verbose=verbose)
        run.sync(state / "metrics.jsonl")
        for picture in sorted((state / "samples").glob("*.png")):
            run.log_image(picture, "samples", int(picture.stem))
        _publish(job, settings, folder, run.run_id, data, key)


def _run(job: Job, settings: Params, run: Any, data_digest: str, *, verbose: bool) -> None:
    """On this machine, on the cluster it has joined, or as a job of a cluster."""
    from pipelines import remote

    state = Path(job.state)
    server = remote.job_server(settings.cluster)
    clear(state)
    with following(state, job.training["total_examples"], job.spec["family"], run):
        if server:
            with terminating(state / STOP):
                remote.train(job, settings, server, data_digest)
        else:
            run_here(job, settings.train, settings.cluster.address, verbose=verbose)


def run_here(job: Job, settings: Train, address: str = "", *, state: Path | None = None, verbose: bool = False) -> None:
    """Run a job's workers to the end; the finished model is then in its state folder.

    Arguments:
        job: The training.
        settings: How many workers, and how long they are waited for.
        address: Of the Ray cluster to join; empty for this machine (see `cluster.connected`).
        state: The job's state folder as this process sees it, if that is not `job.state`.
        verbose: Let Ray's own log through.

    Raises:
        ConnectionError: If Ray cannot be reached.
        Exception: What ended the training.
    """
    from pipelines import cluster

    state = state or Path(job.state)
    for restarts_left in range(settings.max_failures, -1, -1):
        with cluster.connected(address, verbose=verbose), terminating(state / STOP):  # Ray has a handler of its own
            each = job.training["virtual_ranks"] // job.training["accumulate"]
            try:
                cluster.run_workers(
                    work,
                    dataclasses.asdict(job),
                    workers=cluster.worker_count(settings.workers, each),
                    threads=threads(job.spec["domain"]),
                    storage=f"{job.state}/ray",
                    max_failures=settings.max_failures,
                    timeout=settings.timeout,
                )
                break
            except cluster.LostController as error:
                if not restarts_left or failure(state):
                    raise failure(state) or error from error
            except RuntimeError as error:
                raise failure(state) or error from error
            except SystemExit:  # Ray's own handler of Ctrl-C ends with status 0, as if all were done
                raise KeyboardInterrupt from None
    shutil.rmtree(state / "ray", ignore_errors=True)
    told = failure(state)
    if told is not None:
        raise told


def clear(state: Path) -> None:
    """Remove what an earlier process was told or left there."""
    for leftover in (FAILURE, STOP):
        (state / leftover).unlink(missing_ok=True)


SMALL = 256
"""Values per example below which one thread is faster than two: the work of a layer is over before it is shared."""


def threads(domain: dict[str, Any]) -> int:
    """Threads of a worker on a CPU: one for small examples, else 0 for all its cores."""
    return 1 if build_domain(domain).dimensions < SMALL else 0


@contextmanager
def terminating(stop: Path) -> Iterator[None]:
    """While the block runs, SIGTERM asks the workers to stop after their update instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.touch())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # none, if it was not Python's


@contextmanager
def following(state: Path, total: int, name: str, run: Any) -> Iterator[None]:
    """While the block runs: a progress bar, and MLflow kept up to date, from what rank 0 records."""
    stop = threading.Event()

    def follow() -> None:
        with Bar(name, total) as bar:
            while True:
                ended = stop.wait(0.5)
                recorded = points(state)
                if recorded:
                    bar.show(recorded[-1]["examples"], recorded[-1]["metrics"])
                run.follow(state / "metrics.jsonl")
                if ended:
                    return

    thread = threading.Thread(target=follow, name="following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def tuned(folder: Path, family: str) -> dict[str, float]:
    """The settings that the stage `tune` found best, by dotted name.

    Raises:
        FileNotFoundError: If `tune` has not run.
    """
    path = folder / "tune" / f"{family}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run `fivefold tune --family {family}` first")
    return json.loads(path.read_text(encoding="utf-8"))["settings"]


def fitting_batch(chosen: Family, data: Dataset, family: str) -> Family:
    """The settings with a batch no larger than the training split; says so where it had to shrink.

    Raises:
        ValueError: If the split has fewer examples than a batch has virtual ranks.
    """
    available, training = len(data.split("train")), chosen.training
    if training.batch_size <= available:
        return chosen
    fitting = available - available % training.virtual_ranks
    if not fitting:
        raise ValueError(
            f"{data.name} has {available} training examples; a batch needs at least {training.virtual_ranks}"
            f" ({family}.training.virtual_ranks in params.yaml)"
        )
    print(f"{family}: batch_size {training.batch_size} exceeds the {available} training examples; using {fitting}")
    return dataclasses.replace(chosen, training=dataclasses.replace(training, batch_size=fitting))


def _say_what_begins(root: Path, job: Job, family: str) -> None:
    if storage.at(job.checkpoints).names(STEP):
        where = job.checkpoints if "://" in job.checkpoints else os.path.relpath(job.checkpoints)
        print(f"{family}: going on from the newest checkpoint in {where}")
    elif any(str(path) != job.state for path in root.resolve().glob(f"{family}-*")):
        print(f"{family}: settings, data or code have changed since the last training; starting afresh")


def _publish(job: Job, settings: Params, folder: Path, run_id: str, data: Dataset, key: str) -> None:
    """The finished model with its facts, and its curves, where DVC expects them."""
    model, _ = artifact.load(Path(job.state) / "model")
    recorded = points(Path(job.state))
    facts = {
        **job.spec,
        "dataset": settings.dataset,
        "class_names": data.class_names,
        "data_digest": data.digest,
        "run_key": key,
        "run_id": run_id,
        "seed": job.seed,
        "training": job.training,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(recorded[-1]["seconds"], 1),
        "total_examples": recorded[-1]["examples"],
        "validation_frechet": min(p["metrics"].get("validation_frechet", float("inf")) for p in recorded),
    }
    artifact.write_atomically(folder / "curves" / f"{job.spec['family']}.csv", curves(recorded))
    artifact.save(model, folder / "models" / job.spec["family"], facts)


def curves(recorded: list[dict[str, Any]]) -> str:
    """The recorded metrics as CSV, a row per report."""
    names = sorted({name for point in recorded for name in point["metrics"] if name != "examples_per_second"})
    rows = [["examples", *(name.replace("/", "_") for name in names)]]
    for point in recorded:
        rows.append([str(point["examples"]), *(f"{point['metrics'].get(n, float('nan')):.6g}" for n in names)])
    return "".join(",".join(row).replace("nan", "") + "\n" for row in rows)
