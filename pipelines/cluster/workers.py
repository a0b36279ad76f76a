"""Workers that train together: as many as there is room for, joined by a process group, replaced when they die."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import ray.exceptions
import ray.train
import ray.train.torch
import torch
from ray._private.state import state as cluster_state
from ray.train.v2._internal.execution.context import get_train_context

from pipelines.cluster.group import GroupConfig
from pipelines.paths import private_umask
from pipelines.training.context import WorkerContext

RESIZE_SECONDS = 30.0
"""How often a healthy elastic training looks whether there is room for more workers."""


class LostController(RuntimeError):
    """Ray Train's controller died, and its workers with it; what they held is free once this process leaves Ray."""


def worker_count(workers: int | tuple[int, int] | str, virtual_ranks: int) -> int | tuple[int, int]:
    """`auto` as a number: one worker per GPU of the cluster, as many as share the virtual ranks evenly; else one."""
    if isinstance(workers, str):
        gpus = int(ray.cluster_resources().get("GPU", 0))
        return max((n for n in range(1, gpus + 1) if virtual_ranks % n == 0), default=1)
    return workers


def capacity(resource: str) -> int:
    """How much of a resource the cluster has, or will have when its autoscaler has started every node it may."""
    possible = cluster_state.get_max_resources_from_cluster_config() or {}
    return int(max(ray.cluster_resources().get(resource, 0), possible.get(resource, 0)))


def cores_each(workers: int, *, on_gpu: bool = False) -> int:
    """The most cores a worker can have while the nodes that are up hold them all; 1 while they cannot."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(cores: int) -> int:
        held = (min(n.get("CPU", 0) // cores, n.get("GPU", 0) if on_gpu else workers) for n in nodes)
        return int(sum(held))

    largest = int(max((n.get("CPU", 0) for n in nodes), default=1))
    return max((cores for cores in range(1, largest + 1) if room(cores) >= workers), default=1)


def run_workers(
    work: Callable[[dict[str, Any], WorkerContext], None],
    config: dict[str, Any],
    *,
    workers: int | tuple[int, int],
    threads: int,
    storage: str,
    max_failures: int,
    timeout: int = 1_800,
) -> None:
    """Run the same function on every worker, with a process group joining them, until all return.

    Arguments:
        work: What a worker does; given `config` and its place.
        config: Plain data.
        workers: How many; or the fewest and the most, to shrink when a node is lost and to grow when
            one comes (`work` is then started again on the others).
        threads: Threads of a worker on a CPU; 0 for its share of the cores.
        storage: Where Ray may keep its own notes, an absolute path or a URL; nothing of ours lies there.
        max_failures: Restarts of all workers after one has died.
        timeout: Seconds that workers wait for one of them before they call it lost.

    Raises:
        ValueError: If the cluster has fewer cores than workers.
        RuntimeError: If a worker failed more often than that, with its first error.
        LostController: If Ray Train's controller died.
    """
    fewest, most = (workers, workers) if isinstance(workers, int) else workers
    if capacity("CPU") < fewest:
        raise ValueError(
            f"train.workers: {fewest} workers need {fewest} cores, the cluster has {capacity('CPU')};"
            " lower it in params.yaml"
        )
    on_gpu = capacity("GPU") >= fewest
    cores = cores_each(most, on_gpu=on_gpu)

    umask = private_umask()

    def entry(config: dict[str, Any]) -> None:
        os.umask(umask)  # a node's own may be any
        context = ray.train.get_context()
        device = str(ray.train.torch.get_device())
        if device == "cpu":
            torch.set_num_threads(threads or cores)
        work(config, WorkerContext(context.get_world_rank(), context.get_world_size(), device, notice=notice_given))

    trainer = ray.train.torch.TorchTrainer(
        entry,
        train_loop_config=config,
        torch_config=GroupConfig(backend="nccl" if on_gpu else "gloo", timeout_s=timeout, notes=storage),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cores, **({"GPU": 1} if on_gpu else {})},
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{uuid4().hex[:8]}",  # a name used before would silently resume Ray's own state
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )
    with _failures_named(max_failures):
        trainer.fit()


@contextmanager
def _failures_named(max_failures: int) -> Iterator[None]:
    """Ray Train's errors become ours: the first worker's, or that of a dead controller."""
    try:
        yield
    except ray.train.TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {})
        first = next(iter(failures.values()), error)
        raise RuntimeError(
            f"a training worker failed and max_failures ({max_failures}) restarts did not help: {last_line(first)}"
        ) from error
    except ray.exceptions.RayActorError as error:
        raise LostController(f"Ray Train's controller died: {last_line(error)}") from error


def notice_given() -> bool:
    """Whether a node with a worker of this training is about to go, as Ray has told every worker.

    `ray.train.get_preemption_info` says the same, but waits for all workers through an actor at each call.
    """
    return get_train_context().preemption_context.preemption_info is not None


def last_line(error: BaseException | str) -> str:
    """The last line of an error's text: what went wrong, without the way there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
