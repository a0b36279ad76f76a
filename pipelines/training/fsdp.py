"""Parameters, gradients, averages and optimizer states spread over the workers, for models too large for one.

Between two updates a worker holds its part of everything. An objective's parameters are gathered for
its forward and backward pass, as are those of the other player it reads, and let go afterwards.

References:
    | PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023)
    | https://arxiv.org/abs/2304.11277
    | https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from models.contract import Batch, Losses, Objective
from models.rng import Streams


class _Tensors(nn.Module):
    """An objective that returns its losses as a plain dictionary, in which FSDP finds the tensors."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch, generator: Streams) -> dict[str, Tensor]:
        losses = self.objective(batch, generator)
        return {"": losses.total, **losses.terms}


class Sharded(nn.Module):
    """An objective whose parameters, from now on, are spread over the workers.

    Arguments:
        objective: With the same parameters on every worker.
        mesh: The workers.
    """

    def __init__(self, objective: Objective, mesh: DeviceMesh) -> None:
        super().__init__()
        self.inner = fully_shard(_Tensors(objective), mesh=mesh, reshard_after_forward=False)
        self._others: tuple[FSDPModule, ...] = ()

    def link_peers(self, peers: Sequence[Sharded]) -> None:
        """Name all objectives of the model: what one trains, another may read."""
        self._others = tuple(player.inner for player in peers if player is not self)

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        found = dict(self.inner(batch, generator))
        return Losses(found.pop(""), found)

    @contextmanager
    def gathered(self, *, share: bool) -> Iterator[None]:
        """Around forward and backward pass: what else is read is whole.

        Arguments:
            share: Whether the gradients are summed over the workers here, or in a later part of the batch.
        """
        self.inner.set_requires_gradient_sync(share)
        for other in self._others:
            other.unshard()
        try:
            yield
        finally:
            for other in self._others:
                other.reshard()


def shard_objectives(objectives: Sequence[Objective], mesh: DeviceMesh) -> list[Sharded]:
    """The objectives of a model, which is sharded from now on."""
    sharded = [Sharded(objective, mesh) for objective in objectives]
    for one in sharded:
        one.link_peers(sharded)
    return sharded


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; every worker must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """This worker's part of a tensor, or a tensor that is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_to_rank0(named: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors, gathered one after the other, for the workers that keep them."""
    found = {}
    for name, tensor in named.items():
        gathered = full_tensor(tensor)
        if keep:
            found[name] = gathered
    return found


def shard_like(named: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, spread as others of the same names are; every worker has them, so nothing is sent."""

    def spread_as(tensor: Tensor, model: Tensor | None) -> Tensor:
        if not isinstance(model, DTensor):
            return tensor
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)

    return {name: spread_as(tensor, like.get(name)) for name, tensor in named.items()}
