"""The contract of a kind of data: what an example is, its scaling, its likelihood and its networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..networks.registry import network
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num


class Likelihood(ABC):
    """The distribution of an example's values given a network's outputs.

    Attributes:
        outputs: What `Domain.decoder` must be asked for: outputs per value (images), in all (tables).
        loss_name: What its negative is called in curves.
        drawn: Whether a sampled example is a draw from it (tables) or may be its mean (images).
        takes_labels: Whether `labelled` makes a difference.
        places: Which of a value's outputs say where it is likely, on the scale of model space (images).
    """

    outputs: int
    drawn: ClassVar[bool]
    loss_name: ClassVar[str]
    takes_labels: bool = False
    places: slice = slice(0, 1)

    @abstractmethod
    def log_prob(
        self, raw: Float[Tensor, "batch *outputs"], x: Num[Tensor, "batch *data"]
    ) -> Float[Tensor, "batch *values"]:
        """Log-probability of each value in nats, 0 where it is missing: missing cells are integrated out."""

    def training_log_prob(
        self,
        raw: Float[Tensor, "batch *outputs"],
        x: Num[Tensor, "batch *data"],
        generator: Streams,
        gaps: Bool[Tensor, "batch *data"] | None = None,
        marked: Bool[Tensor, "batch *data"] | None = None,
    ) -> Float[Tensor, "batch *values"]:
        """What training maximizes: `log_prob`, or where values are given one another, in random orders of them; a
        likelihood that draws gaps also learns where the `gaps` are, from known cells only if they are `marked`."""
        return self.log_prob(raw, x)

    def labelled(
        self,
        raw: Float[Tensor, "batch *outputs"],
        label: Int[Tensor, " batch"] | None,
        hiding: Streams | None = None,
    ) -> Float[Tensor, "batch *outputs"]:
        """Network outputs that know the label (-1 or `None`: unknown), where the likelihood can use it; of training
        examples half, so that it learns to do without: `hiding` chooses which."""
        return raw

    def completed(
        self, raw: Float[Tensor, "batch *outputs"], x: Num[Tensor, "batch *data"], generator: Streams
    ) -> Float[Tensor, "batch *event"]:
        """One draw in model space, given the known values of `x` where the likelihood can use them."""
        return self.sample(raw, generator)

    @abstractmethod
    def mean(self, raw: Float[Tensor, "batch *outputs"]) -> Float[Tensor, "batch *event"]:
        """The mean, in model space."""

    @abstractmethod
    def sample(self, raw: Float[Tensor, "batch *outputs"], generator: Streams) -> Float[Tensor, "batch *event"]:
        """One draw, in model space; NaN where a cell is drawn as missing."""


class DequantizedPoint(NamedTuple):
    """A place in model space, and how to go from a density there to the example's log-probability.

    Arguments:
        y: The place, float64, `[batch, *event]`; of missing cells a draw from the marginal.
        log_det: To be added to the log-density of the pixels or numbers, `[batch]`.
        categories: Which dimensions are the corners of each categorical column, points without a density.
        row: Whether it is a table's.
    """

    y: Tensor
    log_det: Float[Tensor, " batch"]
    categories: tuple[slice, ...] = ()
    row: bool = False

    @property
    def corners(self) -> int:
        """Number of dimensions that stand for categories."""
        return sum(part.stop - part.start for part in self.categories)

    def confusion(self, noisy: Float[Tensor, "batch *event"], sigma: float) -> Float[Tensor, " batch"]:
        """-log-probability of the categories given the place with noise of standard deviation `sigma`."""
        total = torch.zeros_like(self.log_det)
        for part in self.categories:
            log_p = (noisy[:, part] / sigma**2).log_softmax(1)
            total = total - log_p.gather(1, self.y[:, part].argmax(1, keepdim=True))[:, 0]
        return total


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
        layout: How values lie in model and flow space, by which the networks of `models.networks.registry` are
            chosen: `vector`, `grid` or `sequence`.
        gumbel: Standard normal numbers that `generator_output` needs per example, beside a generator's outputs.
        textures: Numbers that `texture` gives per example.
        takes_mask: Whether encoders and critics see which cells are known; else these must be filled in.
        cells_seen: Cells of an example whose being known they are told; 0 without `takes_mask`.
        anomaly_tails: `upper` if only large statistics are strange (each is a surprise), `both` if small ones are too.
        noise_unit: What noise of one unit in data space is divided by in model space.
        scales_per_value: Whether a noise process takes each value's own standard deviation for the data's.
        augmentable: Whether `augmented` can change examples.
        any_order: Whether `row_network` gives the distribution of any value given any others.

    Example:
        >>> digits = domain({"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17})
        >>> y = digits.to_model(x)  # [batch, 1, 8, 8] in [-1, 1]
        >>> network = digits.encoder(16, width=32)  # [batch, 1, 8, 8] to [batch, 16]
        >>> digits.likelihood(3).log_prob(raw, x)  # nats of each pixel
    """

    kind: ClassVar[str]
    layout: ClassVar[Literal["vector", "grid", "sequence"]]
    event_shape: tuple[int, ...]
    flow_shape: tuple[int, ...]
    gumbel: int = 0
    textures: int = 0
    takes_mask: bool = False
    cells_seen: int = 0
    anomaly_tails: Literal["upper", "both"] = "both"
    noise_unit: float = 1.0
    scales_per_value: bool = False
    augmentable: bool = False
    any_order: bool = False
    _checked: bool = True

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Within, examples are taken to be the domain's: what looks at values to refuse them cannot be vectorized."""
        self._checked = False
        try:
            yield
        finally:
            self._checked = True

    @property
    def dimensions(self) -> int:
        """Number of values of one example in model space."""
        return math.prod(self.event_shape)

    @property
    def facts(self) -> int:
        """Size of an example, by which networks of vectors are chosen."""
        return self.dimensions

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What `domain()` needs to build this domain again, if its kind is among `DOMAINS`; JSON types only."""

    # Between data space and model space

    @abstractmethod
    def to_model(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *event"]:
        """Data space to model space; missing cells become 0 (a missing category: all of its values).

        Raises:
            ValueError: If `x` has another event shape.
        """

    @abstractmethod
    def to_data(self, y: Float[Tensor, "batch *event"]) -> Num[Tensor, "batch *data"]:
        """Model space to the nearest valid example in data space, with a missing cell only where one was drawn."""

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

    def unit_log_jacobian(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """The part of each value's log-probability that is due to the data's units and rounding, in nats.

        Without it a log-probability compares columns of different units fairly: for anomaly scores.
        """
        return torch.zeros(x.shape, device=x.device)

    def texture(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch textures"]:
        """What tells smooth examples from rough ones without any model, for anomaly scores; of rows nothing."""
        return torch.zeros(len(x), self.textures, device=x.device)

    # Between data space and flow space

    @abstractmethod
    def dequantize(
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
    def cell_center(self, x: Num[Tensor, "batch *data"]) -> Float[Tensor, "batch *flow"]:
        """The middle of the example's cell in flow space (missing: of the marginal); no noise."""

    @abstractmethod
    def quantize(self, y: Float[Tensor, "batch *flow"]) -> Num[Tensor, "batch *data"]:
        """Flow space to data space: the inverse of `dequantize` and of `cell_center`."""

    # What a noise process runs over

    @property
    def resolution(self) -> float:
        """Standard deviation of noise in model space below which nothing more of an example is told apart."""
        return 0.02

    @property
    def density_noise(self) -> float:
        """Noise at which the density of a noisy example stands for the example's."""
        return 0.002

    def spread(self, x: Num[Tensor, "batch *data"], generator: Streams) -> Float[Tensor, "batch *event"]:
        """Model space, as training sees it: values that stand for a cell may lie anywhere within it."""
        return self.to_model(x)

    @abstractmethod
    def dequantized_point(self, x: Num[Tensor, "batch *data"], generator: Streams) -> DequantizedPoint:
        """An example dequantized in model space; the density of what was drawn for missing cells is divided out."""

    def bound_point(self, x: Num[Tensor, "batch *data"], generator: Streams) -> DequantizedPoint:
        """Where a variational bound starts from."""
        return self.dequantized_point(x, generator)

    @abstractmethod
    def rounding_nats(self, point: DequantizedPoint, sigma: float, generator: Streams) -> Float[Tensor, " batch"]:
        """Expected -log-probability of an example given its `bound_point` with noise of standard deviation `sigma`."""

    def weigh_values(self, error: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch dims"]:
        """Errors of the values of model space, flattened, weighed so that what belongs together counts as one."""
        return error

    def settler(self, classes: int, *, sigma: float, width: int, dropout: float = 0.0) -> Any:
        """A network that draws an example's values one after the other given their noisy versions (see `Settler`);
        `None` where values need none, or for a `sigma` of 0."""
        return None

    def random_shift(
        self, y: Float[Tensor, "batch *event"], part: float, generator: Streams
    ) -> Float[Tensor, "batch *event"]:
        """Each example moved by its own random whole number of places, up to `part` of the shortest side."""
        return y

    def augmented(
        self, x: Num[Tensor, "batch *data"], generator: Streams, *, flip: bool = False, shift: float = 0.0
    ) -> Num[Tensor, "batch *data"]:
        """Examples changed at random into others that could be.

        Arguments:
            x: In data space.
            generator: Source of randomness, on the device of `x`.
            flip: Whether to mirror left and right, with probability 1/2.
            shift: How far to move, as a part of the shortest side: up to so much each way.
        Raises:
            ValueError: If there is no such change of this kind of data.
        """
        raise ValueError(f"a {self.kind} cannot be mirrored or moved")

    # Likelihoods

    @abstractmethod
    def likelihood(
        self, components: int, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        """A proper likelihood of an example given network outputs.

        Arguments:
            components: In each mixture.
            cells: `independent` given the outputs; or `given others`, one after the other, where the domain can.
            classes: Labels that a likelihood with networks of its own may be told.
            width: Size of such networks.
            dropout: Share of their values that training sets to zero.
        """

    @abstractmethod
    def reconstruction(
        self, *, cells: str = "independent", classes: int = 0, width: int = 0, dropout: float = 0.0
    ) -> Likelihood:
        """What an autoencoder fits: of images the squared error (a Gaussian), of tables a likelihood."""

    @abstractmethod
    def generator_output(
        self, raw: Float[Tensor, "batch *event"], noise: Float[Tensor, "batch gumbel"]
    ) -> Float[Tensor, "batch *event"]:
        """A generator's outputs into the range of model space; `noise` chooses among categories."""

    def apply_masked(
        self,
        network: nn.Module,
        y: Float[Tensor, "batch *event"],
        observed: Bool[Tensor, "batch *data"],
        gaps: Bool[Tensor, "batch *data"] | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        """An encoder or critic applied to examples of which some cells are known; tables' see which those are, and
        which of the others are `gaps` (`None`: unknown, all of them)."""
        return network(y)

    # Default networks, by layout. `width` and `blocks` scale them, `patch` and `attention` concern
    # grids: places folded into channels (0 to choose by size), attention at the coarsest level,
    # `principal`: leading principal components to start from (0 for none).

    def encoder(self, outputs: int, *, width: int, blocks: int = 1, patch: int = 0, principal: int = 0) -> nn.Module:
        """Example to vector, called through `apply_masked`."""
        scale = {"width": width, "blocks": blocks, "patch": patch}
        return network("encoder", self.layout)(self, outputs, **scale, principal=principal)

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
        scale = {"width": width, "blocks": blocks, "patch": patch}
        return network("critic", self.layout)(self, outputs, **scale, spectral=spectral, attention=attention)

    def decoder(
        self,
        inputs: int,
        *,
        width: int,
        parameters: int | None = None,
        blocks: int = 1,
        patch: int = 0,
        embed: int = 0,
        attention: bool = False,
        principal: int = 0,
        places: slice = slice(0, 1),
    ) -> nn.Module:
        """`(z, c | None)` to model space; to a likelihood's outputs if given their number and its `places`."""
        scale = {"width": width, "blocks": blocks, "patch": patch, "embed": embed}
        from_components = {"principal": principal, "places": places}
        return network("decoder", self.layout)(
            self, inputs, parameters=parameters, **scale, attention=attention, **from_components
        )

    def denoiser(
        self,
        *,
        width: int,
        embed: int,
        blocks: int = 1,
        patch: int = 0,
        more: int = 0,
        attention: int = 0,
        heads: int = 1,
        dropout: float = 0.0,
    ) -> nn.Module:
        """`(y, c)` to model space, conditional on a vector `c`; `more`: `y` and, behind it along its first
        dimension, so many times as many values. `attention` (places a side up to which blocks attend), `heads` and
        `dropout` concern grids, whose network takes a source of randomness in training."""
        scale = {"width": width, "embed": embed, "blocks": blocks, "patch": patch}
        scale |= {"attention": attention, "heads": heads, "dropout": dropout}
        return network("denoiser", self.layout)(self, **scale, more=more)

    def row_network(
        self, *, context: int, width: int, blocks: int = 2, parts: int = 128, dropout: float = 0.0
    ) -> nn.Module:
        """The distribution of any value given any others and a vector, where `any_order` says so.

        Raises:
            ValueError: If there is none for this kind of data.
        """
        raise ValueError(f"architecture: autoregressive is for tables, got a {self.kind}; set architecture: auto")
