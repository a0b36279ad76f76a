"""Runs: what a training says about itself, from its first start to its end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.outbox import Identity, Outbox
from pipelines.tracking.server import IMPATIENCE, answered, code_version, connect, environment

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)


class TrainingRun(Outbox):
    """The one run of one training, also across restarts. Use `open`, then `follow` while training, then `finish`.

    As a context manager it ends FINISHED, FAILED after an exception, KILLED after an interruption.
    """

    monitored: bool = True
    _monitor: SystemMetricsMonitor | None = None
    _read: int = 0
    _inode: int = 0

    @classmethod
    @answered
    def open(
        cls,
        *,
        dataset: str,
        family: str,
        run_key: str,
        params: Mapping[str, Any],
        manifest: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        spool: str | Path | None = None,
        monitored: bool = True,
    ) -> TrainingRun:
        """Find the run of this training, or make it.

        Arguments:
            dataset: Name of the dataset: the experiment.
            family: The run's name, and tag.
            run_key: Deterministic hash of what makes this training the same when restarted.
            params: All settings, logged once, flattened with dots.
            manifest: Of the prepared data: its `digest` becomes the digest of the run's dataset input.
            tags: Further tags.
            spool: Folder (the training's state) that keeps what MLflow missed.
            monitored: Log what this machine's processors and memory do: where the training is on this machine.
        Raises:
            ConnectionError: If the server is away.
        """
        counts = {name: split.get("count") for name, split in manifest.get("splits", {}).items()}
        identity = Identity(
            dataset=dataset,
            name=family,
            run_key=run_key,
            data_digest=manifest["digest"],
            params=params,
            tags={"family": family, "stage": "train", **code_version(), **(tags or {})},
            counts=counts,
        )
        connect()
        run = cls(identity, spool, revives=True)
        run.monitored = monitored
        run.reach()
        run._monitor_system()
        return run

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.status == "RUNNING":
            interrupted = kind is not None and not issubclass(kind, Exception)
            self.finish("KILLED" if interrupted else "FAILED" if kind else "FINISHED")

    def follow(self, path: str | Path) -> None:
        """Log what was added to a `metrics.jsonl` since the last call: cheap, to be called every second or so.

        Arguments:
            path: The file: one JSON object per line (see `log`); lines without `metrics` are passed over.
        """
        path = Path(path)
        if not path.exists():
            return
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._read:  # rolled back to a checkpoint
                self._read, self._inode = 0, found.st_ino
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self.log(_points(whole, path))
        self._monitor_system()

    def sync(self, path: str | Path) -> bool:
        """Log everything in a `metrics.jsonl` that MLflow lacks, whoever wrote it and whenever.

        Returns:
            Whether MLflow has it all now.
        """
        self._read = 0
        self._unsure = True
        self.follow(path)
        return self.flush(now=True)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run and its system metrics (see `Outbox.finish`)."""
        if self._monitor is not None:
            with environment(IMPATIENCE):
                self._monitor.finish()
            self._monitor = None
        super().finish(status)

    def _monitor_system(self) -> None:
        """Log system metrics; the monitor gives up when the server is away, and is started again when it is back."""
        if not self.monitored:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        alive = self._monitor is not None and self._monitor._process is not None and self._monitor._process.is_alive()
        if self._away or alive or self._there == "FINISHED":
            return
        with contextlib.suppress(Exception), environment(IMPATIENCE):
            self._monitor = SystemMetricsMonitor(self.run_id, sampling_interval=5, resume_logging=True)
            self._monitor.start()


def _points(text: bytes, path: Path) -> list[dict[str, Any]]:
    points = []
    for line in text.splitlines():
        try:
            point = json.loads(line)
        except ValueError:
            logger.warning("%s has a line that is not JSON: %r", path, line[:80])
            continue
        if isinstance(point, dict) and point.get("metrics"):
            points.append(point)
    return points
