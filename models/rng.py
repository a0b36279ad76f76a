"""Sources of random numbers that do not depend on how many workers draw from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .shapes import Float, Int


class Streams:
    """A source of random numbers made of independent streams, one per virtual rank.

    The leading dimension of every draw is divided evenly among the streams, so a global batch sees
    the same noise whether one worker plays all of its virtual ranks or eight workers one each.

    Arguments:
        generators: One generator per virtual rank, all on one device.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        if not generators:
            raise ValueError("Streams needs at least one generator, got none")
        self.generators = tuple(generators)

    @classmethod
    def seeded(cls, *key: int | str, ranks: Sequence[int] = (0,), device: str | torch.device = "cpu") -> Streams:
        """Streams that are a pure function of `key` and of each virtual rank in `ranks`."""
        generators = []
        for rank in ranks:
            digest = hashlib.blake2b(repr((key, rank)).encode(), digest_size=8).digest()
            seed = int.from_bytes(digest, "big") >> 1
            generators.append(torch.Generator(device).manual_seed(seed))
        return cls(generators)

    @property
    def device(self) -> torch.device:
        return self.generators[0].device

    def _concatenated(self, draw: Callable[[tuple[int, ...], torch.Generator], Tensor], shape: Sequence[int]) -> Tensor:
        parts = len(self.generators)
        if shape[0] % parts:
            raise ValueError(f"the leading dimension of a draw must be a multiple of {parts} streams, got {shape[0]}")
        each: tuple[int, ...] = (shape[0] // parts, *shape[1:])
        return torch.cat([draw(each, generator) for generator in self.generators])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws of the given shape."""
        return self._concatenated(lambda s, g: torch.randn(s, generator=g, device=g.device), shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draws from the uniform distribution on [0, 1)."""
        return self._concatenated(lambda s, g: torch.rand(s, generator=g, device=g.device), shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to `high` - 1, int64."""
        return self._concatenated(lambda s, g: torch.randint(high, s, generator=g, device=g.device), shape)

    def categorical(self, probabilities: Float[Tensor, " classes"], n: int) -> Int[Tensor, " n"]:
        """`n` draws from a categorical distribution, int64."""
        edges = probabilities.to(self.device).cumsum(0)
        draws = torch.searchsorted(edges / edges[-1], self.uniform(n), right=True)
        return draws.clamp(max=len(edges) - 1)

    def choice(self, log_weight: Float[Tensor, "*batch choices"]) -> Int[Tensor, "*batch"]:
        """An index per row, drawn with probabilities in proportion to `exp(log_weight)`, int64."""
        edges = log_weight.double().softmax(-1).cumsum(-1)
        u = self.uniform(*edges.shape[:-1]).double()[..., None] * edges[..., -1:]
        return torch.searchsorted(edges, u.contiguous(), right=True)[..., 0].clamp(max=edges.shape[-1] - 1)


class Stratified(Streams):
    """Streams of which the draws for one row, several times over, are spread evenly.

    The leading dimension of every draw is `draws` times that of `rows`, draw by draw. Each number by
    itself is distributed as ever; but of the draws for one place, exactly one falls into each
    `1/draws`-th of the distribution (a Latin hypercube), so that their mean varies less.

    References:
        | A comparison of three methods for selecting values of input variables (McKay et al., 1979)
        | https://doi.org/10.2307/1268522
    """

    def __init__(self, source: Streams, draws: int) -> None:
        super().__init__(source.generators)
        self.draws = draws

    def uniform(self, *shape: int) -> Tensor:
        within = super().uniform(*shape).unflatten(0, (self.draws, -1))
        order = super().uniform(*shape).unflatten(0, (self.draws, -1)).argsort(0)
        return ((order + within) / self.draws).flatten(0, 1).clamp(max=1 - 2**-24)

    def normal(self, *shape: int) -> Tensor:
        return torch.special.ndtri(self.uniform(*shape).clamp(min=2**-24))
