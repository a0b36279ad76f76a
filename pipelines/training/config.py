"""How long and how a family is trained, and what is done about divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pipelines.training.durations import parse_duration

NOT_LEARNED = {"changes_model": False}
"""Metadata of a field that says how a training is run, watched or kept, and not what is learned."""

NOT_AUGMENTABLE = "a {kind} cannot be mirrored or moved, images can; leave it out"


def changes_model(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change what is learned: all but those whose field in the dataclass says otherwise."""
    how = {each.name for each in fields(kind) if not each.metadata.get("changes_model", True)}
    return {name: value for name, value in settings.items() if name not in how}


@dataclass(frozen=True, kw_only=True, slots=True)
class Privacy:
    """Differential privacy of the training examples.

    Arguments:
        epsilon: How much may be told of any one example, in the sense of differential privacy; 0 for no such promise.
        delta: Probability with which more may be told; below one over the number of examples.
        clip: Norm that an example's gradient is cut to.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon must be positive, or 0 for no differential privacy, got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie between 0 and 1, got {self.delta}")
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip must be positive, got {self.clip}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Changes at random to every image that is learned from.

    Arguments:
        flip: Mirror left and right with probability 1/2, where a mirrored image is one that could be (no digits, no
            text): samples are mirrored as often.
        shift: Move by up to this part of the shorter side each way, edges repeated; less and less, and not at all in
            the last quarter of the training, so that samples are not moved.
    """

    flip: bool = False
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift must be at least 0 and below 0.5, got {self.shift}")

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self.flip or self.shift > 0

    def shift_at(self, progress: float) -> float:
        """The part of the side to move by after this part of the training."""
        return self.shift * max(0.0, 1 - progress / 0.75)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How long and how a family is trained.

    Arguments:
        total_examples: Examples to see; an epoch is one pass over the training split.
        budget: Wall-clock time instead (`5m`, `1h30m`): measured on this machine before the first training, and turned
            into `total_examples`.
        batch_size: Examples per update, over all workers.
        lr: Peak learning rate.
        schedule: `cosine` decays to zero, `constant` does not.
        warmup_examples: Examples over which the learning rate rises from zero.
        beta1: Decay of AdamW's mean.
        beta2: Decay of AdamW's mean of squares.
        weight_decay: Decoupled weight decay.
        grad_clip: Largest norm of an objective's gradient; 0 for no limit.
        ema_half_life: Half-life, in examples, of the averaged weights that are kept as the model.
        ema_ramp: The half-life is at most this part of the examples seen so far.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 on GPUs that have it.
        reports: Points of each curve over the training; each evaluation adds one where they do not coincide.
        checkpoints: Checkpoints written over the training.
        evaluations: Times the averaged model is finalized, sampled and scored.
        virtual_ranks: Streams of randomness per global batch; workers times `accumulate` divide it.
        accumulate: Parts in which a worker's share of a batch is seen, one after the other, to save
            memory; the update is the same up to the order of summation.
        augment: Mirror and move the images that are learned from, to learn more from few: `flip` and `shift`.
        privacy: Train under differential privacy, which takes the flow of rows and one worker: `epsilon`, `delta` and
            `clip`. `batch_size` is then the expected size of a batch, and computing is in float32.
    """

    total_examples: int = 100_000
    budget: str = field(default="", metadata=NOT_LEARNED)
    batch_size: int = 256
    lr: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_examples: int = 5_000
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_half_life: int = 10_000
    ema_ramp: float = 0.1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    reports: int = field(default=100, metadata=NOT_LEARNED)
    checkpoints: int = field(default=20, metadata=NOT_LEARNED)
    evaluations: int = 8
    virtual_ranks: int = 8
    accumulate: int = field(default=1, metadata=NOT_LEARNED)
    augment: Augment = field(default_factory=Augment)
    privacy: Privacy = field(default_factory=Privacy)

    def __post_init__(self) -> None:
        if isinstance(self.augment, Mapping):
            object.__setattr__(self, "augment", Augment(**self.augment))
        if isinstance(self.privacy, Mapping):  # as JSON has it
            object.__setattr__(self, "privacy", Privacy(**self.privacy))
        counts = (
            "total_examples",
            "batch_size",
            "reports",
            "checkpoints",
            "evaluations",
            "virtual_ranks",
            "accumulate",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.budget:
            try:
                parse_duration(self.budget)
            except ValueError as error:
                raise ValueError(f"budget {error}") from None
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("warmup_examples", "weight_decay", "grad_clip", "ema_half_life"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not self.ema_ramp > 0:
            raise ValueError(f"ema_ramp must be positive, got {self.ema_ramp}")
        if self.batch_size % self.virtual_ranks:
            raise ValueError(
                f"batch_size must be a multiple of virtual_ranks ({self.virtual_ranks}), got {self.batch_size}"
            )
        if self.virtual_ranks % self.accumulate:
            raise ValueError(f"accumulate must divide virtual_ranks ({self.virtual_ranks}), got {self.accumulate}")

    @property
    def total_steps(self) -> int:
        """Updates in the whole training."""
        return math.ceil(self.total_examples / self.batch_size)

    def every(self, times: int) -> int:
        """Steps between two of `times` events; a multiple of the steps between reports."""
        return self._spaced(times, max(1, self.total_steps // self.reports))

    @property
    def steps_per_evaluation(self) -> int:
        """Steps between two evaluations, a multiple of a hundredth of the training whatever is reported.

        The best of the evaluated models is kept, so the curves' resolution must not move these steps.
        """
        return self._spaced(self.evaluations, max(1, self.total_steps // 100))

    def _spaced(self, times: int, unit: int) -> int:
        return unit * max(1, round(self.total_steps / times / unit))

    def lr_at(self, seen: int) -> float:
        """Learning rate after `seen` examples."""
        rise = min(1.0, (seen + self.batch_size) / self.warmup_examples) if self.warmup_examples else 1.0
        done = min(1.0, seen / self.total_examples)
        return self.lr * rise * (0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1.0)

    def ema_decay(self, seen: int) -> float:
        """Part of the averaged weights that one update keeps."""
        half_life = min(self.ema_half_life, self.ema_ramp * seen)
        return 0.5 ** (self.batch_size / half_life) if half_life > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DivergencePolicy:
    """What to do when a training diverges.

    Arguments:
        rollback: Go back to the newest checkpoint and pass over the batches since, instead of stopping.
        most: Rollbacks in one training, at most; then it stops.
        spike: A loss this many standard deviations above its running mean counts as diverged; 0 for never.
    """

    rollback: bool = False
    most: int = 3
    spike: float = 0.0
