"""What holds for a dataset: of defaults, recipe and `params.yaml` the last to set a value goes before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.schema import check_name, is_name
from models import FAMILIES
from models.domains import DOMAINS
from pipelines.config.budgets import in_batches, in_budget, with_budget
from pipelines.config.layout import ranges_of, read_yaml, section_of, with_nested_search
from pipelines.config.sections import FAMILY, SECTIONS, SINGLE, Family, Params, Resolved
from pipelines.config.validation import checked_family, checked_params, refuse
from pipelines.defaults import Facts, defaults, facts_of, machine_facts
from pipelines.defaults.layers import Layer, Setting, merged, nested, stacked
from pipelines.paths import card_file, prepared_folder, settings_file
from pipelines.training.config import NOT_AUGMENTABLE, TrainingConfig

PATH = Path("params.yaml")
DEFAULT, RECIPES = "default", Path("recipes")


def load(path: Path = PATH, *, dataset: str | None = None) -> Params:
    """The settings of a dataset: defaults, what suits its data, its recipe, `params.yaml`; a later one goes before.

    Arguments:
        path: `params.yaml`.
        dataset: Use this dataset instead of the one the file names; it must be given where the file names several.

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
    written = with_nested_search(read_yaml(path))
    user = with_budget(written)
    name = _meant(user, path) if dataset is None else dataset
    user["dataset"] = name
    recipe_path, recipe, facts = path.parent / RECIPES / f"{name}.yaml", {}, Facts()
    if is_name(name):
        facts = known_facts(path.parent, name)
        recipe = with_nested_search(read_yaml(recipe_path)) if recipe_path.exists() else {}
    misplaced = [key for key in SINGLE if recipe.pop(key, None) is not None]
    below = [Layer(facts.text, defaults(facts)[0]), Layer((RECIPES / recipe_path.name).as_posix(), recipe)]
    settings = merged(merged(below[0].content, recipe), user)
    layers = [Layer(DEFAULT, _class_defaults(settings)), *below, Layer(path.name, user)]
    origins = stacked(layers)
    _leave_out_fixed(settings, origins, path.name)
    errors = [
        f"{family}.training: budget and total_examples are both set; leave one of them empty"
        for family in FAMILIES
        if {"budget", "total_examples"} <= set(_set(section_of(section_of(written, family), "training")))
    ]
    params = checked_params(settings, errors)
    if facts.kind in DOMAINS and not DOMAINS[facts.kind].augmentable:
        errors += [
            f"{family}.training.augment: {NOT_AUGMENTABLE.format(kind=facts.kind)}"
            for family, chosen in params.family.items()
            if chosen and chosen.training.augment.active
        ]
    if errors or misplaced:
        without: list[str] = []  # the user's settings: these errors are the recipe's
        checked_params(merged(merged(below[0].content, recipe), {key: user.get(key) for key in SINGLE}), without)
        in_recipe = [f"{key}: belongs into {path.name}, for all datasets" for key in misplaced]
        in_recipe += [error for error in errors if error in without and error.split(":")[0] not in SINGLE]
        refuse({path: [error for error in errors if error not in in_recipe], recipe_path: in_recipe})
    known = section_of(measured(path.parent, params.dataset), "budgets")
    resolved = in_batches(Resolved(params=params, origins=origins, facts=facts))
    return in_budget(resolved, [layer.name for layer in layers], known)


def _meant(user: Mapping[str, Any], path: Path) -> Any:
    """The dataset that `params.yaml` means where none is named.

    Raises:
        ValueError: If it has several, and does not say which.
    """
    name, several = user.get("dataset"), user.get("datasets")
    if not isinstance(several, list) or not several:
        return name
    if name is None and len(several) > 1:
        raise ValueError(
            f"{path} names several datasets: {', '.join(map(str, several))}. Say which is meant by --dataset "
            f"{several[0]}, or for good by `dataset: {several[0]}` in {path}."
        )
    if name is not None and name not in several:
        raise ValueError(
            f"{path} has dataset: {name}, which is none of its datasets: {', '.join(map(str, several))}. Name it "
            "there, too, or leave one of the two out."
        )
    return several[0] if name is None else name


def _set(content: Mapping[str, Any]) -> list[str]:
    """The keys that have a value."""
    return [key for key, value in content.items() if value is not None]


def suiting(family: str, manifest: Mapping[str, Any]) -> Family:
    """A family's settings as the rules have them for prepared data on this machine."""
    rules = defaults(facts_of(manifest, machine_facts()))[0].get(family, {})
    errors: list[str] = []
    chosen = checked_family(family, {name: rules.get(name) for name in FAMILY}, errors)
    if chosen is None or errors:
        raise AssertionError(f"the rules gave {family} settings that it refuses: {errors}")
    return chosen


def known_facts(root: Path, dataset: str) -> Facts:
    """What is known of a dataset, from what was prepared or before that from its card, and of the machine.

    What the machine was when the settings were first written stays, so that another one finds them unchanged.
    """
    machine = section_of(measured(root, dataset), "machine") or machine_facts()
    with suppress(OSError, ValueError, KeyError, TypeError):  # who reads the data says what is wrong with them
        manifest = root / prepared_folder(dataset) / "manifest.json"
        return facts_of(json.loads(manifest.read_text(encoding="utf-8")), machine)
    with suppress(OSError, ValueError):
        card = read_yaml(root / card_file(dataset))
        image = section_of(card, "image")
        sides = [image.get(side) for side in ("height", "width", "channels")]
        shape = tuple(sides) if all(isinstance(side, int) for side in sides) else ()
        return Facts(kind=str(card.get("kind", "")), shape=shape, **machine)
    return Facts(**machine)


def measured(root: Path, dataset: str) -> Mapping[str, Any]:
    """What was measured when the settings were written (`measured` in `runs/<dataset>/settings.yaml`)."""
    path = root / settings_file(dataset)
    return section_of(read_yaml(path), "measured") if path.exists() else {}


def _class_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataclasses say; of ranges, which have no names of their own, for those that are set."""
    defaults: dict[str, Any] = {"seed": 0, **{name: dataclasses.asdict(cls()) for name, cls in SECTIONS.items()}}
    for name, family in FAMILIES.items():
        model, training = dataclasses.asdict(family.Config()), dataclasses.asdict(TrainingConfig())
        ranges = ranges_of(section_of(settings, name).get("search"))
        search = nested({f"{key}.log": False for key in ranges if "." in key})
        sampling = dataclasses.asdict(family.SamplingConfig())
        defaults[name] = {"model": model, "training": training, "sampling": sampling, "search": search}
    return defaults


def _leave_out_fixed(settings: dict[str, Any], origins: dict[str, Setting], user: str) -> None:
    """What the user has set is not searched, unless the user has also said where to search it."""
    for family in FAMILIES:
        for name in ranges_of(section_of(settings, family).get("search")):
            fixed = origins.get(f"{family}.{name}")
            ends = [key for key in origins if key.startswith(f"{family}.search.{name}.")]
            if fixed and fixed.source == user and all(origins[key].source != user for key in ends):
                section, _, key = name.partition(".")
                search = settings[family]["search"]
                within = {each: span for each, span in search[section].items() if each != key}
                settings[family] = {**settings[family], "search": {**search, section: within}}
                for end in ends:
                    del origins[end]
