"""The exact denoiser of a Gaussian mixture per class on leading principal components."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..mixture import GaussianMixture
from ..networks.embeddings import full_precision
from ..networks.principal import PrincipalComponents
from ..rng import Streams
from ..shapes import Float, Int

GAUSSIANS = 4
"""In the mixture of each class."""


class MixtureDenoiser(nn.Module):
    r"""The expected clean example given a noisy one, if examples were drawn from a mixture measured before training.

    .. math:: D(x) = \mu + \frac{r}{r + \sigma^2} (I - U U^\top)(x - \mu)
        + U \sum_k w_k \left[ m_k + S_k (S_k + \sigma^2 I)^{-1} (h - m_k) \right],
        \quad w_k \propto \pi_k \, \mathcal{N}(h; m_k, S_k + \sigma^2 I)

    with the coordinates :math:`h = U^\top (x - \mu)` along the leading principal components, the Gaussians
    :math:`(\pi_k, m_k, S_k)` of the class (of all classes for an unknown label), and the variance :math:`r` along every
    other direction.

    Arguments:
        shape: Of an example.
        count: Components.
        classes: Of the labels; 0 for none.

    References:
        | The unreasonable effectiveness of Gaussian score approximation for diffusion models (Wang and Vastola, 2024)
        | https://arxiv.org/abs/2412.09726
    """

    def __init__(self, shape: tuple[int, ...], count: int, classes: int) -> None:
        super().__init__()
        self.components = PrincipalComponents(shape, count)
        mixture = GaussianMixture(self.components.count, classes, GAUSSIANS)
        self.groups, dim = len(mixture.mean), self.components.count
        self.log_weight: Tensor
        self.mean: Tensor
        self.axes: Tensor
        self.variances: Tensor
        self.register_buffer("log_weight", mixture.log_weight.flatten())
        self.register_buffer("mean", mixture.mean.flatten(0, 1))
        self.register_buffer("axes", torch.eye(dim).repeat(len(self.mean), 1, 1))
        self.register_buffer("variances", torch.ones_like(self.mean))

    @torch.no_grad()
    def measure(
        self,
        y: Float[Tensor, "n *event"],
        label: Int[Tensor, " n"] | None,
        frequencies: Float[Tensor, " classes"],
        generator: Streams,
    ) -> None:
        """Fit the mixture to examples, of which the components were measured."""
        mixture = GaussianMixture(self.components.count, self.groups if self.groups > 1 else 0, GAUSSIANS)
        mixture.to(y.device).fit(self.components.along(y), label, generator)
        values, vectors = torch.linalg.eigh((mixture.scale @ mixture.scale.mT).flatten(0, 1).double())
        shares = frequencies.log()[:, None] if self.groups > 1 else 0.0
        self.log_weight.copy_((mixture.log_weight + shares).flatten())
        self.mean.copy_(mixture.mean.flatten(0, 1))
        self.axes.copy_(vectors)
        self.variances.copy_(values.clamp(min=0))

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        sigma: Float[Tensor, " batch"],
        label: Int[Tensor, " batch"] | None,
        detail: float = 1.0,
    ) -> Float[Tensor, "batch *event"]:
        """The expected clean example; `detail` is a factor on the standard deviation along all other directions."""
        with torch.autocast(x.device.type, enabled=False):
            h = self.components.along(x)
            noise = sigma.to(h.dtype).square()
            total = self.variances + noise[:, None, None]
            away = torch.einsum("bc,kcd->bkd", h, self.axes) - torch.einsum("kc,kcd->kd", self.mean, self.axes)
            log_p = self.log_weight - 0.5 * (away.square() / total + total.log()).sum(2)
            if label is not None and self.groups > 1:
                group = torch.arange(len(self.mean), device=x.device) // GAUSSIANS
                apart = (label[:, None] >= 0) & (label[:, None] != group)
                log_p = log_p.masked_fill(apart, -torch.inf)
            weight = log_p.softmax(1)
            kept = weight[:, :, None] * away * self.variances / total
            expected = weight @ self.mean + torch.einsum("bkd,kcd->bc", kept, self.axes)
            rest = self.components.rest * detail**2
            others = (rest / (rest + noise))[:, None]
            flat = full_precision(x).flatten(1) - self.components.mean
            clean = others * flat + (expected - others * h) @ self.components.basis.T
            return (clean + self.components.mean).unflatten(1, x.shape[1:])
