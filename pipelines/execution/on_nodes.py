"""Measuring on the nodes of a cluster, as a job that is found again.

One task holds the data and the yardstick and does the statistics; what the model is asked goes in chunks to a pool of
workers, one per GPU, or per core where there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.dataset import Dataset
from data.files import whole_folder, write_json
from pipelines import cluster
from pipelines.config import Cluster
from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.inference import Question, answer
from pipelines.execution.address import ray_address
from pipelines.execution.answers import KeptAnswers, device_here
from pipelines.execution.cluster_job import ClusterJob
from pipelines.execution.evaluation import PARTS, PICTURES, RESULT, YARDSTICK, EvaluationJob, ReferenceJob, measure
from pipelines.execution.events import EventReader, Shown, followed, recorded
from pipelines.execution.signals import interrupted_by_sigterm, stop_on_sigterm
from pipelines.storage import model_folder
from pipelines.storage.mirror import local_copy, refresh, synced_state
from pipelines.storage.parts import Parts
from pipelines.training.job import FAILURE, STOP, clear_signals, failure, locked

EVENTS, MADE = "events.jsonl", "made"


def run_there(
    kind: str,
    job: Any,
    sent: Callable[[ClusterJob], Any],
    state: Path,
    settings: Cluster,
    shown: Shown,
    *,
    verbose: bool,
) -> None:
    """Have work done on a cluster's nodes; its result is then in the local state folder.

    Arguments:
        kind: Which work, a key of `WORK`.
        job: A dataclass, what is done.
        sent: Gives the job as the nodes see it, after sending what they lack.
        state: The local state folder.
        settings: Of the cluster.
        shown: Is told how far it is.
        verbose: Let Ray's own log through.
    """
    address, result = ray_address(settings), WORK[kind].result
    with locked(state):
        clear_signals(state)
        if not address.startswith(("http://", "https://")):
            if not (state / result).exists():
                with (
                    cluster.connected(address, verbose=verbose),
                    followed(state / EVENTS, shown),
                    interrupted_by_sigterm(),  # Ray has a handler of its own
                ):
                    run_on_node(kind, dataclasses.asdict(job), str(state), state)
            return
        remote = ClusterJob(address, settings, state)
        remote.mirror.pull()
        (state / FAILURE).unlink(missing_ok=True)
        if not (state / result).exists():
            with stop_on_sigterm(state / STOP):
                remote.run(lambda: {kind: dataclasses.asdict(sent(remote))}, EventReader(state / EVENTS, shown))
        shown.close()
        if not (state / result).exists():
            raise RuntimeError(f"{remote.name} succeeded on the cluster but left no {result} in {remote.state}")


def run_on_node(kind: str, job: Mapping[str, Any], place: str, state: Path) -> None:
    """Have work done on a node of the cluster that this process has joined.

    Arguments:
        kind: Which work, a key of `WORK`.
        job: What is done, as plain data.
        place: Where the state lies for all nodes.
        state: The same as this process sees it.

    Raises:
        Exception: What ended the work.
    """
    cluster.run_on_node(WORK[kind].function, {"job": dict(job), "state": place}, gpu=WORK[kind].gpu)
    refresh(place, state)
    if ended_by := failure(state):
        raise ended_by


def evaluate_on_node(config: dict[str, Any]) -> None:
    """What the task on a node does: measure, and leave the result in the state."""
    parts, done = Parts(f"{config['state']}/{PARTS}"), False
    with synced_state(config["state"]) as state, recorded(state, EVENTS) as listener:
        if (state / RESULT).exists():
            return
        job = EvaluationJob(**config["job"])
        pool = cluster.Pool(answering, {"model": job.model})
        ask = KeptAnswers(lambda _, questions: pool.map(questions), parts, "cuda" if pool.on_gpu else "cpu", listener)
        with whole_folder(state / PICTURES) as pictures:
            measured = measure(job, pictures, ask=ask)
        write_json(state / RESULT, measured)
        done = True
    if done:  # and in the storage
        parts.clear()


def features_on_node(config: dict[str, Any]) -> None:
    """What the task on a node does: make the yardstick, and leave it in the state."""
    from pipelines.evaluation.reference_builder import build_reference

    parts, done = Parts(f"{config['state']}/{PARTS}"), False
    with synced_state(config["state"]) as state, recorded(state, EVENTS):
        if (state / MADE).exists():
            return
        job = ReferenceJob(**config["job"])
        settings = ReferenceConfig(**{**job.settings, "components": tuple(job.settings["components"])})
        dataset = Dataset.open(local_copy(job.prepared))
        how = {"seed": job.seed, "settings": settings, "device": device_here(), "kept": parts}
        build_reference(dataset, job.name, state / YARDSTICK, **how)
        (state / MADE).write_text(f"{job.name}\n", encoding="utf-8")
        done = True
    if done:
        parts.clear()


def prepare_on_node(config: dict[str, Any]) -> None:
    """What the task on a node does: prepare a dataset.

    By name, not by import: what reads sources is no part of what trains on the data, which it knows by their digest.
    """
    import_module("pipelines.execution.preparing").prepare(config)


def answering(config: dict[str, Any]) -> Callable[[Question], Tensor]:
    """What a worker of the pool does: answer as the model, which it loads once."""
    device = device_here()
    if device == "cpu":
        torch.set_num_threads(1)
    model, _ = model_folder.load(local_copy(config["model"]), device)
    return partial(answer, model)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What a job does on a node.

    Arguments:
        function: Does it.
        result: The file of its state that tells that all is done.
        gpu: Whether the task itself has use for a GPU.
    """

    function: Callable[[dict[str, Any]], None]
    result: str
    gpu: bool


WORK = {
    "evaluate": Work(evaluate_on_node, RESULT, gpu=False),
    "features": Work(features_on_node, MADE, gpu=True),
    "prepare": Work(prepare_on_node, MADE, gpu=False),
}
"""By the key of the request."""
