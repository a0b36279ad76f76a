"""Diffusion model: a denoiser at every noise level, and the samplers that use it.

`schedules.py` holds the noise levels, `denoiser.py` what is trained, `samplers.py` the ways from
noise to an example, `consistency.py` the one of a single evaluation, `densities.py` and `likelihood.py` the densities,
`labels.py` what they say of an example's class, `mixture_denoiser.py` what a denoiser of large images starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..anomaly import ENOUGH, MahalanobisScore
from ..capabilities import (
    AnomalyScoring,
    Coding,
    Denoising,
    Filling,
    Reconstruction,
    Sampling,
    Translation,
    check_sigma,
    check_strength,
)
from ..chunking import map_chunks
from ..contract import Batch, Objective
from ..domains.base import Domain
from ..imputation import repeated, with_gaps
from ..networks.principal import fitted_examples, measure_components
from ..rng import Streams
from ..shapes import Bool, Float, Int, Num
from .config import Config, SamplingConfig
from .consistency import ConsistencyFunction, ConsistencyObjective, jump
from .denoiser import Denoiser, DenoisingObjective, schedule_of
from .densities import Densities
from .labels import MANY
from .samplers import SAMPLERS, Heun, ancestral_step
from .schedules import SIGMA_MAX, SIGMA_MIN, levels

__all__ = ["Config", "Denoiser", "DenoisingObjective", "Diffusion"]


class Diffusion(
    Densities,
    Sampling,
    Coding,
    Reconstruction,
    AnomalyScoring,
    Filling,
    Denoising,
    Translation,
):
    """Denoiser and probability-flow ODE: by default EDM with Heun's method.

    References:
        | Karras et al. (2022), https://arxiv.org/abs/2206.00364
    """

    Config, SamplingConfig = Config, SamplingConfig

    def __init__(self, config: Config, domain: Domain, classes: int) -> None:
        super().__init__(domain, classes)
        self.config = config
        self.denoiser = Denoiser(config, domain, classes)
        self.settler = domain.settler(classes, sigma=config.settle, width=config.width, dropout=config.dropout)
        self.consistency = ConsistencyFunction(self.denoiser) if config.jumps else None
        # noise levels, in units of sigma_data, of the anomaly statistics: of rows also how far out each number lies
        self.probes = (0.6, 1.2, 2.5, 5.0) if domain.takes_mask else (0.1, 0.3, 0.6, 1.2)
        self.typicality = MahalanobisScore(len(self.probes), upper_only=domain.anomaly_tails == "upper")

    def check_sampling(self) -> None:
        if self.jumping and self.consistency is None:
            raise ValueError(
                "sampler: consistency needs a model that was trained with jumps, this one has jumps: 0; "
                "train with model.jumps: 0.25, or set sampler: dpmpp_2m"
            )
        if self.settler is not None and self.config.settle >= self.sampling.sigma_max:
            raise ValueError(
                f"settle must be below sigma_max, got {self.config.settle} and {self.sampling.sigma_max}; "
                "set settle: 0 for rows that are not settled"
            )

    @property
    def jumping(self) -> bool:
        """Whether the sampler jumps to the end."""
        return self.sampling.sampler == "consistency"

    def objectives(self) -> tuple[Objective, ...]:
        denoising = DenoisingObjective(self.denoiser, self.domain, self.config, self.settler)
        if self.consistency is None:
            return (denoising,)
        return denoising, ConsistencyObjective(self.consistency, self.denoiser, self.domain, self.config)

    @torch.no_grad()
    def initialize(self, batch: Batch, generator: Streams) -> None:
        """Measure what the denoiser starts from, and sigma_data: the standard deviation of the known values around
        their overall mean."""
        super().initialize(batch, generator)
        x = batch.visible
        measure_components(self, self.domain, x)
        if (mixture := self.denoiser.mixture) is not None:
            mixture.measure(*fitted_examples(self.domain, batch), self.label_frequencies, generator)
        known = self.domain.spread(x, generator)[self.domain.expand(self.domain.observed(x))]
        deviation = known.std() if len(known) > 1 else known.new_ones(())
        self.denoiser.sigma_data.copy_(deviation.clamp(min=1e-3))
        if self.denoiser.spreads is not None:
            self.denoiser.spreads.copy_(self._spreads(x, generator))

    def _spreads(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " dims"]:
        """Standard deviation of each value of model space over the known cells."""
        y, known = self.domain.spread(x, generator), self.domain.expand(self.domain.observed(x))
        count = known.sum(0).clamp(min=1)
        mean = (y * known).sum(0) / count
        return ((y - mean).square() * known).sum(0).div(count).sqrt().clamp(min=0.02)

    @torch.no_grad()
    def finalize(self, batch: Batch, generator: Streams) -> None:
        rows = torch.arange(min(len(batch), ENOUGH), device=batch.x.device)

        labels = batch.label if 0 < self.classes < MANY else None  # known here: to tell them costs 6 times as much

        def statistics(part: Tensor) -> Tensor:
            return self._statistics(batch.x[part], None if labels is None else labels[part], generator)

        self.typicality.fit(map_chunks(statistics, rows, self.domain.dimensions))

    # Sampling

    def noise_levels(self, steps: int, *, device: torch.device) -> Float[Tensor, " levels"]:
        """`steps` levels of the sampler from `sigma_max` to `sigma_min` on the objective's scale, float64."""
        if steps < 2:
            raise ValueError(f"steps must be at least 2 (0 for the model's own), got {steps}")
        s = self.sampling
        return levels(schedule_of(self.config, s.rho), s.sigma_max, s.sigma_min, steps, device)

    def _way_down(self, steps: int, device: torch.device) -> Float[Tensor, " levels"]:
        """The levels from which `steps` steps lead to an example, or to where rows are settled."""
        if self.jumping:
            return self._jumping_down(self.sampling.sigma_max, steps, device)
        down = self.noise_levels(steps, device=device)
        if self.settler is None:
            return down
        s = self.sampling
        return levels(schedule_of(self.config, s.rho), s.sigma_max, self.settler.sigma, steps + 1, device)[:-1]

    def _jumping_down(self, start: float, steps: int, device: torch.device) -> Float[Tensor, " levels"]:
        """The level to begin at, and those that noise is added up to between `steps` jumps: from the data's standard
        deviation to a quarter of it, in equal steps of the logarithm."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1 (0 for the model's own), got {steps}")
        part = (torch.arange(1, steps, dtype=torch.float64, device=device) - 0.5) / max(steps - 1, 1)
        between = self.denoiser.sigma_data.double() * 0.25**part
        first = torch.full((1,), start, dtype=torch.float64, device=device)
        return torch.cat([first, between[between < start]])

    def _all_levels(self, steps: int, device: torch.device) -> Float[Tensor, " levels"]:
        """`steps` levels from the most noise to the least, whatever the sampler's range."""
        return levels(schedule_of(self.config, self.sampling.rho), SIGMA_MAX, SIGMA_MIN, steps, device)

    def denoised(
        self,
        x: Tensor,
        sigma: Tensor | float,
        label: Tensor | None,
        given: Tensor | None = None,
        network: nn.Module | None = None,
        detail: float = 1.0,
    ) -> Float[Tensor, "batch *event"]:
        """Output of the denoiser, or of another `network` in its place, with guidance, in the precision of `x`; `given`
        and `detail` as the denoiser takes them."""
        denoiser: Callable[..., Tensor] = self.denoiser if network is None else network
        low = x.to(self.denoiser.sigma_data.dtype)
        level = torch.as_tensor(sigma, device=x.device).to(low.dtype).expand(len(x))
        if given is not None:
            return denoiser(low, level, label, given).to(x.dtype)
        if detail != 1:
            denoiser = partial(denoiser, detail=detail)
        d = denoiser(low, level, label)
        if self.sampling.guidance != 1 and label is not None:
            free = denoiser(low, level, None)
            d = free + self.sampling.guidance * (d - free)
        return d.to(x.dtype)

    def _descend(
        self,
        x: Tensor,
        down: Tensor,
        label: Tensor | None,
        generator: Streams,
        given: Tensor | None = None,
        known: Tensor | None = None,
        *,
        gaps: bool = False,
    ) -> Num[Tensor, "n *data"]:
        """From noise level `down[0]` to 0 by the model's sampler, and to data space; or to the level at which rows
        are settled, given the `known` cells, with `gaps` where the data have them or without."""
        settler = self.settler if down[0] > self.config.settle else None
        end = 0.0 if settler is None else settler.sigma
        down = torch.cat([down[down > end], down.new_full((1,), end)])

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoised(x, sigma, label, given, detail=self.sampling.detail)

        def jumped(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoised(x, sigma, label, given, self.consistency)

        name = self.sampling.sampler
        y = jump(jumped, x, down, generator) if self.jumping else SAMPLERS[name](denoise, x, down, generator)
        return self.domain.to_data(y) if settler is None else settler.draw(y, known, label, generator, gaps=gaps)

    @torch.no_grad()
    def sample(
        self, n: int, label: Int[Tensor, " n"] | None, generator: Streams, *, steps: int = 0
    ) -> Num[Tensor, "n *event"]:
        label = self.draw_labels(n, label, generator)
        noise = generator.normal(n, *self.domain.event_shape).double()
        down = self._way_down(steps or self.sampling.steps, noise.device)
        return self._descend(noise * down[0], down, label, generator, gaps=True)

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
        """Noise is added up to `strength` of the sampler's way, and removed again under the label wanted.

        At strength 0 nothing changes. Without a label the denoiser is told none: variations of `x`.

        References:
            | SDEdit (Meng et al., 2022), algorithm 1
            | https://arxiv.org/abs/2108.01073
        """
        check_strength(strength)
        label = self.checked_labels(len(x), label)
        y = self.domain.to_model(x).double()
        steps = steps or self.sampling.steps
        down = self.noise_levels(max(steps, 64) if self.jumping else steps, device=y.device)
        down = down[len(down) - round(strength * len(down)) :]
        if self.jumping and len(down):
            down = self._jumping_down(float(down[0]), steps, y.device)
        if not len(down):
            return self.domain.merge(x, self.domain.observed(x), self.domain.to_data(y))
        return self._descend(y + down[0] * generator.normal(*y.shape), down, label, generator)

    def fill(
        self, x: Num[Tensor, "batch *event"], observed: Bool[Tensor, "batch *event"], generator: Streams, draws: int
    ) -> Num[Tensor, "draws batch *event"]:
        """A denoiser that has learned to (`hide`) is given the observed values, and the sampler draws the rest, for an
        unknown label.

        Others try again and again (`_repaint`). With labels they do it twice: once for an unknown one, and again given
        a label drawn by what the first filling looks like (a sweep of Gibbs sampling over label and hidden cells).
        """
        if self.denoiser.masked:
            return repeated(self._fill, with_gaps(x, observed), generator, draws)
        repeat = [draws, *[1] * (x.ndim - 1)]
        many, seen = x.repeat(repeat), observed.repeat(repeat)
        filled = self._repaint(many, seen, generator, None)
        if 0 < self.classes < MANY:
            whole = self.domain.to_model(self.domain.merge(many, seen, filled)).double()
            log_p = self.label_log_probs(whole, None, generator)
            assert log_p is not None
            filled = self._repaint(many, seen, generator, generator.choice(log_p))
        return filled.unflatten(0, (draws, len(x)))

    def _fill(self, x: Float[Tensor, "batch *data"], generator: Streams) -> Num[Tensor, "batch *data"]:
        given = torch.where(self.domain.expand(self.domain.observed(x)), self.domain.to_model(x), torch.nan)
        down = self._way_down(self.sampling.steps, x.device)
        start = down[0] * generator.normal(len(x), *self.domain.event_shape).double()
        return self._descend(start, down, None, generator, given, x)

    def _repaint(
        self,
        x: Num[Tensor, "batch *data"],
        observed: Bool[Tensor, "batch *data"],
        generator: Streams,
        label: Int[Tensor, " batch"] | None,
    ) -> Num[Tensor, "batch *data"]:
        """Ancestral sampling in which observed values are replaced by themselves with noise at every
        level, each step repeated `resample` times with noise added again, so that both parts agree.

        References:
            | RePaint (Lugmayr et al., 2022), algorithm 1
            | https://arxiv.org/abs/2201.09865
        """
        known = self.domain.expand(observed)
        down = self._all_levels(self.sampling.impute_steps, x.device)
        down = torch.cat([down, down.new_zeros(1)])

        def noise() -> Tensor:
            return generator.normal(len(x), *self.domain.event_shape).double()

        y = down[0] * noise()
        for now, then in pairwise(down):
            for turn in range(self.sampling.resample if then > 0 else 1):
                if turn:  # back up
                    y = y + (now.square() - then.square()).sqrt() * noise()
                clean = self.domain.spread(x, generator)
                y = torch.where(known, clean + now * noise(), y)
                y = ancestral_step(y, self._as_of(y, now, label), now, then, generator)
        return self.domain.to_data(y)

    # Codes

    @torch.no_grad()
    def encode(self, x: Num[Tensor, "batch *event"]) -> Float[Tensor, "batch latent"]:
        up = self._all_levels(self.sampling.code_steps, x.device).flip(0)
        return (self._solve(self.domain.to_model(x).double(), up) / up[-1]).flatten(1).float()

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "batch latent"]) -> Num[Tensor, "batch *event"]:
        down = self._all_levels(self.sampling.code_steps, z.device)
        noise = z.double().unflatten(1, self.domain.event_shape)
        return self.domain.to_data(self._solve(noise * down[0], torch.cat([down, down.new_zeros(1)])))

    def _solve(self, x: Tensor, levels: Tensor) -> Tensor:
        """The probability-flow ODE along `levels`, deterministic whatever the model's sampler."""
        nothing = Streams.seeded("unused", device=x.device)
        return Heun()(lambda x, sigma: self.denoised(x, sigma, None), x, levels, nothing)

    def reconstruct(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Num[Tensor, "batch *event"]:
        return self.decode(self.encode(x))

    # Other uses of the denoiser

    def _statistics(
        self, x: Num[Tensor, "batch *event"], label: Int[Tensor, " batch"] | None, generator: Streams
    ) -> Float[Tensor, "batch _"]:
        """Log of the denoiser's error at each probe, given the label; with labels, but none known, given one drawn by
        what the example looks like."""
        y, known = self.domain.to_model(x), self.domain.expand(self.domain.observed(x))
        log_p = self.label_log_probs(y, label, generator)
        label = None if log_p is None else generator.choice(log_p)
        whole = self.domain.dimensions / known.flatten(1).sum(1).clamp(min=1)
        columns = []
        for probe in self.probes:
            sigma = probe * self.denoiser.sigma_data.expand(len(x))
            errors = []
            for _ in range(4):
                noisy = y + sigma[0] * generator.normal(*y.shape)
                errors.append(((self.denoiser(noisy, sigma, label) - y) * known).flatten(1).square().sum(1) * whole)
            columns.append(torch.stack(errors).mean(0).clamp(min=1e-8).log())
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def anomaly_score(self, x: Num[Tensor, "batch *event"], generator: Streams) -> Float[Tensor, " batch"]:
        return self.typicality(self._statistics(x, None, generator))

    @torch.no_grad()
    def denoise(self, x: Num[Tensor, "batch *event"], sigma: float) -> Num[Tensor, "batch *event"]:
        check_sigma(sigma)
        return self.domain.to_data(self.denoised(self.domain.to_model(x), sigma / self.domain.noise_unit, None))
