"""Settings that suit the data, in one place: rules by kind, size, channels, examples, classes, columns and device.

A recipe and `params.yaml` go before them; what no rule names has the default of its dataclass. Each rule says why.
Where a figure was measured, it is processor seconds of one core of a Xeon with avx512_bf16 (`COST`), or samples'
Fréchet distance on 10,000 digits of 28x28 after five minutes on two such cores (docs/benchmarks.md).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.layers import nested

Settings = dict[str, Any]

MINUTES = 5
"""That a family trains on two cores of a CPU, at most, where nothing else is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the rules look at.

    Arguments:
        kind: Of the data, as in its card.
        shape: Of an image: height, width and channels; empty where unknown.
        columns: That are learned of a table; 0 where unknown.
        examples: In the training split; 0 where unknown.
        classes: Of the labels; 0 for none.
        cuda: Whether there is a GPU to train on.
        bf16: Whether the device multiplies in bfloat16 (every recent GPU, CPUs with avx512_bf16 or amx_bf16).
    """

    kind: str = "image"
    shape: tuple[int, ...] = ()
    columns: int = 0
    examples: int = 0
    classes: int = 0
    cuda: bool = False
    bf16: bool = False

    @property
    def text(self) -> str:
        """The facts in words."""
        size = ""
        if self.shape:
            size = f" {self.shape[0]}x{self.shape[1]} {'grey' if self.shape[2] == 1 else 'colour'}"
        elif self.columns:
            size = f" of {self.columns} columns"
        return f"{self.kind}{size}{f', {self.examples} examples' if self.examples else ''}"

    @property
    def values(self) -> int:
        """Numbers in an example."""
        return math.prod(self.shape) if self.shape else 0

    @property
    def side(self) -> int:
        """The shorter one."""
        return min(self.shape[:2]) if self.shape else 0

    def patch(self, places: int, most: int) -> int:
        """The largest fold of up to `most` pixels that divides both sides and leaves at least so many places."""
        folds = [fold for fold in range(1, most + 1) if not self.shape[0] % fold and not self.shape[1] % fold]
        return max((fold for fold in folds if self.side // fold >= places), default=1)

    def width(self, patch: int, width: int, places: int) -> int:
        """`width` channels where a folded image has so many places; fewer where it has more, at the same cost."""
        folded = self.shape[0] * self.shape[1] / patch**2
        for fewer in (width, width * 3 // 4, width // 2, width // 4):
            if folded * fewer**2 <= 1.5 * places * width**2:
                return fewer
        return max(8, width // 8)

    def batch(self, most: int) -> int:
        """A batch of at most a quarter of the examples, so that an epoch has steps; a multiple of 8."""
        if not self.examples:
            return most
        return max(8, min(most, 2 ** int(math.log2(max(8, self.examples / 4)))))

    def total(self, most: int, epochs: int = 400) -> int:
        """So many examples at most, and so many passes over the data at most."""
        if not self.examples:
            return most
        return int(max(2_000, min(most, round(epochs * self.examples, -3))))

    def per_class(self, most: int) -> int:
        """Gaussians per class: at least fifty examples for each."""
        if not self.examples:
            return most
        return max(1, min(most * (1 if self.classes else 4), self.examples // max(1, self.classes) // 50))


def facts_of(manifest: Mapping[str, Any], machine: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a prepared dataset on a machine."""
    domain = manifest["domain"]
    sides = [domain[side] for side in ("height", "width", "channels") if side in domain]
    return Facts(
        kind=domain["kind"],
        shape=tuple(sides) if len(sides) == 3 else (),
        columns=len(domain.get("columns", ())),
        examples=manifest["splits"].get("train", {}).get("count", 0),
        classes=len(manifest.get("class_names", ())),
        **(machine or {}),
    )


def machine_facts() -> dict[str, Any]:
    """What this machine adds to the facts."""
    import torch

    if torch.cuda.is_available():
        return {"cuda": True, "bf16": torch.cuda.is_bf16_supported()}
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    return {"cuda": False, "bf16": any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16"))}


SMALL = 256
"""Values of an image below which it is small: digits of 8x8, icons."""


def size_of(facts: Facts) -> str:
    """Which rules an example's size asks for."""
    if facts.kind == "table":
        return "table"
    if not facts.shape or facts.values < SMALL:
        return "small"
    return "gpu" if facts.cuda else "image"


Rules = dict[str, Any]
"""Values by dotted name; a pair is a value and why."""


def defaults(facts: Facts) -> tuple[dict[str, Settings], dict[str, str]]:
    """Settings that suit the data, by section, and why, by dotted name.

    A section is a stage's (`tune`, `features`, `evaluate`) or a family's; what no rule names is left out.
    """
    rules = {"table": _table, "small": _small_image, "image": _image, "gpu": _image_on_gpu}[size_of(facts)](facts)
    why: dict[str, str] = {}
    settings: dict[str, Settings] = {}
    for section, values in rules.items():
        plain = {}
        for name, value in values.items():
            plain[name], reason = value if isinstance(value, tuple) else (value, "")
            why |= {f"{section}.{name}": reason} if reason else {}
        settings[section] = nested(plain)
    return settings, why


LR = {"low": 5e-4, "high": 4e-3, "log": True}
NOISE, FREE_BITS = {"low": 0.05, "high": 0.4}, {"low": 0.0, "high": 0.2}
ADVERSARIAL: Rules = {
    "model.loss": "relativistic",
    "training.beta1": 0.0,
    "training.grad_clip": 0,
    "search.training.lr": {"low": 3e-4, "high": 2e-3, "log": True},
}


def _small_image(facts: Facts) -> dict[str, Rules]:
    """Measured on 8x8 digits, of which each family sees as many as a minute on one core allows."""

    def training(total: int, batch: int) -> Rules:
        return {"training.total_examples": facts.total(total), "training.batch_size": facts.batch(batch)}

    return {
        "tune": {"trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": 16, "model.width": 32, "model.code_penalty": 0.01, **training(80_000, 256),
            "training.lr": 2e-3, "search.training.lr": LR, "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": 12, "model.width": 32, "model.beta": (0.5, "sharper images; 1 for a tighter bound"),
            **training(80_000, 256), "training.lr": 2e-3, "search.training.lr": LR, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 0.1, "model.patch": 2, "model.width": 48, "model.critic_width": 48,
            **training(70_000, 64), "training.lr": 1e-3,
        },
        "flow": {
            "model.steps": 8, "model.width": 64, **training(80_000, 256), "training.lr": 2e-3, "search.training.lr": LR,
        },
        "diffusion": {
            "model.width": 32, **training(70_000, 128), "training.lr": 2e-3, "training.evaluations": 4,
            "search.training.lr": LR,
        },
    }  # fmt: skip


def _table(facts: Facts) -> dict[str, Rules]:
    """Measured on `adult` and `mammography`; their recipes have the figures."""
    columns = max(1, facts.columns)
    most = round(600_000 * min(1.0, 16 / columns), -4)
    total = max(20_000, min(most, round(20 * facts.examples, -4))) if facts.examples else most
    training: Rules = {
        "training.total_examples": (
            total,
            f"20 passes over the rows, at most {most:,}: a row costs what its columns do",
        ),
        "training.batch_size": facts.batch(256),
        "training.lr": 2e-3,
        "search.training.lr": LR,
    }
    samples = min(5_000, max(500, round(facts.examples / 2, -2))) if facts.examples else 5_000
    latent = (32, "long codes: what they drop, draws of missing cells cannot know")
    return {
        "features": {"samples": (samples, "rows in the floors and from the classical baseline")},
        "evaluate": {"samples": (samples, "rows are cheap: more of them tell more")},
        "tune": {"trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": latent, "model.width": 64, "model.code_penalty": 0.01, **training,
            "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": latent, "model.width": 64, "model.beta": (0.5, "1 makes blander rows, and a tighter bound"),
            **training, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            "model.width": (64, "as many units as the others"), "model.critic_width": 64, "model.gamma": 0.5,
            **training, **ADVERSARIAL, "training.lr": 5e-4,
        },
        "flow": {"model.width": (64, "of a cell: every column is drawn given those before it"), **training},
        "diffusion": {
            "model.width": 64, "model.blocks": (2, "deeper costs little on rows"),
            "model.p_mean": (-0.5, "more noise in training: better conditionals"), "model.p_std": 1.4,
            **training, "training.evaluations": 4,
        },
    }  # fmt: skip


def _image(facts: Facts) -> dict[str, Rules]:
    """On CPUs. Measured on 28x28 grey; larger images are folded until they cost about as much per place and layer."""
    coarse, fine = facts.patch(7, 4), facts.patch(14, 4)
    wide, narrow, large = facts.width(coarse, 64, 49), facts.width(fine, 32, 196), facts.side >= 48
    whole = fine**2 * facts.shape[2]
    latent = 64 if large or facts.values > 1_024 else 16
    precision: Rules = {}
    if facts.bf16:
        precision = {"training.precision": ("bf16", "this machine multiplies in it: 1.4 to 1.7 times the speed")}

    def training(family: str, batch: int, lr: float) -> Rules:
        cost = seconds_per_thousand(family, facts)
        total = facts.total(int(round(BUDGET / cost, -1)) * 1_000)
        why = f"{MINUTES} minutes on two cores, at {cost:.2g} s of one for 1,000 images"
        return {
            "training.total_examples": (total, why),
            "training.batch_size": (facts.batch(batch), "small batches: updates are what is short"),
            "training.lr": lr,
            "training.evaluations": (2, "each finishes the model and draws from it: as long as many updates"),
        }

    def folded(patch: int) -> tuple[int, str]:
        places = "x".join(str(side // patch) for side in facts.shape[:2])
        return patch, f"{patch}x{patch} pixels become channels, so that convolutions see {places} places"

    settings: dict[str, Rules] = {
        "tune": {
            "enabled": (False, "trials would cost a fifth of the training; with more time than minutes, turn it on"),
            "trials": 3,
            "part": 0.06,
        },
        "autoencoder": {
            "model.latent": latent, "model.width": wide, "model.patch": folded(coarse),
            "model.noise": 0.1, "model.code_penalty": 0.01,
            "model.components": (facts.per_class(12), "Gaussians per class; 12 instead of 4: distance 0.99, not 1.18"),
            **training("autoencoder", 128, 2e-3), **precision, "search.training.lr": LR, "search.model.noise": NOISE,
        },
        "vae": {
            "model.latent": latent, "model.width": wide, "model.patch": folded(coarse),
            "model.beta": (0.5, "sharper images; 1 for a tighter bound"), "model.free_bits": 0.05,
            "model.prior_components": facts.per_class(4),
            **training("vae", 128, 2e-3), **precision, "search.training.lr": LR, "search.model.free_bits": FREE_BITS,
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 0.3,
            "model.latent": 64, "model.width": narrow, "model.critic_width": narrow, "model.patch": folded(fine),
            **training("gan", 32 if large else 64, 1e-3), **precision,
        },
        "flow": _image_flow(facts) | training("flow", 256 if facts.values <= 1_024 else 32, 1e-3),
        "diffusion": {
            "model.width": (max(narrow, whole), "no fewer than the values of a patch, or noise stays in the samples"),
            "model.patch": folded(fine),
            "model.p_mean": (-0.5, "shapes are decided at higher noise than texture"), "model.p_std": 1.1,
            **training("diffusion", 32 if large else 64, 2e-3), **precision, "search.training.lr": LR,
        },
    }  # fmt: skip
    if 0 < facts.examples < 3_000:
        settings["gan"]["model.shift"] = (0.1, "few images: shifted ones keep the critic from learning them by heart")
    if large:
        settings["features"] = {
            "examples": (20_000, "that the classifiers see: an image of this size costs four of 28x28"),
            "samples": (1_000, "as many as are drawn of a family"),
        }
        settings["evaluate"] = {"samples": (1_000, "drawing is what takes time")}
    return settings


def _image_flow(facts: Facts) -> Rules:
    """Along principal components where these can be measured, else between neighbours."""
    if facts.values <= 1_024:
        components = min(64, facts.values, max(8, facts.examples // 20)) if facts.examples else 64
        return {
            "model.architecture": ("principal", "along principal components: distance 1.5, Glow 73; glow for density"),
            "model.components": components, "model.coupling": "affine", "model.steps": 8, "model.width": 256,
            "model.temperature": 0.9, "model.detail": (0.3, "less of the noise that fine detail is modelled with"),
            "training.weight_decay": 0.05, "search.training.lr": LR,
        }  # fmt: skip
    return {
        "model.architecture": ("glow", "more values than principal components can be measured of"),
        "model.steps": 4, "model.width": 32,
        "model.temperature": (0.8, "fewer outliers while training is short"), "search.training.lr": LR,
    }  # fmt: skip


def _image_on_gpu(facts: Facts) -> dict[str, Rules]:
    """On GPUs, as `recipes/cifar10.yaml` counts operations and minutes; not run on one yet."""

    def training(total: int, batch: int, lr: float) -> Rules:
        return {
            "training.total_examples": (facts.total(total), "half an hour on a data-centre GPU at 32x32, counted"),
            "training.batch_size": facts.batch(batch),
            "training.lr": lr,
            "training.ema_half_life": 250_000,
        }

    patch = facts.patch(28, 4)
    return {
        "features": {
            "examples": (facts.total(400_000, 20), "that the classifiers see"),
            "samples": (10_000, "as many as are drawn of a family"),
        },
        "evaluate": {"samples": (10_000, "a GPU draws them in a minute")},
        "tune": {"enabled": (False, "three trials cost a fifth of the training"), "trials": 3, "part": 0.06},
        "autoencoder": {
            "model.latent": 128, "model.width": 96, "model.blocks": 2, "model.patch": patch, "model.noise": 0.1,
            "model.code_penalty": 0.001, "model.components": facts.per_class(12), **training(5_000_000, 512, 1e-3),
        },
        "vae": {
            "model.latent": 128, "model.width": 96, "model.blocks": 2, "model.patch": patch, "model.beta": 1.0,
            "model.free_bits": 0.02, "model.components": 5, "model.prior_components": facts.per_class(4),
            **training(5_000_000, 512, 1e-3),
        },
        "gan": {
            **ADVERSARIAL, "model.gamma": 1.0 if facts.side >= 48 else 0.05, "model.latent": 64, "model.width": 96,
            "model.critic_width": 96, "model.patch": patch, "model.features": 256, **training(5_000_000, 256, 3e-4),
        },
        "flow": {
            "model.architecture": "glow", "model.levels": 3, "model.steps": 16, "model.width": 256,
            "model.temperature": 0.9, **training(6_000_000, 512, 1e-3),
        },
        "diffusion": {
            "model.width": 128, "model.blocks": 2, "model.patch": patch, "model.embed": 512,
            **training(4_000_000, 512, 1e-3),
        },
    }  # fmt: skip


COST = {
    "autoencoder": (0.36, 0.71, 3.4, 0.18),
    "vae": (0.39, 1.0, 7.9, 0.26),
    "gan": (0.56, 4.6, 10.4, 0.42),
    "flow": (0.44, 1.2, 7.8, 0.27),
    "diffusion": (0.62, 2.4, 9.8, 0.42),
}
"""Processor seconds of one core per 1,000 training examples with the settings above: of 8x8 and of 28x28 grey images,
of 64x64 colour ones, of rows of 15 columns. Measured over a few updates; evaluations come on top."""

BUDGET = 450
"""Processor seconds of `MINUTES` on two cores that go into updates; the rest is evaluations, and waiting."""


def seconds_per_thousand(family: str, facts: Facts) -> float:
    """Processor seconds of one core per 1,000 training examples; 0 where nothing is known.

    Between the sizes measured, and beyond, a power of the number of values.
    """
    if family not in COST or size_of(facts) == "gpu":
        return 0.0
    small, grey, colour, row = COST[family]
    if facts.kind == "table":
        return row * max(1, facts.columns) / 15
    if size_of(facts) == "small":
        return small * max(facts.values, 16) / 64
    power = math.log(colour / grey) / math.log(12_288 / 784)
    return grey * (facts.values / 784) ** power


STARTING, SCORING = 12, 3
"""Seconds until the first update, and about what it takes to finish a model, draw from it and score it."""


def expected_seconds(family: str, facts: Facts, training: Mapping[str, Any], cores: int = 0) -> float:
    """About how long a training takes with these rules' networks; 0 where nothing is known.

    Arguments:
        family: Which.
        facts: Of the data and the machine.
        training: How many examples it sees, and how often it is evaluated.
        cores: Of this machine, by default all; small examples train on one, and more than four hardly help.
    """
    useful = 1 if facts.kind == "table" or size_of(facts) == "small" else min(4, cores or os.cpu_count() or 1)
    updates = seconds_per_thousand(family, facts) * training["total_examples"] / 1_000 / useful
    return STARTING + SCORING * training.get("evaluations", 8) + updates if updates else 0.0
