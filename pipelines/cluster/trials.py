"""Trials that search settings, one worker each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipelines.cluster.workers import capacity, cores_each, last_line
from pipelines.config.sections import Range
from pipelines.paths import private_umask


class TrialRecorder(Protocol):
    """Who is told what the trials of a sweep do."""

    def trial_started(self, trial: str, settings: Mapping[str, float]) -> None: ...
    def trial_result(self, trial: str, examples: int, metrics: Mapping[str, float]) -> None: ...
    def trial_finished(
        self, trial: str, settings: Mapping[str, float], score: float | None, error: str | None
    ) -> None: ...


class _Recording(tune.Callback):
    """Passes Tune's events on."""

    def __init__(self, recorder: TrialRecorder) -> None:
        self.recorder = recorder

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.recorder.trial_started(trial.trial_id, trial.config)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "score" in result:
            self.recorder.trial_result(trial.trial_id, int(result["examples"]), {"score": float(result["score"])})

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        score = trial.last_result.get("score")
        self.recorder.trial_finished(trial.trial_id, trial.config, None if score is None else float(score), None)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        self.recorder.trial_finished(trial.trial_id, trial.config, None, last_line(text or "failed"))


def run_trials(
    trial: Callable[[dict[str, float], Callable[[int, float], None]], None],
    search: Mapping[str, Range],
    *,
    initial: Sequence[Mapping[str, float]],
    completed: Sequence[tuple[Mapping[str, float], float]],
    trials: int,
    concurrent: int,
    threads: int,
    examples: int,
    seed: int,
    storage: str,
    recorder: TrialRecorder,
) -> None:
    """Search settings with Optuna's tree-structured Parzen estimator; ASHA stops the hopeless early.

    Arguments:
        trial: Given the settings and a function to report (examples seen, score; lower is better).
        search: Range of each setting.
        initial: Settings to try before the search starts.
        completed: Settings and scores of trials that finished earlier.
        trials: How many to run now.
        concurrent: How many at a time.
        threads: Threads of a trial on a CPU; 0 for its share of the cores.
        examples: Examples a full trial sees.
        seed: Seed of the search.
        storage: Where Ray keeps its own notes, an absolute path or a URL.
        recorder: Is told of every event.
    """
    gpus = capacity("GPU")
    cores = cores_each(concurrent, on_gpu=gpus >= concurrent)
    share = {"cpu": cores, **({"gpu": min(1, gpus / concurrent)} if gpus else {})}

    umask = private_umask()

    def entry(settings: dict[str, float]) -> None:
        os.umask(umask)  # a node's own may be any
        torch.set_num_threads(threads or cores)
        trial(settings, lambda seen, score: tune.report({"examples": seen, "score": score}))

    searcher = _searcher(search, initial, completed, seed)
    tuner = tune.Tuner(
        tune.with_resources(entry, share),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="min",
            search_alg=tune.search.ConcurrencyLimiter(searcher, max_concurrent=concurrent),
            scheduler=ASHAScheduler(
                time_attr="examples", max_t=examples, grace_period=max(1, examples // 3), reduction_factor=2
            ),
            num_samples=trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{uuid4().hex[:8]}",
            storage_path=storage,
            callbacks=[_Recording(recorder)],
            verbose=0,
        ),
    )
    with _quiet_stdout():
        tuner.fit()


def _searcher(
    search: Mapping[str, Range],
    initial: Sequence[Mapping[str, float]],
    completed: Sequence[tuple[Mapping[str, float], float]],
    seed: int,
) -> OptunaSearch:
    """What proposes settings, knowing those that were tried; arguments as of `run_trials`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searcher = OptunaSearch(
        {
            name: optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)
            for name, span in search.items()
        },
        metric="score",
        mode="min",
        points_to_evaluate=[dict(point) for point in initial] or None,
        sampler=optuna.samplers.TPESampler(seed=seed + len(completed)),
    )
    for settings, score in completed:
        searcher.add_evaluated_point(dict(settings), score)
    return searcher


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Tune prints a banner whatever its verbosity; errors still reach standard error."""
    kept, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115 - closed below
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = kept
