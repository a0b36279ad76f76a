"""The contract every family keeps: what is trained, on what, and what a trained model can do.

A family is a `GenerativeModel` that hands the training loop one or more `Objective`s and declares
what it can do by inheriting the small classes of `capabilities.py`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .config import NoSampling, with_values
from .domains.base import Domain
from .rng import Streams
from .shapes import Bool, Float, Int, Num

Model = TypeVar("Model", bound="GenerativeModel")

__all__ = ["Batch", "GenerativeModel", "Losses", "Objective"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as a model is given them.

    Arguments:
        x: Examples in the dataset's own space, `[batch, *event]` (images: uint8, channels last).
        label: Class of each example, `[batch]`, -1 where unknown; `None` for unlabelled data.
        observed: Which cells of `x` are known, `[batch, *event]`; `None` when all are.
        seen: Examples the model was trained on before this batch.
        label_counts: Examples of each class in all the data, `[classes]`; `None` for those of this batch.
    """

    x: Num[Tensor, "batch *event"]
    label: Int[Tensor, " batch"] | None = None
    observed: Bool[Tensor, "batch *event"] | None = None
    seen: int = 0
    label_counts: Int[Tensor, " classes"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def visible(self) -> Num[Tensor, "batch *event"]:
        """The examples, as floats with NaN where they are not observed if `observed` says so."""
        if self.observed is None:
            return self.x
        values = self.x if self.x.is_floating_point() else self.x.float()
        return torch.where(self.observed, values, torch.nan)

    @property
    def gaps(self) -> Bool[Tensor, "batch *event"]:
        """Which cells have no value in the data: NaN, and not because `observed` hides them."""
        missing = self.x.isnan()
        return missing if self.observed is None else missing & self.observed

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            x=self.x.to(device, non_blocking=True),
            label=move(self.label),
            observed=move(self.observed),
            label_counts=move(self.label_counts),
        )


@dataclass(frozen=True, slots=True)
class Losses:
    """Per-example losses: what is minimized, and the terms worth a curve.

    Arguments:
        total: What the optimizer minimizes, in nats unless the family says otherwise, `[batch]`.
        terms: Named parts or diagnostics, each `[batch]`, detached by the loop.
    """

    total: Float[Tensor, " batch"]
    terms: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """What one optimizer minimizes.

    It registers as submodules only what it trains. What it merely reads (a GAN's other player) it
    holds outside the module tree, so that DDP or `torch.compile` around it sees exactly the
    parameters it trains, every one of them used in every forward.

    Attributes:
        name: Short name, the prefix of its curves.
        every: The optimizer steps on every `every`-th batch.
        speed: Its learning rate as a multiple of the training's.
        begins: Part of the training after which it does.
        per_example: Whether a loss depends on no other example, and its gradient can be taken by `torch.func.vmap`.
    """

    name: str = "loss"
    every: int = 1
    speed: float = 1.0
    begins: float = 0.0
    per_example: bool = False

    @abstractmethod
    def forward(self, batch: Batch, generator: Streams) -> Losses:
        """Per-example losses of a batch."""


class GenerativeModel(nn.Module, ABC):
    """A trainable model of a domain.

    Arguments:
        domain: What an example is: its shape, scaling, likelihood and default networks.
        classes: Number of labels the model is conditional on; 0 for none.

    Attributes:
        sampling: How it draws, which is not learned and changed by `with_sampling`.
    """

    Config: ClassVar[type]
    SamplingConfig: ClassVar[type] = NoSampling

    def __init__(self, domain: Domain, classes: int) -> None:
        super().__init__()
        self.domain = domain
        self.classes = classes
        self.sampling: Any = self.SamplingConfig()
        frequencies = torch.full((classes,), 1 / classes) if classes else torch.zeros(0)
        self.register_buffer("label_frequencies", frequencies)
        self.label_frequencies: Tensor

    @classmethod
    def variant(cls, config: Any, domain: Domain) -> type[GenerativeModel]:
        """The class of the family that these settings ask for on this kind of data."""
        return cls

    def with_sampling(self: Model, **changes: Any) -> Model:
        """The same model, its weights shared, that draws as these settings say; those not named stay.

            guided = model.with_sampling(guidance=2.0, steps=16)

        Raises:
            ValueError: If the family has no such setting, or a value is out of range.
        """
        other = copy.copy(self)
        other.sampling = with_values(self.sampling, changes)
        other.check_sampling()
        return other

    def check_sampling(self) -> None:
        """Refuse settings of sampling that do not go with what was trained.

        Raises:
            ValueError: If they do not.
        """

    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """What is minimized, in the order of the updates within a step."""

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Set what depends on data before training (every rank is given the same batch)."""
        if batch.label_counts is not None and self.classes:
            counts = batch.label_counts.double().clamp(min=1e-9)  # a logarithm is taken of a class without examples
            self.label_frequencies.copy_(counts / counts.sum())
        elif batch.label is not None and self.classes:
            counts = torch.bincount(batch.label[batch.label >= 0], minlength=self.classes).float() + 1
            self.label_frequencies.copy_(counts / counts.sum())

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        """Fit what is fitted after training (a density of codes, statistics of normal examples)."""

    def draw_labels(self, n: int, label: Int[Tensor, " n"] | None, generator: Streams) -> Int[Tensor, " n"] | None:
        """The labels asked for, with unknown ones (-1) drawn as often as the data had them."""
        if not self.classes:
            return None
        drawn = generator.categorical(self.label_frequencies, n)
        label = self.checked_labels(n, label)
        return drawn if label is None else torch.where(label < 0, drawn, label)

    def checked_labels(self, n: int, label: Int[Tensor, " n"] | None) -> Int[Tensor, " n"] | None:
        """The labels asked for; `None` if the model knows none.

        Raises:
            ValueError: If their number is not `n` or one is not a class.
        """
        if label is None or not self.classes:
            return None
        if len(label) != n:
            raise ValueError(f"label must have one entry per draw: expected {n}, got {len(label)}")
        if n and int(label.max()) >= self.classes:
            raise ValueError(f"label must be below {self.classes} (or -1 for any), got {int(label.max())}")
        return label
