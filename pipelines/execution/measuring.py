"""Where a model is measured: in this process, or on the nodes of a cluster.

A model is asked (for samples, bounds, scores) in chunks, and a chunk's answer depends on nothing but the model and the
chunk. So the figures do not depend on who answers, and answers are kept until all are there: whoever goes on
after a lost node, a stopped job or a killed process asks only what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import Dataset
from data.files import canonical, folder_digest, whole_folder
from pipelines.config import Cluster
from pipelines.evaluation.config import ReferenceConfig
from pipelines.evaluation.reference.facts import checked_facts
from pipelines.execution.address import ray_address
from pipelines.execution.answers import KeptAnswers, answers_here, device_here
from pipelines.execution.evaluation import PARTS, PICTURES, RESULT, YARDSTICK, EvaluationJob, ReferenceJob, measure
from pipelines.execution.events import Shown
from pipelines.execution.local import threads
from pipelines.execution.signals import interrupted_by_sigterm
from pipelines.paths import state_folder
from pipelines.serving import artifact
from pipelines.storage.parts import Parts
from pipelines.training.identity import PACKAGES, ROOT, import_closure

if TYPE_CHECKING:
    from pipelines.execution.cluster_job import ClusterJob

log = logging.getLogger(__name__)

MEASURING = "pipelines.execution.evaluation"
"""Where measuring begins: what it imports is what the figures are made of."""

BUILDER = "pipelines.evaluation.reference_builder"
"""Where making a yardstick begins."""

WORTH_KEEPING = 1.0
"""Seconds that an answer of this process must have taken to be kept on disk."""


def digest_of(same: dict[str, Any]) -> str:
    """SHA-256 of what makes a piece of work the same one."""
    return hashlib.sha256(canonical(same)).hexdigest()


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
    places = {name: str(Path(getattr(job, name)).resolve()) for name in ("model", "prepared", "yardstick")}
    job = dataclasses.replace(job, **places)
    facts, _ = artifact.read(job.model)
    same = dataclasses.asdict(job) | {
        "model": artifact.model_digest(job.model),
        "prepared": Dataset.open(job.prepared).digest,
        "yardstick": folder_digest(Path(job.yardstick)),
        "code": import_closure(ROOT, PACKAGES, [MEASURING], {job.family, facts["domain"].get("kind", "")}),
    }
    state = (state_folder(job.dataset) / f"evaluate-{job.family}-{digest_of(same)[:12]}").resolve()
    shown = Shown(f"evaluate {job.family}")
    log.info("evaluate %s: %s samples, and what else the model can do …", job.family, f"{job.samples:,}")
    if not ray_address(settings):
        from pipelines.evaluation.reference.fit import fixed_threads

        ask = KeptAnswers(answers_here, Parts(state / PARTS), device_here(), shown, least=WORTH_KEEPING)
        small = threads(facts["domain"]) == 1
        with interrupted_by_sigterm(), fixed_threads() if small else nullcontext():
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


def run_features(
    dataset: Dataset,
    name: str,
    folder: Path,
    *,
    seed: int,
    settings: ReferenceConfig,
    where: Cluster,
    verbose: bool = False,
) -> None:
    """Make a yardstick where the settings say.

    Arguments:
        dataset: The prepared dataset.
        name: Its name.
        folder: Of the yardstick.
        seed: Seed of everything random.
        settings: How it is made.
        where: On a cluster's nodes, else in this process.
        verbose: Let Ray's own log through.

    Raises:
        ConnectionError: If the cluster cannot be reached.
        Interrupted: If SIGTERM came; classifiers that are trained are kept.
        Exception: What ended the making.
    """
    job = ReferenceJob(name, str(dataset.folder.resolve()), seed, dataclasses.asdict(settings))
    code = import_closure(ROOT, PACKAGES, [BUILDER], {dataset.domain.get("kind", "")})
    same = dataclasses.asdict(job) | {"prepared": dataset.digest, "code": code}
    state = (state_folder(name) / f"features-{digest_of(same)[:12]}").resolve()
    if not ray_address(where):
        from pipelines.evaluation.reference_builder import build_reference

        with interrupted_by_sigterm():
            build_reference(
                dataset, name, folder, seed=seed, settings=settings, device=device_here(), kept=Parts(state / PARTS)
            )
        shutil.rmtree(state, ignore_errors=True)
        return

    from pipelines.execution.on_nodes import run_there

    def sent(remote: ClusterJob) -> ReferenceJob:
        return dataclasses.replace(job, prepared=remote.upload_once(job.prepared, dataset.digest))

    run_there("features", job, sent, state, where, Shown("features"), verbose=verbose)
    checked_facts(state / YARDSTICK)
    with whole_folder(folder) as temporary:
        shutil.copytree(state / YARDSTICK, temporary, dirs_exist_ok=True)
