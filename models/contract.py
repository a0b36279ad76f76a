"""The contract every family keeps: what is trained, on what, and what a trained model can do.

A family is a `GenerativeModel` that hands the training loop one or more `Objective`s and declares
what it can do by inheriting the small classes of `capabilities.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from .capabilities import (
    CAPABILITIES,
    AnomalyScoring,
    Coding,
    Denoising,
    Density,
    DensityBound,
    Imputation,
    Reconstruction,
    Sampling,
    Translation,
    check_strength,
    tasks,
)
from .shapes import Bool, Float, Int, Num
from .streams import Stratified, Streams

__all__ = [
    "CAPABILITIES",
    "AnomalyScoring",
    "Batch",
    "Coding",
    "Denoising",
    "Density",
    "DensityBound",
    "Domain",
    "GenerativeModel",
    "Imputation",
    "Likelihood",
    "Losses",
    "Objective",
    "Reconstruction",
    "Sampling",
    "Stratified",
    "Streams",
    "Translation",
    "check_choices",
    "check_strength",
    "tasks",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as a model is given them.

    Arguments:
        x: Examples in the dataset's own space, `[batch, *event]` (images: uint8, channels last).
        label: Class of each example, `[batch]`, -1 where unknown; `None` for unlabelled data.
        observed: Which cells of `x` are known, `[batch, *event]`; `None` when all are.
        seen: Examples the model was trained on before this batch.
    """

    x: Num[Tensor, "batch *event"]
    label: Int[Tensor, " batch"] | None = None
    observed: Bool[Tensor, "batch *event"] | None = None
    seen: int = 0

    def __len__(self) -> int:
        return len(self.x)

    @property
    def visible(self) -> Num[Tensor, "batch *event"]:
        """The examples, as floats with NaN where they are not observed if `observed` says so."""
        if self.observed is None:
            return self.x
        values = self.x if self.x.is_floating_point() else self.x.float()
        return torch.where(self.observed, values, torch.nan)

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self, x=self.x.to(device, non_blocking=True), label=move(self.label), observed=move(self.observed)
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


class Likelihood(ABC):
    """The distribution of an example's values given a network's outputs.

    Attributes:
        parameters: What `Domain.decoder` must be asked for: outputs per value (images), in all (tables).
        loss_name: What its negative is called in curves.
        drawn: Whether a sampled example is a draw from it (tables) or may be its mean (images).
    """

    parameters: int
    drawn: ClassVar[bool]
    loss_name: ClassVar[str]

    @abstractmethod
    def log_prob(
        self, raw: Float[Tensor, "batch *outputs"], x: Num[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch *values"]:
        """Log-probability of each value in nats, 0 where it is missing: missing cells are integrated out."""

    @abstractmethod
    def mean(self, raw: Float[Tensor, "batch *outputs"]) -> Float[Tensor, "batch *event"]:
        """The mean, in model space."""

    @abstractmethod
    def sample(self, raw: Float[Tensor, "batch *outputs"], generator: Streams) -> Float[Tensor, "batch *event"]:
        """One draw, in model space."""


class Domain(ABC):
    """A kind of data: what an example is, its scaling, its likelihood and the networks that suit it.

    There are three spaces. *Data space* is the dataset's own (images: uint8, channels last; tables:
    float64 `[n, columns]`, a category as its index, a missing cell as NaN). *Model space* is what
    networks see, missing cells as 0. *Flow space* is the real line for every value that a density is
    wanted of, missing cells filled by draws from their marginals.

    Attributes:
        kind: Name in a dataset's card.
        event_shape: Shape of one example in model space.
        flow_shape: Shape of one example in flow space.
        gumbel: Standard normal numbers that `activate` needs per example, beside a generator's outputs.
        textures: Numbers that `texture` gives per example.
        looks_at_masks: Whether encoders and critics see which cells are known; else these must be filled in.
    """

    kind: ClassVar[str]
    event_shape: tuple[int, ...]
    flow_shape: tuple[int, ...]
    gumbel: int = 0
    textures: int = 0
    looks_at_masks: bool = False

    @property
    def dimensions(self) -> int:
        """Number of values of one example in model space."""
        return math.prod(self.event_shape)

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What `domain()` needs to build this domain again, JSON types only."""

    # Between data space and model space

    @abstractmethod
    def to_model(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *event"]:
        """Data space to model space; missing cells become 0 (a missing category: all of its values).

        Raises:
            ValueError: If `x` has another event shape.
        """

    @abstractmethod
    def to_data(self, y: Float[Tensor, "batch *event"]) -> Num[Tensor, "batch *data"]:
        """Model space to the nearest valid example in data space, never with a missing cell."""

    def observed(self, x: Num[Tensor, "batch *data"]) -> Bool[Tensor, "batch *data"]:
        """Which cells are known: all but NaN."""
        return ~torch.isnan(x) if x.is_floating_point() else torch.ones_like(x, dtype=torch.bool)

    @abstractmethod
    def expand(self, observed: Bool[Tensor, "batch *data"]) -> Bool[Tensor, "batch *event"]:
        """A mask of cells in data space as a mask of values in model space."""

    def merge(
        self,
        x: Num[Tensor, "batch *data"],
        observed: Bool[Tensor, "batch *data"],
        filled: Num[Tensor, "*draws batch *data"],
    ) -> Num[Tensor, "*draws batch *data"]:
        """Observed cells of `x`, bit for bit, the rest from `filled` (with any leading dimensions)."""
        return torch.where(observed & self.observed(x), x, filled.to(x.dtype))

    def units(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """The part of each value's log-probability that is due to the data's units and rounding, in nats.

        Without it a log-probability compares columns of different units fairly: for anomaly scores.
        """
        return torch.zeros(x.shape, device=x.device)

    def texture(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch textures"]:
        """What tells smooth examples from rough ones without any model, for anomaly scores; of rows nothing."""
        return torch.zeros(len(x), self.textures, device=x.device)

    # Between data space and flow space

    @abstractmethod
    def dequantized(
        self, x: Num[Tensor, "batch *data"], generator: Streams
    ) -> tuple[Float[Tensor, "batch *flow"], Float[Tensor, " batch"]]:
        r"""A point of flow space within the example's cell, and what makes its log-density a log-probability.

        .. math:: E_u[\log p(y(u))] + \text{log\_det} \le \log P(x)

        for discrete values (a bound, by Jensen's inequality), with equality for continuous ones, whose
        density is in the data's own units. A missing cell is a draw from its column's marginal and
        counts with the negative log-density of that draw: also a bound, of the observed cells'
        probability.
        """

    @abstractmethod
    def centred(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *flow"]:
        """The middle of the example's cell in flow space (missing: of the marginal); no noise."""

    @abstractmethod
    def quantized(self, y: Float[Tensor, "batch *flow"]) -> Num[Tensor, "batch *data"]:
        """Flow space to data space: the inverse of `dequantized` and of `centred`."""

    # Likelihoods

    @abstractmethod
    def likelihood(self, components: int) -> Likelihood:
        """A proper likelihood of an example given network outputs: `components` in each mixture."""

    @abstractmethod
    def reconstruction(self) -> Likelihood:
        """What an autoencoder fits: of images the squared error (a Gaussian), of tables a likelihood."""

    @abstractmethod
    def activate(
        self, raw: Float[Tensor, "batch *event"], noise: Float[Tensor, "batch gumbel"]
    ) -> Float[Tensor, "batch *event"]:
        """A generator's outputs into the range of model space; `noise` chooses among categories."""

    def look(
        self, network: nn.Module, y: Float[Tensor, "batch *event"], observed: Bool[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch outputs"]:
        """An encoder or critic applied to examples of which some cells are known; tables' see which those are."""
        return network(y)

    # Default networks. `width` and `blocks` scale them, `patch` and `attention` concern
    # images: pixels folded into channels (0 to choose by size), attention at the coarsest level.

    @abstractmethod
    def encoder(self, outputs: int, *, width: int, blocks: int = 1, patch: int = 0) -> nn.Module:
        """Example to vector, called through `look`."""

    @abstractmethod
    def critic(
        self,
        outputs: int,
        *,
        width: int,
        blocks: int = 1,
        patch: int = 0,
        spectral: bool = True,
        attention: bool = False,
    ) -> nn.Module:
        """Like `encoder`, without normalization over positions or units, for a GAN's critic."""

    @abstractmethod
    def decoder(
        self,
        inputs: int,
        *,
        width: int,
        parameters: int = 1,
        blocks: int = 1,
        patch: int = 0,
        embed: int = 0,
        attention: bool = False,
    ) -> nn.Module:
        """`(z, c | None)` to model space; to a likelihood's outputs if given its `parameters`."""

    @abstractmethod
    def denoiser(self, *, width: int, embed: int, blocks: int = 1, patch: int = 0, masked: bool = False) -> nn.Module:
        """`(y, c)` to model space, conditional on a vector `c`; `masked`: `y` and, behind it along its first
        dimension, as many zeros and ones."""


class Objective(nn.Module, ABC):
    """What one optimizer minimizes.

    It registers as submodules only what it trains. What it merely reads (a GAN's other player) it
    holds outside the module tree, so that DDP or `torch.compile` around it sees exactly the
    parameters it trains, every one of them used in every forward.

    Attributes:
        name: Short name, the prefix of its curves.
        every: The optimizer steps on every `every`-th batch.
    """

    name: str = "loss"
    every: int = 1

    @abstractmethod
    def forward(self, batch: Batch, generator: Streams) -> Losses:
        """Per-example losses of a batch."""


def check_choices(config: Any) -> None:
    """Refuse a setting that is none of the values its `Literal` type lists.

    Raises:
        ValueError: Names the setting, its values, and what was given.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            raise ValueError(f"{name} must be one of {choices}, got {getattr(config, name)!r}")


class GenerativeModel(nn.Module, ABC):
    """A trainable model of a domain.

    Arguments:
        domain: What an example is: its shape, scaling, likelihood and default networks.
        classes: Number of labels the model is conditional on; 0 for none.
    """

    Config: ClassVar[type]

    def __init__(self, domain: Domain, classes: int) -> None:
        super().__init__()
        self.domain = domain
        self.classes = classes
        frequencies = torch.full((classes,), 1 / classes) if classes else torch.zeros(0)
        self.register_buffer("label_frequencies", frequencies)
        self.label_frequencies: Tensor

    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """What is minimized, in the order of the updates within a step."""

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Set what depends on data before training (every rank is given the same batch)."""
        if batch.label is not None and self.classes:
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
