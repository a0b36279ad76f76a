"""The command `prepare`."""

from __future__ import annotations

import os

from pipelines.cli.options import DatasetName, Verbose


def prepare(dataset: DatasetName = None, verbose: Verbose = False) -> None:
    """Read a dataset, check it and write it as shards.

    On a cluster that has been joined, else on this machine's cores: the source lies here, so no job is sent.
    """
    from pipelines import config
    from pipelines.stages.prepare import prepare

    settings = config.load(dataset=dataset)
    address = os.environ.get("RAY_ADDRESS") or settings.cluster.address
    if not address or address.startswith("http"):
        prepare(settings.dataset)
        return
    from pipelines import cluster

    with cluster.connected(address, verbose=verbose):
        prepare(settings.dataset, mapper=cluster.in_tasks)
