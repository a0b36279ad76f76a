"""What flows of all data share: an exact density, conditional on the label, and a code for every example."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from ..anomaly import MANY, MahalanobisScore
from ..capabilities import (
    AnomalyScoring,
    Coding,
    Density,
    Filling,
    Reconstruction,
    Sampling,
    Translation,
    check_strength,
)
from ..chunking import map_chunks
from ..contract import Batch, GenerativeModel
from ..domains.base import Domain
from ..networks.embeddings import LabelEmbedding
from ..rng import Streams
from ..shapes import Float, Int, Num
from .config import Config, SamplingConfig


class BaseFlow(GenerativeModel, Sampling, Density, Coding, Reconstruction, AnomalyScoring, Filling, Translation):
    """A flow, given how points are mapped to codes and back.

    A point is an example as the map takes it: dequantized, or the row itself.

    Arguments:
        config: Settings.
        domain: What an example is.
        classes: Number of labels; 0 for none.
        network: The map.
        statistics: Number of statistics that tell anomalies.
    """

    Config, SamplingConfig = Config, SamplingConfig

    def __init__(self, config: Config, domain: Domain, classes: int, network: nn.Module, statistics: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.values = math.prod(domain.flow_shape)
        """Number of values the density is of."""
        self.network = network
        self.label = LabelEmbedding(classes, config.embed)
        self.typicality = MahalanobisScore(statistics, upper_only=domain.anomaly_tails == "upper")

    @abstractmethod
    def _point(self, x: Num[Tensor, "batch *data"]) -> Num[Tensor, "batch *event"]:
        """The point that stands for an example, without noise."""

    @abstractmethod
    def _log_prob_given(
        self, point: Num[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Log-density of a point given the label, in nats."""

    @abstractmethod
    def _code(
        self, point: Num[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch latent"]:
        """A point's code under the label."""

    @abstractmethod
    def _complete(
        self, z: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"] | None
    ) -> Num[Tensor, "batch *data"]:
        """The example, without gaps, that has this code under the label."""

    @abstractmethod
    def _statistics(self, x: Num[Tensor, "batch *data"], generator: Streams) -> Float[Tensor, "batch _"]:
        """What tells anomalies."""

    def _joint_log_prob(self, point: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch classes"]:
        """Log-density of a point together with each class, in nats."""
        of_class = [
            self._log_prob_given(point, torch.full((len(point),), c, device=point.device)) + frequency.log()
            for c, frequency in enumerate(self.label_frequencies)
        ]
        return torch.stack(of_class, dim=1)

    def _marginal_log_prob(
        self, point: Num[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        r"""Log-density of a point, given the label where it is known, else marginal over labels, in nats.

        .. math:: \log p(y) = \log \sum_c p(c) \, p(y \mid c)
        """
        label = self.checked_labels(len(point), label)
        if not self.classes or (label is not None and bool((label >= 0).all())):
            return self._log_prob_given(point, label)
        marginal = self._joint_log_prob(point).logsumexp(1)
        if label is None or not bool((label >= 0).any()):
            return marginal
        return torch.where(label >= 0, self._log_prob_given(point, label), marginal)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        self.typicality.fit(map_chunks(lambda x: self._statistics(x, generator), batch.x[:MANY], self.values))

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, generator))

    @torch.no_grad()
    def translate(
        self,
        x: Num[Tensor, "batch *event"],
        label: Int[Tensor, " batch"] | None,
        strength: float,
        generator: Streams,
        *,
        steps: int = 0,
    ) -> Num[Tensor, "batch *event"]:
        r"""The code under the example's own class (the likeliest by Bayes' rule), decoded under the class wanted.

        .. math:: x' = f^{-1}(\sqrt{1 - s^2} \, f(x; c) + s \, \epsilon; \, c')

        Codes are standard normal in every class, whatever the strength :math:`s`. At 0 and without a
        change of class the example comes back.
        """
        check_strength(strength)
        label, point = self.checked_labels(len(x), label), self._point(x)
        source = self._joint_log_prob(point).argmax(1) if self.classes else None
        if source is not None and label is not None:
            label = torch.where(label < 0, source, label)
        z = self._code(point, source)
        z = math.sqrt(1 - strength**2) * z + strength * generator.normal(*z.shape).to(z.dtype)
        return self._complete(z, source if label is None else label)

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))
