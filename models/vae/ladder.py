"""The lower level of a ladder: a map of codes between the vector and the pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..networks.convolutional import Decoder, Residual, channels_at, convolution
from ..networks.embeddings import full_precision
from ..networks.registry import register
from ..rng import Streams
from ..shapes import Float
from .gaussians import gaussian_divergence, gaussian_log_prob


class Inferred(NamedTuple):
    """A draw of the lower level given the vector and the example.

    Arguments:
        code: The vector and the map as deviations from its prior, `[batch, latent + map]`.
        raw: The likelihood's parameters.
        log_ratio: log p(map | vector) - log q(map | vector, x) in nats, `[batch]`.
        divergence: Of the map's posterior from its prior, in nats, `[batch, fine]`.
    """

    code: Tensor
    raw: Tensor
    log_ratio: Tensor
    divergence: Tensor


def folding(height: int, width: int) -> int:
    """Pixels per place of the map, along a side: 4 or 2 if that divides both and leaves four places, else 1."""
    fits = [side for side in (4, 2) if height % side == 0 and width % side == 0 and min(height, width) // side >= 4]
    return fits[0] if fits else 1


class Ladder(nn.Module):
    r"""Decoder with a second level of codes, inferred in both directions.

    The prior of the map comes down from the vector; its posterior joins that prior and what the
    example says (bottom up), each weighted by its precision:

    .. math:: \mu_q = \frac{\mu_p \sigma_p^{-2} + \hat\mu \hat\sigma^{-2}}{\sigma_p^{-2} + \hat\sigma^{-2}},
        \qquad \sigma_q^{-2} = \sigma_p^{-2} + \hat\sigma^{-2}

    Arguments:
        shape: Channels, height, width of an image.
        latent: Length of the vector.
        parameters: Outputs per value.
        fine: Channels of the map.
        width: Channels of the networks.
        blocks: Residual blocks in each part.

    References:
        | Ladder variational autoencoders (Sønderby et al., 2016), eq. 17-19
        | https://arxiv.org/abs/1602.02282
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: int, *, parameters: int, fine: int, width: int, blocks: int
    ) -> None:
        super().__init__()
        channels, height, image_width = shape
        fold = folding(height, image_width)
        places = (height // fold, image_width // fold)
        features = channels_at(width, fold // 2)
        self.latent, self.map = latent, (fine, *places)
        self.down = Decoder(latent, (features, *places), width=features, blocks=blocks, patch=1)
        self.prior = convolution(features, 2 * fine, zero=True)
        self.up = nn.Sequential(
            nn.PixelUnshuffle(fold),
            convolution(channels * fold**2, features),
            *(Residual(features, features) for _ in range(blocks)),
        )
        self.evidence = convolution(features, 2 * fine)
        self.join = convolution(fine, features)
        self.out = nn.Sequential(
            *(Residual(features, features) for _ in range(blocks)),
            nn.SiLU(),
            convolution(features, channels * parameters * fold**2),
            nn.PixelShuffle(fold),
        )

    @property
    def deviations(self) -> int:
        """Length of the map's part of a code."""
        fine, height, width = self.map
        return fine * height * width

    def _from_above(self, z: Float[Tensor, "batch latent"]) -> tuple[Tensor, Tensor, Tensor]:
        """Features, and mean and log-variance of the map's prior."""
        features = self.down(z)
        mean, log_variance = full_precision(self.prior(features)).chunk(2, dim=1)
        return features, mean, log_variance.clamp(-6, 6)

    def _outputs(self, features: Tensor, fine: Tensor) -> Tensor:
        return self.out(features + self.join(fine))

    def forward(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch _ height width"]:
        """The likelihood's parameters for a whole code: the vector, then the map's deviations from its prior."""
        z, deviation = code[:, : self.latent], code[:, self.latent :].unflatten(1, self.map)
        features, mean, log_variance = self._from_above(z)
        return self._outputs(features, mean + (0.5 * log_variance).exp() * deviation)

    def infer(self, z: Float[Tensor, "batch latent"], y: Tensor, generator: Streams | None) -> Inferred:
        """The map given the vector and the example in model space: a draw, or without a generator the mean."""
        features, mean0, log_variance0 = self._from_above(z)
        evidence, log_variance = full_precision(self.evidence(self.up(y))).chunk(2, dim=1)
        prior, likelihood = (-log_variance0).exp(), (-log_variance.clamp(-10, 10)).exp()
        mean, log_variance = (mean0 * prior + evidence * likelihood) / (prior + likelihood), -(prior + likelihood).log()
        fine = mean
        if generator is not None:
            fine = mean + (0.5 * log_variance).exp() * generator.normal(*mean.shape)
        deviation = (fine - mean0) * (-0.5 * log_variance0).exp()
        above, below = (mean0, log_variance0), (mean, log_variance)
        densities = [gaussian_log_prob(fine.flatten(1), m.flatten(1), v.flatten(1)) for m, v in (above, below)]
        return Inferred(
            torch.cat([z, deviation.flatten(1)], dim=1),
            self._outputs(features, fine),
            densities[0] - densities[1],
            gaussian_divergence(*below, *above).flatten(2).sum(2),
        )


@register("ladder", "grid")
def grid_ladder(domain: Any, latent: int, *, parameters: int, fine: int, width: int, blocks: int) -> Ladder:
    """Raises `ValueError` if the grid has not two axes."""
    if domain.rank != 2:
        raise ValueError(f"levels: 2 is for grids of two axes, got {domain.rank}; set levels: 1")
    return Ladder(domain.event_shape, latent, parameters=parameters, fine=fine, width=width, blocks=blocks)
