"""A causal transformer: every place of a sequence sees the places before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import Float
from .dropout import Drop, keep_all

Past = list[tuple[Tensor, Tensor]]
"""Keys and values of the places seen so far, one pair per block, empty before the first."""


class CausalBlock(nn.Module):
    """Pre-normalized causal self-attention, then two layers at each place; the identity at the start."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_units = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        for layer in (self.mix, self.mlp[2]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self, h: Float[Tensor, "batch length width"], past: tuple[Tensor, Tensor] | None, drop: Drop = keep_all
    ) -> tuple[Float[Tensor, "batch length width"], tuple[Tensor, Tensor]]:
        """The places after this block, and the keys and values up to here."""
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in self.queries_keys_values(self.before_attention(h)).chunk(3, dim=2)
        )
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        h = h + drop(self.mix(attended.transpose(1, 2).flatten(2)))
        return h + drop(self.mlp(self.before_units(h))), (k, v)


class CausalTransformer(nn.Module):
    """Vectors to vectors, each given itself and those before it.

    Arguments:
        width: Length of the vectors.
        blocks: Blocks of attention.
        heads: Heads of each; they must divide `width`.
    """

    def __init__(self, width: int, *, blocks: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width, got {heads} heads and a width of {width}")
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, h: Float[Tensor, "batch length width"], past: Past | None = None, drop: Drop = keep_all
    ) -> Tensor:
        """All places at once; or, given the `past` (filled in place), the next place alone.

        Arguments:
            h: The places' own vectors; of length 1 if `past` is given.
            past: What `forward` left of the places before.
            drop: Dropout of what each block adds, and of the result.
        """
        for index, block in enumerate(self.blocks):
            seen = past[index] if past is not None and index < len(past) else None
            h, now = block(h, seen, drop)
            if past is not None:
                past[index : index + 1] = [now]
        return drop(self.norm(h))
