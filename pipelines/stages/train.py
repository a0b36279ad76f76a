"""The stage `train`: one family's training, on one worker or many, resumable by the same command."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.files import whole_folder, write_atomically, write_json
from pipelines import config
from pipelines.config import Family, Params
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.execution.address import job_server, ray_address
from pipelines.execution.earlier import earlier, extended, extensible, finished_before, go_on_from, longer_only
from pipelines.execution.jobs import checkpoints_at, family_settings, fitting_batch, make_job
from pipelines.execution.local import run_local
from pipelines.execution.signals import stop_on_sigterm
from pipelines.paths import prepared_folder, runs_folder, state_folder
from pipelines.serving import artifact
from pipelines.storage import model_folder, stores
from pipelines.training.checkpoint import STEP
from pipelines.training.config import TrainingConfig
from pipelines.training.identity import identity, identity_digest
from pipelines.training.job import STOP, TrainingJob, clear_signals, locked, read_metrics
from pipelines.training.privacy import guarantee
from pipelines.training.progress import track_progress

log = logging.getLogger(__name__)

MOST_NAMED = 6
"""Changes named when a training starts afresh."""
CANNOT_GO_ON = {
    "schedule": "a longer training cannot go on from a shorter one with schedule: cosine, whose rate had fallen to 0; "
    "with training.schedule: constant it does",
    "privacy": "a longer training cannot go on from a shorter one under privacy, whose noise was for fewer updates",
}
"""Why a training that is the same but longer begins at the beginning."""
MOST_FRAMES = 8
"""Grids of samples over the training that are kept beside the curves."""


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

    settings = config.load(dataset=dataset)
    chosen = family_settings(settings, family)
    data = Dataset.open(prepared_folder(settings.dataset))
    folder = runs_folder(settings.dataset)
    chosen = with_tuned(chosen, folder, family)
    chosen = fitting_batch(chosen, data, family)
    job = make_job(settings, family, chosen, data, Path())
    same = identity(job, data.digest, checked_facts(Path(job.yardstick))["digest"])
    key = identity_digest(same)
    name = f"{family}-{key[:12]}"
    states = state_folder(settings.dataset)
    state = (states / name).resolve()
    job = dataclasses.replace(
        job,
        state=str(state),
        checkpoints=checkpoints_at(settings, state),
        shard=settings.train.shard,
        policy=settings.train.policy,
        identity=same,
    )
    job = finished_before(states, job)
    key, state = identity_digest(job.identity), Path(job.state)
    before = None if job_server(settings.cluster) and not settings.train.storage else extended(states, job)
    _say_what_begins(states, job, family, before)
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
            monitored=not ray_address(settings.cluster),
        ) as run,
    ):
        job = dataclasses.replace(job, run_id=run.run_id)
        write_atomically(state / "job.json", json.dumps(dataclasses.asdict(job), indent=1))
        if not (state / "model" / artifact.MANIFEST).exists():
            if before is not None:
                go_on_from(before, job)
            _run(job, settings, run, data.digest, verbose=verbose)
        run.sync(state / "metrics.jsonl")
        for picture in sorted((state / "samples").glob("*.png")):
            run.log_image(picture, "samples", int(picture.stem))
        _publish(job, dataclasses.asdict(chosen.sampling), settings, folder, data, key)


def _run(job: TrainingJob, settings: Params, run: Any, data_digest: str, *, verbose: bool) -> None:
    """On this machine, on the cluster it has joined, or as a job of a cluster."""
    from pipelines.execution import remote

    state = Path(job.state)
    server = job_server(settings.cluster)
    clear_signals(state)
    with track_progress(state, job.training["total_examples"], job.spec["family"], run):
        if server:
            with stop_on_sigterm(state / STOP):
                remote.train(job, settings, server, data_digest)
        else:
            run_local(job, settings.train, settings.cluster.address, verbose=verbose)


def tuned(folder: Path, family: str) -> dict[str, Any]:
    """What the stage `tune` left: the best `settings` by dotted name, why, and its `trials`.

    Raises:
        FileNotFoundError: If `tune` has not run.
        ValueError: If what it left cannot be read.
    """
    path = folder / "tune" / f"{family}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run `fivefold tune --family {family}` first")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "settings": dict(found["settings"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Run `fivefold tune --family {family}` again.") from None


def with_tuned(chosen: Family, folder: Path, family: str) -> Family:
    """A family's settings with those that the stage `tune` found best.

    Raises:
        FileNotFoundError: If `tune` has not run.
        ValueError: If what it left does not fit the settings.
    """
    try:
        return config.with_settings(chosen, tuned(folder, family)["settings"])
    except (ValueError, TypeError) as error:
        if "Run `" in str(error):
            raise
        path = folder / "tune" / f"{family}.json"
        why = str(error).rstrip("?.")
        raise ValueError(f"{path} does not fit: {why}. Run `fivefold tune --family {family}` again.") from error


def _say_what_begins(states: Path, job: TrainingJob, family: str, before: TrainingJob | None) -> None:
    if (Path(job.state) / "model" / artifact.MANIFEST).exists():
        log.info("%s: trained already; the finished model in %s is taken", family, os.path.relpath(job.state))
        return
    if stores.open_store(job.checkpoints).names(STEP):
        where = job.checkpoints if "://" in job.checkpoints else os.path.relpath(job.checkpoints)
        log.info("%s: going on from the newest checkpoint in %s", family, where)
        return
    if before is not None:
        examples, place = before.training["total_examples"], os.path.relpath(before.state)
        log.info("%s: going on from the training of %s examples in %s", family, f"{examples:,}", place)
        return
    newest = next(earlier(states, job), None)
    if newest is not None and newest.changed:
        changed = [name.removeprefix("code.") for name in newest.changed]
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        named = f"{', '.join(changed[:MOST_NAMED])}{more}"
        log.info("%s: starting afresh, for since the last training %s changed", family, named)
        if longer_only(newest, job) and not extensible(job):
            log.info("%s: %s", family, CANNOT_GO_ON["privacy" if job.training["privacy"]["epsilon"] else "schedule"])


def _publish(
    job: TrainingJob, sampling: dict[str, Any], settings: Params, folder: Path, data: Dataset, key: str
) -> None:
    """The finished model with its facts and how it draws, and its curves, where DVC expects them."""
    model, _ = model_folder.load(Path(job.state) / "model")
    model = model.with_sampling(**sampling)
    recorded = read_metrics(Path(job.state))
    training = TrainingConfig(**job.training)
    facts = {
        **job.spec,
        "sampling": sampling,
        "dataset": settings.dataset,
        "class_names": data.class_names,
        "table": data.manifest.get("table", []),
        **({"constraints": stated} if (stated := data.manifest.get("constraints")) else {}),
        "data_digest": data.digest,
        "run_key": key,
        "run_id": job.run_id,
        "seed": job.seed,
        "training": job.training,
        **({"privacy": guarantee(training, len(data.split("train")))} if training.privacy.epsilon else {}),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(recorded[-1]["seconds"], 1),
        "total_examples": recorded[-1]["examples"],
        "validation_frechet": min(p["metrics"].get("validation_frechet", float("inf")) for p in recorded),
    }
    write_atomically(folder / "curves" / f"{job.spec['family']}.csv", curves(recorded))
    publish_frames(Path(job.state) / "samples", folder / "progress" / job.spec["family"])
    model_folder.save(model, folder / "models" / job.spec["family"], facts)
    log.info("wrote %s", folder / "models" / job.spec["family"])


def publish_frames(samples: Path, folder: Path) -> None:
    """The first grid of samples, some between, and the last: none where samples are no pictures.

    Beside them `index.json` says of which numbers of examples seen: DVC warns of an output without a file.
    """
    found = sorted(samples.glob("*.png"), key=lambda path: int(path.stem))
    if len(found) > MOST_FRAMES:
        found = [found[round(i * (len(found) - 1) / (MOST_FRAMES - 1))] for i in range(MOST_FRAMES)]
    with whole_folder(folder) as kept:
        for path in found:
            shutil.copyfile(path, kept / path.name)
        write_json(kept / "index.json", {"examples": [int(path.stem) for path in found]})


def curves(recorded: list[dict[str, Any]]) -> str:
    """The recorded metrics as CSV, a row per report."""
    names = sorted({name for point in recorded for name in point["metrics"] if name != "examples_per_second"})
    rows = [["examples", *(name.replace("/", "_") for name in names)]]
    for point in recorded:
        rows.append([str(point["examples"]), *(f"{point['metrics'].get(n, float('nan')):.6g}" for n in names)])
    return "".join(",".join(row).replace("nan", "") + "\n" for row in rows)
