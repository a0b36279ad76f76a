"""The verb `settings`: every value, where it comes from and what it goes before."""

from __future__ import annotations

import json
from typing import Any

from models import FAMILIES
from pipelines import config
from pipelines.config import nearest
from pipelines.layers import Setting


def settings(family: str = "", *, dataset: str | None = None, as_json: bool = False) -> None:
    """Print the settings that hold.

    Arguments:
        family: Only these; all families and the stages if empty.
        dataset: Use this dataset instead of the one in `params.yaml`.
        as_json: Print JSON: value, source and what it overrides, by dotted name.

    Raises:
        ValueError: If a setting does not fit, or there is no such family.
        FileNotFoundError: If there is no `params.yaml`.
    """
    name = family.lower()
    if name and name not in FAMILIES:
        raise ValueError(f"unknown family {family!r}{nearest(name, list(FAMILIES))}")
    resolved = config.resolve(dataset=dataset)
    shown = [*resolved.params.families] if not name else [name]
    left_out = set(FAMILIES) - set(shown)
    chosen = {
        key: setting
        for key, setting in resolved.origins.items()
        if (key.split(".")[0] not in left_out if not name else key.startswith(f"{name}."))
    }
    if as_json:
        print(json.dumps({key: _entry(setting) for key, setting in chosen.items()}, indent=1))
        return
    wide = max(map(len, chosen))
    values = {key: json.dumps(setting.value) if isinstance(setting.value, (list, bool)) else str(setting.value)
              for key, setting in chosen.items()}  # fmt: skip
    most = max(map(len, values.values()))
    for key, setting in chosen.items():
        over = "; ".join(f"{source}: {value}" for source, value in setting.overrides)
        print(f"{key:{wide}}  {values[key]:{most}}  {setting.source}{f'  (over {over})' if over else ''}")


def _entry(setting: Setting) -> dict[str, Any]:
    overrides = [{"source": source, "value": value} for source, value in setting.overrides]
    return {"value": setting.value, "source": setting.source, "overrides": overrides}
