"""An outbox: what is said of a run reaches its server once, whatever was killed or away in between."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.files import write_atomically
from pipelines.tracking.server import (
    IMPATIENCE,
    PATIENCE,
    allowed,
    environment,
    flatten,
    get_client,
    reason,
    user,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun


COOL_DOWN = 10.0
"""Seconds between attempts to reach a server that was away."""
MOST_METRICS = 1000
"""Metrics in one request: the server's limit."""
PENDING = "mlflow-pending-"
"""How the files begin in which an outbox waits for another day (see `replay`)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a run is: enough to find it again or to make it.

    Arguments:
        dataset: Name of the dataset, also of the experiment.
        name: Name shown for the run.
        run_key: Deterministic hash of what makes the run one; the same key finds the same run.
        data_digest: SHA-256 of the prepared data.
        params: Settings, nested or flat.
        tags: Further tags.
        parent: Run id of the sweep a trial belongs to; empty for none.
        counts: What the data holds (examples per split, say), shown beside the dataset.
    """

    dataset: str
    name: str
    run_key: str
    data_digest: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)


class Outbox:
    """One MLflow run, and what its server has not been told yet.

    Nothing here raises because the server is away: it warns once, keeps what was said, tries again
    every few seconds, and in the end leaves the rest in a file for `replay`.

    Arguments:
        identity: Which run.
        spool: Folder for what is still unsaid at the end; `None` gives it up.
        revives: Whether a run that failed or was killed counts as running again from the start. One that ended
            otherwise does so with the first that is new: who has nothing new to say changes no times.
    """

    def __init__(self, identity: Identity, spool: str | Path | None = None, *, revives: bool = False) -> None:
        self.identity = identity
        self.revives = revives
        self.spool = Path(spool) if spool is not None else None
        self.run_id = ""
        self.status = "RUNNING"
        self._points: list[dict[str, Any]] = []
        self._pictures: list[tuple[str, str, int]] = []
        self._files: list[tuple[str, str]] = []
        self._there = ""  # the run's status as the server has it
        self._told: dict[str, int] = {}
        self._shown: set[tuple[str, int]] = set()
        self._retry_at = 0.0
        self._away = False
        self._unsure = True

    def reach(self) -> None:
        """Find or make the run, mark it running, and learn what the server knows of it already.

        Raises:
            mlflow.exceptions.MlflowException: If the server is away.
        """
        client = get_client()
        run = _find_or_create(client, self.identity)
        run_id = run.info.run_id
        missing = {key: value for key, value in flatten(self.identity.params).items() if key not in run.data.params}
        if missing:
            from mlflow.entities import Param

            items = [Param(key, value) for key, value in missing.items()]
            for start in range(0, len(items), 100):
                client.log_batch(run_id, params=items[start : start + 100])
        if run.inputs is None or not run.inputs.dataset_inputs:
            client.log_inputs(run_id, datasets=[_dataset_input(self.identity)])
        self._there = run.info.status
        if self.revives and self._there in ("FAILED", "KILLED"):
            self._begin(run_id)
        self._told = _last_steps(run)
        pictures = client.list_artifacts(run_id, "images")
        names = (re.fullmatch(r"images/(.+)\+step\+(\d+)\+.*\.png", item.path) for item in pictures)
        self._shown = {(found[1], int(found[2])) for found in names if found}
        self.run_id = run_id
        self._unsure = False

    def log(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Log points of curves.

        Arguments:
            points: `{"examples": examples seen, "metrics": {name: value}, "time": seconds since 1970}`;
                `time` may be missing. Points that the server has are passed over.
        """
        self._points += [dict(point) for point in points if point.get("metrics")]
        self.flush()

    def log_image(self, path: str | Path, name: str, examples: int) -> None:
        """Log a picture of the training so far; the same `name` at other `examples` makes a film."""
        name = allowed(name).replace("/", "_")
        if (name, examples) not in self._shown and (str(path), name, examples) not in self._pictures:
            self._pictures.append((str(path), name, examples))
            self.flush()

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Keep a file or a folder with the run."""
        self._files.append((str(path), folder))
        self.flush()

    def flush(self, *, now: bool = False) -> bool:
        """Tell the server what it has not been told.

        Arguments:
            now: Try even if it was away a moment ago.
        Returns:
            Whether nothing is left unsaid.
        """
        if self._away and not now and time.monotonic() < self._retry_at:
            return False
        try:
            with environment(IMPATIENCE):
                if self._unsure:
                    self.reach()
                self._send_points()
            with environment(PATIENCE):
                self._send_files()
                if self.status not in ("RUNNING", self._there):
                    get_client().set_terminated(self.run_id, self.status)
                    self._there = self.status
        except Exception as error:
            self._retry_at = time.monotonic() + COOL_DOWN
            self._unsure = True  # what was sent last may have arrived
            if not self._away:
                logger.warning(
                    "MLflow cannot be reached (%s); %s goes on, and MLflow is told what it missed when it is back.",
                    reason(error),
                    self.identity.name,
                )
            self._away = True
            return False
        self._away = False
        return True

    def finish(self, status: str = "FINISHED") -> None:
        """End the run; what cannot be said now waits in the spool folder for `replay`.

        Arguments:
            status: `FINISHED`, `FAILED` or `KILLED`.
        """
        self.status = status
        if self.flush(now=True):
            return
        if self.spool is None:
            logger.warning("MLflow is away; the last of %s is not in it.", self.identity.name)
            return
        path = self.spool / f"{PENDING}{_digest(self.identity.run_key)}.json"
        unsaid = {"identity": asdict(self.identity), "status": status, "points": self._points}
        unsaid |= {"pictures": self._pictures, "files": self._files}
        write_atomically(path, json.dumps(unsaid, default=str))
        logger.warning("MLflow is away; %s keeps what it missed until the next stage that reaches it.", path)

    def _begin(self, run_id: str) -> None:
        if self._there != "RUNNING":
            get_client().update_run(run_id, status="RUNNING")
            self._there = "RUNNING"

    def _send_points(self) -> None:
        from mlflow.entities import Metric

        client, batch = get_client(), []
        for point in self._points:
            step, moment = int(point["examples"]), int(1000 * point.get("time", time.time()))
            for name, value in point["metrics"].items():
                if isinstance(value, Real) and step > self._told.get(allowed(name), -1):
                    batch.append(Metric(allowed(name), float(value), moment, step))
        if batch:
            self._begin(self.run_id)
        for start in range(0, len(batch), MOST_METRICS):
            part = batch[start : start + MOST_METRICS]
            client.log_batch(self.run_id, metrics=part)
            self._told |= {metric.key: metric.step for metric in part}
        self._points.clear()

    def _send_files(self) -> None:
        client = get_client()
        while self._pictures:
            path, name, examples = self._pictures[0]
            if (name, examples) not in self._shown:
                self._begin(self.run_id)
                self._send_picture(path, name, examples)
            self._shown.add((name, examples))
            self._pictures.pop(0)
        while self._files:
            path, folder = self._files[0]
            if Path(path).is_dir():
                client.log_artifacts(self.run_id, path, folder or None)
            elif Path(path).exists():
                client.log_artifact(self.run_id, path, folder or None)
            self._files.pop(0)

    def _send_picture(self, path: str, name: str, examples: int) -> None:
        import PIL.Image

        try:
            with PIL.Image.open(path) as image:
                image.load()
        except (FileNotFoundError, PIL.UnidentifiedImageError, SyntaxError, ValueError) as error:
            logger.warning("%s is no picture that MLflow could show: %s", path, error)
        else:
            get_client().log_image(self.run_id, image, key=name, step=examples)


def experiment_of(client: MlflowClient, name: str) -> str:
    """Id of the experiment of a name; made, or brought back, where it is missing."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return client.create_experiment(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _find(client: MlflowClient, experiment: str, run_key: str) -> MlflowRun | None:
    found = client.search_runs([experiment], f"tags.run_key = '{run_key}'", order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def _find_or_create(client: MlflowClient, identity: Identity) -> MlflowRun:
    experiment = experiment_of(client, identity.dataset)
    run = _find(client, experiment, identity.run_key)
    if run is not None:
        return run
    tags = {
        "run_key": identity.run_key,
        "dataset": identity.dataset,
        "data_digest": identity.data_digest,
        "mlflow.source.name": "fivefold",
        "mlflow.source.type": "PROJECT",
        "mlflow.user": user(),
        **identity.tags,
    }
    if "git_commit" in tags:
        tags["mlflow.source.git.commit"] = tags["git_commit"]
    if identity.parent:
        tags["mlflow.parentRunId"] = identity.parent
    return client.create_run(experiment, tags=tags, run_name=identity.name)


def _dataset_input(identity: Identity) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=identity.dataset,
        digest=identity.data_digest[:36],  # all that MLflow keeps
        source_type="local",
        source=json.dumps({"uri": f"data/prepared/{identity.dataset}"}),
        profile=json.dumps(dict(identity.counts)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _last_steps(run: MlflowRun) -> dict[str, int]:
    """The last step of each metric that the server has."""
    return {metric.key: metric.step for metric in run.data._metric_objs}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def replay(folder: str | Path) -> int:
    """Tell MLflow what earlier stages could not: every `mlflow-pending-*.json` under a folder.

    Returns:
        How many were told, and removed.
    """
    told = 0
    for path in sorted(Path(folder).rglob(f"{PENDING}*.json")):
        unsaid = json.loads(path.read_text(encoding="utf-8"))
        box = Outbox(Identity(**unsaid["identity"]))
        box.status = unsaid["status"]
        box._points = unsaid["points"]
        box._pictures = [(str(a), str(b), int(c)) for a, b, c in unsaid["pictures"]]
        box._files = [(str(a), str(b)) for a, b in unsaid["files"]]
        if box.flush(now=True):
            path.unlink()
            told += 1
    return told
