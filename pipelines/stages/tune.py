"""The stage `tune`: short trials of a family's settings, and the best of them for `train`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.files import write_atomically
from pipelines import config
from pipelines.config import Family, Params, Tune, setting_of
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.execution.jobs import family_settings, fitting_batch, make_job
from pipelines.execution.search import SearchJob, TrialLog, search_local
from pipelines.execution.signals import stop_on_sigterm
from pipelines.paths import prepared_folder, runs_folder, state_folder
from pipelines.training.config import changes_model
from pipelines.training.identity import PACKAGES, ROOT, identity, identity_digest, import_closure
from pipelines.training.job import STOP, TrainingJob, clear_signals, locked
from pipelines.training.progress import ProgressBar

log = logging.getLogger(__name__)

SEARCH = "pipelines.execution.search"
"""Where a search begins: it imports what draws settings, runs their trials and stops them."""


def select_best(trials: list[dict[str, Any]], examples: int, margin: float) -> tuple[dict[str, float], str]:
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
    settings = config.load(dataset=dataset)
    chosen = family_settings(settings, family)
    out = runs_folder(settings.dataset) / "tune" / f"{family}.json"
    private = chosen.training.privacy.epsilon > 0
    if not settings.tune.enabled or not chosen.search or private:
        why = "tune.enabled is false" if not settings.tune.enabled else f"{family}.search names no setting"
        if private:
            why = f"{family}.training.privacy counts one training, and every trial would be another"
        write_atomically(out, json.dumps({"settings": {}, "why": why, "trials": []}, indent=1))
        log.info("%s: no search (%s); training takes the settings as written", family, why)
        return
    data = Dataset.open(prepared_folder(settings.dataset))
    trials, why, best = _search(family, chosen, settings, data, verbose=verbose)
    write_atomically(out, json.dumps({"settings": best, "why": why, "trials": trials}, indent=1))
    log.info("%s: %d trials; %s; wrote %s", family, len(trials), why, out)


def _search(
    family: str, chosen: Family, settings: Params, data: Dataset, *, verbose: bool
) -> tuple[list[dict[str, Any]], str, dict[str, float]]:
    from pipelines import tracking
    from pipelines.execution import remote
    from pipelines.execution.address import job_server

    chosen = fitting_batch(chosen, data, family)
    job = make_job(settings, family, chosen, data, Path())
    examples = max(chosen.training.batch_size, round(settings.tune.part * chosen.training.total_examples))
    key = sweep_key(job, settings, chosen, data.digest, checked_facts(Path(job.yardstick))["digest"])
    folder = (state_folder(settings.dataset) / f"tune-{family}-{key[:12]}").resolve()
    job = dataclasses.replace(job, state=str(folder / "scratch"))
    with locked(folder), ProgressBar(f"tune {family}", settings.tune.trials * examples) as bar:
        sweep = tracking.Sweep.open(
            dataset=settings.dataset,
            family=family,
            run_key=key,
            params={"seed": settings.seed, "tune": dataclasses.asdict(settings.tune)},
            manifest=data.manifest,
            spool=folder,
        )
        trial_log = TrialLog(folder, sweep, bar, examples)
        as_written = {name: float(setting_of(chosen, name)) for name in chosen.search}

        def remaining() -> SearchJob:
            before = trial_log.finished()
            return SearchJob(
                job=job,
                family=chosen,
                initial=[] if before else [as_written],
                completed=[(t["settings"], t["score"]) for t in before if t["score"] is not None],
                trials=settings.tune.trials - len(before),
                concurrent=settings.tune.concurrent,
                examples=examples,
            )

        try:
            if len(trial_log.finished()) < settings.tune.trials:
                if server := job_server(settings.cluster):
                    clear_signals(folder)
                    with stop_on_sigterm(folder / STOP):
                        remote.search(remaining, settings, server, data.digest, trial_log)
                else:
                    search_local(remaining(), trial_log, settings.cluster.address, verbose=verbose)
            trials = [
                {**without_name(trial), "as_written": trial["settings"] == as_written} for trial in trial_log.finished()
            ]
            best, why = select_best(trials, examples, settings.tune.margin)
        except BaseException:
            sweep.finish("FAILED")
            raise
        scores = [t["score"] for t in trials if t["score"] is not None]
        sweep.finish("FINISHED", best={"score": min(scores)})
    return trials, why, best


def without_name(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A finished trial without the name that Ray gave it, which is another at each run."""
    return {name: value for name, value in trial.items() if name != "trial"}


def sweep_key(job: TrainingJob, settings: Params, chosen: Family, data: str, reference: str, root: Path = ROOT) -> str:
    """Identity of a sweep: what it tries, on what, with which code.

    Arguments:
        job: The training whose settings are searched.
        settings: How they are searched.
        chosen: The settings as written, and the ranges.
        data: Digest of the prepared data.
        reference: Digest of the evaluation reference.
        root: Folder of the packages.
    """
    search = {name: dataclasses.asdict(span) for name, span in chosen.search.items()}
    how = changes_model(Tune, dataclasses.asdict(settings.tune))
    same = identity(job, data, reference, root)
    same["training"].pop("evaluations", None)  # trials have their own
    names = {job.spec["family"], job.spec.get("domain", {}).get("kind", "")}
    code = same["code"] | import_closure(root, PACKAGES, [SEARCH], names)
    return identity_digest(same | {"code": code, "tune": how, "search": search})
