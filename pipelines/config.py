"""`params.yaml`, read and validated once: all errors at once, each with its key and the fix."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.schema import NAME, build, check_name, nearest, parse_yaml
from models import FAMILIES
from pipelines.defaults import Facts, defaults, facts_of, machine_facts
from pipelines.defaults.layers import Layer, Setting, merged, nested, stacked
from pipelines.evaluation import config as evaluation_config
from pipelines.evaluation.config import Evaluate
from pipelines.paths import card_file, prepared_folder, settings_file
from pipelines.training.config import NOT_LEARNED, TrainingConfig
from pipelines.training.durations import seconds_of

PATH = Path("params.yaml")
MOST_RANKS = 1024
"""Virtual ranks beyond which none are proposed."""
MOST_SEED = 2**32 - 1
"""The largest seed that every library takes."""


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
        unmeasured: Families whose budget of time has not been turned into examples on this machine yet.
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
    unmeasured: tuple[str, ...] = ()


SECTIONS: dict[str, type] = {
    "train": Train,
    "tune": Tune,
    "features": evaluation_config.ReferenceConfig,
    "evaluate": Evaluate,
    "cluster": Cluster,
}
TOP = ("dataset", "seed", "families", "budget", *SECTIONS)


DEFAULT, RECIPES = "default", Path("recipes")


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


def load(path: Path = PATH, *, dataset: str | None = None) -> Params:
    """The settings of a dataset: defaults, what suits its data, its recipe, `params.yaml`; a later one goes before.

    Arguments:
        path: `params.yaml`.
        dataset: Use this dataset instead of the one the file names.

    Raises:
        ValueError: With every error found: unknown keys with the nearest known one, wrong types,
            values out of range.
        FileNotFoundError: If the file does not exist.
    """
    return resolve(path, dataset=dataset).params


def resolve(path: Path = PATH, *, dataset: str | None = None) -> Resolved:
    """The settings of a dataset, and where each comes from; arguments and errors as in `load`."""
    if dataset is not None:
        check_name(dataset)
    written = _nested_search(read_yaml(path))
    user = _with_budget(written)
    name = user.get("dataset") if dataset is None else dataset
    user["dataset"] = name
    recipe_path, recipe, facts = path.parent / RECIPES / f"{name}.yaml", {}, Facts()
    if isinstance(name, str) and NAME.fullmatch(name):
        facts = known_facts(path.parent, name)
        recipe = _nested_search(read_yaml(recipe_path)) if recipe_path.exists() else {}
    misplaced = [key for key in TOP[:4] if recipe.pop(key, None) is not None]
    below = [Layer(facts.text, defaults(facts)[0]), Layer((RECIPES / recipe_path.name).as_posix(), recipe)]
    settings = merged(merged(below[0].content, recipe), user)
    layers = [Layer(DEFAULT, _class_defaults(settings)), *below, Layer(path.name, user)]
    origins = stacked(layers)
    _leave_out_fixed(settings, origins, path.name)
    errors = [
        f"{family}.training: budget and total_examples are both set; leave one of them empty"
        for family in FAMILIES
        if {"budget", "total_examples"} <= set(_set(_section(_section(written, family), "training")))
    ]
    params = _params(settings, errors)
    if errors or misplaced:
        without: list[str] = []  # the user's settings: these errors are the recipe's
        _params(merged(merged(below[0].content, recipe), {key: user.get(key) for key in TOP[:4]}), without)
        in_recipe = [f"{key}: belongs into {path.name}, for all datasets" for key in misplaced]
        in_recipe += [error for error in errors if error in without and error.split(":")[0] not in TOP[:4]]
        _refuse({path: [error for error in errors if error not in in_recipe], recipe_path: in_recipe})
    known = measured(path.parent, params.dataset).get("budgets", {})
    resolved = _in_batches(Resolved(params=params, origins=origins, facts=facts))
    return _in_budget(resolved, [layer.name for layer in layers], known)


def budget_key(chosen: Family, facts: Facts) -> str:
    """Of what a budget was measured for: settings, data and machine."""
    training = dataclasses.asdict(chosen.training)
    kept = {key: value for key, value in training.items() if key != "total_examples"}
    of = {"model": dataclasses.asdict(chosen.model), "training": kept, "facts": dataclasses.asdict(facts)}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def _with_budget(user: dict[str, Any]) -> dict[str, Any]:
    """`budget` is every family's that has neither its own nor its own number of examples."""
    try:
        seconds_of(str(user.get("budget", "")))
    except ValueError:
        return user
    result = dict(user)
    for family in FAMILIES:
        training = _section(_section(user, family), "training")
        if training.get("budget") is None and training.get("total_examples") is None:
            result[family] = merged(_section(user, family), {"training": {"budget": user["budget"]}})
    return result


def _in_batches(resolved: Resolved) -> Resolved:
    """Batches no larger than the training split; of too few examples for any the stage `train` tells."""
    families, origins, facts = dict(resolved.params.family), dict(resolved.origins), resolved.facts
    for name, chosen in families.items():
        training = chosen.training
        fitting = facts.examples - facts.examples % training.virtual_ranks
        if 0 < fitting < training.batch_size:
            before = origins[key := f"{name}.training.batch_size"]
            overrides = ((before.source, before.value), *before.overrides)
            origins[key] = Setting(fitting, f"{facts.examples} training examples", overrides)
            families[name] = _replaced(chosen, batch_size=fitting)
    params = dataclasses.replace(resolved.params, family=families)
    return dataclasses.replace(resolved, params=params, origins=origins)


def _set(content: Mapping[str, Any]) -> list[str]:
    """The keys that have a value."""
    return [key for key, value in content.items() if value is not None]


def _in_budget(resolved: Resolved, order: list[str], known: Mapping[str, Any]) -> Resolved:
    """Budgets made into examples where this has been measured; a number of examples set later goes before a budget."""
    families, origins, unmeasured = dict(resolved.params.family), dict(resolved.origins), []
    for name, chosen in families.items():
        budget, total = (origins[f"{name}.training.{key}"] for key in ("budget", "total_examples"))
        if not chosen.training.budget:
            continue
        if order.index(budget.source) < order.index(total.source):
            families[name] = _replaced(chosen, budget="")
            origins[f"{name}.training.budget"] = Setting("", total.source, ((budget.source, budget.value),))
            continue
        found = known.get(name, {})
        if found.get("of") != budget_key(chosen, resolved.facts):
            unmeasured.append(name)
            continue
        kept = origins[f"{name}.training.evaluations"].source == order[-1]
        changes = {key: found[key] for key in ("total_examples", "evaluations") if key != "evaluations" or not kept}
        for key in changes:
            before = origins[f"{name}.training.{key}"]
            if before.value != found[key]:
                source = f"budget {budget.value}"
                overrides = ((before.source, before.value), *before.overrides)
                origins[f"{name}.training.{key}"] = Setting(found[key], source, overrides)
        families[name] = _replaced(chosen, **changes)
    params = dataclasses.replace(resolved.params, family=families, unmeasured=tuple(unmeasured))
    return dataclasses.replace(resolved, params=params, origins=origins)


def _replaced(chosen: Family, **changes: Any) -> Family:
    return dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, **changes))


def _refuse(errors: Mapping[Path, list[str]]) -> None:
    told = []
    for path, found in errors.items():
        if found := one_line_each(found):
            told.append(f"{path} has {len(found)} error{'s' if len(found) > 1 else ''}:")
            told += [f"  - {error}" for error in found]
    raise ValueError("\n".join(told))


def suiting(family: str, manifest: Mapping[str, Any]) -> Family:
    """A family's settings as the rules have them for prepared data on this machine."""
    rules = defaults(facts_of(manifest, machine_facts()))[0].get(family, {})
    errors: list[str] = []
    chosen = _family(family, {name: rules.get(name) for name in ("model", "training", "search")}, errors)
    if chosen is None or errors:
        raise AssertionError(f"the rules gave {family} settings that it refuses: {errors}")
    return chosen


def known_facts(root: Path, dataset: str) -> Facts:
    """What is known of a dataset, from what was prepared or before that from its card, and of the machine.

    What the machine was when the settings were first written stays, so that another one finds them unchanged.
    """
    machine = measured(root, dataset).get("machine") or machine_facts()
    with suppress(OSError, ValueError, KeyError):
        manifest = root / prepared_folder(dataset) / "manifest.json"
        return facts_of(json.loads(manifest.read_text(encoding="utf-8")), machine)
    with suppress(OSError, ValueError):
        card = read_yaml(root / card_file(dataset))
        image = card.get("image") or {}
        sides = [image.get(side) for side in ("height", "width", "channels")]
        shape = tuple(sides) if all(isinstance(side, int) for side in sides) else ()
        return Facts(kind=str(card.get("kind", "")), shape=shape, **machine)
    return Facts(**machine)


def measured(root: Path, dataset: str) -> dict[str, Any]:
    """What was measured when the settings were written (`measured` in `runs/<dataset>/settings.yaml`)."""
    path = root / settings_file(dataset)
    return read_yaml(path).get("measured", {}) if path.exists() else {}


def _class_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataclasses say; of ranges, which have no names of their own, for those that are set."""
    defaults: dict[str, Any] = {"seed": 0, **{name: dataclasses.asdict(cls()) for name, cls in SECTIONS.items()}}
    for name, family in FAMILIES.items():
        model, training = dataclasses.asdict(family.Config()), dataclasses.asdict(TrainingConfig())
        ranges = _ranges(_section(settings, name).get("search"))
        search = nested({f"{key}.log": False for key in ranges if "." in key})
        defaults[name] = {"model": model, "training": training, "search": search}
    return defaults


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What is below a key, nothing if that is no mapping."""
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def _nested_search(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose searched names are nested: `training.lr: {low: …}` and `training: {lr: {low: …}}` are one."""
    result = dict(settings)
    for family in FAMILIES:
        section = result.get(family)
        if not isinstance(section, Mapping) or not isinstance(section.get("search"), Mapping):
            continue
        search: dict[str, Any] = {}
        for name, span in section["search"].items():
            search = merged(search, nested({str(name): span}))
        result[family] = {**section, "search": search}
    return result


def _leave_out_fixed(settings: dict[str, Any], origins: dict[str, Setting], user: str) -> None:
    """What the user has set is not searched, unless the user has also said where to search it."""
    for family in FAMILIES:
        for name in _ranges(_section(settings, family).get("search")):
            fixed = origins.get(f"{family}.{name}")
            ends = [key for key in origins if key.startswith(f"{family}.search.{name}.")]
            if fixed and fixed.source == user and all(origins[key].source != user for key in ends):
                section, _, key = name.partition(".")
                search = settings[family]["search"]
                within = {each: span for each, span in search[section].items() if each != key}
                settings[family] = {**settings[family], "search": {**search, section: within}}
                for end in ends:
                    del origins[end]


def _ranges(search: Any) -> dict[str, Any]:
    """Ranges by dotted name, of nested ones."""
    found: dict[str, Any] = {}
    for section, within in search.items() if isinstance(search, Mapping) else ():
        if isinstance(within, Mapping) and not {"low", "high", "log"} & set(within):
            found |= {f"{section}.{key}": span for key, span in within.items()}
        else:
            found[section] = within
    return found


def one_line_each(errors: list[str]) -> list[str]:
    """The errors; one that several families share is told of the first and names the others."""
    of_family = re.compile(rf"(train\.workers: )?({'|'.join(FAMILIES)})(?:\.|: )(.*)", re.DOTALL)
    sharing: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        if found := of_family.fullmatch(error):
            sharing.setdefault((found[1] or "", found[3]), []).append(found[2])
    lines = []
    for error in errors:
        found = of_family.fullmatch(error)
        if not found:
            lines.append(error)
        elif others := sharing.pop((found[1] or "", found[3]), []):
            lines.append(f"{error} (the same in {', '.join(others[1:])})" if others[1:] else error)
    return lines


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
    dataset, seed = settings.get("dataset"), settings.get("seed")
    seed = 0 if seed is None else seed
    if not isinstance(dataset, str) or not NAME.fullmatch(dataset):
        errors.append(f"dataset: must name a card in data/catalog/ (letters, digits, . _ -), got {dataset!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
        errors.append(f"seed: must be a whole number from 0 to {MOST_SEED}, got {seed!r}")
    families = _families(settings.get("families"), errors)
    sections = {name: build(cls, settings.get(name), name, errors) for name, cls in SECTIONS.items()}
    family = {name: _family(name, settings[name], errors) for name in FAMILIES if name in settings}
    if (budget := settings.get("budget")) is not None:
        try:
            seconds_of(str(budget))
        except ValueError as error:
            errors.append(f"budget: {error}")
    misfits: dict[str, list[str]] = {}
    for name in families:
        chosen, train = family.get(name), sections["train"]
        if chosen and train and (wrong := train.misfit(chosen.training.virtual_ranks // chosen.training.accumulate)):
            misfits.setdefault(wrong, []).append(name)
    errors += [f"train.workers: {', '.join(names)}: {wrong}" for wrong, names in misfits.items()]
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
    search = {key: build(Range, span, f"{name}.search.{key}", errors) for key, span in _ranges(ranges).items()}
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
