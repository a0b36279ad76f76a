"""How much of a noisy example to keep beside what an autoencoder makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .chunking import chunk_size
from .domains.base import Domain
from .rng import Streams
from .shapes import Float, Num

VALUES = 2**21
"""Values of examples that thirteen shares are measured on: all of a thousand small images, those of 170 of 64x64."""


class Blend(nn.Module):
    r"""The mixture of a noisy example and its reconstruction that has the least squared error, for any noise.

    .. math:: D(x; \sigma) = a_\sigma \, x + (1 - a_\sigma) \, r(x), \qquad
        a_\sigma = \frac{E[e^2] - E[e n]}{E[e^2] - 2 E[e n] + E[n^2]}

    with noise :math:`n` and error :math:`e = r(x) - y` of the reconstruction of an example :math:`y` with that noise,
    both measured on training examples. Where reconstructions lie in a linear subspace it is the Wiener filter. Of
    little noise nearly all is kept, for a reconstruction is then further from the example than the noise is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigma: Tensor
        self.share: Tensor
        self.register_buffer("sigma", torch.logspace(-2, 1, 13))
        """Noise levels at which it is measured, in model space."""
        self.register_buffer("share", torch.ones(13))
        """What is kept of the example, at each."""

    def fit(
        self,
        rebuild: Callable[[Tensor, Tensor], Tensor],
        domain: Domain,
        x: Num[Tensor, "batch *data"],
        generator: Streams,
    ) -> None:
        """Measure the shares, a bounded number of examples at a time.

        Arguments:
            rebuild: Noisy examples in model space, and which cells are known, to their reconstruction there.
            domain: What an example is.
            x: Examples without noise, of which the first are taken: as many as have `VALUES` values, and at least 128.
            generator: Source of randomness.
        """
        x = x[: max(128, VALUES // domain.dimensions)]
        for level, sigma in enumerate(self.sigma):
            total, count = self.sigma.new_zeros(2), 0
            for part in x.split(chunk_size(domain.dimensions)):
                y, observed = domain.to_model(part), domain.observed(part)
                known = domain.expand(observed)
                noise = sigma * generator.normal(*y.shape)
                n, e = noise[known], (rebuild(y + noise, observed) - y)[known]
                total, count = total + torch.stack([(e * (e - n)).sum(), (e - n).square().sum()]), count + len(n)
            kept, apart = total / max(count, 1)
            self.share[level] = (kept / apart.clamp(min=1e-12)).clamp(0, 1)

    def forward(
        self, noisy: Float[Tensor, "batch *event"], rebuilt: Float[Tensor, "batch *event"], sigma: float
    ) -> Float[Tensor, "batch *event"]:
        """The mixture for noise of standard deviation `sigma`, between levels by the logarithm of it; below the least
        one the reconstruction's share falls with the variance, as the Wiener filter's does."""
        place = torch.as_tensor(sigma, device=noisy.device).log() - self.sigma[0].log()
        place = (place / (self.sigma[1] / self.sigma[0]).log()).clamp(0, len(self.sigma) - 1)
        low = place.floor().long().clamp(max=len(self.sigma) - 2)
        share = torch.lerp(self.share[low], self.share[low + 1], place - low)
        given_up = (1 - share) * min(1.0, sigma / float(self.sigma[0])) ** 2
        return noisy + given_up * (rebuilt - noisy)
