"""The process group that joins workers: none for one of them, and on one machine no socket beyond loopback.

Torch's own meeting place, a TCP store, listens on every interface and asks nobody for a password. Workers of a local
run meet in a file instead, and gloo and NCCL listen on loopback. On a cluster the store stays as Torch makes it: who
reaches the nodes' ports must be trusted (docs/security.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.util import get_node_ip_address


@dataclass
class GroupConfig(TorchConfig):
    """How workers are joined.

    Arguments:
        notes: A folder that all workers see, for the file in which those of one machine meet.
    """

    notes: str = ""

    @property
    def backend_cls(self) -> type[_Group]:
        return _Group


class _Group(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: GroupConfig) -> None:  # type: ignore[override]
        workers = len(worker_group)
        addresses = {ip_address(found) for found in worker_group.execute(get_node_ip_address)}
        if workers > 1 and not all(address.is_loopback for address in addresses):
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        if workers == 1:
            return
        meeting = Path(backend_config.notes) / f"meeting-{uuid4().hex}"
        meeting.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        worker_group.execute(_on_loopback)
        joining = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=workers,
                init_method=meeting.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(workers)
        ]
        ray.get(joining)


def _on_loopback() -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        os.environ[name] = "lo0" if os.uname().sysname == "Darwin" else "lo"
