"""A specialist's networks and losses in our own loop: the same architecture, another machinery."""

from __future__ import annotations

import torch
from specialists import Player, Specialist
from torch import Tensor

from models.contract import Batch, Domain, GenerativeModel, Losses, Objective, Streams


class Borrowed(Objective):
    """One of a specialist's players as an objective."""

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.name = player.name
        self.network = player.network
        self._loss = player.loss

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        images = batch.x.permute(0, 3, 1, 2).float() / 255
        assert batch.label is not None
        return Losses(self._loss(images, batch.label).float().expand(len(batch)))


class Borrower(GenerativeModel):
    """A specialist's networks as a model that our loop can train."""

    def __init__(self, specialist: Specialist, domain: Domain) -> None:
        super().__init__(domain, 10)
        self.specialist = specialist
        for player in specialist.players():
            self.add_module(player.name, player.network)

    def objectives(self) -> tuple[Objective, ...]:
        return tuple(Borrowed(player) for player in self.specialist.players())

    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Let layers that look at their first batch see one."""
        images: Tensor = batch.x[:128].permute(0, 3, 1, 2).float() / 255
        assert batch.label is not None
        with torch.no_grad():
            for player in self.specialist.players():
                player.loss(images, batch.label[:128])
