r"""The consistency function: where the probability-flow ODE that passes a noisy example ends, in one evaluation."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..contract import Batch, Losses, Objective
from ..domains.base import Domain
from ..imputation import reveal_cells
from ..rng import Streams
from ..shapes import Float, Int
from .config import Config
from .denoiser import Denoiser, coefficients
from .samplers import SAMPLERS, Denoise
from .schedules import SIGMA_MAX, Power

STEPS = 5
"""Steps of DPM-Solver++(2M) by which the denoiser says where the ODE ends."""

SCALE = Power(5.0)
"""Noise levels are drawn, and the solver's steps are equal, on this scale."""


class ConsistencyFunction(nn.Module):
    """The denoiser's network, with weights that are the denoiser's plus a difference of their own.

    So it begins as the denoiser, follows it as long as that learns, and takes nothing from it. Without noise it is the
    identity, as the denoiser is.

    Arguments:
        denoiser: Which it reads and does not train.

    References:
        | Consistency models (Song et al., 2023), eq. 4-5
        | https://arxiv.org/abs/2303.01469
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self._denoiser = (denoiser,)  # outside the module tree
        self.differences = nn.ParameterList(torch.zeros_like(weight) for weight in denoiser.parameters())

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        sigma: Float[Tensor, " batch"],
        label: Int[Tensor, " batch"] | None,
        given: Float[Tensor, "batch *event"] | None = None,
    ) -> Float[Tensor, "batch *event"]:
        """The example at the end of the ODE; arguments as the denoiser takes them."""
        (denoiser,) = self._denoiser
        pairs = zip(denoiser.named_parameters(), self.differences, strict=True)
        weights = {name: weight.detach() + difference for (name, weight), difference in pairs}
        return functional_call(denoiser, weights, (x, sigma, label, given))


def jump(
    function: Denoise, x: Float[Tensor, "batch *event"], levels: Float[Tensor, " levels"], generator: Streams
) -> Float[Tensor, "batch *event"]:
    """From noise level `levels[0]` to `levels[-1]`: to the end of the ODE at each level, and noise of the next added.

    References:
        | Consistency models (Song et al., 2023), algorithm 1; https://arxiv.org/abs/2303.01469
    """
    for now, then in pairwise(levels):
        x = function(x, now) + then * generator.normal(*x.shape).to(x.dtype)
    return x


class ConsistencyObjective(Objective):
    r"""Distance from where the denoiser's ODE ends (no unit): of each example the root of the mean square over
    :math:`c_{out}^2`, so that the large errors at much noise do not rule.

    The denoiser solves it from each noise level in `STEPS` steps, as it is at that time; so that it has learned
    something, this begins half way through the training.

    References:
        | Consistency models (Song et al., 2023), section 4; https://arxiv.org/abs/2303.01469
        | DPM-Solver++ (Lu et al., 2022), algorithm 2; https://arxiv.org/abs/2211.01095
    """

    name = "consistency"
    begins = 0.5

    def __init__(self, function: ConsistencyFunction, denoiser: Denoiser, domain: Domain, config: Config) -> None:
        super().__init__()
        self.function, self.domain, self.config = function, domain, config
        self._denoiser = (denoiser,)

    def _rows(self, n: int, generator: Streams) -> Int[Tensor, " rows"]:
        """The first examples of each stream: of all as many as `jumps` says, of each one at least."""
        streams = len(generator.generators)
        each = max(1, round(self.config.jumps * n / streams))
        return torch.arange(n, device=generator.device).reshape(streams, -1)[:, :each].flatten()

    def _levels(self, n: int, generator: Streams) -> Float[Tensor, "levels n"]:
        """From each example's own noise level, of a third of them the most, down to 0."""
        start = (1.5 * generator.uniform(n)).clamp(0.2, 1)
        part = torch.linspace(1, 0, STEPS + 1, device=start.device)[:, None]
        return SCALE.between(0.0, SIGMA_MAX, part * start)

    def forward(self, batch: Batch, generator: Streams) -> Losses:
        (denoiser,) = self._denoiser
        rows = self._rows(len(batch), generator)
        x, label = batch.visible[rows], None if batch.label is None else batch.label[rows]
        if label is not None:
            label = torch.where(generator.uniform(len(x)) < self.config.label_dropout, -1, label)
        y, observed = self.domain.spread(x, generator), self.domain.observed(x)
        known = self.domain.expand(observed)
        levels = self._levels(len(x), generator)
        down = levels.reshape(*levels.shape, *[1] * (y.ndim - 1))
        noisy = y + down[0] * generator.normal(*y.shape)
        clean, counted = None, known
        if denoiser.masked:
            given = self.domain.expand(reveal_cells(observed, denoiser.hide, generator))
            clean, counted = torch.where(given, self.domain.to_model(x), torch.nan), known & ~given
        found = self.function(noisy, levels[0], label, clean)
        with torch.no_grad():  # missing values are 0 all the way, as training has them
            end = SAMPLERS["dpmpp_2m"](
                lambda x, sigma: known * denoiser(x, sigma.flatten(), label, clean), noisy, down, generator
            )
        error = ((found - end) * counted).flatten(1).square()
        _, c_out, _ = coefficients(self.config.objective, *denoiser.levels(levels[0]))
        weighted = self.domain.weigh_values(error / c_out.square().reshape(len(error), -1)).mean(1)
        return Losses(weighted / (weighted.detach() + 1e-3).sqrt(), {"squared_error": error.mean(1)})
