"""The sections of `params.yaml` as dataclasses, each with the ranges of its settings."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.schema import nearest
from models.config import NoSampling
from pipelines.defaults.facts import Facts
from pipelines.defaults.layers import Setting
from pipelines.evaluation.config import Evaluate, ReferenceConfig
from pipelines.training.config import NOT_LEARNED, TrainingConfig

MOST_RANKS = 1024
"""Virtual ranks beyond which none are proposed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """How every family's training is run.

    Arguments:
        workers: `auto` (one per GPU, else one); a number of data-parallel workers; or `[min, max]`: as many as the
            cluster has room for, fewer when a node is lost, more when one comes.
        shard: Spread parameters, gradients, averages and optimizer states over the workers (FSDP2), for a model too
            large for one GPU; the model is the same either way.
        max_failures: Restarts from the newest checkpoint after a worker has died.
        storage: Where checkpoints go: a folder that all workers see, or `s3://bucket/prefix`; empty for
            the training's own folder below `runs/`.
        timeout: Seconds that workers wait for one of them before they call it lost.
        on_divergence: `stop` before the update when a loss or gradient is not finite, or `rollback` to
            the newest checkpoint and pass over the batches since.
        rollbacks: Rollbacks in one training, at most.
        spike: A loss this many standard deviations above its running mean diverges too; 0 for never.
    """

    workers: int | tuple[int, int] | Literal["auto"] = "auto"
    shard: bool = False
    max_failures: int = 2
    storage: str = ""
    timeout: int = 1_800
    on_divergence: Literal["stop", "rollback"] = "stop"
    rollbacks: int = 3
    spike: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.workers, list):  # as JSON has it
            object.__setattr__(self, "workers", tuple(self.workers))
        if self.workers != "auto" and not 1 <= self.bounds[0] <= self.bounds[-1]:
            raise ValueError(f"workers must be auto or at least 1, or [min, max] of such, got {self.workers}")
        if self.max_failures < 0:
            raise ValueError(f"max_failures must not be negative, got {self.max_failures}")
        if "://" in self.storage and not re.match(r"s3://[^/]+", self.storage):
            raise ValueError(f"storage must be a folder or s3://bucket/prefix, got {self.storage!r}")
        if self.timeout < 1 or self.rollbacks < 0 or not self.spike >= 0:
            raise ValueError(
                "timeout must be at least 1, rollbacks and spike not negative, got"
                f" {self.timeout}, {self.rollbacks} and {self.spike}"
            )

    @property
    def policy(self) -> dict[str, Any]:
        """Fields of `training.config.DivergencePolicy`."""
        return {"rollback": self.on_divergence == "rollback", "most": self.rollbacks, "spike": self.spike}

    @property
    def bounds(self) -> tuple[int, ...]:
        """The fewest and the most workers; empty for `auto`, which takes a number that fits."""
        if isinstance(self.workers, str):
            return ()
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    def misfit(self, virtual_ranks: int) -> str | None:
        """What is wrong with sharing so many virtual ranks among these workers, and what would fit."""
        if not self.bounds:
            return None
        fewest, most = self.bounds
        bad = [n for n in range(fewest, min(most, virtual_ranks) + 1) if virtual_ranks % n]
        bad += [most] if most > virtual_ranks else []
        if not bad:
            return None
        valid = [n for n in range(1, virtual_ranks + 1) if virtual_ranks % n == 0]
        ranges = [[low, high] for low in valid for high in valid if low < high and set(range(low, high)) <= set(valid)]
        among = f"use one of {valid}" + (f", or one of the ranges {ranges}" if ranges else "")
        enough = math.lcm(*range(fewest, most + 1)) if most <= MOST_RANKS else 0
        more = f", or set virtual_ranks and batch_size to multiples of {enough}" if 0 < enough <= MOST_RANKS else ""
        return f"{' or '.join(map(str, bad))} workers cannot share {virtual_ranks} virtual ranks evenly; {among}{more}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where the stages `features`, `tune`, `train` and `evaluate` run.

    Arguments:
        address: `http(s)://host:8265`, the job server of a cluster that they are sent to as jobs; or
            `host:6379`, a cluster that this machine is part of; empty for this machine alone. The
            environment variable `RAY_ADDRESS` goes before it.
        storage: Where jobs find their data and leave their state: a folder that this machine and all
            nodes of the cluster see, or `s3://bucket/prefix`.
    """

    address: str = ""
    storage: str = ""

    def __post_init__(self) -> None:
        if self.storage and not Path(self.storage).is_absolute() and not re.match(r"s3://[^/]+", self.storage):
            raise ValueError(f"storage must be an absolute path or s3://bucket/prefix, got {self.storage}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tune:
    """How settings are searched.

    Arguments:
        enabled: `false` skips the search and trains with the settings as written.
        trials: Settings tried per family, the ones as written first.
        part: Part of the family's `total_examples` that a trial may see.
        margin: Part by which a trial's score must beat the settings as written to replace them.
        concurrent: Trials at a time; with more than 1 the order of finishing, and so the search,
            is not reproducible.
    """

    enabled: bool = field(default=True, metadata=NOT_LEARNED)
    trials: int = 4
    part: float = 0.2
    margin: float = field(default=0.1, metadata=NOT_LEARNED)
    concurrent: int = 1

    def __post_init__(self) -> None:
        if self.trials < 1 or self.concurrent < 1:
            raise ValueError(f"trials and concurrent must be at least 1, got {self.trials} and {self.concurrent}")
        if not 0 < self.part <= 1:
            raise ValueError(f"part must be above 0 and at most 1, got {self.part}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin must be at least 0 and below 1, got {self.margin}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Where a setting is searched.

    Arguments:
        low: Smallest value.
        high: Largest value.
        log: Whether to search the logarithm.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must be positive, got low {self.low}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Settings of one family.

    Arguments:
        model: Its architecture and loss: the fields of the family's own `Config`.
        training: How long and how it is trained.
        sampling: How the trained model draws: the fields of the family's own `SamplingConfig`; not what is learned.
        search: Ranges of settings to search, by dotted name (`training.lr`, `model.beta`).
    """

    model: Any
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: Any = field(default_factory=NoSampling)
    search: dict[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Everything a user sets.

    Arguments:
        dataset: Name of a card in `data/catalog/`.
        seed: Seed of everything random.
        families: Which families to train.
        family: Settings by family.
        unmeasured: Families whose budget of time has not been turned into examples on this machine yet.
        datasets: Those that stand side by side in this project; none where `dataset` is the only one.
    """

    dataset: str
    seed: int
    families: tuple[str, ...]
    train: Train
    tune: Tune
    features: ReferenceConfig
    evaluate: Evaluate
    cluster: Cluster
    family: dict[str, Family]
    unmeasured: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Settings with where each comes from.

    Arguments:
        params: The settings.
        origins: By dotted name (`vae.model.beta`, `tune.trials`), only of what is the user's to set.
        facts: What the defaults went by.
    """

    params: Params
    origins: dict[str, Setting]
    facts: Facts


SECTIONS: dict[str, type] = {
    "train": Train,
    "tune": Tune,
    "features": ReferenceConfig,
    "evaluate": Evaluate,
    "cluster": Cluster,
}
FAMILY = ("model", "training", "sampling", "search")
"""Keys of a family's section."""
SINGLE = ("dataset", "datasets", "seed", "families", "budget")
"""Keys of no section."""


def setting_of(family: Family, name: str) -> Any:
    """The value of a dotted setting (`training.lr`)."""
    return functools.reduce(getattr, name.split("."), family)


def with_settings(family: Family, changes: Mapping[str, Any]) -> Family:
    """A family with some dotted settings replaced (`{"training.lr": 3e-4}`).

    Raises:
        ValueError: If a name is not a setting of the family or a value is out of range.
    """
    parts: dict[str, dict[str, Any]] = {"model": {}, "training": {}, "sampling": {}}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        known = [f"{s}.{each}" for s in parts for each in _names(getattr(family, s))]
        if section == "model" and name not in known and f"sampling.{key}" in known:
            raise ValueError(f"{name}: {moved(f'sampling.{key}')}")
        if name not in known:
            raise ValueError(f"{name} is not a setting{nearest(name, known)}")
        before = setting_of(family, name)
        if dataclasses.is_dataclass(before) and isinstance(value, Mapping):
            parts[section][key] = dataclasses.replace(before, **value)  # type: ignore[type-var]
            continue
        kind = type(before)
        value = round(value) if kind is int else kind(value)
        group, _, nested = key.rpartition(".")
        if group:
            before = parts[section].get(group, setting_of(family, f"{section}.{group}"))
            key, value = group, dataclasses.replace(before, **{nested: value})
        parts[section][key] = value
    changed = {name: dataclasses.replace(getattr(family, name), **part) for name, part in parts.items()}
    return dataclasses.replace(family, **changed)


def _names(settings: Any) -> list[str]:
    """Of the fields of settings, and of those that are settings themselves (`privacy.epsilon`)."""
    names = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        names += (
            [each.name, *(f"{each.name}.{name}" for name in _names(value))]
            if dataclasses.is_dataclass(value)
            else [each.name]
        )
    return names


def moved(place: str) -> str:
    """Why a setting of sampling is not one of the model, and its place."""
    return f"how a model draws is no part of what is trained; set {place} instead"
