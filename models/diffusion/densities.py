"""Densities of a diffusion model: the probability-flow ODE's and the variational bound, marginal over labels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ..capabilities import Density, DensityBound
from ..contract import GenerativeModel
from ..rng import Streams
from ..shapes import Float, Int, Num
from .denoiser import Denoiser
from .labels import MANY, SUMMED, label_log_posterior
from .likelihood import diffusion_nats, ode_log_prob
from .schedules import SIGMA_MAX


class Densities(GenerativeModel, Density, DensityBound):
    """The densities of a model whose denoiser says what is expected at each noise level.

    Attributes:
        denoiser: Noisy example, noise level and label to the expected clean example.
    """

    denoiser: Denoiser

    @abstractmethod
    def denoised(self, x: Tensor, sigma: Tensor | float, label: Tensor | None) -> Float[Tensor, "batch *event"]:
        """Output of the denoiser as it is sampled with."""

    @property
    def finest(self) -> float:
        """Noise level at which the bound ends: nothing more is told apart below the domain's resolution."""
        return self.sampling.density_sigma or self.domain.resolution

    def _as_of(
        self, x: Tensor, sigma: Tensor | float, label: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch *event"]:
        """Denoiser output without guidance, which densities know nothing of, in the precision of `x`."""
        if label is None:
            return self.denoised(x, sigma, None)
        low = x.to(self.denoiser.sigma_data.dtype)
        level = torch.as_tensor(sigma, device=x.device).to(low.dtype).expand(len(x))
        return self.denoiser(low, level, label).to(x.dtype)

    @torch.no_grad()
    def label_log_probs(
        self, y: Float[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None, generator: Streams
    ) -> Float[Tensor, "batch classes"] | None:
        """Log-probability of each class given examples in model space, 0 of the label where that is known; `None` of a
        model without labels, or of one with `MANY` classes if any example's is unknown."""
        label = self.checked_labels(len(y), label)
        known = torch.zeros(len(y), dtype=torch.bool, device=y.device) if label is None else label >= 0
        if not self.classes or (self.classes >= MANY and not known.all()):
            return None
        log_p = torch.full((len(y), self.classes), -torch.inf, device=y.device, dtype=y.dtype)

        def error(noisy: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
            return (self._as_of(noisy, sigma, label) - clean).flatten(1).square().sum(1)

        if not known.all():
            clean = y[~known]
            shares = self.label_frequencies.log()
            log_p[~known] = label_log_posterior(error, clean, shares, float(self.denoiser.sigma_data), generator)
        if label is not None and known.any():
            log_p[known] = log_p[known].scatter(1, label[known, None], 0.0)
        return log_p

    @torch.no_grad()
    def log_prob(
        self,
        x: Num[Tensor, "batch *event"],
        generator: Streams,
        *,
        steps: int = 0,
        label: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        r"""Log-density by the probability-flow ODE, of the dequantized example, in nats.

        .. math:: \log p(y) = \log \sum_c p(c) \, p(y \mid c)

        given the label where it is known, else summed over the likeliest classes (`SUMMED`) by `label_log_posterior`,
        each at the price of one density: a lower bound where there are more. Of `MANY` classes it is the density for
        an unknown label. `steps` of the Runge-Kutta method, 0 for the model's own (`density_steps`).

        References:
            | Score-based generative modeling through SDEs (Song et al., 2021), eq. 39-40
            | https://arxiv.org/abs/2011.13456
        """
        point = self.domain.dequantized_point(x, generator)
        log_p = self.label_log_probs(point.y, label, generator)
        rows, classes, share = torch.arange(len(x), device=x.device), label if self.classes else None, None
        if log_p is not None:
            several = 1 if label is not None and bool((label >= 0).all()) else min(SUMMED, self.classes)
            likeliest = log_p.topk(several, dim=1)
            rows, classes = rows.repeat_interleave(several), likeliest.indices.flatten()
            share = self.label_frequencies.log().to(log_p.dtype)[likeliest.indices]
            if label is not None:
                given = torch.where(likeliest.values == 0, 0.0, -torch.inf)
                share = torch.where(label[:, None] >= 0, given, share)
        nats = ode_log_prob(
            lambda y, sigma: self._as_of(y, sigma, classes),
            point,
            generator,
            rows=rows,
            sigma_min=self.sampling.density_sigma or self.domain.density_noise,
            sigma_max=SIGMA_MAX,
            sigma_data=float(self.denoiser.sigma_data),
            steps=steps or self.sampling.density_steps,
        )
        if share is not None:
            nats = (share + nats.reshape(share.shape)).logsumexp(1)
        return nats.float()

    @torch.no_grad()
    def elbo(
        self,
        x: Num[Tensor, "batch *event"],
        generator: Streams,
        *,
        samples: int = 16,
        label: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        r"""Variational bound of the log-probability (of continuous columns the density), in nats.

        .. math:: -\log p(x) \le KL(q(y_{max}|x) \| p) + E[-\log p(x|y_{min})]
            + E_{\ln\sigma \sim U} \left[ \ln\tfrac{\sigma_{max}}{\sigma_{min}} \frac{\|y - D_c\|^2}{\sigma^2} \right]
            + KL(q(c|x) \| p(c))

        `samples` noise levels are drawn per example, stratified, and at each a class: the label where it is known, else
        from `label_log_posterior`, which saw other noise, so that the bound is one whatever it says, and the
        nearer to :math:`\log \sum_c p(c) e^{ELBO_c}` the better it is; of `MANY` classes an unknown one.

        References:
            | Variational diffusion models (Kingma et al., 2021), eq. 15
            | https://arxiv.org/abs/2107.00630
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        point = self.domain.bound_point(x, generator)
        log_q = self.label_log_probs(point.y, label, generator)
        unknown = label if self.classes else None

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            return self._as_of(noisy, sigma, unknown if log_q is None else generator.choice(log_q))

        nats = diffusion_nats(
            denoise,
            point.y,
            generator,
            sigma_min=self.finest,
            sigma_max=SIGMA_MAX,
            sigma_data=float(self.denoiser.sigma_data),
            samples=samples,
        )
        nats = nats + self.domain.rounding_nats(point, self.finest, generator)
        if log_q is not None:
            divergence = log_q.exp() * (log_q.clamp(min=-1e9) - self.label_frequencies.log().to(log_q.dtype))
            given = torch.zeros_like(nats, dtype=torch.bool) if label is None else label >= 0
            nats = nats + torch.where(given, 0.0, divergence.sum(1))
        return -nats.to(torch.get_default_dtype())
