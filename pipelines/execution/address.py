"""Where work is sent."""

from __future__ import annotations

import os

from pipelines.config import Cluster


def ray_address(settings: Cluster) -> str:
    """Address of the cluster, of its job server or of itself; empty where there is none.

    `RAY_ADDRESS` goes before `cluster.address`; in a Ray job it is the cluster's own and no job server's.
    """
    return os.environ.get("RAY_ADDRESS") or settings.address


def job_server(settings: Cluster) -> str:
    """Address of the job server that work is sent to; empty where Ray is joined or started instead."""
    address = ray_address(settings)
    return address if address.startswith(("http://", "https://")) else ""
