"""What a trained model can do: one small class per capability, so that code and tests can enumerate them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .domains.base import Domain
from .imputation import with_gaps
from .rng import Streams
from .shapes import Bool, Float, Int, Num


class Sampling(ABC):
    """Draws new examples."""

    @abstractmethod
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        """`n` draws in data space.

        Arguments:
            n: How many.
            label: Class of each draw, -1 for any; `None` for any.
            generator: Source of randomness; the same streams give the same draws.
            steps: Steps of an iterative sampler; 0 for the model's own. One-pass families ignore it.
        """


class Density(ABC):
    """Knows the density of its examples, exactly or by an ODE."""

    @abstractmethod
    def log_prob(
        self, x: Num[Tensor, "batch *event"], generator: Streams, *, label: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Log-probability of data-space examples, in nats per example: given the label where it is known (not -1), else
        marginal over labels."""


class DensityBound(ABC):
    """Knows a lower bound of the log-density."""

    @abstractmethod
    def elbo(
        self,
        x: Num[Tensor, "batch *event"],
        generator: Streams,
        *,
        samples: int = 1,
        label: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Lower bound of the log-probability in nats, importance-weighted with `samples` draws: given the label where
        it is known (not -1), else marginal over labels."""


class Coding(ABC):
    """Maps examples to latent codes and back."""

    @abstractmethod
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        """Latent codes, deterministic."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        """Examples in data space for latent codes."""


class Reconstruction(ABC):
    """Rebuilds an example from what it keeps of it."""

    @abstractmethod
    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        """The model's version of `x`, in data space."""


class AnomalyScoring(ABC):
    """Says how unlike the training data an example is."""

    @abstractmethod
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        """Higher is more anomalous. No unit; only the order means something."""


class Imputation(ABC):
    """Fills in missing cells.

    Attributes:
        exact_conditionals: Whether fillings are draws from the model's own conditional distribution, not near it.
    """

    exact_conditionals: bool = False

    @abstractmethod
    def impute(
        self,
        x: Num[Tensor, "batch *event"],
        observed: Bool[Tensor, "batch *event"],
        generator: Streams,
        *,
        draws: int = 1,
    ) -> Num[Tensor, "draws batch *event"]:
        """Several completions; observed cells come back untouched.

        Arguments:
            x: Examples; cells that are not observed may hold anything.
            observed: Which cells are known; NaN never is.
            generator: Source of randomness.
            draws: How many completions of each.
        """


class ConditionalSampling(ABC):
    """Draws examples of which some cells are given, from the model's own distribution given these."""

    @abstractmethod
    def sample_given(
        self, x: Num[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None, generator: Streams
    ) -> tuple[Num[Tensor, "batch *event"], Int[Tensor, " batch"] | None]:
        """Whole examples and their labels; the given cells come back untouched, the others may be gaps as in the data.

        Arguments:
            x: Examples, NaN in the cells that are drawn.
            label: Of each; -1 or `None` to draw it, too, given the cells.
            generator: Source of randomness.
        Returns:
            The examples, and their labels; `None` for a model without labels.
        """


class Filling(Imputation):
    """Imputation by complete examples, into which the observed cells are put back: families give `fill`."""

    domain: Domain

    def impute(
        self,
        x: Num[Tensor, "batch *event"],
        observed: Bool[Tensor, "batch *event"],
        generator: Streams,
        *,
        draws: int = 1,
    ) -> Num[Tensor, "draws batch *event"]:
        observed = observed & self.domain.observed(x)
        if not draws:
            return x.expand(0, *x.shape)
        seen = with_gaps(x, observed) if x.is_floating_point() else x
        with torch.no_grad():
            fills = self.fill(seen, observed, generator, draws)
        return self.domain.merge(x, observed, fills)

    @abstractmethod
    def fill(
        self,
        x: Num[Tensor, "batch *event"],
        observed: Bool[Tensor, "batch *event"],
        generator: Streams,
        draws: int,
    ) -> Num[Tensor, "draws batch *event"]:
        """Complete examples for `impute`; `observed` is never true of a NaN, and floats are NaN where it is false."""


def check_sigma(sigma: float) -> None:
    """Refuse noise without strength by name."""
    if not sigma > 0:
        raise ValueError(f"sigma must be positive (standard deviation of the noise in data units), got {sigma}")


class Denoising(ABC):
    """Removes Gaussian noise of known strength."""

    @abstractmethod
    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        """The expected clean example, given noise of standard deviation `sigma` in data units."""


class Translation(ABC):
    """Turns examples into their like of another class, or into variations of themselves."""

    @abstractmethod
    def translate(
        self,
        x: Num[Tensor, "batch *event"],
        label: Int[Tensor, " batch"] | None,
        strength: float,
        generator: Streams,
        *,
        steps: int = 0,
    ) -> Num[Tensor, "batch *event"]:
        """Complete examples in data space, of class `label`, that keep of `x` what `strength` leaves.

        Arguments:
            x: Where to start; missing cells are filled in.
            label: Class wanted for each, -1 or `None` for no change of class.
            strength: How much of the example is given up for chance: from 0 (as little as the family can)
                to 1 (all: a fresh draw of the class).
            generator: Source of randomness.
            steps: Steps of an iterative sampler; 0 for the model's own. One-pass families ignore it.

        Raises:
            ValueError: If `strength` or a label is out of range.
        """


def check_strength(strength: float) -> None:
    """Refuse a strength of translation outside [0, 1] by name."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 and 1, got {strength}")


CAPABILITIES: dict[str, type] = {
    "sample": Sampling,
    "log_prob": Density,
    "elbo": DensityBound,
    "encode": Coding,
    "decode": Coding,
    "interpolate": Coding,
    "reconstruct": Reconstruction,
    "anomaly_score": AnomalyScoring,
    "impute": Imputation,
    "denoise": Denoising,
    "translate": Translation,
}
"""The capability behind each task a registered model can be asked for."""


def tasks(model: nn.Module) -> tuple[str, ...]:
    """Names of the tasks a model can do, in the order of `CAPABILITIES`."""
    return tuple(task for task, capability in CAPABILITIES.items() if isinstance(model, capability))
