"""Settings that suit the data, in one place: rules by kind, size, channels, examples, columns and device.

A recipe and `params.yaml` go before them; what no rule names has the default of its dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the rules look at.

    Arguments:
        kind: Of the data, as in its card.
        shape: Of an example: height, width and channels of an image; empty where unknown.
        columns: That are learned of a table; 0 where unknown.
        examples: In the training split; 0 where unknown.
    """

    kind: str = "image"
    shape: tuple[int, ...] = ()
    columns: int = 0
    examples: int = 0

    @property
    def text(self) -> str:
        """The facts in words."""
        size = "x".join(map(str, self.shape[:2])) if self.shape else f"{self.columns} columns" if self.columns else ""
        return f"{self.kind} {size}".strip()


def facts_of(manifest: Mapping[str, Any]) -> Facts:
    """The facts of a prepared dataset."""
    domain = manifest["domain"]
    sides = [domain[side] for side in ("height", "width", "channels") if side in domain]
    return Facts(
        kind=domain["kind"],
        shape=tuple(sides),
        columns=len(domain.get("columns", ())),
        examples=manifest["splits"].get("train", {}).get("count", 0),
    )


def stage_defaults(facts: Facts) -> Settings:
    """Settings of the stages."""
    if facts.kind == "table":
        return {
            "features": {"samples": 5000},
            "evaluate": {"samples": 5000},
            "tune": {"trials": 3, "part": 0.06},
        }
    return {"tune": {"trials": 3, "part": 0.06}}


LR = {"low": 5e-4, "high": 4e-3, "log": True}
SMALL_IMAGES: dict[str, Settings] = {
    "autoencoder": {
        "model": {"latent": 16, "width": 32, "code_penalty": 0.01},
        "training": {"total_examples": 80_000, "lr": 2e-3},
        "search": {"training": {"lr": LR}, "model": {"noise": {"low": 0.05, "high": 0.4}}},
    },
    "vae": {
        "model": {"latent": 12, "width": 32, "beta": 0.5},
        "training": {"total_examples": 80_000, "lr": 2e-3},
        "search": {"training": {"lr": LR}, "model": {"free_bits": {"low": 0.0, "high": 0.2}}},
    },
    "gan": {
        "model": {"loss": "relativistic", "gamma": 0.1, "patch": 2, "width": 48, "critic_width": 48},
        "training": {"total_examples": 70_000, "batch_size": 64, "lr": 1e-3, "beta1": 0.0, "grad_clip": 0},
        "search": {"training": {"lr": {"low": 3e-4, "high": 2e-3, "log": True}}},
    },
    "flow": {
        "model": {"steps": 8, "width": 64},
        "training": {"total_examples": 80_000, "lr": 2e-3},
        "search": {"training": {"lr": LR}},
    },
    "diffusion": {
        "model": {"width": 32},
        "training": {"total_examples": 70_000, "batch_size": 128, "lr": 2e-3, "evaluations": 4},
        "search": {"training": {"lr": LR}},
    },
}
TABLES: dict[str, Settings] = {
    "autoencoder": {
        "model": {"latent": 32, "width": 64},
        "training": {"total_examples": 600_000, "batch_size": 256, "lr": 2e-3},
    },
    "vae": {
        "model": {"latent": 32, "width": 64, "beta": 0.5},
        "training": {"total_examples": 600_000, "batch_size": 256, "lr": 2e-3},
    },
    "gan": {
        "model": {"width": 64, "critic_width": 64, "gamma": 0.5},
        "training": {"total_examples": 600_000, "batch_size": 256, "lr": 5e-4},
    },
    "flow": {
        "model": {"width": 64},
        "training": {"total_examples": 600_000, "batch_size": 256, "lr": 2e-3},
    },
    "diffusion": {
        "model": {"width": 64, "blocks": 2, "p_mean": -0.5, "p_std": 1.4},
        "training": {"total_examples": 600_000, "batch_size": 256, "lr": 2e-3},
    },
}


def family_defaults(family: str, facts: Facts) -> Settings:
    """Settings of a family for data of which this is known."""
    rules = merge_tables(facts)
    return rules.get(family, {})


def merge_tables(facts: Facts) -> dict[str, Settings]:
    """By family."""
    if facts.kind != "table":
        return SMALL_IMAGES
    return {
        name: {**SMALL_IMAGES[name], **rules, "model": {**SMALL_IMAGES[name]["model"], **rules["model"]},
               "training": {**SMALL_IMAGES[name]["training"], **rules["training"]}}
        for name, rules in TABLES.items()
    }  # fmt: skip
