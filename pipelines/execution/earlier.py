"""Earlier trainings of a family: one that need not be made again, and one that a longer training goes on from."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import write_atomically
from pipelines.serving import artifact
from pipelines.storage.stores import open_store
from pipelines.training import checkpoint
from pipelines.training.checkpoint import BEST, STEP, Checkpoint, differing
from pipelines.training.errors import CorruptCheckpoint
from pipelines.training.job import TrainingJob, read_metrics

log = logging.getLogger(__name__)

WATCHED = {"training.evaluations"}
"""What a finished training is not made again for: how often it was looked at."""
LENGTH = {"training.total_examples", *WATCHED}


@dataclass(frozen=True, slots=True)
class Earlier:
    """A training that was begun before.

    Arguments:
        job: As it was run.
        changed: Dotted names of what makes the present one another.
    """

    job: TrainingJob
    changed: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether its model is there."""
        return (Path(self.job.state) / "model" / artifact.MANIFEST).exists()


def earlier(states: Path, job: TrainingJob) -> Iterator[Earlier]:
    """The trainings of a job's family that were begun before: this one first, then the newest."""
    family, own = job.spec["family"], Path(job.state) / "job.json"
    found = sorted(states.resolve().glob(f"{family}-*/job.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in sorted(found, key=lambda path: path != own):
        try:
            recorded = TrainingJob(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # damaged, or of another version
            continue
        recorded = dataclasses.replace(recorded, state=str(path.parent))
        yield Earlier(recorded, tuple(differing(recorded.identity, job.identity)))


def finished_before(states: Path, job: TrainingJob) -> TrainingJob:
    """The job as it was run, where what it would learn was learned before, watched at other times perhaps."""
    for before in earlier(states, job):
        if before.finished and WATCHED.issuperset(before.changed):
            return dataclasses.replace(before.job, run_id="")
    return job


def extended(states: Path, job: TrainingJob) -> TrainingJob | None:
    """The longest training that is the beginning of a job; none where the job was begun itself.

    With a constant rate a training is the beginning of any longer one. With a cosine its rate had fallen to nothing
    where the longer one's would still be high; and privacy is accounted for a number of updates.
    """
    if open_store(job.checkpoints).names(STEP) or not extensible(job):
        return None
    found = [before.job for before in earlier(states, job) if _begins(before, job)]
    return max(found, key=lambda before: before.training["total_examples"], default=None)


def extensible(job: TrainingJob) -> bool:
    """Whether a shorter training of the same settings is the beginning of this one."""
    return job.training["schedule"] == "constant" and not job.training["privacy"]["epsilon"]


def longer_only(before: Earlier, job: TrainingJob) -> bool:
    """Whether a job is the same as an earlier one, but longer."""
    length, asked = before.job.training["total_examples"], job.training["total_examples"]
    return length < asked and LENGTH.issuperset(before.changed)


def _begins(before: Earlier, job: TrainingJob) -> bool:
    return longer_only(before, job) and bool(open_store(before.job.checkpoints).names(STEP))


def go_on_from(before: TrainingJob, job: TrainingJob) -> int:
    """Put the newest checkpoint of an earlier training where a job finds it, with its curves; the examples it has seen.

    Returns:
        0 where all of its checkpoints are damaged: the job begins at the beginning.
    """
    source, target = open_store(before.checkpoints), open_store(job.checkpoints)
    try:
        newest = checkpoint.load_newest(source)
    except CorruptCheckpoint as error:
        log.warning("%s", error)
        return 0
    if newest is None:
        return 0
    state = Path(job.state)
    points = [point for point in read_metrics(Path(before.state)) if point["examples"] <= newest.facts["examples"]]
    write_atomically(state / "metrics.jsonl", "".join(json.dumps(point) + "\n" for point in points))
    for picture in sorted((Path(before.state) / "samples").glob("*.png")):
        if int(picture.stem) <= newest.facts["examples"]:
            (state / "samples").mkdir(exist_ok=True)
            shutil.copyfile(picture, state / "samples" / picture.name)
    best_step = newest.facts["best_step"]
    best = checkpoint.load_best(source, best_step) if f"{BEST}{best_step:010d}" in source.names(BEST) else None
    checkpoint.save(target, _of(newest, job), best)
    return int(newest.facts["examples"])


def _of(found: Checkpoint, job: TrainingJob) -> Checkpoint:
    """A checkpoint as one of another training."""
    facts: dict[str, Any] = {**found.facts, "identity": job.identity, "run_id": job.run_id}
    return Checkpoint(found.step, found.tensors, facts)
