"""Which network plays a part in a model of data of a layout: one line where the network is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Builder = Callable[..., nn.Module]

NETWORKS: dict[tuple[str, str], Builder] = {}
"""By role (`encoder`, `critic`, `decoder`, `denoiser`, `bijection`) and layout (`vector`, `grid`, ...)."""


def register(role: str, layout: str) -> Callable[[Builder], Builder]:
    """Make a function `(domain, ...) -> network` the one for a role and a layout.

    Example:
        >>> @register("encoder", "sequence")
        ... def encoder(domain, outputs, *, width, blocks=1, patch=0):
        ...     return SequenceEncoder(domain.alphabet, outputs, width=width, blocks=blocks)
    """

    def add(builder: Builder) -> Builder:
        NETWORKS[role, layout] = builder
        return builder

    return add


def network(role: str, layout: str, setting: str = "") -> Callable[..., Any]:
    """The network for a role in models of data of a layout.

    Arguments:
        role: Its part in a model.
        layout: How the data's values lie.
        setting: The setting that asked for it, to be named if there is none.

    Raises:
        ValueError: If there is none; names the layouts that have one.
    """
    if (role, layout) not in NETWORKS:
        having = ", ".join(sorted(kind for name, kind in NETWORKS if name == role)) or "none"
        asked = f"{setting} asks for a {role}, but " if setting else ""
        raise ValueError(f"{asked}there is no {role} for data laid out as a {layout}; layouts that have one: {having}")
    return NETWORKS[role, layout]
