"""`params.yaml`, read and validated once: all errors at once, each with its key and the fix."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.schema import NAME, build, check_name, nearest, parse_yaml
from models import FAMILIES
from pipelines.evaluation import config as evaluation_config
from pipelines.evaluation.config import Evaluate
from pipelines.training.config import NOT_LEARNED, TrainingConfig

PATH = Path("params.yaml")


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
        bad = [n for n in range(fewest, most + 1) if virtual_ranks % n]
        if not bad:
            return None
        valid = [n for n in range(1, virtual_ranks + 1) if virtual_ranks % n == 0]
        ranges = [[low, high] for low in valid for high in valid if low < high and set(range(low, high)) <= set(valid)]
        among = f"use one of {valid}" + (f", or one of the ranges {ranges}" if ranges else "")
        enough = math.lcm(*range(fewest, most + 1))
        return (
            f"{' or '.join(map(str, bad))} workers cannot share {virtual_ranks} virtual ranks evenly; {among},"
            f" or set virtual_ranks and batch_size to multiples of {enough}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where the stages `tune` and `train` run.

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
        search: Ranges of settings to search, by dotted name (`training.lr`, `model.beta`).
    """

    model: Any
    training: TrainingConfig = field(default_factory=TrainingConfig)
    search: dict[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Everything a user sets.

    Arguments:
        dataset: Name of a card in `data/catalog/`.
        seed: Seed of everything random.
        families: Which families to train.
        family: Settings by family.
    """

    dataset: str
    seed: int
    families: tuple[str, ...]
    train: Train
    tune: Tune
    features: evaluation_config.ReferenceConfig
    evaluate: Evaluate
    cluster: Cluster
    family: dict[str, Family]


SECTIONS: dict[str, type] = {
    "train": Train,
    "tune": Tune,
    "features": evaluation_config.ReferenceConfig,
    "evaluate": Evaluate,
    "cluster": Cluster,
}
TOP = ("dataset", "seed", "families", *SECTIONS)


def load(path: Path = PATH, *, dataset: str | None = None) -> Params:
    """Read `params.yaml` and the dataset's recipe, which overrides it.

    Arguments:
        path: The file.
        dataset: Use this dataset instead of the one the file names.

    Raises:
        ValueError: With every error found: unknown keys with the nearest known one, wrong types,
            values out of range.
        FileNotFoundError: If the file does not exist.
    """
    if dataset is not None:
        check_name(dataset)
    settings = read_yaml(path)
    name = settings.get("dataset") if dataset is None else dataset
    if isinstance(name, str) and NAME.fullmatch(name):
        recipe = path.parent / "recipes" / f"{name}.yaml"
        settings = merged(settings, read_yaml(recipe)) if recipe.exists() else settings
        settings["dataset"] = name
    errors: list[str] = []
    params = _params(settings, errors)
    if errors:
        lines = "\n".join(f"  - {error}" for error in errors)
        raise ValueError(f"{path} has {len(errors)} error{'s' if len(errors) > 1 else ''}:\n{lines}")
    return params


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping (so that `1e-4` is a number).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not YAML, repeats a key, or is not a mapping.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; run from the project's root folder") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}. Fix the file.") from None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over` in their places."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def with_settings(family: Family, changes: Mapping[str, Any]) -> Family:
    """A family with some dotted settings replaced (`{"training.lr": 3e-4}`).

    Raises:
        ValueError: If a name is not a setting of the family or a value is out of range.
    """
    parts: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        known = [f"{s}.{f.name}" for s in parts for f in dataclasses.fields(getattr(family, s))]
        if name not in known:
            raise ValueError(f"{name} is not a setting{nearest(name, known)}")
        kind = type(getattr(getattr(family, section), key))
        parts[section][key] = round(value) if kind is int else kind(value)
    return dataclasses.replace(
        family,
        model=dataclasses.replace(family.model, **parts["model"]),
        training=dataclasses.replace(family.training, **parts["training"]),
    )


def _params(settings: Mapping[str, Any], errors: list[str]) -> Params:
    for key in settings:
        if key not in TOP and key not in FAMILIES:
            errors.append(f"{key}: unknown key{nearest(str(key), [*TOP, *FAMILIES])}")
    dataset, seed = settings.get("dataset"), settings.get("seed", 0)
    if not isinstance(dataset, str) or not NAME.fullmatch(dataset):
        errors.append(f"dataset: must name a card in data/catalog/ (letters, digits, . _ -), got {dataset!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        errors.append(f"seed: must be a whole number, 0 or more, got {seed!r}")
    families = _families(settings.get("families"), errors)
    sections = {name: build(cls, settings.get(name), name, errors) for name, cls in SECTIONS.items()}
    family = {name: _family(name, settings[name], errors) for name in FAMILIES if name in settings}
    for name in families:
        if name not in settings and name in FAMILIES:
            errors.append(f"{name}: in families, but has no section; add one (`{name}: {{}}` takes the defaults)")
        chosen, train = family.get(name), sections["train"]
        if chosen and train and (wrong := train.misfit(chosen.training.virtual_ranks // chosen.training.accumulate)):
            errors.append(f"train.workers: {name}: {wrong}")
    return Params(dataset=dataset, seed=seed, families=families, family=family, **sections)  # type: ignore[arg-type]


def _families(names: Any, errors: list[str]) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        errors.append(f"families: must be a list of at least one of {', '.join(FAMILIES)}, got {names!r}")
        return ()
    for name in names:
        if not isinstance(name, str) or name not in FAMILIES:
            errors.append(f"families: unknown family {name!r}{nearest(str(name), list(FAMILIES))}")
    if len(set(map(str, names))) < len(names):
        errors.append(f"families: a family is named twice in {names}")
    return tuple(name for name in names if isinstance(name, str))


def _family(name: str, value: Any, errors: list[str]) -> Family | None:
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        errors.append(f"{name}: must be a mapping with model, training and search, got {value!r}")
        return None
    for key in value:
        if key not in ("model", "training", "search"):
            errors.append(f"{name}.{key}: unknown key{nearest(str(key), ['model', 'training', 'search'])}")
    model = build(FAMILIES[name].Config, value.get("model"), f"{name}.model", errors)
    training = build(TrainingConfig, value.get("training"), f"{name}.training", errors)
    ranges = value.get("search") or {}
    if not isinstance(ranges, Mapping):
        errors.append(f"{name}.search: must be a mapping of settings to ranges, got {ranges!r}")
        return None
    search = {key: build(Range, span, f"{name}.search.{key}", errors) for key, span in ranges.items()}
    if model is None or training is None:
        return None
    family = Family(model=model, training=training, search=search)
    for key, span in search.items():
        try:
            for end in (span.low, span.high) if span else ():
                with_settings(family, {key: end})
        except ValueError as error:
            errors.append(f"{name}.search.{key}: {error}")
    return family
