"""Settings checked: all errors at once, each with its key and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from data.schema import NAME_RULE, build, is_name, nearest
from models import FAMILIES
from pipelines.config.layout import ranges_of
from pipelines.config.sections import FAMILY, SECTIONS, SINGLE, Family, Params, Range, moved, with_settings
from pipelines.training.config import TrainingConfig
from pipelines.training.durations import parse_duration

MOST_SEED = 2**32 - 1
"""The largest seed that every library takes."""
TOP = (*SINGLE, *SECTIONS)


def checked_params(settings: Mapping[str, Any], errors: list[str]) -> Params:
    """Settings as dataclasses; what is wrong with them is added to the errors."""
    for key in settings:
        if key not in TOP and key not in FAMILIES:
            errors.append(f"{key}: unknown key{nearest(str(key), [*TOP, *FAMILIES])}")
    dataset, seed = settings.get("dataset"), settings.get("seed")
    seed = 0 if seed is None else seed
    if not is_name(dataset):
        errors.append(f"dataset: must name a card in data/catalog/ ({NAME_RULE}), got {dataset!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
        errors.append(f"seed: must be a whole number from 0 to {MOST_SEED}, got {seed!r}")
    datasets = _datasets(settings.get("datasets"), errors)
    families = _families(settings.get("families"), errors)
    sections = {name: build(cls, settings.get(name), name, errors) for name, cls in SECTIONS.items()}
    family = {name: checked_family(name, settings[name], errors) for name in FAMILIES if name in settings}
    if (budget := settings.get("budget")) is not None:
        try:
            parse_duration(str(budget))
        except ValueError as error:
            errors.append(f"budget: {error}")
    misfits: dict[str, list[str]] = {}
    for name in families:
        chosen, train = family.get(name), sections["train"]
        if chosen and train and (wrong := train.misfit(chosen.training.virtual_ranks // chosen.training.accumulate)):
            misfits.setdefault(wrong, []).append(name)
    errors += [f"train.workers: {', '.join(names)}: {wrong}" for wrong, names in misfits.items()]
    return Params(dataset=dataset, datasets=datasets, seed=seed, families=families, family=family, **sections)  # type: ignore[arg-type]


def _datasets(names: Any, errors: list[str]) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list) or not names:
        errors.append(f"datasets: must be a list of cards in data/catalog/, [digits, adult] say, got {names!r}")
        return ()
    errors += [f"datasets: {name!r} is no name of a card ({NAME_RULE})" for name in names if not is_name(name)]
    if len(set(map(str, names))) < len(names):
        errors.append(f"datasets: a dataset is named twice in {names}")
    return tuple(name for name in names if is_name(name))


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


def checked_family(name: str, value: Any, errors: list[str]) -> Family | None:
    """A family's section as a dataclass; what is wrong with it is added to the errors."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        errors.append(f"{name}: must be a mapping with {', '.join(FAMILY)}, got {value!r}")
        return None
    for key in value:
        if key not in FAMILY:
            errors.append(f"{name}.{key}: unknown key{nearest(str(key), FAMILY)}")
    model = build(FAMILIES[name].Config, _without_moved(name, value.get("model"), errors), f"{name}.model", errors)
    sampling = build(FAMILIES[name].SamplingConfig, value.get("sampling"), f"{name}.sampling", errors)
    training = build(TrainingConfig, value.get("training"), f"{name}.training", errors)
    ranges = value.get("search") or {}
    if not isinstance(ranges, Mapping):
        errors.append(f"{name}.search: must be a mapping of settings to ranges, got {ranges!r}")
        return None
    search = {key: build(Range, span, f"{name}.search.{key}", errors) for key, span in ranges_of(ranges).items()}
    if model is None or training is None or sampling is None:
        return None
    family = Family(model=model, training=training, sampling=sampling, search=search)
    for key, span in search.items():
        if key.startswith("sampling."):
            errors.append(f"{name}.search.{key}: trials train, and no training depends on it; search model or training")
            continue
        try:
            for end in (span.low, span.high) if span else ():
                with_settings(family, {key: end})
        except ValueError as error:
            errors.append(f"{name}.search.{key}: {error}")
    return family


def _without_moved(name: str, model: Any, errors: list[str]) -> Any:
    """Settings of a model; those that are of sampling are refused, with their place."""
    if not isinstance(model, Mapping):
        return model
    own, sampling = (
        {field.name for field in fields(kind)} for kind in (FAMILIES[name].Config, FAMILIES[name].SamplingConfig)
    )
    there = [key for key in model if key in sampling - own and model[key] is not None]
    errors += [f"{name}.model.{key}: {moved(f'{name}.sampling.{key}')}" for key in there]
    return {key: value for key, value in model.items() if key not in sampling - own}


def refuse(errors: Mapping[Path, list[str]]) -> None:
    """Tell all errors, by file.

    Raises:
        ValueError: Always.
    """
    told = []
    for path, found in errors.items():
        if found := one_line_each(found):
            told.append(f"{path} has {len(found)} error{'s' if len(found) > 1 else ''}:")
            told += [f"  - {error}" for error in found]
    raise ValueError("\n".join(told))


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
