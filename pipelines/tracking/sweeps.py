"""Sweeps: one run with a nested run per trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.tracking.outbox import Identity, Outbox
from pipelines.tracking.server import answered, code_version, connect


class Sweep:
    """A sweep's run with one nested run per trial, told what happens by the driver of the sweep.

    Every method may be called again after a restart: trials are recognized by their ids.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._trials: dict[str, Outbox] = {}

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
    ) -> Sweep:
        """Find the run of this sweep, or make it: arguments as for `TrainingRun.open`.

        Raises:
            ConnectionError: If the server is away.
        """
        identity = Identity(
            dataset=dataset,
            name=f"tune {family}",
            run_key=run_key,
            data_digest=manifest["digest"],
            params=params,
            tags={"family": family, "stage": "tune", **code_version(), **(tags or {})},
        )
        connect()
        outbox = Outbox(identity, spool, revives=True)
        outbox.reach()
        return cls(outbox)

    @property
    def run_id(self) -> str:
        """Id of the sweep's own run."""
        return self._outbox.run_id

    def trial_started(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """A trial begins, or is told of again."""
        if trial_id in self._trials:
            return
        mine = self._outbox.identity
        identity = Identity(
            dataset=mine.dataset,
            name=f"{mine.tags['family']} {trial_id}",
            run_key=f"{mine.run_key}/{trial_id}",
            data_digest=mine.data_digest,
            params=params,
            tags={**mine.tags, "trial_id": trial_id},
            parent=self.run_id,
        )
        self._trials[trial_id] = Outbox(identity, self._outbox.spool)
        self._trials[trial_id].flush()

    def trial_result(self, trial_id: str, examples: int, metrics: Mapping[str, float]) -> None:
        """A trial reports, after so many examples."""
        self._trial(trial_id).log([{"examples": examples, "metrics": dict(metrics), "time": time.time()}])

    def trial_finished(self, trial_id: str, status: str = "FINISHED") -> None:
        """A trial ends: `FINISHED`, `FAILED`, or `KILLED` when it was stopped early."""
        self._trial(trial_id).finish(status)

    def finish(self, status: str = "FINISHED", best: Mapping[str, float] | None = None) -> None:
        """The sweep ends; the best trial's metrics are its own."""
        for trial in self._trials.values():
            if trial.status == "RUNNING":
                trial.finish("KILLED")
        if best:
            self._outbox.log([{"examples": 0, "metrics": dict(best)}])
        self._outbox.finish(status)

    def _trial(self, trial_id: str) -> Outbox:
        if trial_id not in self._trials:
            self.trial_started(trial_id, {})
        return self._trials[trial_id]
