"""The stage `tune`: short trials of a family's settings, and the best of them for `train`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.shards import Dataset
from models import FAMILIES
from pipelines import artifact, loop, params
from pipelines.params import Family, Params, Range
from pipelines.progress import Bar
from pipelines.replica import at_hand
from pipelines.train import (
    clear,
    family_settings,
    fitting_batch,
    identity,
    locked,
    make_job,
    prepared_folder,
    runs_folder,
    terminating,
    threads,
)
from pipelines.worker import STOP, Job, Recorder, TrainingData, fresh_model

EVALUATIONS = 3
"""Scores of a trial; after each ASHA may stop it."""


class Ledger:
    """The finished trials of a sweep, on disk line by line, so that none is ever repeated.

    Arguments:
        folder: State of the sweep.
        sweep: The sweep's MLflow run.
        bar: Progress.
        examples: Examples of a full trial.
    """

    def __init__(self, folder: Path, sweep: Any, bar: Bar, examples: int) -> None:
        self.path = folder / "trials.jsonl"
        self.sweep, self.bar, self.examples = sweep, bar, examples
        self.seen = 0

    def finished(self) -> list[dict[str, Any]]:
        """Trials that ended, whether in this process or in one before."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def trial_started(self, trial: str, settings: Mapping[str, float]) -> None:
        self.seen = 0
        self.sweep.trial_started(trial, dict(settings))

    def trial_result(self, trial: str, examples: int, metrics: Mapping[str, float]) -> None:
        self.seen = examples
        self.bar.show(len(self.finished()) * self.examples + examples, {"score/loss": metrics["score"]})
        self.sweep.trial_result(trial, examples, metrics)

    def trial_finished(self, trial: str, settings: Mapping[str, float], score: float | None, error: str | None) -> None:
        if any(known.get("trial") == trial for known in self.finished()):
            return  # told again, by a job that this process came back to
        whole = self.seen >= self.examples
        entry = {"trial": trial, "settings": dict(settings), "score": score, "examples": self.seen, "error": error}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.bar.show(len(self.finished()) * self.examples, {})
        self.sweep.trial_finished(trial, "FAILED" if error else "FINISHED" if whole else "KILLED")


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Everything that the trials of a search need, as plain data.

    Arguments:
        job: The training that is searched for; its state is a scratch folder.
        family: Its settings, and the ranges searched.
        first: Settings to try before the search starts.
        known: Settings and scores of trials that finished earlier.
        trials: How many to run.
        concurrent: How many at a time.
        examples: Examples a full trial sees.
    """

    job: Job
    family: Family
    first: list[dict[str, float]]
    known: list[tuple[dict[str, float], float]]
    trials: int
    concurrent: int
    examples: int

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Search:
        """A search from what JSON keeps of it."""
        job, family = Job(**plain["job"]), plain["family"]
        chosen = Family(
            model=FAMILIES[job.spec["family"]].Config(**family["model"]),
            training=loop.Settings(**family["training"]),
            search={name: Range(**span) for name, span in family["search"].items()},
        )
        return cls(**{**plain, "job": job, "family": chosen})


def search_here(search: Search, recorder: Any, address: str = "", *, verbose: bool = False) -> None:
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
            first=search.first,
            known=search.known,
            trials=search.trials,
            concurrent=search.concurrent,
            threads=threads(job.spec["domain"]),
            examples=search.examples,
            seed=job.seed,
            storage=notes,
            recorder=recorder,
        )
    shutil.rmtree(notes, ignore_errors=True)


def trial_job(job: Job, family: Family, settings: Mapping[str, float], examples: int) -> Job:
    """A job with some settings replaced, cut to a trial's length."""
    changed = params.with_settings(family, settings)
    training = dataclasses.replace(
        changed.training,
        total_examples=examples,
        warmup_examples=min(changed.training.warmup_examples, examples // 5),
        evaluations=EVALUATIONS,
    )
    spec = {**job.spec, "config": dataclasses.asdict(changed.model)}
    return dataclasses.replace(job, spec=spec, training=dataclasses.asdict(training))


def run_trial(job: Job, report: Callable[[int, float], None]) -> None:
    """What a trial does: the loop itself, without checkpoints, telling every score."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = Dataset.open(at_hand(job.prepared))
    settings = loop.Settings(**job.training)
    data = TrainingData(dataset, settings, job.seed, device)
    recorder = Recorder(job)

    def scored(said: loop.Report) -> float | None:
        if said.model is None:
            return None
        score = recorder.score(said.model)
        report(said.examples, score)
        return score

    loop.train(fresh_model(job), data, settings, seed=job.seed, report=scored, place=loop.Place(device=device))


def choose(trials: list[dict[str, Any]], examples: int, margin: float) -> tuple[dict[str, float], str]:
    """The best settings, and why: the written ones unless a full trial beat them by the margin.

    Raises:
        RuntimeError: If every trial failed.
    """
    whole = [t for t in trials if t["error"] is None and t["score"] is not None and t["examples"] >= examples]
    if not whole:
        errors = "; ".join(sorted({str(t["error"]) for t in trials if t["error"]})) or "none finished"
        raise RuntimeError(f"no trial reached its end ({errors}); see the trials' runs in MLflow")
    written = next((t for t in whole if t["as_written"]), None)
    others = [t for t in whole if not t["as_written"]]
    if not others:
        return {}, f"as written: score {whole[0]['score']:.3g}; the others were stopped early"
    best = min(others, key=lambda t: t["score"])
    if written is None:
        return best["settings"], f"score {best['score']:.3g}; the settings as written did not finish"
    if best["score"] < (1 - margin) * written["score"]:
        return best["settings"], f"score {best['score']:.3g} against {written['score']:.3g} as written"
    return {}, f"as written: score {written['score']:.3g}; best other {best['score']:.3g}, not better by {margin:.0%}"


def tune(family: str, *, dataset: str | None = None, verbose: bool = False) -> None:
    """Search a family's settings; writes `runs/<dataset>/tune/<family>.json`.

    Arguments:
        family: Which.
        dataset: Use this dataset instead of the one in `params.yaml`.
        verbose: Let Ray's own log through.

    Raises:
        ValueError: If a setting does not fit.
        FileNotFoundError: If an earlier stage has not run.
        ConnectionError: If MLflow or Ray cannot be reached.
        RuntimeError: If every trial failed.
    """
    settings = params.load(dataset=dataset)
    chosen = family_settings(settings, family)
    out = runs_folder(settings.dataset) / "tune" / f"{family}.json"
    if not settings.tune.enabled or not chosen.search:
        why = "tune.enabled is false" if not settings.tune.enabled else f"{family}.search names no setting"
        artifact.write_atomically(out, json.dumps({"settings": {}, "why": why, "trials": []}, indent=1))
        print(f"{family}: no search ({why}); training takes the settings as written")
        return
    data = Dataset.open(prepared_folder(settings.dataset))
    trials, why, best = _search(family, chosen, settings, data, verbose=verbose)
    artifact.write_atomically(out, json.dumps({"settings": best, "why": why, "trials": trials}, indent=1))
    print(f"{family}: {len(trials)} trials; {why}")


def _search(
    family: str, chosen: Family, settings: Params, data: Dataset, *, verbose: bool
) -> tuple[list[dict[str, Any]], str, dict[str, float]]:
    from pipelines import remote, tracking

    chosen = fitting_batch(chosen, data, family)
    job = make_job(settings, family, chosen, data, Path())
    examples = max(chosen.training.batch_size, round(settings.tune.part * chosen.training.total_examples))
    key = sweep_key(job, settings, chosen, data.digest)
    folder = (runs_folder(settings.dataset) / "state" / f"tune-{family}-{key[:12]}").resolve()
    job = dataclasses.replace(job, state=str(folder / "scratch"))
    with locked(folder), Bar(f"tune {family}", settings.tune.trials * examples) as bar:
        sweep = tracking.Sweep.open(
            dataset=settings.dataset,
            family=family,
            run_key=key,
            params={"seed": settings.seed, "tune": dataclasses.asdict(settings.tune)},
            manifest=data.manifest,
            spool=folder,
        )
        ledger = Ledger(folder, sweep, bar, examples)
        as_written = {name: current(chosen, name) for name in chosen.search}

        def wanted() -> Search:
            before = ledger.finished()
            return Search(
                job=job,
                family=chosen,
                first=[] if before else [as_written],
                known=[(t["settings"], t["score"]) for t in before if t["score"] is not None],
                trials=settings.tune.trials - len(before),
                concurrent=settings.tune.concurrent,
                examples=examples,
            )

        try:
            if len(ledger.finished()) < settings.tune.trials:
                if server := remote.job_server(settings.cluster):
                    clear(folder)
                    with terminating(folder / STOP):
                        remote.search(wanted, settings, server, data.digest, ledger)
                else:
                    search_here(wanted(), ledger, settings.cluster.address, verbose=verbose)
            trials = [{**kept(trial), "as_written": trial["settings"] == as_written} for trial in ledger.finished()]
            best, why = choose(trials, examples, settings.tune.margin)
        except BaseException:
            sweep.finish("FAILED")
            raise
        scores = [t["score"] for t in trials if t["score"] is not None]
        sweep.finish("FINISHED", best={"score": min(scores)})
    return trials, why, best


def kept(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A finished trial without the name that Ray gave it, which is another at each run."""
    return {name: value for name, value in trial.items() if name != "trial"}


def current(family: Family, name: str) -> float:
    """The value that a dotted setting has as written."""
    section, _, key = name.partition(".")
    return float(getattr(getattr(family, section), key))


def sweep_key(job: Job, settings: Params, chosen: Family, data_digest: str) -> str:
    """Identity of a sweep: what it tries, on what, with which code."""
    search = {name: dataclasses.asdict(span) for name, span in chosen.search.items()}
    what = identity(job, data_digest) | {"tune": dataclasses.asdict(settings.tune), "search": search}
    return hashlib.sha256(artifact.canonical(what)).hexdigest()
