"""The Ray adapter: workers that train together, and trials that search. The only importer of Ray."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import ray
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray._private import ray_constants
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipelines.loop import Place
from pipelines.params import Range


class TrialRecorder(Protocol):
    """Who is told what the trials of a sweep do."""

    def trial_started(self, trial: str, settings: Mapping[str, float]) -> None: ...
    def trial_result(self, trial: str, examples: int, metrics: Mapping[str, float]) -> None: ...
    def trial_finished(
        self, trial: str, settings: Mapping[str, float], score: float | None, error: str | None
    ) -> None: ...


@contextmanager
def connected(*, verbose: bool = False) -> Iterator[None]:
    """A Ray cluster: the one at `RAY_ADDRESS`, else one of this machine's cores, stopped afterwards.

    Raises:
        ConnectionError: If `RAY_ADDRESS` is set and no cluster answers there.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2", "1")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    level = logging.INFO if verbose else logging.ERROR
    if not verbose:
        for name in ("ray", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        if address:
            knock(address)
        else:
            _stay_on_loopback()
        ray.init(
            address=address or "local",
            log_to_driver=verbose,
            logging_level=level,
            include_dashboard=None if address else True,
            dashboard_host="127.0.0.1",
        )
    except (ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}. Start it (`ray up ray_cluster.yaml`),"
            " or unset RAY_ADDRESS to train on this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Fail at once where Ray would try for minutes: nobody listens at the address.

    Raises:
        OSError: If no connection is made within three seconds.
    """
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    default = 10001 if parts.scheme == "ray" else 6379
    socket.create_connection((parts.hostname or "", parts.port or default), timeout=3).close()


def _stay_on_loopback() -> None:
    """Let no socket of a local Ray listen beyond 127.0.0.1.

    Ray turns "127.0.0.1" into the host's outward address and then listens on every interface; the
    switch it has for Windows and macOS, where that raises firewall prompts, keeps it on loopback.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def worker_count(workers: int | str) -> int:
    """`auto` as a number: one worker per GPU of the cluster, one if there is none."""
    if workers == "auto":
        return max(1, int(ray.cluster_resources().get("GPU", 0)))
    return int(workers)


def in_tasks(function: Callable[[Any], Any], items: Iterable[Any], size: int) -> Iterator[Any]:
    """Apply a function to items in Ray tasks all over the cluster; results in order, few items ahead.

    Arguments:
        function: A pure function of bytes.
        items: Read lazily.
        size: Bytes behind all items; the cluster is asked whatever it is.
    """
    task = ray.remote(num_cpus=1)(function)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending: deque[Any] = deque()
    for item in items:
        pending.append(task.remote(item))
        if len(pending) > ahead:
            yield ray.get(pending.popleft())
    while pending:
        yield ray.get(pending.popleft())


def run_workers(
    work: Callable[[dict[str, Any], Place], None],
    config: dict[str, Any],
    *,
    workers: int,
    threads: int,
    storage: Path,
    max_failures: int,
    timeout: int = 1_800,
) -> None:
    """Run the same function on every worker, with a process group joining them, until all return.

    Arguments:
        work: What a worker does; given `config` and its place.
        config: Plain data.
        workers: How many.
        threads: Threads of a worker on a CPU; 0 for its share of the cores.
        storage: Where Ray may keep its own notes; nothing of ours lies there.
        max_failures: Restarts of all workers after one has died.
        timeout: Seconds that workers wait for one of them before they call it lost.

    Raises:
        ValueError: If the cluster has fewer cores than workers.
        RuntimeError: If a worker failed more often than that, with its first error.
    """
    resources = ray.cluster_resources()
    on_gpu = resources.get("GPU", 0) >= workers
    cores = int(resources.get("CPU", 1)) // workers
    if cores < 1:
        raise ValueError(
            f"train.workers: {workers} workers need {workers} cores, the cluster has {int(resources.get('CPU', 0))};"
            " lower it in params.yaml"
        )

    def entry(config: dict[str, Any]) -> None:
        context = ray.train.get_context()
        device = str(ray.train.torch.get_device())
        if device == "cpu":
            torch.set_num_threads(threads or cores)
        work(config, Place(context.get_world_rank(), context.get_world_size(), device))

    trainer = ray.train.torch.TorchTrainer(
        entry,
        train_loop_config=config,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=timeout),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=on_gpu, resources_per_worker={"CPU": cores, **({"GPU": 1} if on_gpu else {})}
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{uuid4().hex[:8]}",  # a name used before would silently resume Ray's own state
            storage_path=str(storage.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {})
        first = next(iter(failures.values()), error)
        raise RuntimeError(
            f"a training worker failed and max_failures ({max_failures}) restarts did not help: {_last_line(first)}"
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


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
        error = trial.get_error()
        self.recorder.trial_finished(trial.trial_id, trial.config, None, _last_line(error) if error else "failed")


def run_trials(
    trial: Callable[[dict[str, float], Callable[[int, float], None]], None],
    search: Mapping[str, Range],
    *,
    first: Sequence[Mapping[str, float]],
    known: Sequence[tuple[Mapping[str, float], float]],
    trials: int,
    concurrent: int,
    threads: int,
    examples: int,
    seed: int,
    storage: Path,
    recorder: TrialRecorder,
) -> None:
    """Search settings with Optuna's tree-structured Parzen estimator; ASHA stops the hopeless early.

    Arguments:
        trial: Given the settings and a function to report (examples seen, score; lower is better).
        search: Range of each setting.
        first: Settings to try before the search starts.
        known: Settings and scores of trials that finished earlier.
        trials: How many to run now.
        concurrent: How many at a time.
        threads: Threads of a trial on a CPU; 0 for its share of the cores.
        examples: Examples a full trial sees.
        seed: Seed of the search.
        storage: Where Ray keeps its own notes.
        recorder: Is told of every event.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        name: optuna.distributions.FloatDistribution(span.low, span.high, log=span.log) for name, span in search.items()
    }
    resources = ray.cluster_resources()
    share = {"cpu": max(1, int(resources.get("CPU", 1)) // concurrent)}
    if gpus := resources.get("GPU", 0):
        share["gpu"] = min(1, gpus / concurrent)
    cores = share["cpu"]

    def entry(settings: dict[str, float]) -> None:
        torch.set_num_threads(threads or cores)
        trial(settings, lambda seen, score: tune.report({"examples": seen, "score": score}))

    searcher = OptunaSearch(
        space,
        metric="score",
        mode="min",
        points_to_evaluate=[dict(point) for point in first] or None,
        sampler=optuna.samplers.TPESampler(seed=seed + len(known)),
    )
    for settings, score in known:
        searcher.add_evaluated_point(dict(settings), score)
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
            storage_path=str(storage.resolve()),
            callbacks=[_Recording(recorder)],
            verbose=0,
        ),
    )
    with _quiet_stdout():
        tuner.fit()


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Tune prints a banner whatever its verbosity; errors still reach standard error."""
    kept, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115 - closed below
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = kept
