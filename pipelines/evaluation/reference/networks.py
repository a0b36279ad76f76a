"""The small networks of the yardstick: feature spaces and the classifier that judges conditional samples.

Of images two unlike classifiers and a network with random weights; of tables the encoded rows
themselves, a classifier as judge, and random weights. Those of spaces have
`features(inputs) -> [n, dim]`; classifiers are called for logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipelines.evaluation.domain import EvaluationDomain


def network(domain: EvaluationDomain, role: str, *, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A network of the yardstick, its weights a function of `seed` alone.

    Arguments:
        domain: The kind of data, which names the networks.
        role: `classifier`, `judge` or `random`.
        shape: Shape of one input, `(channels, height, width)` or `(columns,)`.
        classes: Classes to tell apart; 0 for a network that is no classifier.
        seed: Seed of the initial weights.
    """
    options: dict[str, Any] = {"classes": classes} if classes else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = domain.networks[role](shape=shape, **options)
        if role == "random":
            for parameter in built.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return built
