"""Preparing a dataset on the cluster: what lies in a bucket goes to the nodes, not through this machine."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cards import CATALOG, Card, find_card, load_card
from data.dataset import Dataset
from data.fetched_shards import NOTE
from data.files import canonical, whole_folder, write_json
from data.ingest.build import build
from pipelines import cluster
from pipelines.config import Cluster
from pipelines.execution.address import job_server
from pipelines.execution.cluster_job import ClusterJob
from pipelines.execution.events import Shown, recorded
from pipelines.execution.on_nodes import EVENTS, MADE, run_there
from pipelines.paths import prepared_folder, state_folder
from pipelines.storage import stores
from pipelines.storage.mirror import synced_state
from pipelines.training.identity import PACKAGES, ROOT, import_closure

log = logging.getLogger(__name__)

BUILDER = "data.ingest.build"
"""Where preparing begins."""

PREPARED = "prepared"
"""Folder of a job's state: what describes the data, without the shards."""


@dataclass(frozen=True, slots=True)
class PrepareJob:
    """Everything that preparing a dataset needs whose source no submitter has to see, as plain data.

    Arguments:
        name: Of the dataset.
        card: Text of its card.
        storage: Where the shards are to be left, a folder or an `s3://` URL.
    """

    name: str
    card: str
    storage: str


def prepare(config: dict[str, Any]) -> None:
    """What the task on a node does: prepare a dataset, leave its shards in the storage, and the rest in the state."""
    with synced_state(config["state"]) as state, recorded(state, EVENTS):
        if (state / MADE).exists():
            return
        job = PrepareJob(**config["job"])
        with tempfile.TemporaryDirectory(prefix="fivefold-") as temporary:
            root, folder = Path(temporary), Path(temporary) / job.name
            (root / CATALOG).mkdir(parents=True)
            (root / CATALOG / f"{job.name}.yaml").write_text(job.card, encoding="utf-8")
            manifest = build(load_card(job.name, root), root, folder, cluster.in_tasks)
            name = f"{job.name}-{manifest['digest'][:16]}"
            store = stores.open_store(job.storage)
            if name not in store.names(name):
                store.install(name, lambda target: shutil.copytree(folder, target, dirs_exist_ok=True))
            with whole_folder(state / PREPARED) as kept:
                shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.arrow"))
                write_json(kept / NOTE, {"place": f"{job.storage}/{name}"})
        (state / MADE).write_text(f"{job.name}\n", encoding="utf-8")


def run_prepare(card: Card, settings: Cluster, *, verbose: bool = False) -> dict[str, Any]:
    """Have a dataset prepared on the cluster; its shards stay in the storage, what describes it comes here.

    Arguments:
        card: Of the dataset.
        settings: Of the cluster.
        verbose: Let Ray's own log through.
    Returns:
        The manifest.
    Raises:
        ConnectionError: If the cluster cannot be reached.
        Interrupted: If SIGTERM came; the job goes on.
        Exception: What ended the preparing.
    """
    text = find_card(card.name, Path()).read_text(encoding="utf-8")
    job = PrepareJob(card.name, text, settings.storage.rstrip("/"))
    same = [card.name, text, job.storage, import_closure(ROOT, PACKAGES, [BUILDER])]
    state = (state_folder(card.name) / f"prepare-{hashlib.sha256(canonical(same)).hexdigest()[:12]}").resolve()
    log.info("%s: prepared on the cluster, for its source is %s", card.name, card.source.url)

    def sent(_: ClusterJob) -> PrepareJob:
        return job

    run_there("prepare", job, sent, state, settings, Shown("prepare"), verbose=verbose)
    with whole_folder(prepared_folder(card.name)) as folder:
        shutil.copytree(state / PREPARED, folder, dirs_exist_ok=True)
    ClusterJob(job_server(settings), settings, state).mirror.remove(MADE)  # asked again, it looks at the source again
    shutil.rmtree(state)
    return Dataset.open(prepared_folder(card.name)).manifest
