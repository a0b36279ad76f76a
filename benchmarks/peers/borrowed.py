"""A specialist's networks and losses in our own loop: the same architecture, another machinery."""

from __future__ import annotations

import torch
from specialists import Player, Specialist
from torch import nn

from models.contract import Batch, GenerativeModel, Losses, Objective
from models.domains.base import Domain
from models.rng import Streams


class Borrowed(Objective):
    """One of a specialist's players as an objective."""

    def __init__(self, specialist: Specialist, player: Player) -> None:
        super().__init__()
        self.name = player.name
        self.network = player.network
        self._inputs, self._loss = specialist.inputs, player.loss

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        label = batch.x.new_zeros(len(batch)) if batch.label is None else batch.label
        return Losses(self._loss(self._inputs(batch.x), label).float().expand(len(batch)))


class Borrower(GenerativeModel):
    """A specialist's networks as a model that our loop can train.

    They lie channels-last, as our own networks without group norms do; group norms cost more than that gains.
    """

    def __init__(self, specialist: Specialist, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.specialist = specialist
        for player in specialist.players():
            self.add_module(player.name, player.network)
        if not any(isinstance(module, nn.GroupNorm) for module in self.modules()):
            self.to(memory_format=torch.channels_last)

    def objectives(self) -> tuple[Objective, ...]:
        return tuple(Borrowed(self.specialist, player) for player in self.specialist.players())

    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Let layers that look at their first batch see one."""
        first = Batch(batch.x[:128], None if batch.label is None else batch.label[:128])
        with torch.no_grad():
            for objective in self.objectives():
                objective(first, generator)
