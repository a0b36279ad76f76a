r"""What of a model's codes the report lets one explore: directions from examples, and ways between two of them.

The directions are those along which codes vary most together with the data: the left singular vectors of the
cross-covariance of codes and data. Where codes are principal components, they are those; where a model makes its codes
alike in all directions (a flow, a diffusion model), the codes' own principal components would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from pipelines.serving.interpolation import spherical

if TYPE_CHECKING:
    from data.dataset import Examples

DIRECTIONS = 4
STEPS = 7
"""Places along a direction or a way; odd, so that the middle of a direction is the example itself."""
REACH = 2.5
"""Standard deviations of the codes that a direction goes to each side."""
EXAMPLES = 10
"""Examples to begin from: one of each class, of the first so many classes."""
JOINED = 6
"""Examples between which there are ways: each two of the first so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploration:
    """Decoded codes.

    Arguments:
        names: What each example is called.
        places: Where each step of a direction is, in standard deviations of the codes from the example.
        shares: By direction, the share of the data's variance that a line in the code along it explains, from 0 to 1.
        directions: By direction, example and step, what is decoded there; the middle step is the example.
        pairs: Which two examples each way joins.
        ways: By way and step; the ends are the two examples.
    """

    names: list[str]
    places: list[float]
    shares: list[float]
    directions: Num[Tensor, "directions examples steps *data"]
    pairs: list[tuple[int, int]]
    ways: Num[Tensor, "ways steps *data"]


def explored(
    codes: Float[Tensor, "n latent"],
    rows: Float[np.ndarray, "n flat"],
    examples: Examples,
    class_names: Sequence[str],
    decode: Callable[[Float[Tensor, "k latent"]], Num[Tensor, "k *data"]],
) -> Exploration | None:
    """What can be explored of a model; `None` where codes or data do not vary.

    Arguments:
        codes: Of the examples.
        rows: The examples as numbers.
        examples: Test examples.
        class_names: Names of the classes; empty for unlabelled data.
        decode: Codes to data.
    """
    vectors, deviations, shares = leading_directions(codes.double().numpy(), rows)
    if not len(vectors):
        return None
    chosen, names = _beginnings(examples, class_names)
    start = codes[torch.tensor(chosen)]
    move = torch.from_numpy(vectors * deviations[:, None]).to(codes.dtype)
    places = torch.linspace(-REACH, REACH, STEPS, dtype=codes.dtype)
    moved = start[None, :, None] + move[:, None, None] * places[:, None]  # [directions, examples, steps, latent]
    pairs = [(i, j) for i in range(min(len(chosen), JOINED)) for j in range(i + 1, min(len(chosen), JOINED))]
    first, last = ([pair[end] for pair in pairs] for end in (0, 1))
    between = spherical(start[first], start[last], STEPS)[:, 1:-1]
    middle = STEPS // 2
    aside = [step for step in range(STEPS) if step != middle]
    parts = [start, moved[:, :, aside].flatten(0, 2), between.flatten(0, 1)]
    still, turned, joined = decode(torch.cat(parts)).split([len(part) for part in parts])
    event = still.shape[1:]
    directions = turned.view(len(vectors), len(chosen), len(aside), *event)
    whole = still.expand(len(vectors), *still.shape)[:, :, None]
    ways = joined.view(len(pairs), STEPS - 2, *event)
    return Exploration(
        names=names,
        places=[round(place, 4) for place in places.tolist()],
        shares=shares.tolist(),
        directions=torch.cat([directions[:, :, :middle], whole, directions[:, :, middle:]], 2),
        pairs=pairs,
        ways=torch.cat([still[first][:, None], ways, still[last][:, None]], 1),
    )


def leading_directions(
    codes: Float[np.ndarray, "n latent"], rows: Float[np.ndarray, "n flat"], most: int = DIRECTIONS
) -> tuple[Float[np.ndarray, "k latent"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    r"""Directions along which codes vary most together with the data, the most first.

    .. math:: \operatorname{Cov}(z, x) = \sum_k s_k\, v_k u_k^\top

    Arguments:
        codes: Codes :math:`z` of examples.
        rows: The examples :math:`x`, as numbers.
        most: At most so many.
    Returns:
        The directions :math:`v_k` as unit vectors, the largest entry positive; the standard deviation of the codes
        along each; and the share of the data's variance that is a line in it.
    """
    z, x = codes - codes.mean(0), rows - rows.mean(0)
    variance = (x**2).sum()
    none = np.zeros((0, codes.shape[1])), np.zeros(0), np.zeros(0)
    if len(z) < 3 or not np.isfinite(z).all() or not variance or not z.any():
        return none
    left, scale, right = np.linalg.svd(z, full_matrices=False)
    kept = scale > 1e-9 * scale[0]
    shared = (scale[:, None] * (left.T @ x))[kept]  # the cross-covariance in the codes' own axes, [rank, flat]
    values, turned = np.linalg.eigh(shared @ shared.T)
    order = np.argsort(-values, kind="stable")[:most]
    order = order[values[order] > 1e-12 * max(values.max(), 1e-300)]
    vectors = turned[:, order].T @ right[kept]
    vectors *= np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])[:, None]
    along = z @ vectors.T  # [n, k]
    shares = ((along.T @ x) ** 2).sum(1) / (along**2).sum(0) / variance
    return vectors, along.std(0), shares


def _beginnings(examples: Examples, class_names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The first example of each class; the first examples where there are no classes."""
    label = examples.label.tolist()
    present = [c for c in range(len(class_names)) if c in label][:EXAMPLES]
    if len(present) > 1:
        return [label.index(c) for c in present], [str(class_names[c]) for c in present]
    count = min(JOINED, len(label))
    return list(range(count)), [f"example {i + 1}" for i in range(count)]
