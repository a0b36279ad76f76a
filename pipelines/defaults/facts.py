"""What the rules look at: the data and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the rules look at.

    Arguments:
        kind: Of the data, as in its card.
        shape: Of an image: height, width and channels; empty where unknown.
        contrast: Of an image's values: their variance as a part of what it were, at their mean, if all were black or
            white. Photographs have .2 to .5, handwriting on an empty ground .8; 0 where unknown.
        columns: That are learned of a table; 0 where unknown.
        examples: In the training split; 0 where unknown.
        classes: Of the labels; 0 for none.
        cuda: Whether there is a GPU to train on.
        bf16: Whether the device multiplies in bfloat16 (every recent GPU, CPUs with avx512_bf16 or amx_bf16).
    """

    kind: str = "image"
    shape: tuple[int, ...] = ()
    contrast: float = 0.0
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
        contrast=_contrast(manifest.get("statistics", {})),
        columns=len(domain.get("columns", ())),
        examples=manifest["splits"].get("train", {}).get("count", 0),
        classes=len(manifest.get("class_names", ())),
        **(machine or {}),
    )


def _contrast(statistics: Mapping[str, Any]) -> float:
    """The largest of the channels' shares; 0 where a manifest has no means."""
    moments = zip(statistics.get("mean", ()), statistics.get("std", ()), strict=False)
    return max((std**2 / (mean * (255 - mean)) for mean, std in moments if 0 < mean < 255), default=0.0)


def machine_facts() -> dict[str, Any]:
    """What this machine adds to the facts."""
    import torch

    if torch.cuda.is_available():
        return {"cuda": True, "bf16": torch.cuda.is_bf16_supported()}
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    return {"cuda": False, "bf16": any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16"))}
