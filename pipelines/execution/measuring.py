"""Where a model is measured: in this process, or on the nodes of a cluster.

A model is asked (for samples, bounds, scores) in chunks, and a chunk's answer depends on nothing but the model and the
chunk. So the figures do not depend on who answers, and answers are kept until all are there: whoever goes on
after a lost node, a stopped job or a killed process asks only what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import Dataset
from data.files import canonical, folder_digest
from pipelines.config import Cluster
from pipelines.execution.address import ray_address
from pipelines.execution.answers import KeptAnswers, answers_here, device_here
from pipelines.execution.evaluation import PARTS, PICTURES, RESULT, EvaluationJob, measure
from pipelines.execution.events import Shown
from pipelines.paths import state_folder
from pipelines.serving import artifact
from pipelines.storage.parts import Parts
from pipelines.training.errors import Interrupted
from pipelines.training.identity import PACKAGES, ROOT, import_closure

if TYPE_CHECKING:
    from pipelines.execution.cluster_job import ClusterJob

MEASURING = "pipelines.execution.evaluation"
"""Where measuring begins: what it imports is what the figures are made of."""

WORTH_KEEPING = 1.0
"""Seconds that an answer of this process must have taken to be kept on disk."""


def run_evaluation(job: EvaluationJob, pictures: Path, settings: Cluster, *, verbose: bool = False) -> dict[str, Any]:
    """Measure a model where the settings say.

    Arguments:
        job: What is measured.
        pictures: An empty folder, for the pictures.
        settings: Where: on a cluster's nodes, else in this process.
        verbose: Let Ray's own log through.

    Raises:
        ConnectionError: If the cluster cannot be reached.
        Interrupted: If SIGTERM came; what has been answered is kept.
        Exception: What ended the measuring.
    """
    facts, _ = artifact.read(job.model)
    same = dataclasses.asdict(job) | {
        "model": artifact.model_digest(job.model),
        "prepared": Dataset.open(job.prepared).digest,
        "yardstick": folder_digest(Path(job.yardstick)),
        "code": import_closure(ROOT, PACKAGES, [MEASURING], {job.family, facts["domain"].get("kind", "")}),
    }
    key = hashlib.sha256(canonical(same)).hexdigest()
    state = (state_folder(job.dataset) / f"evaluate-{job.family}-{key[:12]}").resolve()
    shown = Shown(f"evaluate {job.family}")
    if not ray_address(settings):
        ask = KeptAnswers(answers_here, Parts(state / PARTS), device_here(), shown, least=WORTH_KEEPING)
        with interrupted_by_sigterm():
            measured = measure(job, pictures, ask=ask, device=device_here())
        shutil.rmtree(state, ignore_errors=True)
        return measured

    from pipelines.execution.on_nodes import run_there

    def sent(remote: ClusterJob) -> EvaluationJob:
        return dataclasses.replace(
            job,
            model=remote.upload_once(job.model, same["model"]),
            prepared=remote.upload_once(job.prepared, same["prepared"]),
            yardstick=remote.upload_once(job.yardstick, same["yardstick"]),
        )

    run_there("evaluate", job, sent, state, settings, shown, verbose=verbose)
    measured = json.loads((state / RESULT).read_text(encoding="utf-8"))
    for name in measured["pictures"]:
        shutil.copyfile(state / PICTURES / name, pictures / name)
    return measured


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM ends it at once as what can go on."""

    def end(*_: Any) -> None:
        raise Interrupted("stopped by SIGTERM; what the model has answered is kept")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
