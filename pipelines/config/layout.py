"""The layout of `params.yaml` and of recipes: a mapping of sections, and ranges by the setting they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.schema import parse_yaml
from models import FAMILIES
from pipelines.defaults.layers import merged, nested


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


def section_of(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What is below a key, nothing if that is no mapping."""
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def ranges_of(search: Any) -> dict[str, Any]:
    """Ranges by dotted name, of nested ones."""
    found: dict[str, Any] = {}
    for section, within in search.items() if isinstance(search, Mapping) else ():
        if isinstance(within, Mapping) and not {"low", "high", "log"} & set(within):
            found |= {f"{section}.{key}": span for key, span in within.items()}
        else:
            found[section] = within
    return found


def with_nested_search(settings: Mapping[str, Any]) -> dict[str, Any]:
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
