"""What is learned: five families of generative models under one contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .autoencoder import Autoencoder
from .capabilities import CAPABILITIES, tasks
from .config import built
from .contract import Batch, GenerativeModel, Losses, Objective
from .diffusion import Diffusion
from .domains import domain
from .flow import Flow
from .gan import GAN
from .rng import Streams
from .vae import VAE

__all__ = ["CAPABILITIES", "FAMILIES", "Batch", "GenerativeModel", "Losses", "Objective", "Streams", "build", "tasks"]


FAMILIES: dict[str, type[GenerativeModel]] = {
    "autoencoder": Autoencoder,
    "vae": VAE,
    "gan": GAN,
    "flow": Flow,
    "diffusion": Diffusion,
}


def build(spec: Mapping[str, Any]) -> GenerativeModel:
    """Build an untrained model.

    Arguments:
        spec: `family`, `config` (the family's settings), `domain` (the domain's spec), `classes`; perhaps `sampling`
            (settings of the family's `SamplingConfig`).

    Raises:
        ValueError: If the family or a setting is unknown or out of range.
    """
    family = spec["family"]
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    cls = FAMILIES[family]
    config, data = built(cls.Config, spec["config"]), domain(spec["domain"])
    model = cls.variant(config, data)(config, data, spec["classes"])  # type: ignore[call-arg]
    return model.with_sampling(**spec.get("sampling", {}))
