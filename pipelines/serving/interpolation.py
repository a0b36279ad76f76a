"""From one code to another: what the served model answers and the report shows."""

from __future__ import annotations

import torch


def spherical(first: torch.Tensor, last: torch.Tensor, n: int) -> torch.Tensor:
    """`n` codes from each first to each last, both ends included: direction along the great circle, length linearly.

    Straight between two Gaussian codes lie points too near the origin to be typical.

    Arguments:
        first: `[pairs, latent]`.
        last: `[pairs, latent]`.
        n: Codes per pair; 1 gives the first only.
    Returns:
        `[pairs, n, latent]`.
    """
    t = torch.linspace(0, 1, n, device=first.device, dtype=first.dtype)[None, :, None]
    a, b = first[:, None], last[:, None]  # [pairs, 1, latent]
    length_a, length_b = (v.norm(dim=-1, keepdim=True) for v in (a, b))
    cosine = ((a * b).sum(-1, keepdim=True) / (length_a * length_b).clamp(min=1e-12)).clamp(-1, 1)
    angle = cosine.arccos()
    sine = angle.sin()
    straight = (sine < 1e-4) | (length_a == 0) | (length_b == 0)
    safe = torch.where(straight, torch.ones_like(sine), sine)
    unit_a, unit_b = a / length_a.clamp(min=1e-12), b / length_b.clamp(min=1e-12)
    direction = ((1 - t) * angle).sin() / safe * unit_a + (t * angle).sin() / safe * unit_b
    curved = direction * torch.lerp(length_a, length_b, t)
    return torch.where(straight, torch.lerp(a.expand_as(curved), b.expand_as(curved), t), curved)
