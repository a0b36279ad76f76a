"""Searching a family's settings by short trials."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from models import FAMILIES
from pipelines.config.sections import Family, Range, with_settings
from pipelines.execution.local import threads
from pipelines.storage.mirror import local_copy
from pipelines.training.config import TrainingConfig
from pipelines.training.context import TrainingReport, WorkerContext
from pipelines.training.job import TrainingJob
from pipelines.training.progress import ProgressBar

EVALUATIONS = 3
"""Scores of a trial; after each ASHA may stop it."""


class TrialLog:
    """The finished trials of a sweep, on disk line by line, so that none is ever repeated.

    Arguments:
        folder: State of the sweep.
        sweep: The sweep's MLflow run.
        bar: Progress.
        examples: Examples of a full trial.
    """

    def __init__(self, folder: Path, sweep: Any, bar: ProgressBar, examples: int) -> None:
        self.path = folder / "trials.jsonl"
        self.sweep, self.bar, self.examples = sweep, bar, examples
        self.seen: dict[str, int] = {}
        """Examples that each running trial has seen."""

    def finished(self) -> list[dict[str, Any]]:
        """Trials that ended, whether in this process or in one before."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def trial_started(self, trial: str, settings: Mapping[str, float]) -> None:
        self.seen[trial] = 0
        self.sweep.trial_started(trial, dict(settings))

    def trial_result(self, trial: str, examples: int, metrics: Mapping[str, float]) -> None:
        self.seen[trial] = examples
        self.bar.show(len(self.finished()) * self.examples + sum(self.seen.values()), {"score/loss": metrics["score"]})
        self.sweep.trial_result(trial, examples, metrics)

    def trial_finished(self, trial: str, settings: Mapping[str, float], score: float | None, error: str | None) -> None:
        seen = self.seen.pop(trial, 0)
        if any(known.get("trial") == trial for known in self.finished()):
            return  # told again, by a job that this process came back to
        entry = {"trial": trial, "settings": dict(settings), "score": score, "examples": seen, "error": error}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.bar.show(len(self.finished()) * self.examples, {})
        self.sweep.trial_finished(trial, "FAILED" if error else "FINISHED" if seen >= self.examples else "KILLED")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchJob:
    """Everything that the trials of a search need, as plain data.

    Arguments:
        job: The training that is searched for; its state is a scratch folder.
        family: Its settings, and the ranges searched.
        initial: Settings to try before the search starts.
        completed: Settings and scores of trials that finished earlier.
        trials: How many to run.
        concurrent: How many at a time.
        examples: Examples a full trial sees.
    """

    job: TrainingJob
    family: Family
    initial: list[dict[str, float]]
    completed: list[tuple[dict[str, float], float]]
    trials: int
    concurrent: int
    examples: int

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> SearchJob:
        """A search from what JSON keeps of it."""
        job, family = TrainingJob(**plain["job"]), plain["family"]
        chosen = Family(
            model=FAMILIES[job.spec["family"]].Config(**family["model"]),
            training=TrainingConfig(**family["training"]),
            sampling=FAMILIES[job.spec["family"]].SamplingConfig(**family.get("sampling", {})),
            search={name: Range(**span) for name, span in family["search"].items()},
        )
        return cls(**{**plain, "job": job, "family": chosen})


def search_local(search: SearchJob, recorder: Any, address: str = "", *, verbose: bool = False) -> None:
    """Run the trials of a search.

    Arguments:
        search: What is searched.
        recorder: Is told what the trials do (a `cluster.TrialRecorder`).
        address: Of the Ray cluster to join; empty for this machine (see `cluster.connected`).
        verbose: Let Ray's own log through.
    """
    from pipelines import cluster

    job = search.job
    notes = f"{job.state}/ray"
    with cluster.connected(address, verbose=verbose):
        cluster.run_trials(
            lambda values, report: run_trial(trial_job(job, search.family, values, search.examples), report),
            search.family.search,
            initial=search.initial,
            completed=search.completed,
            trials=search.trials,
            concurrent=search.concurrent,
            threads=threads(job.spec["domain"]),
            examples=search.examples,
            seed=job.seed,
            storage=notes,
            recorder=recorder,
        )
    shutil.rmtree(notes, ignore_errors=True)


def trial_job(job: TrainingJob, family: Family, settings: Mapping[str, float], examples: int) -> TrainingJob:
    """A job with some settings replaced, cut to a trial's length."""
    changed = with_settings(family, settings)
    training = dataclasses.replace(
        changed.training,
        total_examples=examples,
        warmup_examples=min(changed.training.warmup_examples, examples // 5),
        evaluations=EVALUATIONS,
    )
    spec = {**job.spec, "config": dataclasses.asdict(changed.model)}
    return dataclasses.replace(job, spec=spec, training=dataclasses.asdict(training))


def run_trial(job: TrainingJob, report: Callable[[int, float], None]) -> None:
    """Train one trial without checkpoints, and report every score."""
    import torch

    from pipelines.training import loop  # seconds of imports that who only submits a job is spared
    from pipelines.training.worker import Recorder, TrainingData, build_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = Dataset.open(local_copy(job.prepared))
    settings = TrainingConfig(**job.training)
    data = TrainingData(dataset, settings, job.seed, device)
    recorder = Recorder(job)

    def scored(progress: TrainingReport) -> float | None:
        if progress.model is None:
            return None
        score = recorder.score(progress.model)
        report(progress.examples, score)
        return score

    loop.train(build_model(job), data, settings, seed=job.seed, report=scored, context=WorkerContext(device=device))
