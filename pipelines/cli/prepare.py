"""The command `prepare`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from pipelines.cli.options import DatasetName, Verbose

log = logging.getLogger(__name__)


def prepare(dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Read a dataset, check it and write it as shards.

    On a cluster that has been joined, else on this machine's cores; where jobs are sent to a cluster and the source is
    in a bucket (`s3://`), as a job, so that the data go from there to the nodes and not through this machine.
    """
    from data.cards import load_card
    from pipelines import config
    from pipelines.stages.prepare import prepare

    settings = config.load(dataset=dataset)
    card = load_card(settings.dataset, Path())
    address = os.environ.get("RAY_ADDRESS") or settings.cluster.address
    if card.source.url.startswith("s3://") and address.startswith("http"):
        from pipelines.execution.preparing import run_prepare

        _say(run_prepare(card, settings.cluster, verbose=verbose))
        return
    if not address or address.startswith("http"):
        _say(prepare(settings.dataset))
        return
    from pipelines import cluster

    with cluster.connected(address, verbose=verbose):
        _say(prepare(settings.dataset, mapper=cluster.in_tasks))


def _say(manifest: dict[str, Any]) -> None:
    counts = ", ".join(f"{split} {facts['count']:,}" for split, facts in manifest["splits"].items())
    log.info("wrote data/prepared/%s: %s examples", manifest["name"], counts)
